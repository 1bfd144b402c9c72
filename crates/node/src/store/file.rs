//! Files that are whole or absent: written beside, flushed, renamed, and checked when read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wire::Hash;

use super::StoreError;

/// The first bytes of a sealed file.
const MAGIC: &[u8; 8] = b"cairn 1\n";
/// Magic, BLAKE3 hash of the body.
const HEAD_BYTES: usize = 8 + 32;

/// Suffix of files under way; what a crash leaves of them is removed at the next start.
const PARTIAL: &str = "partial";

/// Writes a file so that after a crash at any moment it holds either what it held before or all of `bytes`: to a
/// temporary name beside it, flushed to disk, renamed over it, the directory flushed.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`]; the file is then as it was before.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_parts(path, &[bytes], 0o644)
}

/// As [`write_durably`], readable by the owner only.
///
/// # Errors
/// As [`write_durably`].
pub fn write_secretly(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_parts(path, &[bytes], 0o600)
}

/// As [`write_durably`], with a head by which [`read_sealed`] detects damage.
///
/// # Errors
/// As [`write_durably`].
pub fn write_sealed(path: &Path, body: &[u8]) -> Result<(), StoreError> {
    write_parts(path, &[MAGIC, &Hash::of(body).0, body], 0o644)
}

/// Reads a file that [`write_sealed`] wrote.
///
/// # Errors
/// [`StoreError::Foreign`] when it is another kind of file, [`StoreError::Corrupt`] when its bytes changed or some are
/// missing, [`StoreError::Io`] when it cannot be read.
pub fn read_sealed(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut file = File::open(path).map_err(|error| StoreError::io(path, error))?;
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::corrupt(path, "it is shorter than its head"),
        _ => StoreError::io(path, error),
    })?;
    if head[..MAGIC.len()] != *MAGIC {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let mut body = Vec::new();
    file.read_to_end(&mut body).map_err(|error| StoreError::io(path, error))?;
    if Hash::of(&body).0 != head[MAGIC.len()..] {
        return Err(StoreError::corrupt(path, "its checksum does not match"));
    }
    Ok(body)
}

/// Removes what a crash left of files under way in a directory.
///
/// # Errors
/// [`StoreError::Io`] when the directory cannot be listed.
pub fn remove_partial_files(directory: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(directory).map_err(|error| StoreError::io(directory, error))? {
        let path = entry.map_err(|error| StoreError::io(directory, error))?.path();
        if path.extension().is_some_and(|extension| extension == PARTIAL) {
            remove(&path);
        }
    }
    Ok(())
}

/// Removes a file. A file that is already gone is as good; anything else is only logged, since a left-over file does no
/// harm but take space.
pub fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a file");
        }
        _ => {}
    }
}

/// Makes a directory and its parents.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`].
pub fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|error| StoreError::io(path, error))
}

fn write_parts(path: &Path, parts: &[&[u8]], mode: u32) -> Result<(), StoreError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("{}-{number}.{PARTIAL}", std::process::id()));
    let outcome = write_and_rename(&partial, path, parts, mode);
    if outcome.is_err() {
        remove(&partial);
    }
    outcome.map_err(|error| StoreError::io(path, error))
}

fn write_and_rename(partial: &Path, path: &Path, parts: &[&[u8]], mode: u32) -> io::Result<()> {
    let mut file = create(partial, mode)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    drop(file);
    fs::rename(partial, path)?;
    sync_directory(path.parent())
}

#[cfg(unix)]
fn create(path: &Path, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path, _mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Brings a directory's entries to the disk.
#[cfg(unix)]
pub(crate) fn sync_directory(directory: Option<&Path>) -> io::Result<()> {
    let directory =
        directory.filter(|path| !path.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_directory(_directory: Option<&Path>) -> io::Result<()> {
    // Directories cannot be flushed here; the rename is as durable as the platform makes it.
    let _ = PathBuf::new();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.bin");
        write_sealed(&path, b"one").unwrap();
        write_sealed(&path, b"two").unwrap();
        assert_eq!(read_sealed(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn every_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.bin");
        write_sealed(&path, b"some bytes of a state").unwrap();
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(read_sealed(&path), Err(StoreError::Corrupt { .. })), "cut at {length}");
        }
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            fs::write(&path, &bad).unwrap();
            match read_sealed(&path) {
                Err(StoreError::Foreign { .. }) => assert!(byte < MAGIC.len(), "byte {byte}"),
                Err(StoreError::Corrupt { .. }) => assert!(byte >= MAGIC.len(), "byte {byte}"),
                other => panic!("byte {byte}: {other:?}"),
            }
        }
    }

    #[test]
    fn partial_files_of_a_crash_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.1-2.partial"), b"half").unwrap();
        fs::write(directory.path().join("a.bin"), b"whole").unwrap();
        remove_partial_files(directory.path()).unwrap();
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["a.bin"]);
    }
}

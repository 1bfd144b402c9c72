//! Saved runs: what a stopped run needs to go on with the bits of one that was not stopped.
//!
//! A file holds what is trained and its moments after some step, whatever the learning rate or the data say by then: those
//! follow from the settings and the step. It names the run, a hash of settings, model and data, and ends with the
//! BLAKE3 hash of everything before, so that neither another run nor a damaged file is taken for this one.
//!
//! Layout: the 8 bytes of [`MAGIC`]; the run's 32 bytes; steps, and the held-out loss before the first as bits (8 bytes each);
//! the number of trained values (8 bytes); the values, first moments and second moments (4 bytes each); the hash. All
//! little-endian.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::Tuner;

/// The first bytes of a file.
const MAGIC: [u8; 8] = *b"cairnft1";

/// Bytes that are read or written at a time.
const PIECE: usize = 1 << 20;

/// Why a saved run could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The system refused.
    #[error("saved run `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is of another run: another model, other data or other settings.
    #[error("saved run `{}` is one of another model, other data or other settings", path.display())]
    OtherRun {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or no saved run.
    #[error("saved run `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Names a run: a hash of everything that decides its result.
pub fn run_id(tuner: &Tuner, params_root: [u8; 32], examples_root: [u8; 32]) -> [u8; 32] {
    let settings = serde_json::to_vec(tuner.settings()).expect("every setting is a JSON value");
    let mut hasher = blake3::Hasher::new_derive_key("cairn v1 fine-tuning run");
    hasher.update(&params_root).update(&examples_root).update(&settings);
    *hasher.finalize().as_bytes()
}

/// Writes where a run stands: into a temporary file beside it, to the disk, then under its name.
///
/// # Errors
/// What the system says.
pub fn save(path: &Path, tuner: &Tuner, run: [u8; 32], loss_before: f64) -> Result<(), SavedError> {
    let failed = |source| SavedError::Io { path: path.to_owned(), source };
    let mut name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = write(&temporary, tuner, run, loss_before).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to report; a left-over temporary file is overwritten by the next.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, tuner: &Tuner, run: [u8; 32], loss_before: f64) -> io::Result<()> {
    let mut out = Hashing { inner: BufWriter::new(File::create(path)?), hasher: blake3::Hasher::new() };
    out.write_all(&MAGIC)?;
    out.write_all(&run)?;
    out.write_all(&tuner.steps().to_le_bytes())?;
    out.write_all(&loss_before.to_bits().to_le_bytes())?;
    out.write_all(&(tuner.trained().len() as u64).to_le_bytes())?;
    let [first, second] = tuner.moments();
    let mut piece = Vec::with_capacity(PIECE);
    for values in [tuner.trained(), first, second] {
        for values in values.chunks(PIECE / size_of::<f32>()) {
            piece.clear();
            piece.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&piece)?;
        }
    }
    let hash = out.hasher.finalize();
    out.inner.write_all(hash.as_bytes())?;
    out.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

struct Hashing<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T: Write> Hashing<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Hashing<T> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Brings a run to where the file says that it stood, and returns the held-out loss before its first step; none when there
/// is no file. After an error the run must not be used.
///
/// # Errors
/// The file cannot be read, is damaged, or is of another run.
pub fn resume(path: &Path, tuner: &mut Tuner, run: [u8; 32]) -> Result<Option<f64>, SavedError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => SavedError::Damaged { path: path.to_owned(), reason: "it ends too early" },
        _ => SavedError::Io { path: path.to_owned(), source },
    };
    let damaged = |reason| SavedError::Damaged { path: path.to_owned(), reason };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut from = Hashing { inner: BufReader::new(file), hasher: blake3::Hasher::new() };
    if from.read::<8>().map_err(failed)? != MAGIC {
        return Err(damaged("it does not begin like one"));
    }
    if from.read::<32>().map_err(failed)? != run {
        return Err(SavedError::OtherRun { path: path.to_owned() });
    }
    let mut number = || from.read::<8>().map(u64::from_le_bytes).map_err(failed);
    let (steps, loss_before, count) = (number()?, f64::from_bits(number()?), number()?);
    if steps > tuner.settings().steps || count != tuner.trained().len() as u64 {
        return Err(damaged("its counts are not those of the run"));
    }
    let mut piece = vec![0; PIECE];
    for values in tuner.restore(steps) {
        for values in values.chunks_mut(PIECE / size_of::<f32>()) {
            let bytes = &mut piece[..size_of_val(values)];
            from.read_exact(bytes).map_err(failed)?;
            let read = bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value));
            values.iter_mut().zip(read).for_each(|(value, read)| *value = read);
        }
    }
    let hash = *from.hasher.finalize().as_bytes();
    match from.read::<32>().map_err(failed)? == hash {
        true => Ok(Some(loss_before)),
        false => Err(damaged("its hash is not that of its contents")),
    }
}

//! Models that others trained, in the data directory.
//!
//! ```text
//! models/lock                  one change at a time
//! models/<name>/manifest.json  what the model is, with the hash of every file
//! models/<name>/…              the model's files, byte for byte as they came
//! models/.partial-…            an import or a removal under way; what a crash leaves is removed by the next change
//! ```
//!
//! A model appears whole or not at all: it is read and checked where it lies, copied beside its place, brought to the disk, and renamed. The
//! data directory itself is not locked, so that models can be imported while a run goes on. Every use checks the hashes, because a changed
//! bit in a weight is nothing that its format would notice.

mod error;
mod manifest;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use model::pretrained::{SourceFiles, source_files};
use model::{Decoder, Pretrained};

pub use self::error::ModelsError;
pub use self::manifest::{Manifest, StoredFile};
use crate::probe;
use crate::store::{DirectoryLock, StoreError, file};

const FOLDER: &str = "models";
const MANIFEST: &str = "manifest.json";
const PARTIAL: &str = ".partial-";

/// Most bytes of a name.
pub const NAME_BYTES_MAX: usize = 64;

/// Most bytes of a name that is made from a file's.
const MADE_NAME_BYTES: usize = 40;

/// Bytes that are copied and hashed at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The imported models of a data directory.
#[derive(Clone, Debug)]
pub struct Models {
    folder: PathBuf,
}

impl Models {
    /// Those of a data directory, which need not exist yet.
    pub fn new(home: &Path) -> Self {
        Self { folder: home.join(FOLDER) }
    }

    /// All models, by name. One whose manifest is damaged is left out, and logged.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn list(&self) -> Result<Vec<Manifest>, ModelsError> {
        let mut models = Vec::new();
        for name in self.names()? {
            match Manifest::read(&self.folder.join(&name).join(MANIFEST), &name) {
                Ok(manifest) => models.push(manifest),
                Err(error) => tracing::warn!(name, %error, "an imported model is left out"),
            }
        }
        Ok(models)
    }

    /// The model with this name, or the only one whose name begins with it.
    ///
    /// # Errors
    /// There is none, there are several, or its manifest is damaged.
    pub fn find(&self, wanted: &str) -> Result<Manifest, ModelsError> {
        let names = self.names()?;
        let matching: Vec<&String> = names.iter().filter(|name| name.starts_with(wanted)).collect();
        let name = match (names.iter().find(|name| *name == wanted), &matching[..]) {
            (Some(name), _) => name,
            (None, [name]) if !wanted.is_empty() => name,
            (None, []) => return Err(ModelsError::Unknown { wanted: wanted.to_owned(), known: names }),
            (None, several) => {
                let matching = several.iter().map(|name| (*name).clone()).collect();
                return Err(ModelsError::Ambiguous { wanted: wanted.to_owned(), matching });
            }
        };
        Ok(Manifest::read(&self.folder.join(name).join(MANIFEST), name)?)
    }

    /// Copies a model into the data directory: a GGUF file, a directory of Hugging Face, or a checkpoint of this program. Without a name it
    /// gets one made from what its makers call it. Once `cancelled` is set, the import ends as if it had never begun.
    ///
    /// # Errors
    /// The model is damaged or not computed here, the name cannot be used or is taken, or the disk is full; nothing is left then.
    pub fn import(&self, path: &Path, name: Option<&str>, cancelled: &AtomicBool) -> Result<Manifest, ModelsError> {
        if let Some(name) = name {
            check_name(name)?;
        }
        let files = source_files(path)?;
        let model = Pretrained::open(path)?;
        let name = name.map_or_else(|| made_name(&model.short_name), str::to_owned);
        file::make_directory(&self.folder)?;
        let _lock = self.lock()?;
        let place = self.folder.join(&name);
        if place.symlink_metadata().is_ok() {
            return Err(ModelsError::Taken { name });
        }
        let mut manifest = Manifest::new(&model, files.source, name);
        // The parameters are not needed any more, and the copy can use the memory as its cache.
        drop(model);
        let partial = self.folder.join(format!("{PARTIAL}{}", manifest.name));
        let copied = self.copy(&files, &partial, &mut manifest, cancelled).and_then(|()| {
            fs::rename(&partial, &place).map_err(|error| StoreError::io(&place, error))?;
            Ok(file::sync_directory(Some(&self.folder)).map_err(|error| StoreError::io(&self.folder, error))?)
        });
        if copied.is_err() {
            remove_all(&partial);
        }
        copied.map(|()| manifest)
    }

    /// Reads a model. Takes as long as hashing and reading its files.
    ///
    /// # Errors
    /// A file is missing or was changed, or the model cannot be read any more.
    pub fn open(&self, manifest: &Manifest) -> Result<Pretrained, ModelsError> {
        Ok(Pretrained::open(&self.path(manifest)?)?)
    }

    /// As [`Models::open`], ready to decode.
    ///
    /// # Errors
    /// As [`Models::open`].
    pub fn open_decoder(&self, manifest: &Manifest) -> Result<(Pretrained, Decoder), ModelsError> {
        Ok(Pretrained::open_decoder(&self.path(manifest)?)?)
    }

    /// What [`Pretrained::open`] takes, once every file was found to have its hash.
    ///
    /// # Errors
    /// A file is missing or was changed.
    pub fn path(&self, manifest: &Manifest) -> Result<PathBuf, ModelsError> {
        let folder = self.folder.join(&manifest.name);
        for stored in &manifest.files {
            let path = folder.join(&stored.name);
            let changed = || ModelsError::Changed { name: manifest.name.clone(), path: path.clone() };
            let mut file = File::open(&path).map_err(|_| changed())?;
            let (bytes, hash) = pump(&path, &mut file, None, &AtomicBool::new(false))?;
            if (bytes, hash.as_str()) != (stored.bytes, stored.blake3.as_str()) {
                return Err(changed());
            }
        }
        Ok(manifest.path_in(&folder))
    }

    /// Removes a model by its whole name.
    ///
    /// # Errors
    /// There is none with that name, or its files cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), ModelsError> {
        let names = self.names()?;
        if !names.iter().any(|known| known == name) {
            return Err(ModelsError::Unknown { wanted: name.to_owned(), known: names });
        }
        let _lock = self.lock()?;
        let (place, partial) = (self.folder.join(name), self.folder.join(format!("{PARTIAL}{name}")));
        let failed = |error| StoreError::io(&place, error);
        // Out of sight at once, so that nobody finds half of it.
        fs::rename(&place, &partial).map_err(failed)?;
        Ok(fs::remove_dir_all(&partial).map_err(failed)?)
    }

    /// Where the models are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all models, in order.
    fn names(&self) -> Result<Vec<String>, ModelsError> {
        let failed = |error| StoreError::io(&self.folder, error);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error).into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if check_name(&name).is_ok() && entry.path().is_dir() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Takes the lock for changes, and removes what an earlier one left.
    fn lock(&self) -> Result<DirectoryLock, ModelsError> {
        let lock = DirectoryLock::take(&self.folder).map_err(|error| match error {
            StoreError::InUse { .. } => ModelsError::Busy,
            other => other.into(),
        })?;
        for entry in fs::read_dir(&self.folder).map_err(|error| StoreError::io(&self.folder, error))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                remove_all(&entry.path());
            }
        }
        Ok(lock)
    }

    fn copy(
        &self,
        files: &SourceFiles,
        partial: &Path,
        manifest: &mut Manifest,
        cancelled: &AtomicBool,
    ) -> Result<(), ModelsError> {
        let total: u64 =
            files.names.iter().filter_map(|name| files.folder.join(name).metadata().ok()).map(|file| file.len()).sum();
        if probe::disk_free_bytes(&self.folder).is_some_and(|free| free < total) {
            return Err(StoreError::DiskFull { path: partial.to_owned() }.into());
        }
        file::make_directory(partial)?;
        for name in &files.names {
            let (from, to) = (files.folder.join(name), partial.join(name));
            let mut source = File::open(&from).map_err(|error| StoreError::io(&from, error))?;
            let mut target = File::create_new(&to).map_err(|error| StoreError::io(&to, error))?;
            let (bytes, blake3) = pump(&to, &mut source, Some(&mut target), cancelled)?;
            target.sync_all().map_err(|error| StoreError::io(&to, error))?;
            manifest.add(StoredFile { name: name.clone(), bytes, blake3 });
        }
        manifest.imported_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let json = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys only");
        Ok(file::write_durably(&partial.join(MANIFEST), &json)?)
    }
}

/// Reads a file to its end, hashes it, and writes it elsewhere; returns its length and hash.
fn pump(
    path: &Path,
    from: &mut File,
    mut to: Option<&mut File>,
    cancelled: &AtomicBool,
) -> Result<(u64, String), ModelsError> {
    let failed = |error| StoreError::io(path, error);
    let (mut hasher, mut bytes, mut piece) = (blake3::Hasher::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return Err(ModelsError::Cancelled);
        }
        let count = from.read(&mut piece).map_err(failed)?;
        if count == 0 {
            return Ok((bytes, hasher.finalize().to_hex().to_string()));
        }
        hasher.update(&piece[..count]);
        if let Some(to) = &mut to {
            to.write_all(&piece[..count]).map_err(failed)?;
        }
        bytes += count as u64;
    }
}

/// Removes a directory; what stays is only logged, and removed by the next change.
fn remove_all(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a directory");
        }
        _ => {}
    }
}

/// Names are file names everywhere, and nothing that a shell or a path gives a meaning.
fn check_name(name: &str) -> Result<(), ModelsError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    match begins && name.len() <= NAME_BYTES_MAX && name.chars().all(plain) && name != "lock" {
        true => Ok(()),
        false => Err(ModelsError::BadName { name: name.to_owned() }),
    }
}

/// A name from what a model's makers call it.
fn made_name(title: &str) -> String {
    let mut name = String::new();
    for c in title.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '.' | '_') => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    if name.len() > MADE_NAME_BYTES {
        name.truncate(MADE_NAME_BYTES);
        // A whole word less rather than half a word.
        name.truncate(name.rfind('-').unwrap_or(MADE_NAME_BYTES));
    }
    let name = name.trim_matches(['.', '_', '-']);
    if check_name(name).is_ok() { name.to_owned() } else { "model".to_owned() }
}

#[cfg(test)]
mod tests;

//! What is known of an imported model without reading it.

use std::path::{Path, PathBuf};

use model::Pretrained;
use model::pretrained::Source;
use serde::{Deserialize, Serialize};

use super::check_name;
use crate::store::StoreError;

/// The version of the manifest.
const VERSION: u32 = 1;

/// Most bytes of a manifest.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// What is known of an imported model without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// What people type; also the directory.
    pub name: String,
    /// What its makers call it.
    pub title: String,
    /// The licence that its files state.
    pub licence: Option<String>,
    /// What its files are: `gguf`, `safetensors` or `checkpoint`.
    pub format: String,
    /// How most of its values are stored, such as `Q4_1`.
    pub stored: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Whether it answers (it has a chat template), rather than continuing text.
    pub chat: bool,
    /// Bytes of all files.
    pub bytes: u64,
    /// BLAKE3 of the file; of several files, of their hashes in the order of `files`.
    pub blake3: String,
    /// Its files; the one to open first, unless it is a directory of Hugging Face.
    pub files: Vec<StoredFile>,
    /// When it was imported, in seconds since 1970.
    pub imported_seconds: u64,
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its name in the model's directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3 hash.
    pub blake3: String,
}

impl Manifest {
    pub(super) fn new(model: &Pretrained, source: Source, name: String) -> Self {
        let format = match source {
            Source::Gguf => "gguf",
            Source::HuggingFace => "safetensors",
            Source::Checkpoint => "checkpoint",
        };
        let config = &model.config;
        Self {
            version: VERSION,
            name,
            title: model.name.clone(),
            licence: model.licence.clone(),
            format: format.to_owned(),
            stored: model.stored.clone(),
            parameters: config.parameters(),
            layers: config.layers,
            width: config.width,
            vocabulary: config.vocab,
            context: config.context,
            chat: model.template.is_some(),
            bytes: 0,
            blake3: String::new(),
            files: Vec::new(),
            imported_seconds: 0,
        }
    }

    /// Counts a file in.
    pub(super) fn add(&mut self, file: StoredFile) {
        self.bytes += file.bytes;
        self.files.push(file);
        self.blake3 = match &self.files[..] {
            [only] => only.blake3.clone(),
            several => {
                let mut hasher = blake3::Hasher::new();
                for file in several {
                    hasher.update(file.blake3.as_bytes());
                }
                hasher.finalize().to_hex().to_string()
            }
        };
    }

    /// Reads the manifest of the model `name`.
    pub(super) fn read(path: &Path, name: &str) -> Result<Self, StoreError> {
        let length = path.metadata().map_err(|error| StoreError::io(path, error))?.len();
        if length > MANIFEST_BYTES_MAX {
            return Err(StoreError::corrupt(
                path,
                format!("{length} bytes, and at most {MANIFEST_BYTES_MAX} are read"),
            ));
        }
        let bytes = std::fs::read(path).map_err(|error| StoreError::io(path, error))?;
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|error| StoreError::corrupt(path, error.to_string()))?;
        if manifest.version != VERSION {
            return Err(StoreError::Format { path: path.to_owned(), found: manifest.version, expected: VERSION });
        }
        if manifest.name != name || check_name(name).is_err() {
            return Err(StoreError::corrupt(path, format!("it is that of `{}`", manifest.name.escape_debug())));
        }
        let plain = |file: &StoredFile| {
            !file.name.is_empty() && !file.name.starts_with('.') && !file.name.contains(['/', '\\', ':'])
        };
        if manifest.files.is_empty() || !manifest.files.iter().all(plain) {
            return Err(StoreError::corrupt(path, "`files` names no files of its directory"));
        }
        Ok(manifest)
    }

    /// What [`Pretrained::open`] takes.
    pub(super) fn path_in(&self, folder: &Path) -> PathBuf {
        match (self.format.as_str(), self.files.first()) {
            ("safetensors", _) | (_, None) => folder.to_owned(),
            (_, Some(file)) => folder.join(&file.name),
        }
    }

    /// Memory of the model when it is ready to run, at most: twice its file where its matrices stay quantised, else its parameters in
    /// f32, and its head in the order in which decoding reads it.
    pub fn kept_bytes(&self) -> u64 {
        if self.is_quantised() {
            return self.bytes.saturating_mul(2);
        }
        let head = (self.vocabulary as u64).saturating_mul(self.width as u64);
        self.parameters.saturating_add(head).saturating_mul(4)
    }

    /// Memory that it takes at most, while it is made ready: its files and, where they are not quantised, its parameters in f32 besides.
    pub fn memory_bytes(&self) -> u64 {
        let parameters = if self.is_quantised() { 0 } else { self.parameters.saturating_mul(4) };
        self.kept_bytes().saturating_add(parameters).saturating_add(self.bytes)
    }

    fn is_quantised(&self) -> bool {
        self.format == "gguf" && self.stored.starts_with('Q')
    }
}

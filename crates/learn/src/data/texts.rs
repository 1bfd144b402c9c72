//! Texts as they are kept and passed on: a folder with the manifest, the tokenizer, and the text of each file under its hash.
//!
//! Such a folder gives the same corpus on every machine, whatever the files were called and wherever they lay, and every file in it can be
//! checked by its name or by the manifest. Who writes it decides how; this says only what belongs into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Tokenizer;

use super::files::{io_error, read_text};
use super::manifest::hex;
use super::{Corpus, CorpusError, Manifest, ManifestError};

/// The texts of a corpus, with what describes them.
#[derive(Debug, Clone)]
pub struct Texts {
    manifest: Manifest,
    /// In the order of the manifest's files.
    texts: Vec<String>,
    tokenizer: Arc<Tokenizer>,
}

impl Texts {
    /// The manifest's name in a folder. Not that of a manifest that a person writes, so that one is never taken for the other.
    pub const MANIFEST: &'static str = "corpus.toml";
    /// The tokenizer's name in a folder.
    pub const TOKENIZER: &'static str = "tokenizer.json";

    pub(super) fn of(manifest: Manifest, texts: Vec<String>, tokenizer: Arc<Tokenizer>) -> Self {
        Self { manifest, texts, tokenizer }
    }

    /// The texts under another name and licence, where these are given.
    ///
    /// # Errors
    /// They are no plain lines.
    pub fn described(mut self, name: Option<&str>, licence: Option<&str>) -> Result<Self, CorpusError> {
        self.manifest.name = name.map_or(self.manifest.name, str::to_owned);
        self.manifest.licence = licence.map_or(self.manifest.licence, str::to_owned);
        self.manifest.check_stated()?;
        Ok(self)
    }

    /// What they are.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether a folder has texts in this form.
    pub fn are_kept_in(folder: &Path) -> bool {
        folder.join(Self::MANIFEST).is_file()
    }

    /// What belongs into their folder: names and bytes. The manifest is the last, since a folder with one is whole.
    pub fn files(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let texts = self.manifest.files.iter().zip(&self.texts);
        let texts = texts.map(|(file, text)| (file.blake3.clone(), text.as_bytes().to_vec()));
        let tokenizer = (Self::TOKENIZER.to_owned(), self.tokenizer.to_bytes().to_vec());
        texts.chain([tokenizer, (Self::MANIFEST.to_owned(), self.manifest.to_bytes())])
    }

    /// Reads a folder in this form; every file is checked against the manifest.
    ///
    /// # Errors
    /// A file is missing, or not the one that the manifest names.
    pub fn open(folder: &Path) -> Result<Self, CorpusError> {
        let read = |path: PathBuf| fs::read(&path).map_err(io_error(&path));
        let manifest = Manifest::from_bytes(&read(folder.join(Self::MANIFEST))?)?;
        manifest.check_stated()?;
        let tokenizer = Tokenizer::from_bytes(&read(folder.join(Self::TOKENIZER))?)?;
        let mut texts = Vec::with_capacity(manifest.files.len());
        for file in &manifest.files {
            let path = folder.join(&file.blake3);
            let wrong = || ManifestError::WrongFile { name: file.name.clone() };
            if fs::metadata(&path).map_err(io_error(&path))?.len() != file.bytes {
                return Err(wrong().into());
            }
            let text = read_text(&path)?;
            if hex(blake3::hash(text.as_bytes())) != file.blake3 {
                return Err(wrong().into());
            }
            texts.push(text);
        }
        Ok(Self { manifest, texts, tokenizer: Arc::new(tokenizer) })
    }

    /// Cuts the texts into tokens.
    ///
    /// # Errors
    /// There is too little text, or the tokenizer is not the manifest's.
    pub fn into_corpus(self) -> Result<Corpus, CorpusError> {
        let texts: Vec<(&str, &str)> = self
            .manifest
            .files
            .iter()
            .map(|file| file.name.as_str())
            .zip(self.texts.iter().map(String::as_str))
            .collect();
        Corpus::new(self.manifest.clone(), &texts, self.tokenizer)
    }
}

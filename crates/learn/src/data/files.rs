//! A corpus from the user's own files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Tokenizer, TokenizerError};

use super::manifest::hex;
use super::{Corpus, CorpusError, Manifest, ManifestFile, Role, Texts};
use crate::recipe::VOCAB;

/// Most bytes of text that are read.
pub const TEXT_BYTES_MAX: u64 = 1 << 30;

/// The held-out part is one part in so many of the text, from its end.
pub(crate) const HELDOUT_DIVISOR: usize = 20;

impl Corpus {
    /// Reads a UTF-8 text file, or all `.txt` files of a folder in the order of their names. A folder in which [`Texts`] were kept is read
    /// as it is.
    ///
    /// The last twentieth of the text is held out. When a folder has a `manifest.toml`, the roles in it decide instead. The
    /// tokenizer is trained on the training part; a short text gives a smaller vocabulary than the recipe's.
    ///
    /// # Errors
    /// The files cannot be read, are not UTF-8, or hold too little text.
    pub fn from_path(path: &Path) -> Result<Self, CorpusError> {
        Texts::read(path)?.into_corpus()
    }
}

impl Texts {
    /// Reads texts, divides them and trains their tokenizer, as [`Corpus::from_path`] says.
    ///
    /// # Errors
    /// The files cannot be read, are not UTF-8, or are empty.
    pub fn read(path: &Path) -> Result<Self, CorpusError> {
        if Self::are_kept_in(path) {
            return Self::open(path);
        }
        let (parts, licence) = divided(path)?;
        let training = parts.iter().filter(|part| part.2 == Role::Train).map(|part| part.1.as_str());
        let tokenizer = train_tokenizer(training.collect())?;
        let manifest = Manifest {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            licence: licence.unwrap_or_else(|| "not stated".to_owned()),
            tokenizer_blake3: hex(tokenizer.hash().into()),
            files: parts.iter().map(|(name, text, role)| ManifestFile::new(name, text, *role)).collect(),
        };
        Ok(Self::of(manifest, parts.into_iter().map(|(_, text, _)| text).collect(), Arc::new(tokenizer)))
    }

    /// Reads the texts again of which a corpus was made.
    ///
    /// # Errors
    /// The files cannot be read, or have changed since.
    pub fn read_again(path: &Path, corpus: &Corpus) -> Result<Self, CorpusError> {
        if Self::are_kept_in(path) {
            return Self::open(path);
        }
        let parts = divided(path)?.0;
        let named: Vec<(&str, &str)> = parts.iter().map(|(name, text, _)| (name.as_str(), text.as_str())).collect();
        corpus.manifest().check_files(&named)?;
        let texts = parts.into_iter().map(|(_, text, _)| text).collect();
        Ok(Self::of(corpus.manifest().clone(), texts, corpus.tokenizer().clone()))
    }
}

/// The texts of a file or folder, as [`Corpus::from_path`] reads and divides them: those to train on, and those held out.
///
/// # Errors
/// The files cannot be read, are not UTF-8, or are empty.
pub(crate) fn read_parts(path: &Path) -> Result<[Vec<String>; 2], CorpusError> {
    let mut sorted = [Vec::new(), Vec::new()];
    for (_, text, role) in divided(path)?.0 {
        sorted[usize::from(role == Role::Heldout)].push(text);
    }
    Ok(sorted)
}

/// The name of a file, a text of it, and what that is for.
type Part = (String, String, Role);

/// The texts of a file or folder with their roles, and the licence that a manifest beside them states.
fn divided(path: &Path) -> Result<(Vec<Part>, Option<String>), CorpusError> {
    let documents = read_documents(path)?;
    if documents.iter().all(|(_, text)| text.trim().is_empty()) {
        return Err(CorpusError::Empty { path: path.to_owned() });
    }
    Ok(match given_roles(path)? {
        Some(manifest) => (by_manifest(&manifest, documents)?, Some(manifest.licence)),
        None => (hold_out_the_end(documents), None),
    })
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> CorpusError {
    let path = path.to_owned();
    move |source| CorpusError::Io { path, source }
}

/// The name and the text of each file.
fn read_documents(path: &Path) -> Result<Vec<(String, String)>, CorpusError> {
    let paths = match fs::metadata(path).map_err(io_error(path))?.is_dir() {
        true => text_files(path)?,
        false => vec![path.to_owned()],
    };
    let mut left = TEXT_BYTES_MAX;
    let mut documents = Vec::with_capacity(paths.len());
    for file in paths {
        let bytes = fs::metadata(&file).map_err(io_error(&file))?.len();
        left = left
            .checked_sub(bytes)
            .ok_or_else(|| CorpusError::TooLarge { path: path.to_owned(), max: TEXT_BYTES_MAX })?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        documents.push((name, read_text(&file)?));
    }
    Ok(documents)
}

fn text_files(folder: &Path) -> Result<Vec<PathBuf>, CorpusError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let path = entry.map_err(io_error(folder))?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    match paths.is_empty() {
        true => Err(CorpusError::NoFiles { path: folder.to_owned() }),
        false => Ok(paths),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String, CorpusError> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    String::from_utf8(bytes)
        .map_err(|error| CorpusError::NotUtf8 { path: path.to_owned(), offset: error.utf8_error().valid_up_to() })
}

/// The manifest that lies beside the files, if any.
fn given_roles(path: &Path) -> Result<Option<Manifest>, CorpusError> {
    let manifest = path.join("manifest.toml");
    if !path.is_dir() || !manifest.exists() {
        return Ok(None);
    }
    let bytes = fs::read(&manifest).map_err(io_error(&manifest))?;
    Ok(Some(Manifest::from_bytes(&bytes)?))
}

fn by_manifest(manifest: &Manifest, documents: Vec<(String, String)>) -> Result<Vec<Part>, CorpusError> {
    let texts: Vec<(&str, &str)> = documents.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    manifest.check_files(&texts)?;
    Ok(documents.into_iter().zip(&manifest.files).map(|((name, text), file)| (name, text, file.role)).collect())
}

/// Takes whole documents from the end while they fit the held-out part, and cuts the one that does not.
fn hold_out_the_end(documents: Vec<(String, String)>) -> Vec<Part> {
    let total: usize = documents.iter().map(|(_, text)| text.len()).sum();
    let mut left = total / HELDOUT_DIVISOR;
    let mut parts = Vec::with_capacity(documents.len() + 1);
    for (name, mut train) in documents.into_iter().rev() {
        let heldout = train.split_off(train.ceil_char_boundary(train.len().saturating_sub(left)));
        left -= heldout.len();
        parts.extend([(name.clone(), heldout, Role::Heldout), (name, train, Role::Train)]);
    }
    parts.retain(|(_, text, _)| !text.is_empty());
    parts.reverse();
    parts
}

/// Trains a tokenizer with the vocabulary of the recipes, or with the largest that the text gives.
fn train_tokenizer(texts: Vec<&str>) -> Result<Tokenizer, CorpusError> {
    match Tokenizer::train(texts.iter().copied(), VOCAB) {
        Err(TokenizerError::TextTooSmall { got, .. }) => Ok(Tokenizer::train(texts, got)?),
        other => Ok(other?),
    }
}

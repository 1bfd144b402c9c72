//! A corpus from the user's own files.

use std::fs;
use std::path::{Path, PathBuf};

use model::{Tokenizer, TokenizerError};

use super::manifest::hex;
use super::{Corpus, CorpusError, Manifest, ManifestFile, Role};
use crate::recipe::VOCAB;

/// Most bytes of text that are read.
pub(crate) const TEXT_BYTES_MAX: u64 = 1 << 30;

/// The held-out part is one part in so many of the text, from its end.
pub(crate) const HELDOUT_DIVISOR: usize = 20;

impl Corpus {
    /// Reads a UTF-8 text file, or all `.txt` files of a folder in the order of their names.
    ///
    /// The last twentieth of the text is held out. When a folder has a `manifest.toml`, the roles in it decide instead. The
    /// tokenizer is trained on the training part; a short text gives a smaller vocabulary than the recipe's.
    ///
    /// # Errors
    /// The files cannot be read, are not UTF-8, or hold too little text.
    pub fn from_path(path: &Path) -> Result<Self, CorpusError> {
        let documents = read_documents(path)?;
        if documents.iter().all(|(_, text)| text.trim().is_empty()) {
            return Err(CorpusError::Empty { path: path.to_owned() });
        }
        let roles = given_roles(path)?;
        let parts = match &roles {
            Some(manifest) => by_manifest(manifest, &documents)?,
            None => hold_out_the_end(&documents),
        };
        let training = || parts.iter().filter(|part| part.2 == Role::Train).map(|part| part.1);
        let tokenizer = train_tokenizer(training().collect())?;
        let manifest = Manifest {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            licence: roles.map_or_else(|| "not stated".to_owned(), |manifest| manifest.licence),
            tokenizer_blake3: hex(tokenizer.hash().into()),
            files: parts.iter().map(|(name, text, role)| ManifestFile::new(name, text, *role)).collect(),
        };
        let texts: Vec<(&str, &str)> = parts.iter().map(|&(name, text, _)| (name, text)).collect();
        Self::new(manifest, &texts, tokenizer)
    }
}

/// The texts of a file or folder, as [`Corpus::from_path`] reads and divides them: those to train on, and those held out.
///
/// # Errors
/// The files cannot be read, are not UTF-8, or are empty.
pub(crate) fn read_parts(path: &Path) -> Result<[Vec<String>; 2], CorpusError> {
    let documents = read_documents(path)?;
    if documents.iter().all(|(_, text)| text.trim().is_empty()) {
        return Err(CorpusError::Empty { path: path.to_owned() });
    }
    let parts = match &given_roles(path)? {
        Some(manifest) => by_manifest(manifest, &documents)?,
        None => hold_out_the_end(&documents),
    };
    let of = |role| parts.iter().filter(|part| part.2 == role).map(|part| part.1.to_owned()).collect();
    Ok([of(Role::Train), of(Role::Heldout)])
}

type Part<'a> = (&'a str, &'a str, Role);

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

fn by_manifest<'a>(manifest: &Manifest, documents: &'a [(String, String)]) -> Result<Vec<Part<'a>>, CorpusError> {
    let texts: Vec<(&str, &str)> = documents.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    manifest.check_files(&texts)?;
    Ok(texts.into_iter().zip(&manifest.files).map(|((name, text), file)| (name, text, file.role)).collect())
}

/// Takes whole documents from the end while they fit the held-out part, and cuts the one that does not.
fn hold_out_the_end(documents: &[(String, String)]) -> Vec<Part<'_>> {
    let total: usize = documents.iter().map(|(_, text)| text.len()).sum();
    let mut left = total / HELDOUT_DIVISOR;
    let mut parts = Vec::with_capacity(documents.len() + 1);
    for (name, text) in documents.iter().rev() {
        let cut = text.ceil_char_boundary(text.len().saturating_sub(left));
        let (train, heldout) = text.split_at(cut);
        left -= heldout.len();
        parts.extend([(heldout, Role::Heldout), (train, Role::Train)].map(|(text, role)| (name.as_str(), text, role)));
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

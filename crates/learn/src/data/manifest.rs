//! The manifest of a corpus: its files with their hashes and roles, and its tokenizer.

use model::Tokenizer;
use serde::{Deserialize, Serialize};

/// Most bytes of a manifest.
const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// What a corpus is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What people call the corpus.
    pub name: String,
    /// The licence of the texts, in words.
    pub licence: String,
    /// BLAKE3 of the `tokenizer.json`, in hexadecimal.
    pub tokenizer_blake3: String,
    /// The files, in the order in which they are joined.
    #[serde(rename = "file")]
    pub files: Vec<ManifestFile>,
}

/// One file of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name, relative to the manifest.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub blake3: String,
    /// What it is for.
    pub role: Role,
}

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Trained on.
    Train,
    /// Only measured on.
    Heldout,
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not a manifest.
    #[error("manifest: {0}")]
    Syntax(String),
    /// A file is not the one that it names.
    #[error("manifest: `{name}` is not the file that the manifest names")]
    WrongFile {
        /// The file.
        name: String,
    },
    /// The tokenizer is not the one that it names.
    #[error("manifest: the tokenizer is not the one that the manifest names")]
    WrongTokenizer,
}

impl ManifestFile {
    /// Describes a file.
    pub fn new(name: &str, text: &str, role: Role) -> Self {
        Self { name: name.to_owned(), bytes: text.len() as u64, blake3: hex(blake3::hash(text.as_bytes())), role }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// The bytes are not a manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|error| ManifestError::Syntax(error.to_string()))?;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::Syntax(format!("more than {MANIFEST_BYTES_MAX} bytes")));
        }
        toml::from_str(text).map_err(|error| ManifestError::Syntax(error.message().to_owned()))
    }

    /// Writes the manifest; reading it again gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        toml::to_string(self).expect("every field is a TOML value").into_bytes()
    }

    /// Checks the name and the bytes of each file, in the manifest's order.
    pub(super) fn check_files(&self, texts: &[(&str, &str)]) -> Result<(), ManifestError> {
        if let Some(missing) = self.files.get(texts.len()) {
            return Err(ManifestError::WrongFile { name: missing.name.clone() });
        }
        for (i, (name, text)) in texts.iter().enumerate() {
            let file = self.files.get(i);
            if file.is_none_or(|file| ManifestFile::new(name, text, file.role) != *file) {
                return Err(ManifestError::WrongFile { name: (*name).to_owned() });
            }
        }
        Ok(())
    }

    pub(super) fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<(), ManifestError> {
        match hex(tokenizer.hash().into()) == self.tokenizer_blake3 {
            true => Ok(()),
            false => Err(ManifestError::WrongTokenizer),
        }
    }
}

pub(super) fn hex(hash: blake3::Hash) -> String {
    hash.to_hex().to_string()
}

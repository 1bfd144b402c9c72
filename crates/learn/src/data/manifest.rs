//! The manifest of a corpus: its files with their hashes and roles, and its tokenizer.

use model::Tokenizer;
use serde::{Deserialize, Serialize};

use super::files::TEXT_BYTES_MAX;

/// Most bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// Most bytes of a corpus' name and of its licence.
const WORDS_BYTES_MAX: usize = 1024;

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
    /// It names what nobody would pass on.
    #[error("manifest: {0}")]
    OutOfRange(&'static str),
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

    /// BLAKE3 of its bytes, which names the corpus.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// Bytes of all its files.
    pub fn text_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Checks that what it says can be relied on before any of its files is here: one that comes from somebody else.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check_stated(&self) -> Result<(), ManifestError> {
        let is_hash =
            |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_plain = |text: &str| text.len() <= WORDS_BYTES_MAX && !text.chars().any(char::is_control);
        let rules = [
            (!self.files.is_empty(), "it names no files"),
            (self.text_bytes() <= TEXT_BYTES_MAX, "its files have more than 1 GiB"),
            (self.files.iter().all(|file| is_hash(&file.blake3)), "the hash of a file is none"),
            (is_hash(&self.tokenizer_blake3), "the hash of the tokenizer is none"),
            (is_plain(&self.name) && is_plain(&self.licence), "name and licence are a line of at most 1024 bytes each"),
            (self.files.iter().all(|file| is_plain(&file.name)), "the name of a file is a line of at most 1024 bytes"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(ManifestError::OutOfRange(rule)))
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

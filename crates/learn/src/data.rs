//! Text for training: the bundled corpus or the user's own, cut into tokens, with a part held out.
//!
//! A corpus is fixed by its manifest, which names every file with its hash, its role and the tokenizer; peers agree on the
//! manifest's hash. What a unit trains on follows from the unit's seed alone ([`Batches`]).

use std::path::PathBuf;
use std::sync::Arc;

use model::{END_ID, Tokenizer, TokenizerError};

mod batches;
pub(crate) mod files;
mod manifest;
mod texts;

pub use batches::{Batch, Batches, evaluation_windows};
pub use files::TEXT_BYTES_MAX;
pub use manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError, ManifestFile, Role};
pub use texts::Texts;

/// Fewest tokens that the training part and the held-out part of a corpus must have.
pub const TOKENS_MIN: usize = 1024;

/// A tokenized corpus.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The training part: the documents in the manifest's order, each opened by `<|end|>`.
    pub train: Vec<u32>,
    /// The held-out part, in the same form. Nothing is ever fitted to it.
    pub heldout: Vec<u32>,
    manifest: Manifest,
    tokenizer: Arc<Tokenizer>,
}

/// Why a corpus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A file or folder cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not UTF-8.
    #[error("`{path}` is not UTF-8 text: byte {offset} is no part of a character")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first wrong byte, from 0.
        offset: usize,
    },
    /// A folder has no text files.
    #[error("`{path}` has no `.txt` files")]
    NoFiles {
        /// The folder.
        path: PathBuf,
    },
    /// There is no text at all.
    #[error("`{path}` is empty")]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// There is too little text to train on.
    #[error("too little text: the {part} part has {tokens} tokens, and at least {needed} are needed")]
    TooSmall {
        /// Which part, in words.
        part: &'static str,
        /// Its tokens.
        tokens: usize,
        /// The tokens that it needs.
        needed: usize,
    },
    /// The text is larger than this program holds in memory.
    #[error("`{path}` has more than {max} bytes of text")]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
    /// The manifest is unsound or does not fit the files.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The tokenizer cannot be trained or read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl CorpusError {
    /// What the user can do about it, as one line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the path given to --data and its permissions",
            Self::NotUtf8 { .. } => "convert it first, for example with `iconv -f latin1 -t utf-8 IN > OUT`",
            Self::NoFiles { .. } => "give a .txt file or a folder with .txt files",
            Self::Empty { .. } | Self::TooSmall { .. } => "give a larger text, about 100 kB or more",
            Self::TooLarge { .. } => "give a part of it",
            Self::Manifest(ManifestError::WrongFile { .. }) => {
                "bring the file back as it was, or correct the `manifest.toml` beside it"
            }
            Self::Manifest(_) => "remove `manifest.toml` from the folder, or correct it",
            Self::Tokenizer(_) => "give a larger text, or one in a natural language",
        }
    }
}

impl Corpus {
    /// The corpus that is part of the program: five novels by Jane Austen to train on, and *Persuasion* held out.
    ///
    /// # Errors
    /// The embedded files do not fit their manifest, which a test rules out.
    pub fn bundled() -> Result<Self, CorpusError> {
        let manifest = Manifest::from_bytes(BUNDLED_MANIFEST.as_bytes())?;
        let texts: Vec<(&str, &str)> = BUNDLED.to_vec();
        manifest.check_files(&texts)?;
        let tokenizer = Arc::new(Tokenizer::from_bytes(BUNDLED_TOKENIZER)?);
        Self::new(manifest, &texts, tokenizer)
    }

    /// The manifest of [`Corpus::bundled`].
    ///
    /// # Errors
    /// It is no manifest, which a test rules out.
    pub fn bundled_manifest() -> Result<Manifest, CorpusError> {
        Ok(Manifest::from_bytes(BUNDLED_MANIFEST.as_bytes())?)
    }

    /// The first `bytes` bytes of each bundled text, or a few less: text for checks that must be quick on slow machines. Its
    /// manifest is that of the whole texts.
    pub(crate) fn excerpt(bytes: usize) -> Result<Self, CorpusError> {
        let manifest = Manifest::from_bytes(BUNDLED_MANIFEST.as_bytes())?;
        let texts = BUNDLED.map(|(name, text)| (name, &text[..text.floor_char_boundary(bytes)]));
        Self::new(manifest, &texts, Arc::new(Tokenizer::from_bytes(BUNDLED_TOKENIZER)?))
    }

    /// Cuts texts, which are in the order of the manifest's files, into tokens.
    fn new(manifest: Manifest, texts: &[(&str, &str)], tokenizer: Arc<Tokenizer>) -> Result<Self, CorpusError> {
        manifest.check_tokenizer(&tokenizer)?;
        let (mut train, mut heldout) = (Vec::new(), Vec::new());
        for (file, (_, text)) in manifest.files.iter().zip(texts) {
            let part = match file.role {
                Role::Train => &mut train,
                Role::Heldout => &mut heldout,
            };
            part.push(END_ID);
            part.extend(tokenizer.encode(text));
        }
        for (part, tokens) in [("training", train.len()), ("held-out", heldout.len())] {
            if tokens < TOKENS_MIN {
                return Err(CorpusError::TooSmall { part, tokens, needed: TOKENS_MIN });
            }
        }
        Ok(Self { train, heldout, manifest, tokenizer })
    }

    /// Checks that a recipe can be trained on this corpus.
    ///
    /// # Errors
    /// A part is shorter than the recipe's sequences.
    pub fn check_recipe(&self, recipe: &crate::Recipe) -> Result<(), CorpusError> {
        let needed = recipe.batch.tokens + 1;
        for (part, tokens) in [("training", self.train.len()), ("held-out", self.heldout.len())] {
            if tokens < needed {
                return Err(CorpusError::TooSmall { part, tokens, needed });
            }
        }
        Ok(())
    }

    /// What the corpus is made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// BLAKE3 of the manifest's bytes, which names the corpus.
    pub fn manifest_hash(&self) -> [u8; 32] {
        self.manifest.hash()
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }
}

const BUNDLED_MANIFEST: &str = include_str!("../../../data/austen/manifest.toml");
const BUNDLED_TOKENIZER: &[u8] = include_bytes!("../../../data/austen/tokenizer.json");
const BUNDLED: [(&str, &str); 6] = [
    ("emma.txt", include_str!("../../../data/austen/emma.txt")),
    ("mansfield-park.txt", include_str!("../../../data/austen/mansfield-park.txt")),
    ("northanger-abbey.txt", include_str!("../../../data/austen/northanger-abbey.txt")),
    ("persuasion.txt", include_str!("../../../data/austen/persuasion.txt")),
    ("pride-and-prejudice.txt", include_str!("../../../data/austen/pride-and-prejudice.txt")),
    ("sense-and-sensibility.txt", include_str!("../../../data/austen/sense-and-sensibility.txt")),
];

#[cfg(test)]
mod tests;

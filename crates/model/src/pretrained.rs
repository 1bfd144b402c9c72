//! Models that others trained: their parameters, tokenizer and template in the forms of this crate.
//!
//! Purpose: whatever file a model comes in, the decoder, the trainer and the API meet one shape of it. Sources: the tensor
//! names of Hugging Face's Llama, Qwen2 and Qwen3, and the metadata of GGUF files of the architectures `llama`, `qwen2` and `qwen3`.
//!
//! To train or to export, a model is read into f32 ([`Pretrained::open`]), 4 bytes for each parameter; to decode, quantised matrices
//! stay as they are ([`Pretrained::open_decoder`]). What a file asks for and this crate does
//! not compute (experts, other rotations, other tokenizers) is an error that names it, never an approximation.
//!
//! A model is written as a directory of Hugging Face ([`Pretrained::save_hugging_face`]) or as a GGUF file
//! ([`Pretrained::save_gguf`]). In F32 nothing is lost: what is read again has the same bits.

mod export;
mod gguf;
pub mod hugging_face;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use self::gguf::decoder_from_gguf;
use crate::config::{Config, ConfigError};
use crate::decoder::Decoder;
use crate::files::{self, FileError};
use crate::gguf::GgufError;
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{END_ID, Tokenizer, TokenizerError};

/// Tokens that end an answer in the templates of the supported families.
const END_TEXTS: [&str; 5] = ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>"];

/// The tokenizer beside a checkpoint of this program.
const TOKENIZER: &str = "tokenizer.json";

/// A whole model with all that is needed to use it.
#[derive(Debug)]
pub struct Pretrained {
    /// What its makers call it.
    pub name: String,
    /// A shorter name for people to type, where the file has the parts of one; otherwise the same.
    pub short_name: String,
    /// The licence that the file states.
    pub licence: Option<String>,
    /// How most of its values are stored in the file, such as `Q4_1` or `BF16`.
    pub stored: String,
    /// Its shape.
    pub config: Config,
    /// The parameters in the order of the whole model's [`Layout`](crate::Layout); every value is finite.
    pub params: Vec<f32>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// How conversations are written; none in a base model.
    pub template: Option<ChatTemplate>,
    /// The token that begins every sequence, where the model wants one.
    pub begin: Option<u32>,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// Tokens with a role by which templates and other programs know them.
    pub special: SpecialTokens,
}

/// Tokens with a role, each where the file names one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence in templates (`bos_token`), whether or not the model wants it everywhere.
    pub begin: Option<u32>,
    /// Ends a sequence in templates (`eos_token`).
    pub end: Option<u32>,
    /// Stands for text that has no token.
    pub unknown: Option<u32>,
    /// Fills rows of unequal length.
    pub padding: Option<u32>,
}

/// What a model's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A GGUF file.
    Gguf,
    /// A directory of Hugging Face.
    HuggingFace,
    /// A checkpoint of this program with its tokenizer beside it.
    Checkpoint,
}

/// A model's files: all lie in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFiles {
    /// What they are.
    pub source: Source,
    /// The directory.
    pub folder: PathBuf,
    /// Their names in it; the one to open comes first, unless the directory itself is opened.
    pub names: Vec<String>,
}

impl SourceFiles {
    /// What [`Pretrained::open`] takes, when the files lie in `folder`.
    pub fn path_in(&self, folder: &Path) -> PathBuf {
        match (self.source, self.names.first()) {
            (Source::Gguf | Source::Checkpoint, Some(name)) => folder.join(name),
            _ => folder.to_owned(),
        }
    }
}

/// Says what a path is, by its first bytes, and which files belong to it. Nothing is read beyond the index of a directory.
///
/// # Errors
/// The path cannot be read, or the directory lacks its files.
pub fn source_files(path: &Path) -> Result<SourceFiles, PretrainedError> {
    let failed = |source| PretrainedError::Io { path: path.to_owned(), source };
    if path.metadata().map_err(failed)?.is_dir() {
        let names = hugging_face::files(path)?;
        return Ok(SourceFiles { source: Source::HuggingFace, folder: path.to_owned(), names });
    }
    let mut magic = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic)).map_err(failed)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?.to_owned();
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    // A short or empty file with the right ending is a damaged one, and the reader of its format says so best.
    if magic == b"GGUF" || name.ends_with(".gguf") {
        return Ok(SourceFiles { source: Source::Gguf, folder, names: vec![name] });
    }
    if let Some(folder) = hugging_face::folder_of(path) {
        return source_files(&folder);
    }
    Ok(SourceFiles { source: Source::Checkpoint, folder, names: vec![name, TOKENIZER.to_owned()] })
}

impl Pretrained {
    /// Opens a GGUF file, a directory of Hugging Face (or a file in it), or a checkpoint of this program with its `tokenizer.json` beside it.
    ///
    /// Memory: 4 bytes for each parameter, and for a GGUF file its own size while it is read. Tensors of safetensors files are read one at a
    /// time. Nothing is allocated for a model whose tensors are not all there.
    ///
    /// # Errors
    /// A file is missing, damaged or of another kind, or the model is one that this crate does not compute; the error names file and
    /// field.
    pub fn open(path: &Path) -> Result<Self, PretrainedError> {
        let files = source_files(path)?;
        match files.source {
            Source::Gguf => Self::from_gguf(&crate::gguf::load(path)?),
            Source::HuggingFace => hugging_face::read(&files.folder),
            Source::Checkpoint => Self::from_checkpoint(path),
        }
    }

    /// As [`Pretrained::open`], ready to decode: the parameters of the first are left out. Matrices of a GGUF file stay quantised, so that
    /// a model takes little more memory than its file.
    ///
    /// # Errors
    /// As [`Pretrained::open`].
    pub fn open_decoder(path: &Path) -> Result<(Self, Decoder), PretrainedError> {
        if source_files(path)?.source == Source::Gguf {
            let file = crate::gguf::load(path)?;
            return Ok((Self::without_params(&file)?, decoder_from_gguf(&file)?));
        }
        let model = Self::open(path)?;
        let decoder = Decoder::new(model.config, &model.params)?;
        Ok((Self { params: Vec::new(), ..model }, decoder))
    }

    /// Reads a checkpoint of this program, which is a base model.
    fn from_checkpoint(path: &Path) -> Result<Self, PretrainedError> {
        let checkpoint = files::load(path)?;
        let stage = checkpoint.stage;
        if !(stage.is_first() && stage.is_last()) {
            let found = format!("layers {:?}", stage.layers());
            return Err(PretrainedError::Unsupported {
                field: "layers".to_owned(),
                found,
                expected: format!("all {} of the model", stage.config().layers),
            });
        }
        let beside = path.with_file_name(TOKENIZER);
        let bytes = std::fs::read(&beside).map_err(|source| PretrainedError::Io { path: beside.clone(), source })?;
        let tokenizer = Tokenizer::from_bytes(&bytes)?;
        if tokenizer.hash() != checkpoint.tokenizer {
            let reason = "it is not the tokenizer that the checkpoint was trained with".to_owned();
            return Err(PretrainedError::Damaged { path: beside, reason });
        }
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Self::trained(name, *stage.config(), checkpoint.params, tokenizer))
    }

    /// A base model that this program trained. `params` are those of the whole model's [`Layout`](crate::Layout), all finite.
    pub fn trained(name: String, config: Config, params: Vec<f32>, tokenizer: Tokenizer) -> Self {
        let end = Some(END_ID);
        Self {
            short_name: name.clone(),
            name,
            licence: None,
            stored: "F32".to_owned(),
            config,
            params,
            tokenizer,
            template: None,
            begin: None,
            ends: vec![END_ID],
            special: SpecialTokens { begin: end, end, unknown: None, padding: None },
        }
    }

    /// What an empty prompt begins with: the token that begins a sequence, else one that ends it.
    pub fn opening(&self) -> u32 {
        let SpecialTokens { begin, end, .. } = self.special;
        begin.or(end).or_else(|| self.ends.first().copied()).unwrap_or(0)
    }

    /// The kind that takes the most bytes in all; empty when there is none.
    fn commonest<'a>(kinds: impl Iterator<Item = (&'a str, u64)>) -> String {
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, size) in kinds {
            *bytes.entry(kind).or_default() += size;
        }
        bytes.into_iter().max_by_key(|(_, size)| *size).map_or_else(String::new, |(kind, _)| kind.to_owned())
    }

    /// The text of a special token.
    fn special_text(&self, id: Option<u32>) -> Option<String> {
        id.and_then(|id| self.tokenizer.added_text(id)).map(str::to_owned)
    }
}

/// Why a model could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    /// A file could not be read or written.
    #[error("model `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is damaged or lacks something.
    #[error("model `{}`: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the field.
        reason: String,
    },
    /// The file is damaged or lacks something.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A checkpoint of this program is damaged, or it is none.
    #[error(transparent)]
    Checkpoint(#[from] FileError),
    /// The shape is unsound.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer is damaged or of an unknown kind.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The model is of a kind that this crate does not compute.
    #[error("model: `{field}` is {found}, and must be {expected}")]
    Unsupported {
        /// The part of the file.
        field: String,
        /// What it is.
        found: String,
        /// What is supported.
        expected: String,
    },
    /// A tensor has another shape than the model's.
    #[error("model: tensor `{name}` is {found:?}, and the model needs {expected:?}")]
    WrongShape {
        /// The tensor as the file names it.
        name: String,
        /// Its sizes, rows first.
        found: Vec<u64>,
        /// The sizes that the model needs, rows first.
        expected: Vec<usize>,
    },
}

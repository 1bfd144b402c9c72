//! Models that others trained: their parameters, tokenizer and template in the forms of this crate.
//!
//! Purpose: whatever file a model comes in, the decoder, the trainer and the API meet one shape of it. Sources: the tensor
//! names of Hugging Face's Llama, Qwen2 and Qwen3, and the metadata of GGUF files of the architectures `llama`, `qwen2` and `qwen3`.
//!
//! Quantised tensors are read into f32, so a model takes 4 bytes for each parameter. What a file asks for and this crate does
//! not compute (experts, other rotations, other tokenizers) is an error that names it, never an approximation.

mod gguf;

pub use self::gguf::decoder_from_gguf;
use crate::config::{Config, ConfigError};
use crate::gguf::GgufError;
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// A whole model with all that is needed to use it.
#[derive(Debug)]
pub struct Pretrained {
    /// What its makers call it.
    pub name: String,
    /// The licence that the file states.
    pub licence: Option<String>,
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
}

/// Why a model could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    /// The file is damaged or lacks something.
    #[error(transparent)]
    Gguf(#[from] GgufError),
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

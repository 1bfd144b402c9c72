//! Why a model could not be imported, found, read or removed.

use std::path::PathBuf;

use model::PretrainedError;

use super::NAME_BYTES_MAX;
use crate::member::FailureKind;
use crate::store::StoreError;

/// Why a model could not be imported, found, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// A name that is none.
    #[error(
        "`{}` cannot be a model's name: 1 to {NAME_BYTES_MAX} of a-z, 0-9, `.`, `_` and `-`, a letter or digit first",
        name.escape_debug()
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// There is a model of that name.
    #[error("there is a model `{name}` already")]
    Taken {
        /// The name.
        name: String,
    },
    /// No model has the name.
    #[error("there is no model `{}`", wanted.escape_debug())]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The models that there are.
        known: Vec<String>,
    },
    /// Several models begin with what was asked for.
    #[error("`{}` is the beginning of several models: {}", wanted.escape_debug(), matching.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// The models.
        matching: Vec<String>,
    },
    /// Another process imports or removes a model.
    #[error("another cairn is importing or removing a model")]
    Busy,
    /// The import was stopped.
    #[error("the import was stopped; nothing of it is left")]
    Cancelled,
    /// A stored file is missing, or is not what was imported.
    #[error("model `{name}`: `{}` is missing or was changed since it was imported", path.display())]
    Changed {
        /// The model.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] PretrainedError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ModelsError {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::BadName { .. } => "choose another with `--name NAME`, such as `smollm2`".to_owned(),
            Self::Taken { name } => {
                format!("choose another name with `--name NAME`, or remove that one with `cairn models rm {name}`")
            }
            Self::Unknown { known, .. } if known.is_empty() => {
                "`cairn models import PATH` imports one: a GGUF file, or a directory of Hugging Face".to_owned()
            }
            Self::Unknown { known, .. } => format!("there are: {}", known.join(", ")),
            Self::Ambiguous { .. } => "write more of the name".to_owned(),
            Self::Busy => "try again when it is done".to_owned(),
            Self::Cancelled => "start it again".to_owned(),
            Self::Changed { name, .. } => {
                format!("`cairn models rm {name}`, then import it again from where it came from")
            }
            Self::Model(PretrainedError::Io { .. }) => "check the path, and that the file can be read".to_owned(),
            Self::Model(_) => {
                "models of the Llama, SmolLM2, Qwen2.5 and Qwen3 families with a byte-level tokenizer work; fetch \
                               the file again where it is damaged"
                    .to_owned()
            }
            Self::Store(StoreError::DiskFull { .. }) => {
                "free some space, or choose another disk with `--home DIR`; nothing of the model was left behind"
                    .to_owned()
            }
            Self::Store(error) if error.is_corruption() => {
                "`cairn models rm NAME`, then import the model again from where it came from".to_owned()
            }
            Self::Store(error) => error.hint(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::BadName { .. } | Self::Taken { .. } | Self::Unknown { .. } | Self::Ambiguous { .. } => {
                FailureKind::BadInput
            }
            Self::Model(PretrainedError::Io { .. }) => FailureKind::BadInput,
            Self::Busy => FailureKind::InUse,
            Self::Cancelled => FailureKind::Unexpected,
            Self::Changed { .. } | Self::Model(_) => FailureKind::CorruptData,
            Self::Store(error) => error.kind(),
        }
    }
}

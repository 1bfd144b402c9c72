//! A model as those who serve it need it: a committed one, or one that others trained.

use std::fmt;
use std::sync::Arc;

use model::{ChatTemplate, Decoder, Pretrained};
use wire::Hash;

use crate::inference::StagedModel;

/// A model with all that is needed to run it: that at the end of a committed round, or one that others trained. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoint {
    /// Rounds that led to it; 0 for a model that others trained.
    pub round: u64,
    /// Root of the whole training state, which is also the name of its blob; the BLAKE3 hash of a model that others trained.
    pub state_root: Hash,
    /// What people and programs call the model; the same for all rounds of a run.
    pub name: String,
    /// The model's shape.
    pub config: model::Config,
    /// What it is decoded from.
    pub weights: Weights,
    /// Text to tokens and back.
    pub tokenizer: Arc<model::Tokenizer>,
    /// How its texts begin and end.
    pub format: Arc<TextFormat>,
}

/// What a model is decoded from. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Weights {
    /// All parameters, in the order of the layout that the config gives.
    Values(Arc<Vec<f32>>),
    /// Ready to decode, where the parameters are kept in this form only.
    Decoder(Arc<Decoder>),
    /// The peers that hold its stages.
    Stages(StagedModel),
}

/// How a model's texts begin and end, and how conversations are written for it.
#[derive(Clone, Debug)]
pub struct TextFormat {
    /// The token that stands in front of every text.
    pub begin: Option<u32>,
    /// What an empty text begins with.
    pub opening: u32,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// How conversations are written; none for a model that only continues text.
    pub template: Option<ChatTemplate>,
}

impl TextFormat {
    /// That of the models that this program trains: they continue text, and one token separates documents.
    pub fn trained() -> Self {
        Self { begin: None, opening: model::END_ID, ends: vec![model::END_ID], template: None }
    }
}

impl Checkpoint {
    /// A model that others trained, and its decoder. `hash` is that of its files.
    pub fn pretrained(name: String, hash: Hash, (model, decoder): (Pretrained, Decoder)) -> Self {
        let opening = model.opening();
        let Pretrained { config, tokenizer, template, begin, ends, .. } = model;
        Self {
            round: 0,
            state_root: hash,
            name,
            config,
            weights: Weights::Decoder(Arc::new(decoder)),
            tokenizer: Arc::new(tokenizer),
            format: Arc::new(TextFormat { begin, opening, ends, template }),
        }
    }

    /// All parameters, where they are here as numbers.
    pub fn parameters(&self) -> Option<&Arc<Vec<f32>>> {
        match &self.weights {
            Weights::Values(values) => Some(values),
            Weights::Decoder(_) | Weights::Stages(_) => None,
        }
    }

    /// The number of stages, on as many machines at least, through which it is decoded; none for a model that is here as a whole.
    pub fn stages(&self) -> Option<usize> {
        match &self.weights {
            Weights::Stages(model) => Some(model.stages()),
            Weights::Values(_) | Weights::Decoder(_) => None,
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("round", &self.round)
            .field("state_root", &self.state_root)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

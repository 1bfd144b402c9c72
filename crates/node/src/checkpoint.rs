//! A model as those who serve it need it: a committed one, or one that others trained.

use std::fmt;
use std::sync::Arc;

use model::{ChatTemplate, ConfigError, Decoder, Pretrained};
use wire::Hash;

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
    /// All parameters, in the order of the layout that `config` gives; empty where there is a decoder already.
    pub params: Arc<Vec<f32>>,
    /// Text to tokens and back.
    pub tokenizer: Arc<model::Tokenizer>,
    /// How its texts begin and end.
    pub format: Arc<TextFormat>,
    /// Ready to decode, where the parameters are kept in this form only.
    pub decoder: Option<Arc<Decoder>>,
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
            decoder: Some(Arc::new(decoder)),
            params: Arc::default(),
            tokenizer: Arc::new(tokenizer),
            format: Arc::new(TextFormat { begin, opening, ends, template }),
        }
    }

    /// A decoder of this model for a thread of its own.
    ///
    /// # Errors
    /// The parameters are not as many as the config says.
    pub fn decoder(&self) -> Result<Decoder, ConfigError> {
        match &self.decoder {
            Some(decoder) => Ok(decoder.share()),
            None => Decoder::new(self.config, &self.params),
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

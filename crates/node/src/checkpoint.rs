//! A committed model as those who serve it need it.

use std::fmt;
use std::sync::Arc;

use wire::Hash;

/// The model at the end of a committed round, with all that is needed to run it. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoint {
    /// Rounds that led to it.
    pub round: u64,
    /// Root of the whole training state, which is also the name of its blob.
    pub state_root: Hash,
    /// What people and programs call the model; the same for all rounds of a run.
    pub name: String,
    /// The model's shape.
    pub config: model::Config,
    /// All parameters, in the order of the layout that `config` gives.
    pub params: Arc<Vec<f32>>,
    /// Text to tokens and back.
    pub tokenizer: Arc<model::Tokenizer>,
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

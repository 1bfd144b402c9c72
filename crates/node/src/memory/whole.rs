//! The memory of a peer that holds the whole model, planned before it founds a run or joins one.
//!
//! Counted as it is allocated: the state with its momentum; for each unit that trains at the same time a copy of the parameters, gradients,
//! moments and activations; what each unit of the round gave; then paying in, stepping or loading, of which the largest counts; and what
//! measuring and serving the model takes in the same process. What serving imported models takes is not in it.

use learn::Recipe;
use learn::pipeline::{PROGRAM_BYTES, TOKENIZER_BYTES};
use model::{ConfigError, Kind, TrainerMemory, TrainerOptions};

use super::{TooLittleMemory, records_bytes};
use crate::workload::Workload;

/// Matrices of the largest tensor's size that a step of Muon holds at once.
const MUON_COPIES: u64 = 4;
/// What the pages, measuring and the allocator's threads take in a process beside its peers, whatever the model. Measured: with it, plans of
/// the bundled recipes are up to a sixth above the peak of a process with one peer.
const PAGES_BYTES: u64 = 72 << 20;
/// A number and its place in a payload that was read.
const SENT_BYTES: u64 = 8;

/// Bytes that a peer with the whole model takes, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeMemory {
    /// The parameters and the outer momentum.
    pub state: u64,
    /// All units that train at the same time.
    pub training: u64,
    /// What the units of a round gave.
    pub deltas: u64,
    /// The end of a round: paying in, stepping, storing, loading; the largest counts.
    pub exchange: u64,
    /// Reading, measuring and serving the newest model.
    pub serving: u64,
    /// The run's blocks at its end.
    pub records: u64,
    /// The program, the tokenizer and the corpus.
    pub program: u64,
}

impl WholeMemory {
    /// Plans one of `members` peers that all hold the whole model, and trains on `cores` cores. None for a model in stages.
    ///
    /// # Errors
    /// The recipe's batch does not suit its model.
    pub fn of(workload: &Workload, members: usize, cores: usize) -> Result<Option<Self>, ConfigError> {
        if workload.stages_len() > 1 {
            return Ok(None);
        }
        let corpus = &workload.corpus;
        let tokens = corpus.train.len() + corpus.heldout.len();
        Self::of_recipe(&workload.recipe, tokens, members, cores).map(Some)
    }

    /// As [`WholeMemory::of`], for a recipe on a corpus of so many tokens.
    ///
    /// # Errors
    /// The recipe's batch does not suit its model.
    pub fn of_recipe(recipe: &Recipe, tokens: usize, members: usize, cores: usize) -> Result<Self, ConfigError> {
        let layout = recipe.layout();
        let float = size_of::<f32>() as u64;
        let parameters = float * layout.len() as u64;
        let batch = recipe.batch;
        let trainer = TrainerMemory::of(&recipe.stage(), batch.sequences, batch.tokens, &TrainerOptions::default())?;
        let matrices = layout.tensors().iter().filter(|tensor| tensor.kind != Kind::Vector);
        let largest = float * matrices.map(model::TensorInfo::len).max().unwrap_or(0) as u64;
        let kernels = tensor::scratch_bytes(1, batch.tokens, recipe.model.head_dim);
        // Parameters, gradients, and both moments.
        let unit = 4 * parameters + MUON_COPIES * largest + trainer.total() + kernels;
        let units = (recipe.units_per_round as usize).div_ceil(members.max(1)) as u64;
        let compression = recipe.compression;
        let sent = layout.len() as u64 * u64::from(compression.keep) / u64::from(compression.chunk).max(1);
        let payloads = u64::from(recipe.units_per_round) * SENT_BYTES * sent;
        // The mean, the residual and its bytes; or the payloads of all and the next state's bytes; or a state read from its bytes.
        let exchange = (3 * parameters).max(payloads + 2 * parameters).max(4 * parameters);
        Ok(Self {
            state: 2 * parameters,
            training: units.min(cores.max(1) as u64) * unit,
            deltas: units * parameters,
            exchange,
            // The bytes of a state, the state, the model before and the new one.
            serving: 6 * parameters + trainer.total() + kernels,
            records: records_bytes(recipe, members, 1),
            program: PROGRAM_BYTES
                + PAGES_BYTES
                + TOKENIZER_BYTES * recipe.model.vocab as u64
                + (tokens * size_of::<u32>()) as u64,
        })
    }

    /// What it takes at most.
    pub fn total(&self) -> u64 {
        let Self { state, training, deltas, exchange, serving, records, program } = *self;
        state + deltas + training.max(exchange) + serving + records + program
    }

    /// Refuses a plan that does not keep to a limit.
    ///
    /// # Errors
    /// [`TooLittleMemory`].
    pub fn check(&self, limit: Option<u64>) -> Result<(), TooLittleMemory> {
        let needed = self.total();
        match limit {
            Some(limit) if needed > limit => Err(TooLittleMemory { stage: None, needed, limit }),
            _ => Ok(()),
        }
    }
}

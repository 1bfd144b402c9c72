//! The memory that a run takes, computed before it starts.
//!
//! Everything that grows with the model or the batch is counted as it will be allocated; what the program takes besides is a
//! measured constant. A run has three phases (reading the model, training, writing the result), and needs as much as the
//! largest. Recomputation is chosen where only with it the run fits.

use std::fmt;

use model::{Config, ConfigError, Lora, Stage, TrainerMemory};

use super::Settings;

/// What the program takes without a model: its code and what its libraries allocate. An estimate; the whole plan was compared with
/// measured peaks (`docs/performance.md`).
const PROGRAM_BYTES: u64 = 24 << 20;

/// What a tokenizer takes for each token of its vocabulary, its file and tables included. An estimate, as above.
const TOKENIZER_BYTES: u64 = 1200;

/// A run whose memory is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The model.
    pub config: Config,
    /// The run.
    pub settings: Settings,
    /// Threads that compute.
    pub threads: usize,
    /// Bytes of the model's file, which is in memory while the model is read.
    pub file_bytes: u64,
    /// Bytes of the data as tokens.
    pub data_bytes: u64,
    /// Bytes that writing the result takes besides the parameters.
    pub writing_bytes: u64,
}

/// Bytes that a run takes, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Whether activations are computed again in the backward.
    pub recompute: bool,
    /// The model's parameters in f32.
    pub parameters: u64,
    /// What is trained besides: adapters.
    pub adapters: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// First and second moments of what is trained.
    pub optimiser: u64,
    /// What the forward keeps for the backward.
    pub activations: u64,
    /// Gradients of activations, and the logits that the head holds at once.
    pub scratch: u64,
    /// Packed operands and scores of the kernels, for all threads.
    pub kernels: u64,
    /// The program, the tokenizer and the data.
    pub program: u64,
    /// What reading the model takes besides the parameters and the program.
    pub reading: u64,
    /// What writing the result takes besides: what training took may not have gone back to the system yet.
    pub writing: u64,
}

impl Budget {
    /// Computes what a run takes.
    ///
    /// # Errors
    /// The batch or the adapters do not suit the model.
    pub fn of(job: &Job, recompute: bool) -> Result<Self, ConfigError> {
        let Job { config, settings, threads, .. } = job;
        let stage = Stage::whole(*config)?;
        let batch = settings.batch;
        let trainer = TrainerMemory::of(&stage, batch.sequences, batch.tokens, &settings.options(recompute))?;
        let floats = |count: u64| count * size_of::<f32>() as u64;
        let (parameters, trained) = (floats(config.parameters()), floats(settings.trained(config)));
        let table = floats((config.vocab * config.width) as u64);
        Ok(Self {
            recompute,
            parameters,
            adapters: if settings.lora.is_some() { trained } else { 0 },
            gradients: trained,
            optimiser: 2 * trained,
            activations: trainer.activations,
            scratch: trainer.gradients + trainer.logits + trainer.tables,
            kernels: tensor::scratch_bytes(*threads, batch.tokens, config.head_dim),
            program: PROGRAM_BYTES + TOKENIZER_BYTES * config.vocab as u64 + job.data_bytes,
            reading: job.file_bytes + table,
            writing: job.writing_bytes,
        })
    }

    /// What training takes.
    pub fn training(&self) -> u64 {
        self.kept() + self.gradients + self.optimiser + self.activations + self.scratch + self.kernels
    }

    /// What the run takes at most.
    pub fn total(&self) -> u64 {
        (self.training() + self.writing).max(self.kept() + self.reading)
    }

    /// What is there all the time.
    fn kept(&self) -> u64 {
        self.parameters + self.adapters + self.program
    }
}

/// What a run needs, and what would do with less.
#[derive(Debug, Clone, PartialEq)]
pub struct TooLittle {
    /// Bytes that the run may take.
    pub limit: u64,
    /// The smallest budget of the run as it was asked for.
    pub needed: Budget,
    /// Changes that make it fit, with what it takes then: the smallest change first.
    pub fitting: Vec<(Change, u64)>,
}

/// A change of a run that saves memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Sequences of a batch, at least 1.
    Sequences(usize),
    /// Tokens of a sequence.
    Tokens(usize),
    /// Adapters of this rank instead of all parameters, with one sequence.
    Adapters(usize),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequences(count) => write!(f, "--batch {count}"),
            Self::Tokens(count) => write!(f, "--batch 1 --tokens {count}"),
            Self::Adapters(rank) => write!(f, "--lora {rank} --batch 1"),
        }
    }
}

/// Why a run was not planned.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanError {
    /// The batch or the adapters do not suit the model.
    Config(ConfigError),
    /// It would take too much.
    TooLittle(Box<TooLittle>),
}

impl From<ConfigError> for PlanError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Plans a run within `limit` bytes: with recomputation where `recompute` asks for it, or where it fits only so.
///
/// # Errors
/// The batch or the adapters do not suit the model, or it does not fit at all.
pub fn plan(job: &Job, recompute: bool, limit: Option<u64>) -> Result<Budget, PlanError> {
    let asked = Budget::of(job, recompute)?;
    let Some(limit) = limit else { return Ok(asked) };
    let needed = Budget::of(job, true)?;
    match () {
        () if asked.total() <= limit => Ok(asked),
        () if needed.total() <= limit => Ok(needed),
        () => Err(PlanError::TooLittle(Box::new(TooLittle { limit, needed, fitting: fitting(job, limit) }))),
    }
}

/// The smallest change of each kind that makes the run fit.
fn fitting(job: &Job, limit: u64) -> Vec<(Change, u64)> {
    let halves = |from: usize, least: usize| {
        std::iter::successors(Some(from / 2), |n| Some(n / 2)).take_while(move |n| *n >= least)
    };
    let batch = job.settings.batch;
    let changes = [
        halves(batch.sequences, 1).map(Change::Sequences).collect::<Vec<_>>(),
        halves(batch.tokens, 32).map(Change::Tokens).collect(),
        if job.settings.lora.is_none() { vec![Change::Adapters(16)] } else { Vec::new() },
    ];
    let total = |change: &Change| {
        let mut job = job.clone();
        match *change {
            Change::Sequences(count) => job.settings.batch.sequences = count,
            Change::Tokens(count) => (job.settings.batch.sequences, job.settings.batch.tokens) = (1, count),
            Change::Adapters(rank) => {
                (job.settings.batch.sequences, job.settings.lora) = (1, Some(Lora::all(rank)));
            }
        }
        Budget::of(&job, true).ok().map(|budget| budget.total()).filter(|total| *total <= limit)
    };
    let first = |changes: &Vec<Change>| changes.iter().find_map(|change| Some((*change, total(change)?)));
    changes.iter().filter_map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::tests::{config, settings};

    fn job(lora: Option<Lora>) -> Job {
        let config = Config { vocab: 49_152, width: 576, ff: 1536, layers: 30, context: 512, ..config() };
        let mut settings = settings(lora);
        (settings.batch.sequences, settings.batch.tokens) = (4, 256);
        Job { config, settings, threads: 2, file_bytes: 100 << 20, data_bytes: 1 << 20, writing_bytes: 100 << 20 }
    }

    #[test]
    fn recomputation_is_chosen_where_only_then_it_fits() {
        let job = job(None);
        let [plain, saving] = [false, true].map(|recompute| Budget::of(&job, recompute).unwrap());
        assert!(saving.total() < plain.total());
        assert_eq!(plan(&job, false, None), Ok(plain));
        assert_eq!(plan(&job, false, Some(plain.total())), Ok(plain));
        assert_eq!(plan(&job, false, Some(plain.total() - 1)), Ok(saving));
        assert_eq!(plan(&job, true, None), Ok(saving));
    }

    #[test]
    fn what_would_fit_is_said_and_fits() {
        let job = job(None);
        let limit = Budget::of(&job, true).unwrap().total() - 1;
        let Err(PlanError::TooLittle(little)) = plan(&job, false, Some(limit)) else { panic!("it fits") };
        let changes: Vec<Change> = little.fitting.iter().map(|(change, _)| *change).collect();
        assert!(changes.contains(&Change::Sequences(2)) && changes.contains(&Change::Adapters(16)), "{changes:?}");
        assert!(little.fitting.iter().all(|(_, total)| *total <= limit));
        let Err(PlanError::TooLittle(little)) = plan(&job, false, Some(1 << 20)) else { panic!("it fits") };
        assert!(little.fitting.is_empty());
    }

    #[test]
    fn adapters_save_gradients_and_moments() {
        let full = Budget::of(&job(None), true).unwrap();
        let adapters = Budget::of(&job(Some(Lora::all(8))), true).unwrap();
        assert_eq!((full.gradients, full.optimiser), (full.parameters, 2 * full.parameters));
        assert!(adapters.gradients * 20 < full.gradients);
        assert_eq!(adapters.adapters, adapters.gradients);
    }
}

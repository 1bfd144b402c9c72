//! The recipe: everything about a run that is the same for every peer, and its hash.
//!
//! A recipe is written by people as TOML and travels as its canonical bytes: JSON with the fields in the order of
//! declaration and without white space. Decoding accepts canonical bytes only, so a recipe has one hash.

use model::{Config, ConfigError, Layout, Stage};
use serde::{Deserialize, Serialize};
use tensor::{Context, Profile};

use crate::boundary::{Codec, Precision, Space};
use crate::schedule::Schedule;

mod dial;
mod presets;
mod profile;
mod settings;

pub use dial::{ROUNDS_MIN, Size, SizeError, TOKENS_PER_PARAMETER};
pub use presets::{STAGED_UNITS, VOCAB};
pub use settings::Difference;

/// Largest seed, so that every common reader of numbers keeps it exactly.
pub const SEED_MAX: u64 = (1 << 53) - 1;
/// Most rounds of a run.
pub const ROUNDS_MAX: u64 = 1 << 32;
/// Most inner steps of a unit.
pub const INNER_STEPS_MAX: u64 = 1 << 16;
/// Most units of a round.
pub const UNITS_MAX: u32 = 1 << 14;
/// Most bytes of an encoded recipe.
pub const RECIPE_BYTES_MAX: usize = 64 * 1024;
/// Most parameters of a model that this crate trains: what a `u32` index can name.
pub const PARAMETERS_MAX: u64 = u32::MAX as u64;

/// Everything about a run that is the same for every peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What people call it, 1 to 64 bytes.
    pub name: String,
    /// Seed of the initial parameters, and of the data in runs without a network.
    pub seed: u64,
    /// Rounds until the run is complete.
    pub rounds: u64,
    /// Inner steps of a unit (H).
    pub inner_steps: u64,
    /// Units of a round.
    pub units_per_round: u32,
    /// The shape of the model.
    pub model: Config,
    /// What one inner step of a unit trains on.
    pub batch: BatchShape,
    /// The optimiser inside a unit.
    pub inner: Inner,
    /// How the inner learning rates change over the run.
    pub schedule: Schedule,
    /// What a payload keeps of a pseudo-gradient.
    pub compression: Compression,
    /// The optimiser that applies a round's payloads.
    pub outer: Outer,
    /// How the model is measured.
    pub evaluation: Evaluation,
    /// The arithmetic of every unit, which all peers share; left out when it is the default.
    #[serde(default, skip_serializing_if = "profile::is_default", with = "profile")]
    pub profile: Profile,
    /// How the model is split into stages; none when every peer holds all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Pipeline>,
}

/// How the model is split into stages. A round is then one optimiser step, each unit one micro-batch of it ([`crate::pipeline`]).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Stages, each with as many layers as the others or one more.
    pub stages: usize,
    /// Which numbers of a token travel between them.
    pub space: Space,
    /// How these numbers are written.
    pub precision: Precision,
    /// How small they may become between two stages, when the members of a round find the links between them too slow; none when they may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coarsest: Option<Precision>,
}

impl Pipeline {
    /// How many steps smaller than `precision` the numbers between two stages may become.
    pub fn coarser_max(&self) -> u8 {
        self.coarsest.map_or(0, |coarsest| self.precision.steps_to(coarsest))
    }

    /// The codec, as people write it.
    pub fn codec(&self) -> Codec {
        Codec { space: self.space, precision: self.precision, coarsest: self.coarsest }
    }
}

/// What one inner step of a unit trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchShape {
    /// Sequences.
    pub sequences: usize,
    /// Tokens in each.
    pub tokens: usize,
}

/// The optimiser inside a unit. Its state starts from zero with each unit, which keeps a unit a pure function.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    /// Largest norm of a step's gradient; larger ones are scaled down to it.
    pub clip_norm: f32,
    /// For every tensor that `muon` does not take.
    pub adamw: Adamw,
    /// For the matrices inside the layers, and for the tables if it has a rate for them, when present.
    pub muon: Option<Muon>,
}

/// Settings of AdamW (Loshchilov and Hutter, arXiv:1711.05101).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adamw {
    /// Peak learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay of tensors with two dimensions.
    pub weight_decay: f32,
}

/// Settings of Muon (Jordan et al., 2024): momentum whose update is orthogonalised by Newton–Schulz iterations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Muon {
    /// Peak learning rate; an update has spectral norm near `lr · sqrt(max(1, rows / columns))`.
    pub lr: f32,
    /// Peak learning rate of the embedding and the head; 0 leaves them to AdamW.
    pub table_lr: f32,
    /// Decay of the momentum, which is applied in Nesterov's form.
    pub momentum: f32,
    /// Newton–Schulz iterations.
    pub iterations: u32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// What a payload keeps of a pseudo-gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// Entries of a chunk; the last chunk of a tensor may be shorter.
    pub chunk: u32,
    /// Entries kept of a whole chunk; of a shorter one, in proportion and at least one.
    pub keep: u32,
    /// Decay of the error-feedback residual.
    pub beta: f32,
}

/// The optimiser that applies a round's payloads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outer {
    /// Learning rate, applied once to the aggregated pseudo-gradient.
    pub lr: f32,
    /// Momentum; 0 for none.
    pub momentum: f32,
    /// Whether the momentum is applied in Nesterov's form.
    pub nesterov: bool,
}

/// How the model is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Windows of held-out text, evenly spaced.
    pub windows: usize,
    /// Rounds between two measurements.
    pub every_rounds: u64,
}

/// What is wrong with a recipe.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecipeError {
    /// The model's shape is unsound.
    #[error("recipe: {0}")]
    Model(#[from] ConfigError),
    /// A setting is outside of its range.
    #[error("recipe: `{field}` is {value}, and must be {expected}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The permitted range in words.
        expected: &'static str,
    },
    /// Too little of a pseudo-gradient would ever be sent.
    #[error(
        "recipe: `compression.keep` is {keep} of {chunk} over {rounds} rounds, so an entry is sent {sent:.1} times on average, and must be at least {SENDS_MIN}"
    )]
    TooSparse {
        /// Entries kept.
        keep: u32,
        /// Entries of a chunk.
        chunk: u32,
        /// Rounds.
        rounds: u64,
        /// Density times rounds.
        sent: f64,
    },
    /// The text is not a recipe.
    #[error("recipe: {0}")]
    Syntax(String),
    /// The bytes are a recipe, but not in canonical form.
    #[error("recipe: the bytes are not in canonical form")]
    NotCanonical,
    /// The bytes are longer than any recipe.
    #[error("recipe: {bytes} bytes, and at most {RECIPE_BYTES_MAX} are read")]
    TooLong {
        /// Their number.
        bytes: usize,
    },
}

/// How often an entry must be sent on average over a run (density × rounds).
pub const SENDS_MIN: f64 = 4.0;

impl Recipe {
    /// Reads a recipe as people write it.
    ///
    /// # Errors
    /// The text is not TOML, a field is missing, unknown or out of range.
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        if text.len() > RECIPE_BYTES_MAX {
            return Err(RecipeError::TooLong { bytes: text.len() });
        }
        let recipe: Self = toml::from_str(text).map_err(|error| RecipeError::Syntax(error.message().to_owned()))?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// Writes the recipe as people read it.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field of a recipe is a TOML value")
    }

    /// The canonical bytes, which peers exchange.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("every field of a recipe is a JSON value")
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// The bytes are not a recipe, a setting is out of range, or another encoding of this recipe is the canonical one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecipeError> {
        if bytes.len() > RECIPE_BYTES_MAX {
            return Err(RecipeError::TooLong { bytes: bytes.len() });
        }
        let recipe: Self = serde_json::from_slice(bytes).map_err(|error| RecipeError::Syntax(error.to_string()))?;
        recipe.validate()?;
        if recipe.to_bytes() != bytes {
            return Err(RecipeError::NotCanonical);
        }
        Ok(recipe)
    }

    /// BLAKE3 of the canonical bytes.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// Where the recipe's kernels run: with `threads` threads, in its numeric profile.
    pub fn context(&self, threads: usize) -> Context {
        Context::new(threads).with_profile(self.profile)
    }

    /// The model as one stage.
    ///
    /// # Panics
    /// When the recipe was not validated and its model is unsound.
    pub fn stage(&self) -> Stage {
        Stage::whole(self.model).expect("the recipe was validated")
    }

    /// Where each tensor lies in the flat parameter vector.
    ///
    /// # Panics
    /// When the recipe was not validated and its model is unsound.
    pub fn layout(&self) -> Layout {
        self.stage().layout()
    }

    /// Tokens that one inner step of a unit trains on.
    pub fn step_tokens(&self) -> u64 {
        (self.batch.sequences * self.batch.tokens) as u64
    }

    /// Tokens that one unit trains on.
    pub fn unit_tokens(&self) -> u64 {
        self.step_tokens() * self.inner_steps
    }

    /// Tokens that one round trains on.
    pub fn round_tokens(&self) -> u64 {
        self.unit_tokens() * u64::from(self.units_per_round)
    }

    /// Tokens of the whole run.
    pub fn total_tokens(&self) -> u64 {
        self.round_tokens() * self.rounds
    }

    /// Inner steps of the whole run, which is what the schedule counts.
    pub fn total_steps(&self) -> u64 {
        self.inner_steps * self.rounds
    }

    /// Key of the initial parameters' random numbers.
    pub fn init_seed(&self) -> [u8; 32] {
        blake3::derive_key("cairn v1 initial parameters", &self.seed.to_le_bytes())
    }

    /// Checks every setting and the relations between them.
    ///
    /// # Errors
    /// The first one that is wrong.
    pub fn validate(&self) -> Result<(), RecipeError> {
        self.model.validate()?;
        self.validate_sizes()?;
        self.validate_inner()?;
        self.schedule.validate()?;
        self.validate_compression()?;
        let Outer { lr, momentum, .. } = self.outer;
        positive("outer.lr", lr)?;
        below_one("outer.momentum", momentum)?;
        self.validate_pipeline()
    }

    fn validate_pipeline(&self) -> Result<(), RecipeError> {
        let Some(Pipeline { stages, space, precision, coarsest }) = self.pipeline else { return Ok(()) };
        let coarsest = coarsest.map_or(0.0, |coarsest| f64::from(u8::from(coarsest >= precision)));
        within("pipeline.coarsest", coarsest, 0.0, 0.0, "smaller than pipeline.precision")?;
        within("pipeline.stages", stages as f64, 1.0, self.model.layers as f64, "from 1 to the model's layers")?;
        if self.model.tied_head {
            let expected = "false: the embedding and the head are in different stages";
            return Err(RecipeError::OutOfRange { field: "model.tied_head", value: 1.0, expected });
        }
        within("inner_steps", self.inner_steps as f64, 1.0, 1.0, "1 with a pipeline, whose round is one step")?;
        within("outer.lr", f64::from(self.outer.lr), 1.0, 1.0, "1 with a pipeline, whose step is the optimiser's")?;
        within("outer.momentum", f64::from(self.outer.momentum), 0.0, 0.0, "0 with a pipeline")?;
        let rank = space.columns(self.model.width) as f64;
        within("pipeline.space.rank", rank, 1.0, self.model.width as f64, "from 1 to the model's width")?;
        match space {
            Space::Projector { rate, .. } => {
                within("pipeline.space.rate", f64::from(rate), 0.0, 100.0, "between 0 and 100")
            }
            Space::Full | Space::Subspace { .. } => Ok(()),
        }
    }

    fn validate_sizes(&self) -> Result<(), RecipeError> {
        within("name", self.name.len() as f64, 1.0, 64.0, "1 to 64 bytes long")?;
        within("seed", self.seed as f64, 0.0, SEED_MAX as f64, "below 2^53")?;
        within("rounds", self.rounds as f64, 1.0, ROUNDS_MAX as f64, "1 to 2^32")?;
        within("inner_steps", self.inner_steps as f64, 1.0, INNER_STEPS_MAX as f64, "1 to 65536")?;
        within("units_per_round", f64::from(self.units_per_round), 1.0, f64::from(UNITS_MAX), "1 to 16384")?;
        within("batch.sequences", self.batch.sequences as f64, 1.0, 65_536.0, "1 to 65536")?;
        let context = self.model.context as f64;
        within("batch.tokens", self.batch.tokens as f64, 1.0, context, "from 1 to the model's context")?;
        within("evaluation.windows", self.evaluation.windows as f64, 1.0, 65_536.0, "1 to 65536")?;
        within("evaluation.every_rounds", self.evaluation.every_rounds as f64, 1.0, ROUNDS_MAX as f64, "1 to 2^32")?;
        within("model.parameters", self.model.parameters() as f64, 1.0, PARAMETERS_MAX as f64, "below 2^32")
    }

    fn validate_inner(&self) -> Result<(), RecipeError> {
        positive("inner.clip_norm", self.inner.clip_norm)?;
        let Adamw { lr, beta1, beta2, eps, weight_decay } = self.inner.adamw;
        positive("inner.adamw.lr", lr)?;
        below_one("inner.adamw.beta1", beta1)?;
        below_one("inner.adamw.beta2", beta2)?;
        positive("inner.adamw.eps", eps)?;
        below_one("inner.adamw.weight_decay", weight_decay)?;
        let Some(Muon { lr, table_lr, momentum, iterations, weight_decay }) = self.inner.muon else { return Ok(()) };
        positive("inner.muon.lr", lr)?;
        within("inner.muon.table_lr", f64::from(table_lr), 0.0, 1e6, "from 0 to 1000000")?;
        below_one("inner.muon.momentum", momentum)?;
        within("inner.muon.iterations", f64::from(iterations), 1.0, 16.0, "1 to 16")?;
        below_one("inner.muon.weight_decay", weight_decay)
    }

    fn validate_compression(&self) -> Result<(), RecipeError> {
        let Compression { chunk, keep, beta } = self.compression;
        within("compression.chunk", f64::from(chunk), 1.0, 65_536.0, "1 to 65536")?;
        within("compression.keep", f64::from(keep), 1.0, f64::from(chunk), "from 1 to the chunk's size")?;
        within("compression.beta", f64::from(beta), 0.0, 1.0, "between 0 and 1")?;
        let sent = f64::from(keep) / f64::from(chunk) * self.rounds as f64;
        if sent < SENDS_MIN {
            return Err(RecipeError::TooSparse { keep, chunk, rounds: self.rounds, sent });
        }
        Ok(())
    }
}

/// The number of entries to keep of 4096 so that an entry is sent at least [`SENDS_MIN`] times in a run: a power of two
/// between 64, for long runs, and 4096.
pub fn keep_for_rounds(rounds: u64) -> u32 {
    (6..12).map(|bits| 1u32 << bits).find(|&keep| f64::from(keep) / 4096.0 * rounds as f64 >= SENDS_MIN).unwrap_or(4096)
}

pub(crate) fn within(
    field: &'static str,
    value: f64,
    min: f64,
    max: f64,
    expected: &'static str,
) -> Result<(), RecipeError> {
    match value >= min && value <= max {
        true => Ok(()),
        false => Err(RecipeError::OutOfRange { field, value, expected }),
    }
}

fn positive(field: &'static str, value: f32) -> Result<(), RecipeError> {
    within(field, f64::from(value), f64::MIN_POSITIVE, 1e6, "above 0 and at most 1000000")
}

fn below_one(field: &'static str, value: f32) -> Result<(), RecipeError> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(RecipeError::OutOfRange { field, value: f64::from(value), expected: "at least 0 and below 1" }),
    }
}

#[cfg(test)]
mod tests;

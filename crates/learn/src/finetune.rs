//! Fine-tuning of a pretrained model: all parameters, or low-rank adapters of frozen ones.
//!
//! Purpose: a model of others learns from a person's own text or conversations, on this machine. Sources: AdamW (Loshchilov and
//! Hutter, arXiv:1711.05101), LoRA (Hu et al., arXiv:2106.09685).
//!
//! The result is a function of the model, the data and the [`Settings`] alone: neither threads nor instruction set nor
//! recomputation change a bit of it, and a run that was stopped and resumed ([`saved`]) ends with the bits of one that was not.
//! What it will take is computed before the start ([`budget`]).
//!
//! What it does not do: several epochs of a fixed order for text (windows start at random places), packing of several
//! conversations into one sequence, mixed precision, adapters of quantised parameters.

use model::{Config, ConfigError, Lora, TrainerOptions};
use serde::{Deserialize, Serialize};

use crate::recipe::{Adamw, BatchShape, Inner, RecipeError, SEED_MAX, within};
use crate::schedule::{Decay, Schedule};

pub mod budget;
mod examples;
pub mod saved;
mod tuner;

pub use examples::{Examples, ExamplesError};
pub use tuner::{Taken, Tuner};

/// Most steps of a run.
pub const STEPS_MAX: u64 = 1 << 32;

/// Steps of warm-up, as a fraction of all.
const WARMUP_DIVISOR: u64 = 20;

/// Everything that decides the result besides the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The adapters to train; all parameters without.
    pub lora: Option<Lora>,
    /// Optimiser steps, 1 to [`STEPS_MAX`].
    pub steps: u64,
    /// What one step trains on.
    pub batch: BatchShape,
    /// Peak learning rate of AdamW.
    pub lr: f32,
    /// Seed of the adapters' initial values and of the order of the data.
    pub seed: u64,
}

impl Settings {
    /// A learning rate that suits most models: adapters start from nothing and bear a higher one.
    pub fn usual_lr(adapters: bool) -> f32 {
        if adapters { 2e-4 } else { 2e-5 }
    }

    /// Checks every setting against the model.
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn validate(&self, config: &Config) -> Result<(), SettingsError> {
        self.lora.as_ref().map_or(Ok(()), Lora::validate)?;
        within("steps", self.steps as f64, 1.0, STEPS_MAX as f64, "1 to 2^32")?;
        within("batch.sequences", self.batch.sequences as f64, 1.0, 65_536.0, "1 to 65536")?;
        within("batch.tokens", self.batch.tokens as f64, 2.0, config.context as f64, "from 2 to the model's context")?;
        within("lr", f64::from(self.lr), f64::MIN_POSITIVE, 1.0, "above 0 and at most 1")?;
        Ok(within("seed", self.seed as f64, 0.0, SEED_MAX as f64, "below 2^53")?)
    }

    /// How the trainer computes.
    pub fn options(&self, recompute: bool) -> TrainerOptions {
        TrainerOptions { recompute, lora: self.lora.clone() }
    }

    /// Number of trained values.
    pub fn trained(&self, config: &Config) -> u64 {
        self.lora.as_ref().map_or(config.parameters(), |lora| lora.parameters(config, config.layers))
    }

    /// AdamW as most fine-tuning uses it: without weight decay, gradients clipped to norm 1.
    fn inner(&self) -> Inner {
        let adamw = Adamw { lr: self.lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        Inner { clip_norm: 1.0, adamw, muon: None }
    }

    /// A warm-up over the first twentieth, then a straight line to a tenth of the peak.
    fn schedule(&self) -> Schedule {
        let warmup_steps = (self.steps / WARMUP_DIVISOR).max(1);
        Schedule { warmup_steps, decay_fraction: 1.0, final_fraction: 0.1, decay: Decay::Linear }
    }

    fn key(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.seed.to_le_bytes())
    }
}

/// What is wrong with settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// The adapters are unsound.
    #[error(transparent)]
    Model(#[from] ConfigError),
    /// A setting is out of its range.
    #[error("fine-tuning: `{field}` is {value}, and must be {expected}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The permitted range in words.
        expected: &'static str,
    },
}

impl From<RecipeError> for SettingsError {
    fn from(error: RecipeError) -> Self {
        match error {
            RecipeError::OutOfRange { field, value, expected } => Self::OutOfRange { field, value, expected },
            other => unreachable!("a range was checked: {other}"),
        }
    }
}

/// Training went out of bounds: the loss or the gradient is not finite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fine-tuning diverged at step {step}: the loss or its gradient is not finite")]
pub struct Diverged {
    /// The step, from 1.
    pub step: u64,
}

#[cfg(test)]
mod tests;

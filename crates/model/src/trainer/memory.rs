//! What a trainer will take, computed before it is made.

use super::layer::{Activations, Scratch};
use super::{HEAD_ROWS, TrainerOptions, check_batch};
use crate::config::ConfigError;
use crate::stage::Stage;

/// Bytes that a [`Trainer`](super::Trainer) takes, without the parameters and their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainerMemory {
    /// What the forward keeps for the backward.
    pub activations: u64,
    /// Gradients of activations, which all layers share.
    pub gradients: u64,
    /// The logits that the head holds at once, and the losses.
    pub logits: u64,
    /// Rotary angles, positions and token ids.
    pub tables: u64,
}

impl TrainerMemory {
    /// Computes what a trainer with these arguments takes.
    ///
    /// # Errors
    /// Those of [`Trainer::with_options`](super::Trainer::with_options).
    pub fn of(stage: &Stage, batch: usize, tokens: usize, options: &TrainerOptions) -> Result<Self, ConfigError> {
        let TrainerOptions { recompute, lora } = options;
        let lora = lora.as_ref();
        lora.map_or(Ok(()), |lora| lora.validate())?;
        let (config, rows) = (stage.config(), check_batch(stage, batch, tokens)?);
        let layers = stage.layers().len();
        let kept = if *recompute { 1 } else { layers };
        let streams = (layers + 1 + kept) * config.width;
        let last = if stage.is_last() { config.width + 1 } else { 0 };
        let activations = rows * (streams + kept * Activations::values_per_row(config, lora) + last);
        let gradients = rows * (Scratch::values_per_row(config, lora) + config.width);
        let logits = if stage.is_last() { HEAD_ROWS.min(rows) * config.vocab } else { 0 };
        let losses = if stage.is_last() { rows * size_of::<f64>() } else { 0 };
        let floats = |count: usize| (count * size_of::<f32>()) as u64;
        Ok(Self {
            activations: floats(activations),
            gradients: floats(gradients),
            logits: floats(logits) + losses as u64,
            tables: floats(tokens * config.head_dim + 2 * rows),
        })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.activations + self.gradients + self.logits + self.tables
    }
}

#[cfg(test)]
mod tests {
    use super::super::Trainer;
    use super::*;
    use crate::config::{Attention, Config};
    use crate::lora::{LinearMap, Lora};
    use crate::testing::tiny;

    #[test]
    fn what_is_computed_is_what_is_allocated() {
        let normed = Config { attention: Attention { query_key_norm: true, ..Attention::PLAIN }, ..tiny() };
        let some = Lora { targets: vec![LinearMap::Key, LinearMap::Up], ..Lora::all(5) };
        for (config, lora) in [(tiny(), None), (normed, Some(Lora::all(3))), (tiny(), Some(some))] {
            for recompute in [false, true] {
                let options = TrainerOptions { recompute, lora: lora.clone() };
                let stage = Stage::whole(config).unwrap();
                let memory = TrainerMemory::of(&stage, 3, 7, &options).unwrap();
                let trainer = Trainer::with_options(stage, 3, 7, options).unwrap();
                let streams = trainer.streams.iter().chain(&trainer.middles).map(Vec::len).sum::<usize>();
                let layers: usize = trainer.layers.iter().map(Activations::values).sum();
                let kept = streams + layers + trainer.normed.len() + trainer.inv_rms.len();
                assert_eq!(memory.activations, 4 * kept as u64, "activations, {recompute}, {lora:?}");
                let gradients = trainer.scratch.values() + trainer.dresidual.len();
                assert_eq!(memory.gradients, 4 * gradients as u64, "gradients, {recompute}, {lora:?}");
            }
        }
    }

    #[test]
    fn recomputation_takes_less_in_deep_models() {
        let stage = Stage::whole(Config { layers: 8, ..tiny() }).unwrap();
        let memory = |recompute| TrainerMemory::of(&stage, 4, 16, &TrainerOptions { recompute, lora: None }).unwrap();
        assert!(memory(true).activations * 3 < memory(false).activations);
        assert_eq!(memory(true).gradients, memory(false).gradients);
    }
}

//! The memory that a replica of a stage takes, computed before it starts.
//!
//! Everything that grows with the model or the batch is counted as it will be allocated. A replica has its weights, moments, gradients
//! and activations all the time; paying in, taking the step and storing the state come one after the other, and the largest of
//! them counts.

use model::{ConfigError, Kind, TrainerMemory, TrainerOptions};

use super::shape::StageShape;
use crate::boundary::Space;
use crate::inner::second_len;
use crate::recipe::Recipe;

/// Matrices of the largest tensor's size that a step of Muon holds at once: the momentum's direction, its square, and two products.
const MUON_COPIES: u64 = 4;

/// What the program takes without a model: its code, the endpoint and the database. Measured, as the whole plan was
/// (`docs/performance.md`).
pub const PROGRAM_BYTES: u64 = 64 << 20;

/// What a tokenizer takes for each token of its vocabulary, its file and tables included. An estimate.
pub const TOKENIZER_BYTES: u64 = 1200;

/// Micro-batches whose activations a replica keeps between forward and backward; more are computed again.
pub const STAGE_SLOTS: usize = 4;

/// Messages that a unit has in a member's memory at most: what came and went, and both gradients.
pub const MESSAGES_PER_UNIT: u64 = 4;

/// Bytes that a replica of a stage takes, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageBudget {
    /// The canonical parameters, and those that the layers compute with.
    pub weights: u64,
    /// The optimiser's moments.
    pub optimiser: u64,
    /// The sum of the round's gradients.
    pub gradients: u64,
    /// What micro-batches keep between forward and backward, and the buffers of both.
    pub activations: u64,
    /// Token parts, which subspaces and learned bases need.
    pub token_parts: u64,
    /// Packed operands and scores of the kernels.
    pub kernels: u64,
    /// The end of a round: residual and payload, then the step, then the new state as bytes.
    pub exchange: u64,
}

impl StageBudget {
    /// Computes what a replica with room for the activations of `slots` micro-batches takes, computing with `threads` threads.
    ///
    /// # Errors
    /// The recipe's batch does not suit its model.
    pub fn of(recipe: &Recipe, shape: &StageShape, slots: usize, threads: usize) -> Result<Self, ConfigError> {
        let floats = |count: usize| count as u64 * size_of::<f32>() as u64;
        let (canonical, full) = (shape.layout().len(), shape.full_len());
        let second = second_len(shape.layout().tensors(), recipe.inner);
        let (batch, config) = (recipe.batch, recipe.model);
        let trainer = TrainerMemory::of(shape.stage(), batch.sequences, batch.tokens, &TrainerOptions::default())?;
        // What came and what was made of it, which learned bases need for their gradients.
        let rows = batch.sequences * batch.tokens;
        let boundary = floats(rows * (shape.columns() + config.width));
        let state = floats(2 * canonical + second);
        let largest = |tensor: &model::TensorInfo| if tensor.kind == Kind::Vector { 0 } else { tensor.len() };
        let largest = shape.layout().tensors().iter().map(largest).max().unwrap_or(0);
        let paying_in = floats(3 * canonical);
        let step = floats(canonical) + MUON_COPIES * floats(largest);
        Ok(Self {
            weights: floats(canonical + full),
            optimiser: state - floats(canonical),
            gradients: floats(full),
            activations: slots as u64 * (trainer.total() + boundary),
            token_parts: if shape.space() == Space::Full { 0 } else { floats(config.vocab * config.width) },
            kernels: tensor::scratch_bytes(threads, batch.tokens, config.head_dim),
            exchange: paying_in.max(step).max(2 * state),
        })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { weights, optimiser, gradients, activations, token_parts, kernels, exchange } = *self;
        weights + optimiser + gradients + activations + token_parts + kernels + exchange
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::Precision;

    fn budgets(stages: usize, space: Space) -> Vec<StageBudget> {
        let recipe = Recipe::default_run().in_stages(stages, space, Precision::Int8);
        StageShape::all(&recipe).iter().map(|shape| StageBudget::of(&recipe, shape, 4, 1).unwrap()).collect()
    }

    #[test]
    fn more_stages_take_less_each_and_the_same_in_all() {
        let (two, four) = (budgets(2, Space::Full), budgets(4, Space::Full));
        let most = |all: &[StageBudget]| all.iter().map(StageBudget::total).max().unwrap();
        assert!(most(&four) < most(&two), "{four:?} {two:?}");
        let weights = |all: &[StageBudget]| all.iter().map(|budget| budget.weights).sum::<u64>();
        assert_eq!(weights(&four), weights(&two));
        assert_eq!(
            weights(&two),
            2 * 4 * Recipe::default_run().in_stages(2, Space::Full, Precision::Int8).layout().len() as u64,
            "canonical and computed with"
        );
    }

    #[test]
    fn a_subspace_saves_weights_and_costs_the_table() {
        let (full, factored) = (budgets(3, Space::Full)[1], budgets(3, Space::Subspace { rank: 32 })[1]);
        assert!(factored.weights < full.weights && factored.optimiser < full.optimiser);
        assert_eq!((full.token_parts, factored.gradients), (0, full.gradients));
        let model = Recipe::default_run().model;
        assert_eq!(factored.token_parts, 4 * (model.vocab * model.width) as u64);
    }
}

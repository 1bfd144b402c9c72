//! A unit of work: some inner steps from the round's canonical state.
//!
//! A unit is a pure function of public values (the state, the unit's seed, the recipe, the corpus), so anybody can replay it
//! and must get the same bytes. Everything it touches is committed to: the data by `data_root`, every step by `trace_root`,
//! the result by `output_root`.

use model::Trainer;
use tensor::Context;

use crate::data::{Batch, Batches, Corpus};
use crate::inner::Optimiser;
use crate::recipe::Recipe;

/// What a unit gives.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitOutput {
    /// The pseudo-gradient: parameters at the start minus parameters at the end.
    pub delta: Vec<f32>,
    /// Mean loss over the unit's tokens, nats per token.
    pub mean_loss: f64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Root of the batches.
    pub data_root: [u8; 32],
    /// Root of the steps: for each its number, loss, gradient norm and the parameters after it.
    pub trace_root: [u8; 32],
    /// Root of the pseudo-gradient.
    pub output_root: [u8; 32],
}

/// Why a unit gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The caller asked to stop.
    #[error("unit: cancelled")]
    Cancelled,
    /// The loss or the gradient is not finite: the recipe's learning rates are too high.
    #[error("unit: training diverged at step {step}")]
    Diverged {
        /// The inner step of the run.
        step: u64,
    },
}

/// The seed of a unit in a run without a network; with one it is the unit's id.
pub fn local_seed(recipe: &Recipe, round: u64, index: u32) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("cairn v1 local unit seed");
    for number in [recipe.seed, round, u64::from(index)] {
        hasher.update(&number.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Trains a unit from `theta`. `first_step` is the inner step of the run that it starts with (round × H); `cancel` is asked
/// before each step.
///
/// # Errors
/// Cancelled, or training diverged.
///
/// # Panics
/// When `theta` does not belong to the recipe's model, or the corpus is too small for the recipe
/// ([`Corpus::check_recipe`]).
pub fn train(
    ctx: &Context,
    recipe: &Recipe,
    corpus: &Corpus,
    theta: &[f32],
    unit_seed: [u8; 32],
    first_step: u64,
    cancel: &dyn Fn() -> bool,
) -> Result<UnitOutput, UnitError> {
    let mut optimiser = Optimiser::new(&recipe.layout(), recipe.inner);
    train_with(ctx, recipe, corpus, theta, unit_seed, first_step, cancel, &mut optimiser)
}

/// As [`train`], with an optimiser whose state the caller keeps: for measuring what the restart of the state costs.
///
/// # Errors
/// As [`train`].
#[allow(clippy::too_many_arguments)]
pub fn train_with(
    ctx: &Context,
    recipe: &Recipe,
    corpus: &Corpus,
    theta: &[f32],
    unit_seed: [u8; 32],
    first_step: u64,
    cancel: &dyn Fn() -> bool,
    optimiser: &mut Optimiser,
) -> Result<UnitOutput, UnitError> {
    let mut stepper = Stepper::new(recipe, recipe.batch.sequences);
    let mut batches = Batches::new(corpus, recipe.batch, unit_seed);
    let mut params = theta.to_vec();
    let mut trace = blake3::Hasher::new_derive_key("cairn v1 unit trace");
    let mut loss_sum = 0.0;
    for step in first_step..first_step + recipe.inner_steps {
        if cancel() {
            return Err(UnitError::Cancelled);
        }
        let taken = stepper.step(ctx, recipe, &batches.draw(), step, &mut params, optimiser)?;
        loss_sum += taken.loss;
        trace.update(&step.to_le_bytes());
        trace.update(&taken.loss.to_bits().to_le_bytes());
        trace.update(&taken.gradient_norm.to_bits().to_le_bytes());
        trace.update(&tensor::slice_root(&params));
    }
    let delta: Vec<f32> = theta.iter().zip(&params).map(|(before, after)| before - after).collect();
    Ok(UnitOutput {
        mean_loss: loss_sum / recipe.inner_steps as f64,
        tokens: recipe.unit_tokens(),
        data_root: batches.root(),
        trace_root: *trace.finalize().as_bytes(),
        output_root: tensor::slice_root(&delta),
        delta,
    })
}

/// The mean of several units' pseudo-gradients, which have equal numbers of tokens: what a peer with several units sends.
///
/// # Panics
/// Without units, or when their lengths differ.
pub fn mean_delta(deltas: &[&[f32]]) -> Vec<f32> {
    let mut mean = deltas.first().expect("a peer sends after at least one unit").to_vec();
    for delta in &deltas[1..] {
        assert_eq!(mean.len(), delta.len(), "pseudo-gradients of different models");
        mean.iter_mut().zip(*delta).for_each(|(sum, d)| *sum += d);
    }
    if deltas.len() > 1 {
        let factor = 1.0 / deltas.len() as f32;
        mean.iter_mut().for_each(|sum| *sum *= factor);
    }
    mean
}

/// What one inner step measured.
pub(crate) struct Taken {
    pub(crate) loss: f64,
    pub(crate) gradient_norm: f64,
}

/// Takes inner steps; owns the activations and the gradients.
pub(crate) struct Stepper {
    trainer: Trainer,
    grads: Vec<f32>,
}

impl Stepper {
    pub(crate) fn new(recipe: &Recipe, sequences: usize) -> Self {
        let trainer = Trainer::new(recipe.stage(), sequences, recipe.batch.tokens)
            .expect("the recipe's batch was checked against its context");
        let grads = vec![0.0; trainer.layout().len()];
        Self { trainer, grads }
    }

    pub(crate) fn step(
        &mut self,
        ctx: &Context,
        recipe: &Recipe,
        batch: &Batch,
        step: u64,
        params: &mut [f32],
        optimiser: &mut Optimiser,
    ) -> Result<Taken, UnitError> {
        assert_eq!(ctx.profile(), recipe.profile, "the arithmetic of this recipe");
        self.grads.fill(0.0);
        let loss = self.trainer.loss_and_grads(ctx, params, &batch.tokens, &batch.targets, &mut self.grads);
        let rate = recipe.schedule.factor(step, recipe.total_steps());
        let gradient_norm = optimiser.step(ctx, params, &mut self.grads, rate);
        match loss.is_finite() && gradient_norm.is_finite() {
            true => Ok(Taken { loss, gradient_norm }),
            false => Err(UnitError::Diverged { step }),
        }
    }
}

//! The steps of a fine-tuning run, and its measurements.

use model::{AdapterLayout, Config, ConfigError, Stage, Trainer};
use tensor::Context;

use super::{Diverged, Settings};
use crate::data::Batch;
use crate::inner::Optimiser;

/// What one step measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Mean loss over the tokens that count, nats per token.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// A run of fine-tuning: the model, what is trained of it, and the optimiser's state.
#[derive(Debug)]
pub struct Tuner {
    settings: Settings,
    trainer: Trainer,
    /// The model's parameters: trained, or frozen under the adapters.
    params: Vec<f32>,
    /// The adapters; empty when all parameters are trained.
    adapters: Vec<f32>,
    grads: Vec<f32>,
    optimiser: Optimiser,
    steps: u64,
}

impl Tuner {
    /// Prepares the first step. `recompute` trades time for memory and changes no bit.
    ///
    /// # Errors
    /// The batch or the adapters do not suit the model.
    ///
    /// # Panics
    /// When the parameters are not as many as the model has.
    pub fn new(config: Config, params: Vec<f32>, settings: Settings, recompute: bool) -> Result<Self, ConfigError> {
        let stage = Stage::whole(config)?;
        let batch = settings.batch;
        let trainer = Trainer::with_options(stage, batch.sequences, batch.tokens, settings.options(recompute))?;
        assert_eq!(params.len(), trainer.layout().len(), "parameters of another model");
        let seed = settings.key("cairn v1 initial adapters");
        let adapters = trainer.adapters().map_or(Vec::new(), |layout| layout.init(seed));
        let tensors = trainer.adapters().map_or(trainer.layout().tensors(), AdapterLayout::tensors);
        let optimiser = Optimiser::of_tensors(tensors, settings.inner());
        let trained = if trainer.adapters().is_some() { adapters.len() } else { params.len() };
        Ok(Self { grads: vec![0.0; trained], settings, trainer, params, adapters, optimiser, steps: 0 })
    }

    /// What decides the result.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Steps that were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What is trained: the adapters, or all parameters.
    pub fn trained(&self) -> &[f32] {
        if self.adapters.is_empty() { &self.params } else { &self.adapters }
    }

    /// The first and the second moments of what is trained.
    pub(super) fn moments(&self) -> [&[f32]; 2] {
        self.optimiser.moments()
    }

    /// The vectors that a saved run restores: what is trained and its moments.
    pub(super) fn restore(&mut self, steps: u64) -> [&mut [f32]; 3] {
        self.steps = steps;
        let values = if self.adapters.is_empty() { &mut self.params } else { &mut self.adapters };
        let [first, second] = self.optimiser.restore(steps);
        [values, first, second]
    }

    /// Takes one step.
    ///
    /// # Errors
    /// The loss or the gradient is not finite.
    ///
    /// # Panics
    /// When all steps were taken, or the batch has another shape than the settings.
    pub fn step(&mut self, ctx: &Context, batch: &Batch) -> Result<Taken, Diverged> {
        assert!(self.steps < self.settings.steps, "all {} steps were taken", self.steps);
        let Self { trainer, params, adapters, grads, optimiser, .. } = self;
        grads.fill(0.0);
        let (tokens, targets) = (&batch.tokens[..], &batch.targets[..]);
        let loss = match adapters.is_empty() {
            true => trainer.loss_and_grads(ctx, params, tokens, targets, grads),
            false => trainer.adapted_loss_and_grads(ctx, params, adapters, tokens, targets, grads),
        };
        let rate = self.settings.schedule().factor(self.steps, self.settings.steps);
        let values = if adapters.is_empty() { params } else { adapters };
        let gradient_norm = optimiser.step(ctx, values, grads, rate);
        self.steps += 1;
        match loss.is_finite() && gradient_norm.is_finite() {
            true => Ok(Taken { loss, gradient_norm }),
            false => Err(Diverged { step: self.steps }),
        }
    }

    /// Mean loss in nats over the tokens that count in all batches; 0 when none does.
    pub fn evaluate(&mut self, ctx: &Context, batches: &[Batch]) -> f64 {
        let (mut sum, mut count) = (0.0, 0usize);
        for batch in batches {
            let (tokens, targets) = (&batch.tokens[..], &batch.targets[..]);
            let loss = match self.adapters.is_empty() {
                true => self.trainer.loss(ctx, &self.params, tokens, targets),
                false => self.trainer.adapted_loss(ctx, &self.params, &self.adapters, tokens, targets),
            };
            let counted = batch.counted();
            sum += loss * counted as f64;
            count += counted;
        }
        if count == 0 { 0.0 } else { sum / count as f64 }
    }

    /// Ends the run: the model's parameters with what was trained, and the adapters alone with their layout.
    pub fn finish(self, ctx: &Context) -> (Vec<f32>, Option<(AdapterLayout, Vec<f32>)>) {
        let Self { trainer, mut params, adapters, grads, optimiser, .. } = self;
        drop((grads, optimiser));
        let (stage, layout) = (trainer.stage().clone(), trainer.adapters().cloned());
        drop(trainer);
        let Some(layout) = layout else { return (params, None) };
        layout.merge(ctx, &stage, &mut params, &adapters);
        (params, Some((layout, adapters)))
    }
}

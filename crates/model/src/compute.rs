//! One stage on one device: what a pipeline asks of whatever computes it.
//!
//! The boundary is a whole stage and never a single tensor operation, so a device may lay out and fuse its work as it likes.
//! Deviation from the list in the architecture: `step` is given its optimiser by the caller, because this crate knows none;
//! and `load` is [`StageCompute::import`] into a fresh stage.

use tensor::Context;

use crate::config::ConfigError;
use crate::stage::{Layout, Stage};
use crate::trainer::{BackwardOutput, StageGradient, StageInput, Trainer};

/// A stage that holds its parameters and gradients, wherever it computes.
///
/// Micro-batches go through one at a time: each backward belongs to the last forward.
pub trait StageCompute: Send {
    /// The stage.
    fn stage(&self) -> &Stage;

    /// The layout of the parameters and of the gradients.
    fn layout(&self) -> &Layout;

    /// Takes parameters and sets the gradients to zero.
    ///
    /// # Errors
    /// The parameters are not as many as the layout has.
    fn import(&mut self, params: &[f32]) -> Result<(), ConfigError>;

    /// Appends the parameters to `params`.
    fn export(&self, params: &mut Vec<f32>);

    /// Runs a micro-batch and returns the stage's output, as [`Trainer::forward`].
    fn forward(&mut self, input: StageInput<'_>) -> &[f32];

    /// Adds the gradients of the last forward's micro-batch to the stage's own, as [`Trainer::backward`].
    fn backward(&mut self, from: StageGradient<'_>) -> BackwardOutput<'_>;

    /// Lets `update` change the parameters by the gradients, then sets the gradients to zero.
    fn step(&mut self, update: &mut dyn FnMut(&mut [f32], &[f32]));
}

/// A stage on the CPU.
#[derive(Debug)]
pub struct CpuStage {
    ctx: Context,
    trainer: Trainer,
    params: Vec<f32>,
    grads: Vec<f32>,
}

impl CpuStage {
    /// Makes a stage for steps of `micro_batches` micro-batches of up to `batch` sequences of `tokens` tokens. All
    /// parameters are 0 until the first import.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    ///
    /// # Panics
    /// When `micro_batches` is 0.
    pub fn new(
        ctx: Context,
        stage: Stage,
        micro_batches: usize,
        batch: usize,
        tokens: usize,
    ) -> Result<Self, ConfigError> {
        let mut trainer = Trainer::new(stage, batch, tokens)?;
        trainer.set_micro_batches(micro_batches);
        let len = trainer.layout().len();
        Ok(Self { ctx, trainer, params: vec![0.0; len], grads: vec![0.0; len] })
    }
}

impl StageCompute for CpuStage {
    fn stage(&self) -> &Stage {
        self.trainer.stage()
    }

    fn layout(&self) -> &Layout {
        self.trainer.layout()
    }

    fn import(&mut self, params: &[f32]) -> Result<(), ConfigError> {
        if params.len() != self.params.len() {
            return Err(ConfigError::WrongParameters { expected: self.params.len(), got: params.len() });
        }
        self.params.copy_from_slice(params);
        self.grads.fill(0.0);
        Ok(())
    }

    fn export(&self, params: &mut Vec<f32>) {
        params.extend_from_slice(&self.params);
    }

    fn forward(&mut self, input: StageInput<'_>) -> &[f32] {
        self.trainer.forward(&self.ctx, &self.params, input)
    }

    fn backward(&mut self, from: StageGradient<'_>) -> BackwardOutput<'_> {
        self.trainer.backward(&self.ctx, &self.params, &mut self.grads, from)
    }

    fn step(&mut self, update: &mut dyn FnMut(&mut [f32], &[f32])) {
        update(&mut self.params, &self.grads);
        self.grads.fill(0.0);
    }
}

//! The trainer of adapters: the parameters are frozen and have no gradients.

use tensor::Context;

use super::{Parameters, StageInput, Trainer};
use crate::lora::AdapterLayout;

/// For trainers that were made with adapters, of models of one stage.
impl Trainer {
    /// The layout of the adapters and of their gradients, when those are trained.
    pub fn adapters(&self) -> Option<&AdapterLayout> {
        self.adapters.as_ref()
    }

    /// Computes the mean loss of a micro-batch in nats per token and adds the gradients of the adapters to `grads`.
    ///
    /// # Panics
    /// As [`Trainer::loss_and_grads`], with the adapters' layout for `adapters` and `grads`; and without adapters.
    pub fn adapted_loss_and_grads(
        &mut self,
        ctx: &Context,
        params: &[f32],
        adapters: &[f32],
        tokens: &[u32],
        targets: &[u32],
        grads: &mut [f32],
    ) -> f64 {
        assert!(self.adapters.is_some(), "a trainer without adapters");
        self.run_loss_and_grads(ctx, Parameters { params, adapters }, tokens, targets, grads)
    }

    /// Computes the mean loss of a micro-batch in nats per token, with the bits of [`Trainer::adapted_loss_and_grads`].
    ///
    /// # Panics
    /// As [`Trainer::loss`], and when `adapters` has another length than the layout.
    pub fn adapted_loss(
        &mut self,
        ctx: &Context,
        params: &[f32],
        adapters: &[f32],
        tokens: &[u32],
        targets: &[u32],
    ) -> f64 {
        self.run_loss(ctx, Parameters { params, adapters }, StageInput::Tokens(tokens), targets)
    }

    /// Computes the logits `[sequences · tokens, vocab]` of a micro-batch.
    ///
    /// # Panics
    /// As [`Trainer::logits`], and when `adapters` has another length than the layout.
    pub fn adapted_logits(&mut self, ctx: &Context, params: &[f32], adapters: &[f32], tokens: &[u32]) -> Vec<f32> {
        self.run_logits(ctx, Parameters { params, adapters }, tokens)
    }
}

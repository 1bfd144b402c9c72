//! One micro-batch in one stage: forward and backward from bytes to bytes.

use std::borrow::Cow;

use model::{StageGradient, StageInput, Trainer};
use tensor::Context;

use super::shape::{StageShape, TokenParts};
use super::state::StageState;
use crate::boundary::{
    BoundaryError, GRADIENT_MAX, HIDDEN_MAX, Precision, Projection, Rounding, Space, decode, encode,
};
use crate::data::{Batches, Corpus};
use crate::recipe::Recipe;

/// What a unit trains on: a function of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// The unit's id.
    pub unit: [u8; 32],
    /// Token ids, `[sequences, tokens]`.
    pub tokens: Vec<u32>,
    /// The token that follows each of them.
    pub targets: Vec<u32>,
    /// Root of the data.
    pub data_root: [u8; 32],
}

impl MicroBatch {
    /// Derives the micro-batch of a unit. Every stage can: token ids do not travel.
    ///
    /// # Panics
    /// When the corpus is too small for the recipe ([`Corpus::check_recipe`]).
    pub fn derive(recipe: &Recipe, corpus: &Corpus, unit: [u8; 32]) -> Self {
        let mut batches = Batches::new(corpus, recipe.batch, unit);
        let batch = batches.draw();
        Self { unit, tokens: batch.tokens, targets: batch.targets, data_root: batches.root() }
    }

    /// The key of the stochastic rounding of this micro-batch's gradient at a boundary.
    fn rounding(&self, boundary: usize) -> Rounding {
        let mut hasher = blake3::Hasher::new_derive_key("cairn v1 boundary gradient");
        hasher.update(&self.unit).update(&(boundary as u64).to_le_bytes());
        Rounding::Stochastic(*hasher.finalize().as_bytes())
    }
}

/// What the last stage makes of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Mean loss, nats per token.
    pub loss: f64,
    /// The gradient for the stage before; none when this stage is the first too.
    pub gradient: Option<Vec<u8>>,
}

/// What a replica adds to a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    /// Mean gradient over the micro-batches, in the layout of the canonical parameters.
    pub gradient: Vec<f32>,
    /// Micro-batches.
    pub micro_batches: u64,
}

/// A replica of a stage: the weights of a round, the activations of some micro-batches, and the gradients so far.
#[derive(Debug)]
pub struct StageWorker {
    ctx: Context,
    shape: StageShape,
    parts: TokenParts,
    slots: Vec<Slot>,
    /// Forwards so far, which tell the age of what a slot holds.
    forwards: u64,
    params: Vec<f32>,
    grads: Vec<f32>,
    /// The bases before and after, and the gradients of the learned ones.
    before: Option<Basis>,
    after: Option<Basis>,
    micro_batches: u64,
}

/// Room for one micro-batch's activations.
#[derive(Debug)]
struct Slot {
    trainer: Trainer,
    /// The unit whose activations it holds.
    unit: Option<[u8; 32]>,
    /// When it took them.
    since: u64,
    /// The coordinates that came, when a learned basis needs them.
    received: Vec<f32>,
    /// The hidden states that were made of them; none in the last stage.
    made: Vec<f32>,
}

/// What was added up before something that is not counted.
struct Sums {
    grads: Vec<f32>,
    before: Option<Vec<f32>>,
    after: Option<Vec<f32>>,
    micro_batches: u64,
}

#[derive(Debug)]
struct Basis {
    boundary: usize,
    values: Vec<f32>,
    gradient: Vec<f32>,
}

impl StageWorker {
    /// Makes a replica with the weights of `state` and room for the activations of `slots` micro-batches. What is given up for want of room
    /// is computed again.
    ///
    /// # Panics
    /// When the recipe was not validated, the context has another profile, the state is another stage's, or there are no slots.
    pub fn new(
        ctx: Context,
        recipe: &Recipe,
        shape: StageShape,
        parts: TokenParts,
        state: &StageState,
        slots: usize,
    ) -> Self {
        assert!(slots > 0, "a replica has room for a micro-batch");
        assert_eq!(ctx.profile(), recipe.profile, "the arithmetic of this recipe");
        let slot = |_| {
            let trainer = Trainer::new(shape.stage().clone(), recipe.batch.sequences, recipe.batch.tokens)
                .expect("the recipe's batch was checked against its context");
            Slot { trainer, unit: None, since: 0, received: Vec::new(), made: Vec::new() }
        };
        let mut worker = Self {
            before: None,
            after: None,
            params: Vec::new(),
            grads: vec![0.0; shape.full_len()],
            micro_batches: 0,
            forwards: 0,
            slots: (0..slots).map(slot).collect(),
            ctx,
            shape,
            parts,
        };
        worker.load(state);
        worker
    }

    /// Takes the weights of another round, and forgets gradients and activations.
    ///
    /// # Panics
    /// When the state is another stage's.
    pub fn load(&mut self, state: &StageState) {
        assert_eq!(state.theta.len(), self.shape.layout().len(), "the state of another stage");
        self.params = self.shape.expand(&self.ctx, &state.theta, &self.parts);
        let basis = |boundary: Option<usize>| {
            let boundary = boundary?;
            let learned = self.shape.basis(boundary).map(|range| state.theta[range].to_vec());
            let values = learned.or_else(|| self.shape.frozen_basis().map(<[f32]>::to_vec))?;
            Some(Basis { boundary, gradient: vec![0.0; values.len()], values })
        };
        (self.before, self.after) = (basis(self.shape.boundary_before()), basis(self.shape.boundary_after()));
        self.clear();
    }

    /// Forgets gradients and activations.
    pub fn clear(&mut self) {
        self.grads.fill(0.0);
        for basis in [&mut self.before, &mut self.after].into_iter().flatten() {
            basis.gradient.fill(0.0);
        }
        self.micro_batches = 0;
        self.slots.iter_mut().for_each(|slot| slot.unit = None);
    }

    /// The stage.
    pub fn shape(&self) -> &StageShape {
        &self.shape
    }

    /// Runs a micro-batch and keeps its activations; returns what the next stage needs. `input` is what the stage before sent, none for
    /// the first stage.
    ///
    /// # Errors
    /// [`BoundaryError`] when the input is not what a stage sends, or the output is not finite.
    ///
    /// # Panics
    /// In the last stage, whose forward is [`StageWorker::turn`], and when there is an input in the first stage or none in another.
    pub fn forward(
        &mut self,
        batch: &MicroBatch,
        input: Option<&[u8]>,
        precision: Precision,
    ) -> Result<Vec<u8>, BoundaryError> {
        assert!(!self.shape.is_last(), "the last stage sends no hidden states");
        let slot = self.run_forward(batch, input)?;
        let made = &self.slots[slot].made;
        match self.projection(&self.after) {
            None => encode(precision, made, self.shape.columns(), Rounding::Nearest, HIDDEN_MAX),
            Some(projection) => {
                let coordinates = projection.coordinates(&self.ctx, made, &batch.tokens);
                encode(precision, &coordinates, self.shape.columns(), Rounding::Nearest, HIDDEN_MAX)
            }
        }
    }

    /// Runs a micro-batch through the last stage and back; returns the loss and what the stage before needs. Its gradients are added up if
    /// it is `counted`. A gradient beyond what may travel is cut to it.
    ///
    /// # Errors
    /// As [`StageWorker::forward`].
    ///
    /// # Panics
    /// In another stage than the last, and as [`StageWorker::forward`].
    pub fn turn(
        &mut self,
        batch: &MicroBatch,
        input: Option<&[u8]>,
        precision: Precision,
        counted: bool,
    ) -> Result<Turn, BoundaryError> {
        assert!(self.shape.is_last(), "only the last stage has a loss");
        let slot = self.run_forward(batch, input)?;
        let kept = self.set_sums_aside(counted);
        let from = StageGradient::Targets(&batch.targets);
        let output = self.slots[slot].trainer.backward(&self.ctx, &self.params, &mut self.grads, from);
        let loss = output.loss.expect("the last stage has a loss");
        let gradient = output.input.map(<[f32]>::to_vec);
        let gradient = self.finish_backward(batch, slot, gradient, precision);
        self.take_sums_up(kept);
        Ok(Turn { loss, gradient: gradient? })
    }

    /// Runs a micro-batch back from what the stage after sent; returns what the stage before needs, none in the first stage. Its gradients
    /// are added up if it is `counted`. Activations that were given up for another micro-batch are computed again from `input`: the bits
    /// are the same.
    ///
    /// # Errors
    /// As [`StageWorker::forward`].
    ///
    /// # Panics
    /// In the last stage, and as [`StageWorker::forward`].
    pub fn backward(
        &mut self,
        batch: &MicroBatch,
        input: Option<&[u8]>,
        gradient: &[u8],
        precision: Precision,
        counted: bool,
    ) -> Result<Option<Vec<u8>>, BoundaryError> {
        assert!(!self.shape.is_last(), "the last stage gets no gradient");
        let coordinates = decode(gradient, batch.tokens.len(), self.shape.columns(), GRADIENT_MAX)?;
        let slot = match self.slots.iter().position(|slot| slot.unit == Some(batch.unit)) {
            Some(slot) => slot,
            None => self.run_forward(batch, input)?,
        };
        let kept = self.set_sums_aside(counted);
        let hidden = match self.projection(&self.after) {
            Some(projection) => Cow::Owned(projection.gradient(&self.ctx, &coordinates)),
            None => Cow::Borrowed(&coordinates[..]),
        };
        if let (Space::Projector { .. }, Some(after)) = (self.shape.space(), &mut self.after) {
            let projection = self.shape.projection(&self.parts, &after.values);
            let made = &self.slots[slot].made;
            projection.add_sender_half(&self.ctx, made, &batch.tokens, &coordinates, &mut after.gradient);
        }
        let from = StageGradient::Hidden(&hidden);
        let output = self.slots[slot].trainer.backward(&self.ctx, &self.params, &mut self.grads, from);
        let gradient = output.input.map(<[f32]>::to_vec);
        let gradient = self.finish_backward(batch, slot, gradient, precision);
        self.take_sums_up(kept);
        gradient
    }

    /// The mean loss of a micro-batch in the last stage, nats per token, without a backward.
    ///
    /// # Errors
    /// As [`StageWorker::forward`].
    ///
    /// # Panics
    /// As [`StageWorker::turn`].
    pub fn loss(&mut self, batch: &MicroBatch, input: Option<&[u8]>) -> Result<f64, BoundaryError> {
        assert!(self.shape.is_last(), "only the last stage has a loss");
        let (_, hidden) = self.receive(batch, input)?;
        let slot = self.room();
        let input = stage_input(&self.shape, batch, &hidden);
        Ok(self.slots[slot].trainer.stage_loss(&self.ctx, &self.params, input, &batch.targets))
    }

    /// The parameters of the stage's layers, as they would be in the whole model.
    pub fn parameters(&self) -> &[f32] {
        &self.params
    }

    /// The mean gradient of what was taken since the last [`StageWorker::load`] or [`StageWorker::clear`]; none without micro-batches.
    pub fn contribution(&self) -> Option<Contribution> {
        if self.micro_batches == 0 {
            return None;
        }
        let mut gradient = self.shape.factor(&self.ctx, &self.grads);
        gradient.truncate(self.shape.layout().len());
        for basis in [&self.before, &self.after].into_iter().flatten() {
            if let Some(range) = self.shape.basis(basis.boundary) {
                gradient.resize(range.end, 0.0);
                gradient[range].copy_from_slice(&basis.gradient);
            }
        }
        tensor::scale(&self.ctx, 1.0 / self.micro_batches as f32, &mut gradient);
        Some(Contribution { gradient, micro_batches: self.micro_batches })
    }

    fn projection<'a>(&'a self, basis: &'a Option<Basis>) -> Option<Projection<'a>> {
        basis.as_ref().map(|basis| self.shape.projection(&self.parts, &basis.values))
    }

    /// The sums so far, when what follows is not to be added to them.
    fn set_sums_aside(&mut self, counted: bool) -> Option<Sums> {
        if counted {
            return None;
        }
        let empty = |values: &mut Vec<f32>| {
            let zeros = vec![0.0; values.len()];
            std::mem::replace(values, zeros)
        };
        let before = self.before.as_mut().map(|basis| empty(&mut basis.gradient));
        let after = self.after.as_mut().map(|basis| empty(&mut basis.gradient));
        Some(Sums { grads: empty(&mut self.grads), before, after, micro_batches: self.micro_batches })
    }

    fn take_sums_up(&mut self, kept: Option<Sums>) {
        let Some(Sums { grads, before, after, micro_batches }) = kept else { return };
        (self.grads, self.micro_batches) = (grads, micro_batches);
        for (basis, gradient) in [(&mut self.before, before), (&mut self.after, after)] {
            if let (Some(basis), Some(gradient)) = (basis, gradient) {
                basis.gradient = gradient;
            }
        }
    }

    /// The coordinates in a message, if they are not the hidden states themselves, and these; none in the first stage.
    fn receive(&self, batch: &MicroBatch, input: Option<&[u8]>) -> Result<(Vec<f32>, Vec<f32>), BoundaryError> {
        let first = self.shape.is_first();
        assert_eq!(input.is_none(), first, "the first stage starts from tokens, and the others from a message");
        let Some(bytes) = input else { return Ok((Vec::new(), Vec::new())) };
        let received = decode(bytes, batch.tokens.len(), self.shape.columns(), HIDDEN_MAX)?;
        let hidden = match self.projection(&self.before) {
            Some(projection) => projection.hidden(&self.ctx, &received, &batch.tokens),
            None => return Ok((Vec::new(), received)),
        };
        Ok((received, hidden))
    }

    /// The slot for another micro-batch: an empty one, or the one whose activations are the oldest, which are given up.
    fn room(&mut self) -> usize {
        let oldest = |slot: &usize| (self.slots[*slot].unit.is_some(), self.slots[*slot].since);
        let slot = (0..self.slots.len()).min_by_key(oldest).expect("there is a slot");
        self.slots[slot].unit = None;
        slot
    }

    /// Runs a micro-batch through the layers; returns the slot that holds its activations.
    fn run_forward(&mut self, batch: &MicroBatch, input: Option<&[u8]>) -> Result<usize, BoundaryError> {
        let (received, hidden) = self.receive(batch, input)?;
        let held = self.slots.iter().position(|slot| slot.unit == Some(batch.unit));
        let place = held.unwrap_or_else(|| self.room());
        self.forwards += 1;
        let slot = &mut self.slots[place];
        let made = slot.trainer.forward(&self.ctx, &self.params, stage_input(&self.shape, batch, &hidden));
        if !self.shape.is_last() {
            slot.made.clear();
            slot.made.extend_from_slice(made);
        }
        (slot.unit, slot.since, slot.received) = (Some(batch.unit), self.forwards, received);
        Ok(place)
    }

    fn finish_backward(
        &mut self,
        batch: &MicroBatch,
        slot: usize,
        gradient: Option<Vec<f32>>,
        precision: Precision,
    ) -> Result<Option<Vec<u8>>, BoundaryError> {
        self.slots[slot].unit = None;
        self.micro_batches += 1;
        let (Some(gradient), Some(boundary)) = (gradient, self.shape.boundary_before()) else { return Ok(None) };
        let mut coordinates = match &mut self.before {
            None => gradient,
            Some(before) => {
                let projection = self.shape.projection(&self.parts, &before.values);
                if let Space::Projector { .. } = self.shape.space() {
                    let received = &self.slots[slot].received;
                    projection.add_receiver_half(&self.ctx, &gradient, received, &mut before.gradient);
                }
                projection.gradient_coordinates(&self.ctx, &gradient)
            }
        };
        // An odd input can have a steep gradient; it is cut, so that it is never the next stage's fault.
        let limit = GRADIENT_MAX as f32;
        coordinates.iter_mut().for_each(|value| *value = value.clamp(-limit, limit));
        encode(precision, &coordinates, self.shape.columns(), batch.rounding(boundary), GRADIENT_MAX).map(Some)
    }
}

fn stage_input<'a>(shape: &StageShape, batch: &'a MicroBatch, hidden: &'a [f32]) -> StageInput<'a> {
    match shape.is_first() {
        true => StageInput::Tokens(&batch.tokens),
        false => StageInput::Hidden(hidden),
    }
}

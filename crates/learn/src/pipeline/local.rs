//! All stages and replicas in one process, without a network: the arithmetic of a network run, for measuring and testing.

use tensor::Context;

use super::shape::StageShape;
use super::state::StageState;
use super::step::{Neighbours, apply, step};
use super::worker::{Contribution, MicroBatch, StageWorker};
use crate::boundary::{BoundaryError, Precision};
use crate::data::{Corpus, evaluation_windows};
use crate::evaluation;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::sparseloco::{self, SparsePayload};
use crate::unit::{UnitError, local_seed};

/// What a local pipeline is like besides its recipe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Replicas of each stage; micro-batch `u` goes to replica `u mod replicas`.
    pub replicas: usize,
    /// Whether gradients are compressed as payloads are; otherwise they are added up as they are.
    pub compressed: bool,
    /// How hidden states are written.
    pub forward: Precision,
    /// How their gradients are written.
    pub backward: Precision,
}

impl Setting {
    /// One replica, nothing compressed, everything exact.
    pub const EXACT: Self = Self { replicas: 1, compressed: false, forward: Precision::F32, backward: Precision::F32 };
}

/// A model in stages in one process; an iterator over its rounds.
#[derive(Debug)]
pub struct LocalPipeline<'a> {
    ctx: Context,
    recipe: &'a Recipe,
    corpus: &'a Corpus,
    setting: Setting,
    workers: Vec<StageWorker>,
    states: Vec<StageState>,
    /// By stage, then by replica.
    residuals: Vec<Vec<Vec<f32>>>,
    boundary_bytes: u64,
}

impl<'a> LocalPipeline<'a> {
    /// Starts from the recipe's initial state.
    ///
    /// # Panics
    /// When the recipe was not validated, the corpus is too small for it, or there are no replicas.
    pub fn new(ctx: Context, recipe: &'a Recipe, corpus: &'a Corpus, setting: Setting) -> Self {
        assert!(setting.replicas > 0, "a stage has at least one replica");
        let shapes = StageShape::all(recipe);
        let parts = shapes[0].token_parts();
        let states: Vec<StageState> = shapes.iter().map(|shape| StageState::genesis(&ctx, recipe, shape)).collect();
        let residual = |shape: &StageShape| vec![vec![0.0; shape.layout().len()]; setting.replicas];
        let residuals = shapes.iter().map(residual).collect();
        let worker = |(shape, state)| StageWorker::new(ctx.clone(), recipe, shape, parts.clone(), state, 1);
        let workers = shapes.into_iter().zip(&states).map(worker).collect();
        Self { ctx, recipe, corpus, setting, workers, states, residuals, boundary_bytes: 0 }
    }

    /// The canonical states so far, by stage.
    pub fn states(&self) -> &[StageState] {
        &self.states
    }

    /// The stages.
    pub fn shapes(&self) -> impl Iterator<Item = &StageShape> {
        self.workers.iter().map(StageWorker::shape)
    }

    /// Bytes that crossed boundaries so far, both ways.
    pub fn boundary_bytes(&self) -> u64 {
        self.boundary_bytes
    }

    /// The parameters of the whole model without its boundaries, as it would be exported.
    pub fn parameters(&self) -> Vec<f32> {
        self.workers.iter().flat_map(StageWorker::parameters).copied().collect()
    }

    /// The held-out loss of the model with its boundaries, at full precision; in nats per token.
    ///
    /// # Errors
    /// A hidden state is not finite.
    pub fn evaluate(&mut self, windows: usize) -> Result<f64, BoundaryError> {
        evaluate(&mut self.workers, self.recipe, self.corpus, windows)
    }

    /// The held-out loss of the model without its boundaries, as it would be exported.
    pub fn evaluate_plain(&self, windows: usize) -> f64 {
        evaluation::evaluate(&self.ctx, self.recipe, self.corpus, &self.parameters(), windows)
    }

    fn round(&mut self) -> Result<Progress, UnitError> {
        let recipe = self.recipe;
        let round = self.states[0].round;
        let diverged = |_| UnitError::Diverged { step: round };
        let mut loss = 0.0;
        let mut contributions: Vec<Vec<Contribution>> = vec![Vec::new(); self.workers.len()];
        for replica in 0..self.setting.replicas {
            for index in (replica..recipe.units_per_round as usize).step_by(self.setting.replicas) {
                let batch = MicroBatch::derive(recipe, self.corpus, local_seed(recipe, round, index as u32));
                loss += self.transit(&batch).map_err(diverged)?;
            }
            for (worker, contributions) in self.workers.iter_mut().zip(&mut contributions) {
                contributions.extend(worker.contribution());
                worker.clear();
            }
        }
        let payload_bytes = match self.setting.compressed {
            true => self.apply_payloads(&contributions).map_err(|_| UnitError::Diverged { step: round })?,
            false => self.apply_dense(&contributions),
        };
        for (worker, state) in self.workers.iter_mut().zip(&self.states) {
            worker.load(state);
        }
        let round = round + 1;
        let due = round.is_multiple_of(recipe.evaluation.every_rounds) || round == recipe.rounds;
        let heldout_loss = match due {
            true => Some(self.evaluate(recipe.evaluation.windows).map_err(diverged)?),
            false => None,
        };
        Ok(Progress {
            round,
            tokens: round * recipe.round_tokens(),
            training_loss: loss / f64::from(recipe.units_per_round),
            heldout_loss,
            payload_bytes,
        })
    }

    /// One micro-batch through all stages and back; returns its loss.
    fn transit(&mut self, batch: &MicroBatch) -> Result<f64, BoundaryError> {
        let Setting { forward, backward, .. } = self.setting;
        let (last, stages) = self.workers.split_last_mut().expect("a model has a stage");
        let mut messages: Vec<Option<Vec<u8>>> = vec![None];
        for stage in stages.iter_mut() {
            let input = messages.last().expect("the first is there").as_deref();
            let message = stage.forward(batch, input, forward)?;
            self.boundary_bytes += message.len() as u64;
            messages.push(Some(message));
        }
        let turn = last.turn(batch, messages.pop().expect("one for each stage").as_deref(), backward, true)?;
        let mut gradient = turn.gradient;
        for (stage, input) in stages.iter_mut().zip(messages).rev() {
            let received = gradient.expect("every stage but the first sends a gradient");
            self.boundary_bytes += received.len() as u64;
            gradient = stage.backward(batch, input.as_deref(), &received, backward, true)?;
        }
        Ok(turn.loss)
    }

    fn apply_payloads(&mut self, contributions: &[Vec<Contribution>]) -> Result<u64, sparseloco::NotFinite> {
        let (recipe, compression) = (self.recipe, self.recipe.compression);
        let mut bytes = 0;
        let mut payloads: Vec<Vec<(u64, SparsePayload)>> = Vec::with_capacity(self.workers.len());
        for ((worker, residuals), contributions) in self.workers.iter().zip(&mut self.residuals).zip(contributions) {
            let layout = worker.shape().layout();
            let mut stage = Vec::with_capacity(contributions.len());
            for (residual, contribution) in residuals.iter_mut().zip(contributions) {
                sparseloco::fold_residual(residual, &contribution.gradient, compression.beta);
                let payload = sparseloco::encode(layout, compression, residual)?;
                bytes += payload.len() as u64;
                let payload = sparseloco::decode(layout, compression, &payload).expect("what was encoded is decoded");
                stage.push((contribution.micro_batches * recipe.step_tokens(), payload));
            }
            payloads.push(stage);
        }
        let views: Vec<Vec<(u64, &SparsePayload)>> =
            payloads.iter().map(|stage| stage.iter().map(|(weight, payload)| (*weight, payload)).collect()).collect();
        for (place, state) in self.states.iter_mut().enumerate() {
            let neighbour = |place: usize| Some((self.workers.get(place)?.shape(), views[place].as_slice()));
            let neighbours =
                Neighbours { before: place.checked_sub(1).and_then(neighbour), after: neighbour(place + 1) };
            step(&self.ctx, recipe, self.workers[place].shape(), state, &views[place], neighbours);
        }
        Ok(bytes)
    }

    /// Applies the mean gradients as they are; returns what sending them as f32 would cost.
    fn apply_dense(&mut self, contributions: &[Vec<Contribution>]) -> u64 {
        let mut means: Vec<Vec<f32>> = contributions.iter().map(|stage| mean(stage)).collect();
        for place in 1..self.workers.len() {
            let boundary = place - 1;
            let (before, after) = (self.workers[place - 1].shape(), self.workers[place].shape());
            if let (Some(before), Some(after)) = (before.basis(boundary), after.basis(boundary)) {
                let (first, second) = means.split_at_mut(place);
                let (one, two) = (&mut first[place - 1][before], &mut second[0][after]);
                one.iter_mut().zip(two.iter()).for_each(|(sum, half)| *sum += half);
                two.copy_from_slice(one);
            }
        }
        let values: usize = means.iter().map(Vec::len).sum();
        for ((worker, state), mean) in self.workers.iter().zip(&mut self.states).zip(means) {
            apply(&self.ctx, self.recipe, worker.shape(), state, mean);
        }
        (4 * values * self.setting.replicas) as u64
    }
}

impl Iterator for LocalPipeline<'_> {
    type Item = Result<Progress, UnitError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.states[0].round < self.recipe.rounds).then(|| self.round())
    }
}

/// The held-out loss of the model that `stages` are, with its boundaries, at full precision; in nats per token.
///
/// # Errors
/// A hidden state is not finite.
///
/// # Panics
/// When the corpus is too small for the recipe, or a stage is missing.
pub fn evaluate(
    stages: &mut [StageWorker],
    recipe: &Recipe,
    corpus: &Corpus,
    windows: usize,
) -> Result<f64, BoundaryError> {
    let (last, stages) = stages.split_last_mut().expect("a model has a stage");
    let mut sum = 0.0;
    for batch in evaluation_windows(corpus, windows, recipe.batch) {
        let count = batch.tokens.len();
        let batch = MicroBatch { unit: [0; 32], tokens: batch.tokens, targets: batch.targets, data_root: [0; 32] };
        let mut message: Option<Vec<u8>> = None;
        for stage in stages.iter_mut() {
            message = Some(stage.forward(&batch, message.as_deref(), Precision::F32)?);
        }
        sum += last.loss(&batch, message.as_deref())? * count as f64;
    }
    Ok(sum / (windows * recipe.batch.tokens) as f64)
}

/// The mean of contributions, weighted by their micro-batches.
fn mean(contributions: &[Contribution]) -> Vec<f32> {
    let total: u64 = contributions.iter().map(|contribution| contribution.micro_batches).sum();
    let mut contributions = contributions.iter();
    let first = contributions.next().expect("a round has a micro-batch");
    if first.micro_batches == total {
        return first.gradient.clone();
    }
    let weight = |contribution: &Contribution| (contribution.micro_batches as f64 / total as f64) as f32;
    let mut sum: Vec<f32> = first.gradient.iter().map(|value| weight(first) * value).collect();
    for other in contributions {
        sum.iter_mut().zip(&other.gradient).for_each(|(sum, value)| *sum += weight(other) * value);
    }
    sum
}

//! All replicas of a swarm in one process, without a network: the arithmetic of a network run, for tuning and measuring.

use tensor::Context;

use crate::data::Corpus;
use crate::inner::Optimiser;
use crate::outer::{self, State};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::solo::measured;
use crate::sparseloco::{self, SparsePayload};
use crate::unit::{self, UnitError, UnitOutput, local_seed};

/// Departures from the recipe, to measure what each part of the algorithm costs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Variant {
    /// Pseudo-gradients are averaged as they are, without compression.
    pub dense: bool,
    /// Each replica keeps its inner optimiser's state from one unit to the next, so that a unit is no pure function.
    pub kept_inner_state: bool,
}

/// A replica: its error-feedback residual and, in one variant, its optimiser.
struct Replica {
    residual: Vec<f32>,
    optimiser: Optimiser,
}

/// A swarm with one replica for each unit of a round; an iterator over its rounds.
pub struct Swarm<'a> {
    ctx: Context,
    jobs: usize,
    recipe: &'a Recipe,
    corpus: &'a Corpus,
    variant: Variant,
    replicas: Vec<Replica>,
    state: State,
}

impl<'a> Swarm<'a> {
    /// Starts from the recipe's initial state; up to `jobs` units run at once, each with one thread.
    ///
    /// # Panics
    /// When the corpus is too small for the recipe ([`Corpus::check_recipe`]).
    pub fn new(recipe: &'a Recipe, corpus: &'a Corpus, jobs: usize) -> Self {
        let layout = recipe.layout();
        let replica =
            |_| Replica { residual: vec![0.0; layout.len()], optimiser: Optimiser::new(&layout, recipe.inner) };
        Self {
            ctx: recipe.context(1),
            jobs: jobs.max(1),
            recipe,
            corpus,
            variant: Variant::default(),
            replicas: (0..recipe.units_per_round).map(replica).collect(),
            state: State::genesis(recipe),
        }
    }

    /// Departs from the recipe.
    pub fn with_variant(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// The canonical state so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn round(&mut self) -> Result<Progress, UnitError> {
        let outputs = self.train_units()?;
        let training_loss = outputs.iter().map(|unit| unit.mean_loss).sum::<f64>() / outputs.len() as f64;
        let payload_bytes = match self.variant.dense {
            true => self.apply_dense(&outputs),
            false => self.apply_payloads(&outputs)?,
        };
        let (recipe, round) = (self.recipe, self.state.round);
        Ok(Progress {
            round,
            tokens: round * recipe.round_tokens(),
            training_loss,
            heldout_loss: measured(&self.ctx, recipe, self.corpus, &self.state.theta, round),
            payload_bytes,
        })
    }

    /// Trains every replica's unit; the results do not depend on the number of jobs.
    fn train_units(&mut self) -> Result<Vec<UnitOutput>, UnitError> {
        let Self { ctx, jobs, recipe, corpus, variant, replicas, state } = self;
        let (ctx, state, recipe) = (&*ctx, &*state, *recipe);
        let train = |index: usize, replica: &mut Replica| {
            if !variant.kept_inner_state {
                replica.optimiser = Optimiser::new(&recipe.layout(), recipe.inner);
            }
            let (seed, first) = (local_seed(recipe, state.round, index as u32), state.round * recipe.inner_steps);
            unit::train_with(ctx, recipe, corpus, &state.theta, seed, first, &|| false, &mut replica.optimiser)
        };
        let share = replicas.len().div_ceil(*jobs);
        std::thread::scope(|scope| {
            let workers: Vec<_> = replicas
                .chunks_mut(share)
                .enumerate()
                .map(|(worker, replicas)| {
                    scope.spawn(move || {
                        let work = replicas.iter_mut().enumerate();
                        work.map(|(i, replica)| train(worker * share + i, replica)).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("a unit does not panic")).collect()
        })
    }

    fn apply_payloads(&mut self, outputs: &[UnitOutput]) -> Result<u64, UnitError> {
        let (recipe, layout) = (self.recipe, self.recipe.layout());
        let mut payloads: Vec<SparsePayload> = Vec::with_capacity(outputs.len());
        let mut bytes = 0;
        for (replica, output) in self.replicas.iter_mut().zip(outputs) {
            sparseloco::fold_residual(&mut replica.residual, &output.delta, recipe.compression.beta);
            let payload = sparseloco::encode(&layout, recipe.compression, &mut replica.residual)
                .map_err(|_| UnitError::Diverged { step: self.state.round * recipe.inner_steps })?;
            bytes += payload.len() as u64;
            let decoded = sparseloco::decode(&layout, recipe.compression, &payload);
            payloads.push(decoded.expect("what was encoded is decoded"));
        }
        let weighted: Vec<(u64, &SparsePayload)> =
            outputs.iter().zip(&payloads).map(|(output, payload)| (output.tokens, payload)).collect();
        outer::step(&self.ctx, recipe, &mut self.state, &weighted);
        Ok(bytes)
    }

    /// Applies the mean pseudo-gradient as it is; returns what sending it as f32 would cost.
    fn apply_dense(&mut self, outputs: &[UnitOutput]) -> u64 {
        let deltas: Vec<&[f32]> = outputs.iter().map(|output| output.delta.as_slice()).collect();
        outer::apply(&self.ctx, self.recipe, &mut self.state, unit::mean_delta(&deltas));
        (outputs.len() * self.state.theta.len() * 4) as u64
    }
}

impl Iterator for Swarm<'_> {
    type Item = Result<Progress, UnitError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.state.round < self.recipe.rounds).then(|| self.round())
    }
}

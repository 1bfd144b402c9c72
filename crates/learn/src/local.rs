//! All replicas of a swarm in one process, without a network: the arithmetic of a network run, for tuning and measuring.

mod comparison;

use std::collections::VecDeque;

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
    /// How replicas exchange what they changed.
    pub exchange: Exchange,
    /// Each replica keeps its inner optimiser's state from one unit to the next, so that a unit is no pure function.
    pub kept_inner_state: bool,
    /// So many rounds pass before a round's outer step is taken, so that its exchange has all of their time. The last round takes all steps
    /// that are due.
    pub delay: u64,
    /// So many replicas are away in each round, in turns that the seed draws; as many others do the round's units.
    pub away: u32,
    /// After so many rounds, again and again, one replica leaves for good and a new one takes its place; never when 0.
    pub renewed_every: u64,
}

/// How replicas exchange pseudo-gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Exchange {
    /// As the recipe says ([`crate::sparseloco`]).
    #[default]
    SparseLoCo,
    /// As they are, in f32: DiLoCo.
    Dense,
    /// In 8 bits: DiLoCo with int8.
    Int8,
    /// The signs of the largest cosine coefficients: DeMo and DisTrO.
    SignDct,
}

impl std::str::FromStr for Exchange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sparseloco" => Ok(Self::SparseLoCo),
            "dense" => Ok(Self::Dense),
            "int8" => Ok(Self::Int8),
            "sign-dct" => Ok(Self::SignDct),
            _ => Err(format!("`{text}` is none of sparseloco, dense, int8 and sign-dct")),
        }
    }
}

/// A replica: its error-feedback residual and, in one variant, its optimiser.
struct Replica {
    residual: Vec<f32>,
    optimiser: Optimiser,
}

impl Replica {
    /// One that has just come.
    fn new(recipe: &Recipe) -> Self {
        let layout = recipe.layout();
        Self { residual: vec![0.0; layout.len()], optimiser: Optimiser::new(&layout, recipe.inner) }
    }
}

/// A swarm with one replica for each unit of a round, and those that are away; an iterator over its rounds.
pub struct Swarm<'a> {
    ctx: Context,
    jobs: usize,
    recipe: &'a Recipe,
    corpus: &'a Corpus,
    variant: Variant,
    replicas: Vec<Replica>,
    /// Aggregated pseudo-gradients whose step is still to be taken, the oldest first.
    due: VecDeque<Vec<f32>>,
    state: State,
}

impl<'a> Swarm<'a> {
    /// Starts from the recipe's initial state; up to `jobs` units run at once, each with one thread.
    ///
    /// # Panics
    /// When the corpus is too small for the recipe ([`Corpus::check_recipe`]).
    pub fn new(recipe: &'a Recipe, corpus: &'a Corpus, jobs: usize) -> Self {
        Self {
            ctx: recipe.context(1),
            jobs: jobs.max(1),
            recipe,
            corpus,
            variant: Variant::default(),
            replicas: (0..recipe.units_per_round).map(|_| Replica::new(recipe)).collect(),
            due: VecDeque::new(),
            state: State::genesis(recipe),
        }
    }

    /// Departs from the recipe.
    pub fn with_variant(mut self, variant: Variant) -> Self {
        self.variant = variant;
        self.replicas.extend((0..variant.away).map(|_| Replica::new(self.recipe)));
        self
    }

    /// The canonical state so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn round(&mut self) -> Result<Progress, UnitError> {
        self.seat();
        let outputs = self.train_units()?;
        let training_loss = outputs.iter().map(|unit| unit.mean_loss).sum::<f64>() / outputs.len() as f64;
        let (gradient, payload_bytes) = match self.variant.exchange {
            Exchange::SparseLoCo => self.sparse(&outputs)?,
            Exchange::Dense => Self::dense(outputs, |delta| 4 * delta.len() as u64),
            Exchange::Int8 => Self::dense(outputs, comparison::int8),
            Exchange::SignDct => self.sign_dct(&outputs),
        };
        self.step(gradient);
        let (recipe, round) = (self.recipe, self.state.round);
        Ok(Progress {
            round,
            tokens: round * recipe.round_tokens(),
            training_loss,
            heldout_loss: measured(&self.ctx, recipe, self.corpus, &self.state.theta, round),
            payload_bytes,
        })
    }

    /// Puts those first who take part in the next round.
    fn seat(&mut self) {
        let Self { recipe, variant, replicas, state, .. } = self;
        let next = state.round;
        if let Some(times) = next.checked_div(variant.renewed_every)
            && times > 0
            && next.is_multiple_of(variant.renewed_every)
        {
            let place = usize::try_from(times).unwrap_or_default() % replicas.len();
            replicas[place] = Replica::new(recipe);
        }
        if variant.away > 0 {
            // Not the seeds of the round's units: those begin at 0.
            let first = recipe.units_per_round;
            let mut drawn: Vec<_> = (first..).zip(replicas.drain(..)).collect();
            drawn.sort_by_cached_key(|(index, _)| local_seed(recipe, next, *index));
            replicas.extend(drawn.into_iter().map(|(_, replica)| replica));
        }
    }

    /// Takes the outer steps that are due once a round's pseudo-gradient is known.
    fn step(&mut self, gradient: Vec<f32>) {
        let next = self.state.round + 1;
        self.due.push_back(gradient);
        let waiting = if next == self.recipe.rounds { 0 } else { self.variant.delay };
        while self.due.len() as u64 > waiting {
            let Some(gradient) = self.due.pop_front() else { break };
            outer::apply(&self.ctx, self.recipe, &mut self.state, gradient);
        }
        self.state.round = next;
    }

    /// Trains every replica's unit; the results do not depend on the number of jobs.
    fn train_units(&mut self) -> Result<Vec<UnitOutput>, UnitError> {
        let Self { ctx, jobs, recipe, corpus, variant, replicas, state, .. } = self;
        let (ctx, state, recipe) = (&*ctx, &*state, *recipe);
        let train = |index: usize, replica: &mut Replica| {
            if !variant.kept_inner_state {
                replica.optimiser = Optimiser::new(&recipe.layout(), recipe.inner);
            }
            let (seed, first) = (local_seed(recipe, state.round, index as u32), state.round * recipe.inner_steps);
            unit::train_with(ctx, recipe, corpus, &state.theta, seed, first, &|| false, &mut replica.optimiser)
        };
        let present = &mut replicas[..recipe.units_per_round as usize];
        let share = present.len().div_ceil(*jobs);
        std::thread::scope(|scope| {
            let workers: Vec<_> = present
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

    /// The round's pseudo-gradient from payloads as the recipe says, and their bytes.
    fn sparse(&mut self, outputs: &[UnitOutput]) -> Result<(Vec<f32>, u64), UnitError> {
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
        Ok((outer::aggregate(&layout, &weighted), bytes))
    }

    /// The mean pseudo-gradient as it arrives; `send` changes one to what its receivers see, and gives the bytes that it takes.
    fn dense(mut outputs: Vec<UnitOutput>, send: impl Fn(&mut [f32]) -> u64) -> (Vec<f32>, u64) {
        let bytes = outputs.iter_mut().map(|output| send(&mut output.delta)).sum();
        let deltas: Vec<&[f32]> = outputs.iter().map(|output| output.delta.as_slice()).collect();
        (unit::mean_delta(&deltas), bytes)
    }

    fn sign_dct(&mut self, outputs: &[UnitOutput]) -> (Vec<f32>, u64) {
        let (layout, compression) = (self.recipe.layout(), self.recipe.compression);
        let mut sent = Vec::with_capacity(outputs.len());
        for (replica, output) in self.replicas.iter_mut().zip(outputs) {
            sparseloco::fold_residual(&mut replica.residual, &output.delta, compression.beta);
            sent.push(comparison::sign_dct(&layout, compression, &mut replica.residual, &output.delta));
        }
        (comparison::sign_dct_step(&layout, &sent), sent.iter().map(|one| one.bytes).sum())
    }
}

impl Iterator for Swarm<'_> {
    type Item = Result<Progress, UnitError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.state.round < self.recipe.rounds).then(|| self.round())
    }
}

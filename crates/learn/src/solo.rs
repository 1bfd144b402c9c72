//! The centralised baseline: the same recipe, code, global batch and tokens, with one optimiser that is never restarted.
//!
//! Step `s` of round `r` trains on the batches that the units of round `r` would have at their step `s`.

use tensor::Context;

use crate::data::{Batches, Corpus};
use crate::evaluation::evaluate;
use crate::inner::Optimiser;
use crate::outer::State;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::unit::{Stepper, UnitError, local_seed};

/// A centralised run; an iterator over its rounds.
pub struct Solo<'a> {
    ctx: Context,
    recipe: &'a Recipe,
    corpus: &'a Corpus,
    stepper: Stepper,
    optimiser: Optimiser,
    params: Vec<f32>,
    round: u64,
}

impl<'a> Solo<'a> {
    /// Starts from the recipe's initial parameters.
    ///
    /// # Panics
    /// When the corpus is too small for the recipe ([`Corpus::check_recipe`]).
    pub fn new(ctx: Context, recipe: &'a Recipe, corpus: &'a Corpus) -> Self {
        Self {
            stepper: Stepper::new(recipe, recipe.batch.sequences * recipe.units_per_round as usize),
            optimiser: Optimiser::new(&recipe.layout(), recipe.inner),
            params: State::genesis(recipe).theta,
            round: 0,
            ctx,
            recipe,
            corpus,
        }
    }

    /// The parameters so far.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    fn round(&mut self) -> Result<Progress, UnitError> {
        let (recipe, corpus) = (self.recipe, self.corpus);
        let mut units: Vec<Batches<'_>> = (0..recipe.units_per_round)
            .map(|index| Batches::new(corpus, recipe.batch, local_seed(recipe, self.round, index)))
            .collect();
        let mut loss_sum = 0.0;
        for step in self.round * recipe.inner_steps..(self.round + 1) * recipe.inner_steps {
            let mut batch = units[0].draw();
            units[1..].iter_mut().for_each(|unit| batch.append(&unit.draw()));
            loss_sum += self.stepper.step(&self.ctx, recipe, &batch, step, &mut self.params, &mut self.optimiser)?.loss;
        }
        self.round += 1;
        Ok(Progress {
            round: self.round,
            tokens: self.round * recipe.round_tokens(),
            training_loss: loss_sum / recipe.inner_steps as f64,
            heldout_loss: measured(&self.ctx, recipe, corpus, &self.params, self.round),
            payload_bytes: 0,
        })
    }
}

impl Iterator for Solo<'_> {
    type Item = Result<Progress, UnitError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.round < self.recipe.rounds).then(|| self.round())
    }
}

/// The held-out loss, in the rounds in which the recipe measures it and at the end.
pub(crate) fn measured(ctx: &Context, recipe: &Recipe, corpus: &Corpus, params: &[f32], round: u64) -> Option<f64> {
    let due = round.is_multiple_of(recipe.evaluation.every_rounds) || round == recipe.rounds;
    due.then(|| evaluate(ctx, recipe, corpus, params, recipe.evaluation.windows))
}

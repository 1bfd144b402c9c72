//! The outer step: every peer applies a round's payloads in the same order, and all hold the same bytes afterwards.
//!
//! Source: training design, section 2 (SparseLoCo's aggregation with one canonical model).
//!
//! ```text
//! c_p  = min(1, median over payloads ‖·‖ / ‖payload p‖)          per tensor
//! g[j] = sum over p of weight_p / (all weights) · c_p · value_p[j]   over the payloads that sent j
//! m    = momentum · m + g
//! θ   -= lr · (g + momentum · m)    Nesterov; lr · m otherwise
//! ```
//!
//! Dividing by all weights, not by those of the senders, leaves a lone sender little control over an entry that nobody else
//! sent. Clipping bounds what one payload can do; it does not make a wrong payload right.
//!
//! Everything is a fold in the order of the payloads, in f32 with each operation rounded; norms and factors are f64. Level
//! values are bounded by their format, so no sum leaves the finite numbers.

use model::Layout;
use tensor::Context;

use crate::recipe::{Outer, Recipe};
use crate::sparseloco::SparsePayload;

const MAGIC: &[u8; 8] = b"CairnST1";
const HEADER_BYTES: usize = 8 + 32 + 8 + 8 + 8;

/// The canonical state of a run: what every peer holds between two rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Rounds applied so far.
    pub round: u64,
    /// The parameters, in the order of the layout.
    pub theta: Vec<f32>,
    /// The outer momentum, in the same order; empty when the recipe has none.
    pub momentum: Vec<f32>,
}

/// Why bytes are not a state of this run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The first bytes are not those of a state.
    #[error("state: not a training state, or of an unknown version")]
    Foreign,
    /// The state belongs to another recipe.
    #[error("state: made with another recipe")]
    WrongRecipe,
    /// The state has more or fewer bytes than it says or than the recipe's model needs.
    #[error("state: {got} bytes, where the recipe's model needs {expected}")]
    WrongLength {
        /// What the recipe's model needs.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// The state says that it has applied more rounds than the recipe has.
    #[error("state: round {round} of a recipe with {rounds}")]
    WrongRound {
        /// Rounds applied.
        round: u64,
        /// Rounds of the recipe.
        rounds: u64,
    },
    /// A value is infinite or not a number.
    #[error("state: value {index} is not finite")]
    NotFinite {
        /// Its place, the parameters first.
        index: usize,
    },
}

impl State {
    /// The state before round 0: initial parameters from the recipe's seed.
    pub fn genesis(recipe: &Recipe) -> Self {
        let theta = model::init(&recipe.stage(), recipe.init_seed());
        let momentum = vec![0.0; momentum_len(recipe, theta.len())];
        Self { round: 0, theta, momentum }
    }

    /// The canonical bytes: a version, the recipe's hash, the round, both lengths, then all values little-endian.
    pub fn to_bytes(&self, recipe: &Recipe) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * (self.theta.len() + self.momentum.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&recipe.hash());
        for number in [self.round, self.theta.len() as u64, self.momentum.len() as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for value in self.theta.iter().chain(&self.momentum) {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads canonical bytes; nothing is allocated before the length is known to be right.
    ///
    /// # Errors
    /// The bytes are damaged, or a state of another recipe.
    pub fn from_bytes(bytes: &[u8], recipe: &Recipe) -> Result<Self, StateError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(StateError::Foreign)?;
        let (hash, rest) = rest.split_at_checked(32).ok_or(StateError::Foreign)?;
        if hash != recipe.hash() {
            return Err(StateError::WrongRecipe);
        }
        let parameters = recipe.layout().len();
        let momentum = momentum_len(recipe, parameters);
        let wrong_length = StateError::WrongLength { expected: state_bytes(recipe), got: bytes.len() };
        if bytes.len() != state_bytes(recipe) {
            return Err(wrong_length);
        }
        let (numbers, body) = rest.split_at(24);
        let number =
            |i: usize| numbers[8 * i..8 * i + 8].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        if (number(1), number(2)) != (parameters as u64, momentum as u64) {
            return Err(wrong_length);
        }
        if number(0) > recipe.rounds {
            return Err(StateError::WrongRound { round: number(0), rounds: recipe.rounds });
        }
        let mut theta: Vec<f32> =
            body.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect();
        if let Some(index) = theta.iter().position(|value| !value.is_finite()) {
            return Err(StateError::NotFinite { index });
        }
        let momentum = theta.split_off(parameters);
        Ok(Self { round: number(0), theta, momentum })
    }

    /// BLAKE3 of the canonical bytes: the name of the state's blob.
    pub fn root(&self, recipe: &Recipe) -> [u8; 32] {
        *blake3::hash(&self.to_bytes(recipe)).as_bytes()
    }
}

/// The number of bytes of every state of this recipe.
pub fn state_bytes(recipe: &Recipe) -> usize {
    let parameters = recipe.layout().len();
    HEADER_BYTES + 4 * (parameters + momentum_len(recipe, parameters))
}

fn momentum_len(recipe: &Recipe, parameters: usize) -> usize {
    if recipe.outer.momentum > 0.0 { parameters } else { 0 }
}

/// Applies a round's payloads, in the order given, each with its weight (its tokens). Without payloads only the momentum acts.
///
/// # Panics
/// When a payload or the state belongs to another layout, which decoding rules out, or the context has another profile.
pub fn step(ctx: &Context, recipe: &Recipe, state: &mut State, payloads: &[(u64, &SparsePayload)]) {
    apply(ctx, recipe, state, aggregate(&recipe.layout(), payloads));
}

/// Applies an aggregated pseudo-gradient.
pub(crate) fn apply(ctx: &Context, recipe: &Recipe, state: &mut State, mut gradient: Vec<f32>) {
    assert_eq!(ctx.profile(), recipe.profile, "the arithmetic of this recipe");
    let Outer { lr, momentum, nesterov } = recipe.outer;
    if momentum > 0.0 {
        tensor::scale(ctx, momentum, &mut state.momentum);
        tensor::add_assign(ctx, &mut state.momentum, &gradient);
        if nesterov {
            tensor::axpy(ctx, momentum, &state.momentum, &mut gradient);
        } else {
            gradient.copy_from_slice(&state.momentum);
        }
    }
    tensor::axpy(ctx, -lr, &gradient, &mut state.theta);
    state.round += 1;
}

/// The weighted and clipped sum of the payloads over all weights, dense.
pub(crate) fn aggregate(layout: &Layout, payloads: &[(u64, &SparsePayload)]) -> Vec<f32> {
    let mut sum = vec![0.0f32; layout.len()];
    let weights: f64 = payloads.iter().map(|&(weight, _)| weight as f64).sum();
    for place in 0..layout.tensors().len() {
        let norms: Vec<f64> = payloads.iter().map(|(_, payload)| norm(payload.tensor(place).1)).collect();
        let median = median(&norms);
        for (&(weight, payload), norm) in payloads.iter().zip(&norms) {
            let clip = if *norm > median { median / norm } else { 1.0 };
            let factor = (weight as f64 / weights.max(1.0) * clip) as f32;
            let (indices, values) = payload.tensor(place);
            for (&index, &value) in indices.iter().zip(values) {
                sum[index as usize] += factor * value;
            }
        }
    }
    sum
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

/// The middle value, or the mean of the two middle ones; 0 for none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests;

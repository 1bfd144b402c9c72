//! A round's payloads become the next state, on every replica of the stage alike.

use tensor::Context;

use super::shape::StageShape;
use super::state::StageState;
use crate::boundary::Space;
use crate::inner::Optimiser;
use crate::outer::aggregate;
use crate::recipe::Recipe;
use crate::sparseloco::SparsePayload;

/// Payloads of one stage with their weights, in the ledger's order.
pub type Payloads<'a> = &'a [(u64, &'a SparsePayload)];

/// The payloads of the neighbouring stages: each holds half of the gradient of the basis between.
#[derive(Debug, Clone, Copy, Default)]
pub struct Neighbours<'a> {
    /// The stage before, with its payloads.
    pub before: Option<(&'a StageShape, Payloads<'a>)>,
    /// The stage after, with its payloads.
    pub after: Option<(&'a StageShape, Payloads<'a>)>,
}

/// Takes the round's step. Without payloads only the moments act.
///
/// # Panics
/// When payloads or state belong to other layouts, or a basis is learned and a neighbour is missing.
pub fn step(
    ctx: &Context,
    recipe: &Recipe,
    shape: &StageShape,
    state: &mut StageState,
    own: Payloads<'_>,
    neighbours: Neighbours<'_>,
) {
    let mut gradient = aggregate(shape.layout(), own);
    if let Space::Projector { .. } = shape.space() {
        let halves = [(shape.boundary_before(), neighbours.before), (shape.boundary_after(), neighbours.after)];
        for (boundary, neighbour) in halves {
            let Some(boundary) = boundary else { continue };
            let (other, payloads) = neighbour.expect("the neighbour has half of the basis' gradient");
            let half = aggregate(other.layout(), payloads);
            let range = other.basis(boundary).expect("both neighbours hold the basis");
            let own = shape.basis(boundary).expect("both neighbours hold the basis");
            tensor::add_assign(ctx, &mut gradient[own], &half[range]);
        }
    }
    apply(ctx, recipe, shape, state, gradient);
}

/// Takes a step with a gradient in the canonical layout.
pub(super) fn apply(
    ctx: &Context,
    recipe: &Recipe,
    shape: &StageShape,
    state: &mut StageState,
    mut gradient: Vec<f32>,
) {
    let rate = match shape.space() {
        Space::Projector { rate, .. } => rate,
        Space::Full | Space::Subspace { .. } => 0.0,
    };
    let moments = [&mut state.first, &mut state.second].map(std::mem::take);
    let mut optimiser = Optimiser::after(shape.layout().tensors(), recipe.inner, state.round, moments).for_stages(rate);
    let factor = recipe.schedule.factor(state.round, recipe.total_steps());
    optimiser.step(ctx, &mut state.theta, &mut gradient, factor);
    [state.first, state.second] = optimiser.into_moments();
    state.round += 1;
}

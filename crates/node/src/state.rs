//! What a peer holds of a run's model: all of it, or one stage. Both have canonical bytes, a root, and a step that makes the next.

use learn::Recipe;
use learn::outer::{self, State, StateError};
use learn::pipeline::{Neighbours, StageShape, StageState, StageStateError, step};
use learn::sparseloco::SparsePayload;
use ledger::CommittedSet;
use model::Layout;
use wire::Hash;

/// The parts of a recipe's model: its stages, or all of it as the only one.
#[derive(Debug)]
pub(crate) struct Parts {
    recipe: Recipe,
    /// The stages; none when every peer holds the whole model.
    shapes: Vec<StageShape>,
    /// Where each tensor of the whole model lies in its parameters.
    layout: Layout,
}

impl Parts {
    /// Those of a recipe that was validated.
    pub(crate) fn of(recipe: &Recipe) -> Self {
        let cut = recipe.pipeline.is_some_and(|pipeline| pipeline.stages > 1);
        let shapes = if cut { StageShape::all(recipe) } else { Vec::new() };
        Self { recipe: recipe.clone(), shapes, layout: recipe.layout() }
    }

    /// Number of stages: 1 when every peer holds the whole model.
    pub(crate) fn stages_len(&self) -> u16 {
        u16::try_from(self.shapes.len().max(1)).expect("a recipe has no more stages than layers")
    }

    /// A stage; none when every peer holds the whole model.
    pub(crate) fn shape(&self, stage: u16) -> Option<&StageShape> {
        self.shapes.get(usize::from(stage))
    }

    /// Whether parameters alone are the model; with learned bases between its stages they are nothing without these.
    pub(crate) fn is_plain(&self) -> bool {
        self.shapes.iter().all(StageShape::is_plain)
    }

    /// Where each tensor lies in the parameters that a member of a stage holds.
    pub(crate) fn layout(&self, stage: u16) -> &Layout {
        self.shape(stage).map_or(&self.layout, StageShape::layout)
    }
}

/// The state of a peer's part of the model between two rounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ModelState {
    /// The whole model.
    Whole(State),
    /// One stage of it.
    Stage(StageState),
}

/// Why bytes are not a state of a peer's part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelStateError {
    /// Of a whole model.
    #[error(transparent)]
    Whole(#[from] StateError),
    /// Of a stage.
    #[error(transparent)]
    Stage(#[from] StageStateError),
}

/// The payloads of one stage, with their weights, in the ledger's order.
pub(crate) type Weighted = Vec<(u64, SparsePayload)>;

impl ModelState {
    /// The state of a stage before round 0.
    pub(crate) fn genesis(parts: &Parts, stage: u16) -> Self {
        match parts.shape(stage) {
            None => Self::Whole(State::genesis(&parts.recipe)),
            Some(shape) => Self::Stage(StageState::genesis(&parts.recipe.context(1), &parts.recipe, shape)),
        }
    }

    /// Reads canonical bytes.
    pub(crate) fn from_bytes(bytes: &[u8], parts: &Parts, stage: u16) -> Result<Self, ModelStateError> {
        Ok(match parts.shape(stage) {
            None => Self::Whole(State::from_bytes(bytes, &parts.recipe)?),
            Some(shape) => Self::Stage(StageState::from_bytes(bytes, &parts.recipe, shape)?),
        })
    }

    /// The canonical bytes, whose hash is the root.
    pub(crate) fn to_bytes(&self, parts: &Parts, stage: u16) -> Vec<u8> {
        match (self, parts.shape(stage)) {
            (Self::Whole(state), _) => state.to_bytes(&parts.recipe),
            (Self::Stage(state), Some(shape)) => state.to_bytes(&parts.recipe, shape),
            (Self::Stage(_), None) => unreachable!("a stage's state is made for a run with stages"),
        }
    }

    /// Rounds applied so far.
    pub(crate) fn round(&self) -> u64 {
        match self {
            Self::Whole(state) => state.round,
            Self::Stage(state) => state.round,
        }
    }

    /// The parameters as they are in the whole model, without boundaries.
    pub(crate) fn into_parameters(self, parts: &Parts, stage: u16) -> Vec<f32> {
        match (self, parts.shape(stage)) {
            (Self::Whole(state), _) => state.theta,
            (Self::Stage(state), Some(shape)) => shape.whole_parameters(&parts.recipe.context(1), &state),
            (Self::Stage(_), None) => unreachable!("a stage's state is made for a run with stages"),
        }
    }

    /// Applies a round's payloads. `payloads` has those of every stage whose payloads the own part needs, by stage.
    pub(crate) fn step(&mut self, parts: &Parts, stage: u16, payloads: &[(u16, Weighted)]) {
        let ctx = parts.recipe.context(1);
        let of = |stage: u16| -> Vec<(u64, &SparsePayload)> {
            let found = payloads.iter().find(|(of, _)| *of == stage);
            found.map_or_else(Vec::new, |(_, all)| all.iter().map(|(weight, payload)| (*weight, payload)).collect())
        };
        let own = of(stage);
        match self {
            Self::Whole(state) => outer::step(&ctx, &parts.recipe, state, &own),
            Self::Stage(state) => {
                let shape = parts.shape(stage).expect("a stage's state is made for a run with stages");
                let (before, after) = (stage.checked_sub(1), stage.checked_add(1));
                let halves = [before, after].map(|of_stage| Some((parts.shape(of_stage?)?, of(of_stage?))));
                let [before, after] =
                    halves.each_ref().map(|half| half.as_ref().map(|(shape, all)| (*shape, &all[..])));
                step(&ctx, &parts.recipe, shape, state, &own, Neighbours { before, after });
            }
        }
    }
}

/// The stages whose payloads a part needs for its step: its own, and the neighbours' where they have half of a basis' gradient.
pub(crate) fn needed_stages(parts: &Parts, stage: u16) -> Vec<u16> {
    let neighbours = parts.shape(stage).is_some_and(|shape| shape.needs_neighbours());
    let near = |other: &u16| *other == stage || neighbours && other.abs_diff(stage) == 1;
    (0..parts.stages_len()).filter(near).collect()
}

/// The root that the own state has at the start of a closed round.
pub(crate) fn state_in(committed: &CommittedSet, stage: u16) -> Hash {
    committed.state_in.get(usize::from(stage)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use learn::boundary::{Precision, Space};

    use super::*;

    #[test]
    fn a_recipe_with_one_stage_is_a_whole_model() {
        let recipe = Recipe::tiny().in_stages(1, Space::Full, Precision::F32);
        recipe.validate().unwrap();
        let parts = Parts::of(&recipe);
        assert_eq!((parts.stages_len(), parts.is_plain()), (1, true));
        let state = ModelState::genesis(&parts, 0);
        assert_eq!(ModelState::from_bytes(&state.to_bytes(&parts, 0), &parts, 0).unwrap(), state);
        assert_eq!(state.into_parameters(&parts, 0).len(), recipe.layout().len());
    }
}

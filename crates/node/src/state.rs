//! What a peer holds of a run's model: all of it, or one stage. Both have canonical bytes, a root, and a step that makes the next.

use learn::outer::{self, State, StateError};
use learn::pipeline::{Neighbours, StageState, StageStateError, step};
use learn::sparseloco::SparsePayload;
use ledger::CommittedSet;
use tensor::Context;
use wire::Hash;

use crate::workload::Workload;

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
    pub(crate) fn genesis(workload: &Workload, stage: u16) -> Self {
        match workload.shape(stage) {
            None => Self::Whole(State::genesis(&workload.recipe)),
            Some(shape) => Self::Stage(StageState::genesis(&Context::single(), shape)),
        }
    }

    /// Reads canonical bytes.
    pub(crate) fn from_bytes(bytes: &[u8], workload: &Workload, stage: u16) -> Result<Self, ModelStateError> {
        Ok(match workload.shape(stage) {
            None => Self::Whole(State::from_bytes(bytes, &workload.recipe)?),
            Some(shape) => Self::Stage(StageState::from_bytes(bytes, &workload.recipe, shape)?),
        })
    }

    /// The canonical bytes, whose hash is the root.
    pub(crate) fn to_bytes(&self, workload: &Workload, stage: u16) -> Vec<u8> {
        match (self, workload.shape(stage)) {
            (Self::Whole(state), _) => state.to_bytes(&workload.recipe),
            (Self::Stage(state), Some(shape)) => state.to_bytes(&workload.recipe, shape),
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

    /// Applies a round's payloads. `payloads` has those of every stage whose payloads the own part needs, by stage.
    pub(crate) fn step(&mut self, workload: &Workload, stage: u16, payloads: &[(u16, Weighted)]) {
        let ctx = Context::single();
        let of = |stage: u16| -> Vec<(u64, &SparsePayload)> {
            let found = payloads.iter().find(|(of, _)| *of == stage);
            found.map_or_else(Vec::new, |(_, all)| all.iter().map(|(weight, payload)| (*weight, payload)).collect())
        };
        let own = of(stage);
        match self {
            Self::Whole(state) => outer::step(&ctx, &workload.recipe, state, &own),
            Self::Stage(state) => {
                let shape = workload.shape(stage).expect("a stage's state is made for a run with stages");
                let (before, after) = (stage.checked_sub(1), stage.checked_add(1));
                let halves = [before, after].map(|of_stage| Some((workload.shape(of_stage?)?, of(of_stage?))));
                let [before, after] = halves.each_ref().map(|half| half.as_ref().map(|(shape, all)| (*shape, &all[..])));
                step(&ctx, &workload.recipe, shape, state, &own, Neighbours { before, after });
            }
        }
    }
}

/// The stages whose payloads a part needs for its step: its own, and the neighbours' where they have half of a basis' gradient.
pub(crate) fn needed_stages(workload: &Workload, stage: u16) -> Vec<u16> {
    let neighbours = workload.shape(stage).is_some_and(|shape| shape.needs_neighbours());
    let near = |other: &u16| *other == stage || neighbours && other.abs_diff(stage) == 1;
    (0..workload.stages_len()).filter(near).collect()
}

/// The root that the own state has at the start of a closed round.
pub(crate) fn state_in(committed: &CommittedSet, stage: u16) -> Hash {
    committed.state_in.get(usize::from(stage)).copied().unwrap_or_default()
}

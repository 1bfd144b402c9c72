//! Jobs: the computation that a peer asks of its shell, and the results it gets back.
//!
//! The protocol sees tensors as hashed bytes only. At most one job runs at a time. Every job may be asked again after a
//! restart or a failure with equal content and another [`JobId`]; the shell then answers from what it stored, or computes
//! again and gets the same bytes, since every job is a pure function of the peer's stored state.

use std::sync::Arc;

use ledger::CommittedSet;
use wire::{Hash, UnitId};

use crate::pipeline::{StageResult, StageTask, UnitDone};

/// Names a job within one life of a peer. Results for a job that is not the current one are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// A unit to be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitAssignment {
    /// The unit's place in the round, from 0.
    pub index: u32,
    /// The unit's name, from which its data slice and seeds follow.
    pub unit: UnitId,
}

/// A state of the model, at the start of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelPoint {
    /// The round that starts from this state: the rounds applied so far.
    pub round: u64,
    /// The state's root, which is also the name of its blob.
    pub state_root: Hash,
}

/// What the shell should compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Train the units from the stored state, add the mean pseudo-gradient to the residual and encode a payload.
    ///
    /// Before it reports, the shell stores the payload as a blob and, durably, the *pending* residual (what is left after
    /// this payload, tagged with the round). The residual of the rounds before stays until [`Job::OuterStep`]. When a
    /// pending residual of this round and state is stored already, the shell answers from it without training again.
    Work {
        /// The round.
        round: u64,
        /// Root of the state that the units start from: the stored state's.
        state_root: Hash,
        /// The units, with ascending index, at least one.
        units: Vec<UnitAssignment>,
    },
    /// In a run of several stages: one pass of a micro-batch. The sum of gradients that it adds to is in memory only, and starts anew with
    /// every state.
    Stage(StageTask),
    /// In a run of several stages: add the mean of what the round's counted tasks added up to the residual and encode a payload, as
    /// [`Job::Work`] does. A shell that has lost the sum says that it failed.
    Contribute {
        /// The round.
        round: u64,
        /// Root of the stage's state that the tasks started from.
        state_root: Hash,
        /// The units that were added up, in that order, at least one.
        units: Vec<UnitDone>,
    },
    /// Apply a round's committed set to the stored state. With several stages only the own stage's payloads are applied, and the halves of
    /// bases that the neighbours' have. Every payload that it names was reported by
    /// [`crate::Input::Fetched`]. A payload that does not decode counts as empty, on every peer alike.
    ///
    /// The shell stores the new state (also as a blob) and the residual in one transaction before it reports.
    OuterStep {
        /// The round that closed.
        round: u64,
        /// Its payloads, in the order in which they are applied.
        committed: Arc<CommittedSet>,
        /// Whether an own payload is in the set: then the pending residual becomes the residual. Otherwise the pending
        /// residual plus the unsent payload does: nothing that was trained is lost.
        own_committed: bool,
    },
    /// Take the state of a later round instead of replaying the rounds up to it. Its blob, named by `state_root`, was
    /// reported by [`crate::Input::Fetched`]; for round 0 there is none, and the shell derives it from the recipe.
    LoadState {
        /// The round that starts from the state.
        round: u64,
        /// The state's root.
        state_root: Hash,
        /// The newest closed round in whose set an own payload is, when there is one among the rounds that the ledger
        /// still lists. A pending residual of that round becomes the residual; one of another round keeps its mass.
        own_committed_round: Option<u64>,
    },
}

impl Job {
    /// The units of work that end in a payload; none for other jobs.
    pub(crate) fn assignments(&self) -> Vec<UnitAssignment> {
        match self {
            Self::Work { units, .. } => units.clone(),
            Self::Contribute { units, .. } => {
                units.iter().map(|unit| UnitAssignment { index: unit.index, unit: unit.unit }).collect()
            }
            Self::Stage(_) | Self::OuterStep { .. } | Self::LoadState { .. } => Vec::new(),
        }
    }

    /// The round that the job belongs to.
    pub fn round(&self) -> u64 {
        match self {
            Self::Work { round, .. } | Self::Contribute { round, .. } => *round,
            Self::OuterStep { round, .. } | Self::LoadState { round, .. } => *round,
            Self::Stage(task) => task.round,
        }
    }
}

/// What the shell states about one unit that it did: the parts of a receipt that only the trainer knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitResult {
    /// The unit's place in the round.
    pub index: u32,
    /// Hash of the token batches, in order.
    pub data_root: Hash,
    /// Hash over the inner steps.
    pub trace_root: Hash,
    /// Hash of the unit's pseudo-gradient.
    pub output_root: Hash,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean training loss of the unit, in millionths of a nat per token.
    pub loss_micronats: u64,
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// Of [`Job::Stage`].
    Stage(StageResult),
    /// Of [`Job::Work`], and of [`Job::Contribute`] with its units in their order.
    Worked {
        /// The job's round.
        round: u64,
        /// One result per unit of the job, in the same order.
        units: Vec<UnitResult>,
        /// The payload's hash: the name of its blob, which the shell stores and provides.
        payload: Hash,
        /// The payload's size in bytes, at least 1.
        payload_bytes: u64,
        /// Root of the pending residual.
        residual_root: Hash,
    },
    /// Of [`Job::OuterStep`].
    Stepped {
        /// The round that starts from the new state: the job's round + 1.
        round: u64,
        /// The new state's root: the name of its blob, which the shell stores and provides.
        state_root: Hash,
    },
    /// Of [`Job::LoadState`].
    Loaded {
        /// The job's round.
        round: u64,
        /// The loaded state's root.
        state_root: Hash,
    },
    /// Of any job.
    Failed {
        /// What happened, for people.
        reason: String,
        /// Whether trying again is pointless (a full disk, a foreign recipe): the peer halts. Otherwise it tries again.
        fatal: bool,
    },
}

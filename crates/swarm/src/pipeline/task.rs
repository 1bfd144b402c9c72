//! Tasks: what a stage computes for one unit, and what is stated about it.

use std::sync::Arc;

use wire::{Hash, UnitId};

/// Names a task within one life of a pipeline. Results for a task that is not the current one are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageTaskId(pub u64);

/// Something for the trainer of a stage to compute. One task runs at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageTask {
    /// The task's name, for the answer.
    pub id: StageTaskId,
    /// The round, from whose state the task starts.
    pub round: u64,
    /// The unit's place in the round.
    pub index: u32,
    /// The unit's name, from which its data slice and seeds follow.
    pub unit: UnitId,
    /// Whether the gradient of the stage's parameters is added to the round's sum. Otherwise it is thrown away: another
    /// replica's is in a block already. Of no meaning for a forward pass.
    pub counted: bool,
    /// How many steps smaller than the recipe says the numbers are that come from and go to the stage before.
    pub coarser_before: u8,
    /// As `coarser_before`, of the stage after.
    pub coarser_after: u8,
    /// What to compute.
    pub kind: StageTaskKind,
}

/// What to compute. Every kind is a pure function of the stage's state, the unit and the bytes given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageTaskKind {
    /// The forward pass: gives the output for the next stage. The shell may keep the activations for the backward pass,
    /// under the task's id, until that succeeds, [`crate::pipeline::PipelineOutput::Release`] says otherwise, or the round
    /// is over.
    Forward {
        /// The output of the stage before; none in stage 0.
        input: Option<Arc<[u8]>>,
    },
    /// The last stage's forward pass, loss and backward pass.
    Turn {
        /// The output of the stage before; none when there is only one stage.
        input: Option<Arc<[u8]>>,
    },
    /// The backward pass: gives the gradient for the stage before.
    Backward {
        /// The task that ran forward.
        forward: StageTaskId,
        /// The output of the stage before; none in stage 0.
        input: Option<Arc<[u8]>>,
        /// The gradient from the next stage.
        gradient: Arc<[u8]>,
    },
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageResult {
    /// Of [`StageTaskKind::Forward`].
    Forward {
        /// For the next stage, not empty.
        output: Vec<u8>,
    },
    /// Of [`StageTaskKind::Turn`]. The gradient of the parameters is added up.
    Turn {
        /// Mean loss of the unit, in millionths of a nat per token.
        loss_micronats: u64,
        /// For the stage before, when there is one.
        gradient: Option<Vec<u8>>,
    },
    /// Of [`StageTaskKind::Backward`]. The gradient of the parameters is added up.
    Backward {
        /// For the stage before, when there is one.
        gradient: Option<Vec<u8>>,
    },
    /// Bytes that came from another peer have not the shape that they must have, or hold no numbers. Nothing was added up.
    /// Of a backward pass it is the gradient that is at fault: its input was good for the forward pass.
    Invalid {
        /// What is wrong, for people.
        what: String,
    },
    /// It went wrong here. Nothing was added up; trying again may help.
    Failed {
        /// What happened, for people.
        reason: String,
    },
}

/// A unit whose gradient was added up here: the parts of a receipt that the pipeline knows. Hashes of bytes that the stage
/// does not have (the input of stage 0, the output of the last) are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitDone {
    /// The unit's place in the round.
    pub index: u32,
    /// The unit's name.
    pub unit: UnitId,
    /// Hash of the input.
    pub input: Hash,
    /// Hash of the output.
    pub output: Hash,
    /// Hash of the gradient that came from the next stage.
    pub gradient_in: Hash,
    /// Hash of the gradient that went to the stage before.
    pub gradient_out: Hash,
    /// Mean loss, in millionths of a nat per token: the last stage's; 0 in the others.
    pub loss_micronats: u64,
}

impl UnitDone {
    /// A receipt's hash over what came in: input and gradient.
    pub fn trace_root(&self) -> Hash {
        Hash::derive("cairn v1 stage trace", &[&self.input.0, &self.gradient_in.0])
    }

    /// A receipt's hash over what went out: output and gradient.
    pub fn output_root(&self) -> Hash {
        Hash::derive("cairn v1 stage output", &[&self.output.0, &self.gradient_out.0])
    }
}

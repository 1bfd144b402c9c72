//! What happens to a pipeline, and what it wants done.

use wire::{Hash, Message, PeerId, StageCall, StageRefusal, StageReply, UnitId};

use super::fault::StageFault;
use super::task::{StageResult, StageTask, StageTaskId, UnitDone};

/// What a member knows of the round that it works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundView {
    /// The round.
    pub round: u64,
    /// The own stage.
    pub stage: u16,
    /// Root over the states of all stages, so that neighbours agree on what they compute from.
    pub state_root: Hash,
    /// The units' names, by index.
    pub units: Vec<UnitId>,
    /// The member of stage 0 that starts each unit, by index; units beyond its end are started by nobody.
    pub assignment: Vec<PeerId>,
    /// The members of each stage, sorted.
    pub members: Vec<Vec<PeerId>>,
    /// Tokens of one unit, at least 1.
    pub unit_tokens: u64,
    /// How many steps smaller than the recipe says the numbers are between each stage and the next; 0 beyond its end.
    pub coarser: Vec<u8>,
    /// Whether an own commitment to this round exists already, from an earlier life: nothing more is counted.
    pub sealed: bool,
}

/// Something that happened, told to [`crate::pipeline::Pipeline::handle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineInput {
    /// A round opened in which this peer is a member. The one before, if any, is over. When it is the one that is open already, it goes on
    /// with other members: what is added up stays so.
    Round(RoundView),
    /// The round closed. What was under way in it is of no more use.
    RoundOver,
    /// The connection with a peer is up, and its stages can be called. Up again without a `Down` counts as both.
    Up(PeerId),
    /// The connection is gone. Messages that were under way may be lost, and so may be all that the peer held.
    Down(PeerId),
    /// A call arrived.
    Call {
        /// The other end.
        from: PeerId,
        /// The call.
        call: StageCall,
    },
    /// A reply arrived.
    Reply {
        /// The other end.
        from: PeerId,
        /// The reply.
        reply: StageReply,
    },
    /// A refusal arrived.
    Refused {
        /// The other end.
        from: PeerId,
        /// The refusal.
        refusal: StageRefusal,
    },
    /// How long the bytes of a call or a reply took, from the first to the last; just before the message itself.
    Carried {
        /// The stage that the message names: the own of a call, the next of a reply.
        stage: u16,
        /// How long, in microseconds.
        took_us: u64,
    },
    /// A task ended.
    Computed {
        /// The task.
        task: StageTaskId,
        /// What came of it.
        result: StageResult,
    },
    /// A commitment to the open round is in a block.
    Claimed {
        /// Whose it is.
        peer: PeerId,
        /// Its stage.
        stage: u16,
        /// The units that it claims.
        units: Vec<u32>,
    },
    /// Count nothing more in this round: the own commitment is due. Answered by [`PipelineOutput::Sealed`], once, when the
    /// task that runs now is done.
    Seal,
    /// The time of [`crate::pipeline::Pipeline::poll_timeout`] came. Harmless at any other time.
    Tick,
}

/// Something to be done by the owner of a pipeline, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineOutput {
    /// Send a message over the connection; dropped when there is none.
    Send {
        /// The other end.
        to: PeerId,
        /// The message.
        message: Message,
    },
    /// Start a task. Comes only while no other task is running.
    Compute(StageTask),
    /// Give a task up soon; its answer, if one comes, is ignored. Another [`PipelineOutput::Compute`] may follow at once.
    Cancel(StageTaskId),
    /// The activations of this forward pass are not needed: no backward pass will follow.
    Release(StageTaskId),
    /// A peer misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// What it did.
        kind: StageFault,
        /// Hash of the bytes that show it, when there are some.
        evidence: Option<Hash>,
    },
    /// A unit was added up here, for people to see.
    Done(UnitDone),
    /// Nothing more is counted in this round: all units that are, in the order in which they were added up.
    Sealed {
        /// The round.
        round: u64,
        /// The units.
        units: Vec<UnitDone>,
    },
}

/// What happened so far, for people and tests. Nothing depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounts {
    /// Calls made with bytes.
    pub calls: u64,
    /// Calls made without bytes: whether a peer knows a unit.
    pub questions: u64,
    /// Calls that were answered in time or late.
    pub replies: u64,
    /// Calls that were refused by others.
    pub refused: u64,
    /// Calls that were not answered in time.
    pub timeouts: u64,
    /// Units that were done anew below because whoever had done them is gone.
    pub redone: u64,
    /// Units that two replicas of the next stage answered: added up twice there, as far as can be seen from here.
    pub duplicates: u64,
    /// Units of others that were started here.
    pub taken_over: u64,
    /// Units of stage 0 that were not done when their round was over.
    pub lost: u64,
}

//! One unit at one replica: how far it is here, and who looks after it in the next stage.

use std::collections::BTreeSet;
use std::sync::Arc;

use wire::{Hash, PeerId};

use super::task::StageTaskId;
use crate::Time;

/// Names a unit at a replica: its index and the hash of its input (zero in stage 0). Honest callers give one input each.
pub(crate) type Key = (u32, Hash);

/// How far the work on a unit is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits for its first task.
    Ready,
    /// The forward pass runs.
    Forward,
    /// The next stage has it.
    Below,
    /// The gradient is here; it waits for the backward pass.
    Returned,
    /// The task runs that adds its gradient up: the backward pass or the last stage's turn.
    Adding,
    /// It is done, and its reply is kept.
    Done,
}

/// Who has the unit in the next stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// Nobody needs to: there is no output yet, no next stage, or all is in blocks.
    Nobody,
    /// A replica is to be called as soon as one may be.
    Wanted,
    /// Replicas that may know it are asked before one is called anew.
    Seeking {
        /// Those that have not answered.
        asked: BTreeSet<PeerId>,
        /// Until when they are waited for.
        until: Time,
    },
    /// A replica was called.
    Called {
        /// The replica.
        peer: PeerId,
        /// When.
        since: Time,
        /// Until when it is waited for.
        until: Time,
    },
    /// A replica answered, and keeps what it added up until that is in a block.
    Served {
        /// The replica.
        peer: PeerId,
    },
    /// The replica that answered is disconnected. It may be dead.
    Lapsed {
        /// The replica.
        peer: PeerId,
        /// Since when.
        since: Time,
    },
    /// The replica that answered is connected again, and asked whether it still knows the unit.
    Checking {
        /// The replica.
        peer: PeerId,
        /// Until when it is waited for.
        until: Time,
    },
}

impl Below {
    /// When something is to be done about it, unless something happens before.
    pub(crate) fn deadline(&self, redo_us: u64) -> Option<Time> {
        match self {
            Self::Nobody | Self::Wanted | Self::Served { .. } => None,
            Self::Seeking { until, .. } | Self::Called { until, .. } | Self::Checking { until, .. } => Some(*until),
            Self::Lapsed { since, .. } => Some(since.after(redo_us)),
        }
    }

    /// Whether nothing has to be done about it as things are.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Nobody | Self::Served { .. })
    }

    /// Whether a call or a question is under way.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self, Self::Seeking { .. } | Self::Called { .. } | Self::Checking { .. })
    }
}

/// A unit at a replica.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its place in the order of arrival.
    pub(crate) sequence: u64,
    /// Who sent the input; nobody in stage 0.
    pub(crate) sender: Option<PeerId>,
    /// The member whose unit was taken over.
    pub(crate) taken_from: Option<PeerId>,
    /// Those that wait for the reply.
    pub(crate) callers: BTreeSet<PeerId>,
    /// The input, until the backward pass is done.
    pub(crate) input: Option<Arc<[u8]>>,
    /// How far it is.
    pub(crate) step: Step,
    /// When a failed task may be tried again.
    pub(crate) retry_at: Time,
    /// The task that ran forward.
    pub(crate) forward: Option<StageTaskId>,
    /// When it had run forward.
    pub(crate) forwarded: Time,
    /// The output, kept until the later stages are in blocks: whoever has it below may die.
    pub(crate) output: Option<Arc<[u8]>>,
    /// Its hash.
    pub(crate) output_hash: Hash,
    /// Who has it in the next stage.
    pub(crate) below: Below,
    /// Whether replicas below may know the unit from another caller, so that they are asked before one is called.
    pub(crate) seek: bool,
    /// Whether a replica below may have had it before, so that the next one called should look further down.
    pub(crate) recall: bool,
    /// Those that were asked whether they know it.
    pub(crate) sought: BTreeSet<PeerId>,
    /// Those whose answer for this unit was of no use.
    pub(crate) avoid: BTreeSet<PeerId>,
    /// Calls that were not answered in time.
    pub(crate) timeouts: u32,
    /// Who served it in the next stages, the nearest first, as far as known.
    pub(crate) trail: Vec<PeerId>,
    /// Hash of the gradient from the next stage, and who sent it first.
    pub(crate) gradient_in: Option<(Hash, PeerId)>,
    /// The gradient from the next stage, until the backward pass is done.
    pub(crate) gradient: Option<Arc<[u8]>>,
    /// The gradient for the stage before.
    pub(crate) reply: Option<Arc<[u8]>>,
}

impl Item {
    /// A unit that waits for its first task.
    pub(crate) fn new(sequence: u64, input: Option<Arc<[u8]>>, seek: bool) -> Self {
        Self {
            sequence,
            sender: None,
            taken_from: None,
            callers: BTreeSet::new(),
            input,
            step: Step::Ready,
            retry_at: Time::default(),
            forward: None,
            forwarded: Time::default(),
            output: None,
            output_hash: Hash::default(),
            below: Below::Nobody,
            seek,
            recall: seek,
            sought: BTreeSet::new(),
            avoid: BTreeSet::new(),
            timeouts: 0,
            trail: Vec::new(),
            gradient_in: None,
            gradient: None,
            reply: None,
        }
    }

    /// Whether its activations are held: forward ran or runs, and backward is not done.
    pub(crate) fn is_under_way(&self) -> bool {
        !matches!(self.step, Step::Ready | Step::Done)
    }

    /// Whether it is given up when nobody waits for it any more: nothing of it is added up yet, and nothing will be.
    pub(crate) fn is_orphan(&self) -> bool {
        self.sender.is_some() && self.callers.is_empty() && !matches!(self.step, Step::Adding | Step::Done)
    }

    /// Bytes that it holds or, while it is under way, may come to hold: input, output and two gradients.
    pub(crate) fn bytes(&self, message_bytes_max: u64) -> u64 {
        let held = |bytes: &Option<Arc<[u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self.step {
            Step::Ready => held(&self.input),
            Step::Done => held(&self.output) + held(&self.reply),
            _ => message_bytes_max.saturating_mul(4),
        }
    }
}

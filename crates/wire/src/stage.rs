//! What the stages of one model ask of each other while a round is open.
//!
//! Source: section 3 of the training design (model parallel over the internet). A replica of a stage is called with the
//! output of the stage before and answers with the gradient for it, so that calls nest along the stages. The bytes of inputs
//! and gradients are opaque here: what shape they must have is the trainer's question.
//! Nothing in these messages is signed: whoever sent it is known from the connection, and what is paid for stands in
//! receipts.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::Hash;
use crate::identity::PeerId;
use crate::receipt::UnitId;
use crate::transaction::RECEIPTS_PER_COMMITMENT_MAX;

/// Most bytes of an input or a gradient.
pub const STAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most peers on a path: one for each stage that a run can have.
pub const PATH_PEERS_MAX: usize = 256;

/// Please work on a unit in your stage.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StageCall {
    /// The round.
    pub round: u64,
    /// The stage of the peer that is called, from 1.
    pub stage: u16,
    /// The unit's place in the round.
    pub index: u32,
    /// Root over the states of all stages that the round starts from.
    pub state_root: Hash,
    /// The unit's name.
    pub unit: UnitId,
    /// Whether the unit may have been worked on in a later stage already, for another caller: then look for who did.
    pub again: bool,
    /// Who served the unit in the stages after this one before, as far as the caller knows: at most [`PATH_PEERS_MAX`].
    pub hint: Vec<PeerId>,
    /// What the stage before gave: at most [`STAGE_BYTES_MAX`]. Without bytes the call asks only for the answer of a unit
    /// that the called peer works on already, or has worked on.
    pub input: Vec<u8>,
}

/// The answer to a [`StageCall`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StageReply {
    /// The round.
    pub round: u64,
    /// The stage of the peer that answers.
    pub stage: u16,
    /// The unit's place in the round.
    pub index: u32,
    /// Hash of the input that was worked on.
    pub input: Hash,
    /// Who served the unit in this stage and in each after it: 1 to [`PATH_PEERS_MAX`].
    pub path: Vec<PeerId>,
    /// The gradient with respect to the input: 1 to [`STAGE_BYTES_MAX`] bytes.
    pub gradient: Vec<u8>,
}

/// A [`StageCall`] that is not answered, and will not be counted.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StageRefusal {
    /// The round that the call named.
    pub round: u64,
    /// The stage that the call named.
    pub stage: u16,
    /// The unit's place in the round.
    pub index: u32,
    /// Why.
    pub reason: RefusalReason,
}

/// The speaker counts no further unit in this round, and is about to commit to these. A neighbour that hears so need not wait until that
/// is in a block. It says nothing about the payload: nobody can get that before its commitment is ordered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StageSealed {
    /// The round.
    pub round: u64,
    /// The units that it added up, ascending: 1 to [`RECEIPTS_PER_COMMITMENT_MAX`].
    pub units: Vec<u32>,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum RefusalReason {
    /// Enough calls wait already: try again later.
    Busy,
    /// No further unit of this round can be taken.
    Full,
    /// Another round is open here, or none.
    WrongRound,
    /// The caller has no business with this stage in this round.
    WrongStage,
    /// The round starts from another state here.
    WrongState,
    /// The bytes, or the unit that they are said to belong to, are not what they should be.
    BadInput,
    /// Nobody in the next stage can be reached from here.
    NoRoute,
    /// Asked for the answer of a unit that was not worked on here.
    Unknown,
    /// The computation failed here.
    Failed,
}

impl StageCall {
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if self.stage == 0 {
            return Err("stage 0 is not called");
        }
        if self.hint.len() > PATH_PEERS_MAX {
            return Err("at most 256 peers in a hint");
        }
        if self.input.len() > STAGE_BYTES_MAX {
            return Err("an input must have at most 16 MiB");
        }
        Ok(())
    }
}

impl StageSealed {
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if self.units.is_empty() || self.units.len() > RECEIPTS_PER_COMMITMENT_MAX {
            return Err("1 to 64 units are sealed");
        }
        match self.units.windows(2).all(|pair| pair[0] < pair[1]) {
            true => Ok(()),
            false => Err("sealed units must be ascending"),
        }
    }
}

impl StageReply {
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if self.path.is_empty() || self.path.len() > PATH_PEERS_MAX {
            return Err("a path must have 1 to 256 peers");
        }
        if self.gradient.is_empty() || self.gradient.len() > STAGE_BYTES_MAX {
            return Err("a gradient must have 1 byte to 16 MiB");
        }
        Ok(())
    }
}

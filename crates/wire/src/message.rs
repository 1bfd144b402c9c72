//! What peers say to each other over a connection. Payloads and states travel as blobs, never inside a message; what one
//! stage of a model hands to the next does.

use std::net::SocketAddr;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::charter::{Charter, RunId};
use crate::encoding::Wire;
use crate::hash::Hash;
use crate::identity::{PeerId, Signed};
use crate::stage::{StageCall, StageRefusal, StageReply, StageSealed};
use crate::ticket::is_dialable;
use crate::transaction::{Block, Transaction};

/// The version of the messages. Peers with different versions part with a clear error.
pub const PROTOCOL_VERSION: u16 = 4;
/// Most blocks in one answer.
pub const BLOCKS_PER_ANSWER_MAX: usize = 64;

/// How long a validator keeps a round open. That is later than the deadline that follows from blocks when the validator was away in
/// between: what its peers did before is submitted again, and the rest of the round's work gets its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundTime {
    /// The round.
    pub round: u64,
    /// Until when, in microseconds, as blocks count time.
    pub until_us: u64,
}

/// Most addresses in one message.
pub const ADDRESSES_PER_MESSAGE_MAX: usize = 256;

/// Where a peer listens, as another one knows it. It is a hint: a connection proves whom it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PeerAddress {
    /// The peer.
    pub peer: PeerId,
    /// Its address. One on loopback means the machine of who says so.
    pub address: SocketAddr,
}

/// What a member of a round made, said before a block holds its commitment, so that others can fetch it early. It is a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PayloadMade {
    /// The round.
    pub round: u64,
    /// The payload's blob, which the speaker gives.
    pub payload: Hash,
    /// Its size in bytes.
    pub payload_bytes: u64,
}

/// A message between two connected peers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// First on every connection, both ways.
    Hello {
        /// The speaker's [`PROTOCOL_VERSION`].
        version: u16,
        /// The run that the speaker takes part in.
        run: RunId,
        /// Blocks that the speaker has.
        height: u64,
        /// From a validator: how long it keeps its open round open.
        open: Option<RoundTime>,
    },
    /// To a validator: please order this.
    Submit(Signed<Transaction>),
    /// A new block.
    Block(Block),
    /// Please send blocks from this height on.
    BlocksWanted {
        /// The first height wanted.
        from_height: u64,
    },
    /// Consecutive blocks, at most [`BLOCKS_PER_ANSWER_MAX`].
    Blocks(Vec<Block>),
    /// The run's charter, for a peer that knows only the run's id.
    Charter(Signed<Charter>),
    /// To a replica of the next stage: please work on this.
    StageCall(StageCall),
    /// The answer to a [`Message::StageCall`].
    StageReply(StageReply),
    /// A [`Message::StageCall`] that is not answered.
    StageRefusal(StageRefusal),
    /// To everybody in the round: no further unit is counted here.
    StageSealed(StageSealed),
    /// From a validator: where other peers can be reached, at most [`ADDRESSES_PER_MESSAGE_MAX`].
    Addresses(Vec<PeerAddress>),
    /// To members of the round: this payload is made.
    PayloadMade(PayloadMade),
    /// A new block, to be passed on to some of those who follow the receiver among the members of the round.
    PassedBlock {
        /// The block.
        block: Block,
        /// How many of them, in ascending order of their ids and round the end, the receiver sees to.
        reach: u32,
    },
}

impl Wire for Message {
    const NAME: &'static str = "message";
    const BYTES_MAX: usize = 32 * 1024 * 1024;

    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::Hello { .. } | Self::BlocksWanted { .. } | Self::StageRefusal(_) | Self::PayloadMade(_) => Ok(()),
            Self::Submit(transaction) => transaction.validate(),
            Self::Block(block) | Self::PassedBlock { block, .. } => block.validate(),
            Self::Blocks(blocks) if blocks.len() > BLOCKS_PER_ANSWER_MAX => Err("at most 64 blocks in one answer"),
            Self::Blocks(blocks) => blocks.iter().try_for_each(Wire::validate),
            Self::Charter(charter) => charter.validate(),
            Self::StageCall(call) => call.validate(),
            Self::StageReply(reply) => reply.validate(),
            Self::StageSealed(sealed) => sealed.validate(),
            Self::Addresses(all) if all.len() > ADDRESSES_PER_MESSAGE_MAX => {
                Err("at most 256 addresses in one message")
            }
            Self::Addresses(all) if !all.iter().all(|known| is_dialable(&known.address)) => {
                Err("an address must be one that others can dial")
            }
            Self::Addresses(_) => Ok(()),
        }
    }
}

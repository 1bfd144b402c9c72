//! What a peer wants done, and what it tells people.

use std::sync::Arc;

use ledger::CommittedSet;
use wire::{Block, Hash, Message, PeerId, Signed, Transaction};

use crate::fault::{Fault, HaltReason};
use crate::job::{Job, JobId};

/// Something to be done by the shell. Outputs are executed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection. Harmless when one is up or being made. The answer is [`crate::Input::Connected`] or
    /// [`crate::Input::Disconnected`].
    Connect(PeerId),
    /// Close the connection, after what was sent before.
    Disconnect(PeerId),
    /// Send a message over the connection; dropped when there is none.
    Send {
        /// The other end.
        to: PeerId,
        /// The message.
        message: Message,
    },
    /// Start a job. Comes only while no other job is running.
    Compute {
        /// The job's name, for the answer.
        job: JobId,
        /// The job.
        work: Job,
    },
    /// Give a job up soon; its answer, if one comes, is ignored. Another [`Output::Compute`] may follow at once: the shell
    /// starts it when the cancelled one is out of the way.
    Cancel(JobId),
    /// Get a blob, verified against its hash, and keep and provide it. Harmless when it is here (then the shell answers at
    /// once) or already being fetched (then the providers are added to).
    Fetch {
        /// The blob's name.
        hash: Hash,
        /// Its size in bytes as announced; more need not be accepted.
        bytes: u64,
        /// Who may have it, the likeliest first; at most [`crate::limits::PROVIDERS_MAX`].
        providers: Vec<PeerId>,
    },
    /// These blobs are no longer needed for any round that the ledger lists. An unknown hash is harmless.
    Forget {
        /// The blobs' names.
        hashes: Vec<Hash>,
    },
    /// Store a record. It is durable before any later output of the same list is executed.
    Persist(Record),
    /// This peer is a member of another stage now. Model, residual and pending work are those of the old one: the shell drops them, keeps
    /// blocks, transactions and blobs, and makes the peer anew with this stage, at once or after a crash. Until then the peer takes no part.
    Move {
        /// Its stage from the open round on.
        stage: u16,
    },
    /// Something happened that people may want to see.
    Event(Event),
    /// A peer misbehaved.
    Fault(Fault),
    /// This peer stopped taking part. It still answers others' requests for blocks.
    Halt(HaltReason),
}

/// Something that must survive a crash. All of it comes back in [`crate::Restored`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The next block, to be stored under its height; a block that is stored there already is replaced.
    Block(Block),
    /// An own transaction that is not in a block yet. Only the newest [`crate::limits::OUTBOX_MAX`] matter.
    Outgoing(Signed<Transaction>),
}

/// Something for people to see. Nothing in the protocol depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block was added to the ledger.
    BlockApplied {
        /// The blocks that the peer has now.
        height: u64,
    },
    /// This peer is a member from this round on.
    Joined {
        /// The first round as a member.
        round: u64,
    },
    /// This peer is no longer a member: it left, or missed too many rounds in a row.
    Left {
        /// The first round without it.
        round: u64,
    },
    /// A round opened.
    RoundOpened {
        /// The round.
        round: u64,
        /// How many members it has.
        members: u32,
        /// How many of its units are this peer's.
        own_units: u32,
        /// When it may close without all commitments, in microseconds on the validator's clock.
        deadline_us: u64,
    },
    /// A peer's commitment is in a block.
    Committed {
        /// The round.
        round: u64,
        /// Whose it is.
        peer: PeerId,
    },
    /// A round closed.
    RoundClosed {
        /// Its payloads.
        committed: Arc<CommittedSet>,
        /// Whether an own payload is among them.
        own_committed: bool,
    },
    /// The own model advanced.
    StateApplied {
        /// The round that starts from the new state.
        round: u64,
        /// The new state's root.
        state_root: Hash,
    },
    /// More than half of a round's members stated the same root.
    StateAgreed {
        /// The round that starts from the state.
        round: u64,
        /// The state's root.
        state_root: Hash,
    },
    /// The own model is several rounds behind.
    CatchingUp {
        /// The round of the own model, when there is one.
        from_round: Option<u64>,
        /// The open round.
        to_round: u64,
    },
    /// The run is complete, and its final state agreed.
    Finished {
        /// Rounds done.
        rounds: u64,
        /// Root of the final state.
        state_root: Hash,
    },
}

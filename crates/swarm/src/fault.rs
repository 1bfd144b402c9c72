//! What a peer can hold against another, and why it stops itself.

use std::fmt;

use wire::{Hash, PeerId};

use crate::pipeline::StageFault;

/// A peer's misbehaviour, as a value: it is recorded and survived, never an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who misbehaved: the sender of a bad message, or the signer of a signed lie.
    pub peer: PeerId,
    /// What it did.
    pub kind: FaultKind,
    /// The open round at the time, 0 before the first.
    pub round: u64,
    /// Digest of the message part that shows it, when there is one.
    pub evidence: Option<Hash>,
}

/// Ways to misbehave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It speaks another version of the protocol.
    WrongVersion {
        /// The version it speaks.
        version: u16,
    },
    /// It takes part in another run, or sent something signed for one.
    WrongRun,
    /// It sent something whose signature does not verify.
    BadSignature,
    /// It sent a block that does not follow from the blocks before.
    BadBlock {
        /// The block's stated height.
        height: u64,
        /// The rule that it breaks.
        reason: String,
    },
    /// It signed a transaction that no honest peer would.
    RejectedTransaction {
        /// The rule that it breaks.
        reason: String,
    },
    /// It announced a payload that nobody could get from it, or of another size.
    UnavailablePayload,
    /// It stated a state root that differs from the one the majority computed.
    Divergent {
        /// The agreed root.
        expected: Hash,
        /// Its root.
        got: Hash,
    },
    /// What it says as a neighbour in the pipeline of stages is wrong.
    Stage(StageFault),
    /// It sent bytes that are no message.
    Undecodable {
        /// What the decoder says, shortened.
        error: String,
    },
    /// It signed two different statements where only one can be true.
    Equivocation,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongVersion { version } => write!(f, "speaks protocol version {version}"),
            Self::WrongRun => f.write_str("takes part in another run"),
            Self::BadSignature => f.write_str("sent a signature that does not verify"),
            Self::BadBlock { height, reason } => write!(f, "sent a bad block {height}: {reason}"),
            Self::RejectedTransaction { reason } => write!(f, "signed a transaction that was rejected: {reason}"),
            Self::UnavailablePayload => f.write_str("announced a payload that it does not provide"),
            Self::Divergent { expected, got } => write!(f, "states root `{got:?}` where `{expected:?}` is agreed"),
            Self::Stage(fault) => write!(f, "{fault}"),
            Self::Undecodable { error } => write!(f, "sent bytes that are no message: {error}"),
            Self::Equivocation => f.write_str("signed two different statements for one place"),
        }
    }
}

/// Why a peer stopped taking part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The own state differs from the one that more than half of the members computed: the machine or the build is not
    /// bit-exact, or its files were changed.
    #[error("the state of round {round} has root `{got:?}` here, but `{expected:?}` is agreed")]
    StateDivergence {
        /// The round that starts from the state.
        round: u64,
        /// The agreed root.
        expected: Hash,
        /// The own root.
        got: Hash,
    },
    /// A job failed in a way that trying again does not mend.
    #[error("the job of round {round} failed: {reason}")]
    JobFailed {
        /// The job's round.
        round: u64,
        /// What the shell said.
        reason: String,
    },
    /// The operator of this peer has had a member in another stage, of a run whose weights are split.
    #[error("this peer may not join stage {stage}: {reason}")]
    MayNotJoin {
        /// The stage that it is made for.
        stage: u16,
        /// The rule.
        reason: String,
    },
    /// A validator's own stored blocks do not follow from each other. Going on could sign a second block for a height.
    #[error("the stored block {height} is damaged: {reason}")]
    DamagedStore {
        /// The block's height.
        height: u64,
        /// The rule that it breaks.
        reason: String,
    },
}

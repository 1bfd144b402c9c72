//! What the checkers find.

use swarm::{FaultKind, HaltReason, JobId, TimeoutReason};
use wire::{Hash, PeerId, UnitId};

/// Something that must never happen did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Shares were made or lost.
    #[error("at height {height} the accounts hold {shares} shares, the supply is {supply}")]
    Supply {
        /// Blocks applied.
        height: u64,
        /// Sum over accounts.
        shares: u64,
        /// What the ledger says was minted.
        supply: u64,
    },
    /// A unit was paid twice in a stage, or is twice in one commitment.
    #[error("unit {unit:?} of stage {stage} in block {height} was paid before")]
    PaidTwice {
        /// The block.
        height: u64,
        /// The stage.
        stage: u16,
        /// The unit.
        unit: UnitId,
    },
    /// Two commitments of a stage claim a unit although nothing went wrong.
    #[error("in round {round} {units} units were counted twice in a stage without any fault")]
    CountedTwice {
        /// The round.
        round: u64,
        /// How many.
        units: u64,
    },
    /// Units were in no commitment of a stage although nothing went wrong.
    #[error("in round {round} {units} units were lost without any fault")]
    UnitsLost {
        /// The round.
        round: u64,
        /// How many, over all stages.
        units: u64,
    },
    /// A receipt of an honest peer says that other bytes came in or went out than the stage's state gives.
    #[error("`{peer:?}` has other bytes for unit {index} in stage {stage} of round {round} than the state gives")]
    WrongBytes {
        /// Whose receipt it is.
        peer: PeerId,
        /// The round.
        round: u64,
        /// The stage.
        stage: u16,
        /// The unit's place in the round.
        index: u32,
    },
    /// A pipeline holds more than its settings permit.
    #[error("the pipeline of `{peer:?}` has {got} {what}, of at most {most}")]
    Unbounded {
        /// Whose.
        peer: PeerId,
        /// Of what.
        what: &'static str,
        /// How much.
        got: u64,
        /// How much is permitted.
        most: u64,
    },
    /// The ledger counts other receipts than the blocks hold.
    #[error("the ledger counts {counted} receipts at height {height}, the blocks hold {held}")]
    Receipts {
        /// Blocks applied.
        height: u64,
        /// Receipts paid, by the ledger.
        counted: u64,
        /// Receipts of closed rounds, by the blocks.
        held: u64,
    },
    /// Two honest peers have different blocks or ledgers of one height.
    #[error("`{peer:?}` has block or ledger {got:?} at height {height}, others have {expected:?}")]
    Fork {
        /// Who differs from the first.
        peer: PeerId,
        /// Blocks applied.
        height: u64,
        /// The first peer's ledger root.
        expected: Hash,
        /// Its root.
        got: Hash,
    },
    /// Two honest peers have different states of one stage and round.
    #[error("`{peer:?}` has state {got:?} of round {round}, others have {expected:?}")]
    States {
        /// Who differs from the first.
        peer: PeerId,
        /// The round.
        round: u64,
        /// The first peer's root.
        expected: Hash,
        /// Its root.
        got: Hash,
    },
    /// An honest peer accused an honest peer.
    #[error("`{by:?}` accuses the honest `{peer:?}`: {kind}")]
    Accused {
        /// Who accuses.
        by: PeerId,
        /// Who is accused.
        peer: PeerId,
        /// Of what.
        kind: Box<FaultKind>,
    },
    /// An honest peer halted.
    #[error("the honest `{peer:?}` halted: {reason}")]
    Halted {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: HaltReason,
    },
    /// A second job was started while one was running.
    #[error("`{peer:?}` started job {second:?} while {running:?} was running")]
    TwoJobs {
        /// Who.
        peer: PeerId,
        /// The running job.
        running: JobId,
        /// The second.
        second: JobId,
    },
    /// A job that cannot be done.
    #[error("`{peer:?}` asked for {what}")]
    BadJob {
        /// Who.
        peer: PeerId,
        /// What is wrong.
        what: &'static str,
    },
    /// The validator ordered a payload that only its peer has.
    #[error("block {height} orders payload {payload:?}, which the validator does not hold")]
    Unheld {
        /// The block.
        height: u64,
        /// The payload.
        payload: Hash,
    },
    /// A peer asks to be called again and again without time going on.
    #[error("`{peer:?}` spins on its timeout for {reason:?}")]
    Spinning {
        /// Who.
        peer: PeerId,
        /// The timeout's reason.
        reason: Option<TimeoutReason>,
    },
    /// Trained tokens vanished from the residual, or went out twice.
    #[error("`{peer:?}` lost track of {tokens} trained tokens")]
    ResidualLost {
        /// Who.
        peer: PeerId,
        /// How many.
        tokens: u64,
    },
    /// The run did not end in time after all faults ended.
    #[error("no end after the faults: {state}")]
    Stuck {
        /// Where it stands.
        state: String,
    },
}

//! Why a transaction or a block is not accepted. Both are values about a peer: nothing here is our own failure.

use wire::{Hash, PeerId, RunId, SignatureError};

/// Why a transaction would change nothing now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Lengths or ranges are wrong.
    #[error("malformed transaction: {field}")]
    Malformed {
        /// The field and its rule.
        field: &'static str,
    },
    /// For another run.
    #[error("it is for run {got:?}, not for run {expected:?}")]
    WrongRun {
        /// This ledger's run.
        expected: RunId,
        /// The run it names.
        got: RunId,
    },
    /// All rounds are done, so membership no longer changes.
    #[error("the run is finished")]
    Finished,
    /// The signer already takes part in this stage, from now or from the next round on.
    #[error("the signer has joined already")]
    AlreadyJoined,
    /// The signer is not a member, or is leaving already.
    #[error("the signer has not joined")]
    NotJoined,
    /// A join of a stage that the charter does not have.
    #[error("there is no stage {got}, the run has {stages}")]
    NoStage {
        /// Stages of the run.
        stages: u16,
        /// The stage it names.
        got: u16,
    },
    /// A join with an operator's certificate for another peer or run.
    #[error("its operator's certificate is for another peer or another run")]
    ForeignCertificate,
    /// A join by another operator than the signer's first one.
    #[error("the signer's operator is `{expected:?}`, not `{got:?}`")]
    OperatorChanged {
        /// The operator of its account.
        expected: PeerId,
        /// The operator it names.
        got: PeerId,
    },
    /// A join of another stage than the one to which its operator is bound, in a run whose weights are split.
    #[error(
        "its operator `{operator:?}` has had a member in stage {stage}, and may have none in stage {got}: the weights are split"
    )]
    OperatorElsewhere {
        /// The operator.
        operator: PeerId,
        /// The stage to which it is bound.
        stage: u16,
        /// The stage it names.
        got: u16,
    },
    /// A join or leave that was used before, or that skips one.
    #[error("its sequence number is {got}, the next is {expected}")]
    WrongSequence {
        /// The next number of the signer.
        expected: u64,
        /// The number it has.
        got: u64,
    },
    /// No room for another account.
    #[error("the run has reached its limit of {max} accounts")]
    AccountsFull {
        /// The limit.
        max: usize,
    },
    /// No room for another member.
    #[error("the run has reached its limit of {max} members")]
    MembersFull {
        /// The limit.
        max: usize,
    },
    /// No round has opened yet.
    #[error("no round is open yet")]
    NotStarted,
    /// For a round that is not the open one: late or early.
    #[error("it is for round {got}, but round {open} is open")]
    RoundNotOpen {
        /// The open round.
        open: u64,
        /// The round it names.
        got: u64,
    },
    /// The signer is not a member of the open round.
    #[error("the signer is not a member of round {round}")]
    NotMember {
        /// The open round.
        round: u64,
    },
    /// An attestation of another stage's state.
    #[error("it is of stage {got}, but the signer is in stage {expected}")]
    WrongStage {
        /// The signer's stage in the open round.
        expected: u16,
        /// The stage it names.
        got: u16,
    },
    /// The signer's attestation for the open round was counted before.
    #[error("the signer has attested round {round} already")]
    AlreadyAttested {
        /// The open round.
        round: u64,
    },
    /// The rounds of the charter are done; only attestations of the final state are accepted.
    #[error("all {rounds} rounds are done")]
    AllRoundsDone {
        /// Rounds of the charter.
        rounds: u64,
    },
    /// The state that the signer's stage starts from is not attested yet.
    #[error("the starting state of round {round} is not attested by a majority yet")]
    StateUnknown {
        /// The open round.
        round: u64,
    },
    /// The signer's commitment of the open round was accepted before.
    #[error("the signer has committed to round {round} already")]
    AlreadyCommitted {
        /// The open round.
        round: u64,
    },
    /// The signer has no units in the open round.
    #[error("the signer has no units in round {round}")]
    NoUnits {
        /// The open round.
        round: u64,
    },
    /// The receipts are not for exactly the assigned units.
    #[error("the receipts are for the units {got:?}, but {expected:?} are assigned to the signer")]
    WrongUnits {
        /// The signer's units.
        expected: Vec<u32>,
        /// The receipts' units.
        got: Vec<u32>,
    },
    /// A receipt of a unit that the round does not have, where any member may claim any unit.
    #[error("there is no unit {got}, the round has {units}")]
    NoUnit {
        /// Units of the open round.
        units: u32,
        /// The unit it names.
        got: u32,
    },
    /// A receipt that somebody else signed.
    #[error("the receipt of unit {index} is signed by `{signer:?}`, not by the transaction's signer")]
    ReceiptSigner {
        /// The unit.
        index: u32,
        /// Who signed it.
        signer: PeerId,
    },
    /// A receipt of another run.
    #[error("the receipt of unit {index} is for run {got:?}, not for run {expected:?}")]
    ReceiptRun {
        /// The unit.
        index: u32,
        /// This ledger's run.
        expected: RunId,
        /// The run it names.
        got: RunId,
    },
    /// A receipt of another round.
    #[error("the receipt of unit {index} is for round {got}, not for round {expected}")]
    ReceiptRound {
        /// The unit.
        index: u32,
        /// The open round.
        expected: u64,
        /// The round it names.
        got: u64,
    },
    /// A receipt of another stage than its signer's.
    #[error("the receipt of unit {index} is of stage {got}, not of stage {expected}")]
    ReceiptStage {
        /// The unit.
        index: u32,
        /// The signer's stage in the open round.
        expected: u16,
        /// The stage it names.
        got: u16,
    },
    /// A receipt whose unit id does not follow from run, round, beacon and index.
    #[error("the receipt of unit {index} names another unit id")]
    ReceiptUnit {
        /// The unit.
        index: u32,
    },
    /// A receipt that starts from another state.
    #[error("the receipt of unit {index} starts from state {got:?}, not from {expected:?}")]
    ReceiptState {
        /// The unit.
        index: u32,
        /// The canonical root.
        expected: Hash,
        /// The root it names.
        got: Hash,
    },
    /// A receipt for another number of tokens than the charter's.
    #[error("the receipt of unit {index} claims {got} tokens, a unit has {expected}")]
    ReceiptTokens {
        /// The unit.
        index: u32,
        /// Tokens of a unit.
        expected: u64,
        /// Tokens it claims.
        got: u64,
    },
    /// A receipt whose counter does not follow the one before.
    #[error("the receipt of unit {index} has counter {got}, the next is {expected}")]
    ReceiptCounter {
        /// The unit.
        index: u32,
        /// The next counter of the signer.
        expected: u64,
        /// The counter it has.
        got: u64,
    },
}

/// Why a block is not the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Lengths or ranges are wrong.
    #[error("malformed block: {field}")]
    Malformed {
        /// The field and its rule.
        field: &'static str,
    },
    /// For another run.
    #[error("the block is for run {got:?}, not for run {expected:?}")]
    WrongRun {
        /// This ledger's run.
        expected: RunId,
        /// The run it names.
        got: RunId,
    },
    /// Not the next height.
    #[error("the block has height {got}, the next is {expected}")]
    WrongHeight {
        /// The next height.
        expected: u64,
        /// The height it has.
        got: u64,
    },
    /// Not on top of the head: with the right height, a sign of two histories.
    #[error("the block at height {height} follows {got:?}, the head is {expected:?}")]
    WrongParent {
        /// Its height.
        height: u64,
        /// Digest of the head.
        expected: Hash,
        /// The parent it names.
        got: Hash,
    },
    /// Before its parent.
    #[error("the block's time {got} us is before its parent's, {parent} us")]
    TimeBackwards {
        /// The parent's time in microseconds.
        parent: u64,
        /// Its time in microseconds.
        got: u64,
    },
    /// Signed by a key that the charter does not name.
    #[error("`{signer:?}` is no validator of the run")]
    ForeignValidator {
        /// Who signed.
        signer: PeerId,
    },
    /// The header names other transactions.
    #[error("the header does not belong to the block's transactions")]
    WrongTransactions,
    /// The header, a transaction or a receipt has a wrong signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A transaction that changes nothing.
    #[error("transaction {index} of `{signer:?}` is not acceptable: {rejection}")]
    Rejected {
        /// Its place in the block.
        index: usize,
        /// Who signed it.
        signer: PeerId,
        /// Why.
        rejection: Rejection,
    },
    /// No transaction, and its time changes nothing either.
    #[error("the block changes nothing")]
    Idle,
    /// The header names another ledger.
    #[error("the block leads to ledger root {got:?}, its header says {expected:?}")]
    WrongRoot {
        /// The root in the header.
        expected: Hash,
        /// The root that follows.
        got: Hash,
    },
}

//! Claims receipts for work from a state that is not the round's: the work of an earlier round sold again.
//!
//! Caught by: the ledger compares each receipt's starting root with the canonical one.

use wire::{Action, Hash, Signed, Transaction};

use super::Liar;

pub(super) fn twist(liar: &Liar<'_>, transaction: Signed<Transaction>) -> Signed<Transaction> {
    let Action::Commit(commitment) = transaction.body.action else { return transaction };
    let before = commitment.round.checked_sub(1).and_then(|round| liar.ledger.state_root(0, round));
    let stale = before.unwrap_or_else(|| Hash::of(b"a state of another run"));
    liar.change_receipts(commitment, |receipt| receipt.state_in = stale)
}

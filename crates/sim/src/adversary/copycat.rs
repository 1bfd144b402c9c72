//! Commits a payload that another peer committed before, with receipts for its own units. Until it sees one it waits.
//!
//! Caught by: the validator refuses a payload that another peer announced in the same round.

use wire::{Action, Signed, Transaction};

use super::Liar;

pub(super) fn twist(liar: &Liar<'_>, transaction: Signed<Transaction>) -> Option<Signed<Transaction>> {
    let Action::Commit(mut commitment) = transaction.body.action else { return Some(transaction) };
    let open = liar.ledger.round()?;
    let victim = open.commitments().find(|entry| entry.peer != transaction.signer)?;
    commitment.payload = victim.payload;
    commitment.payload_bytes = victim.payload_bytes;
    Some(liar.sign(Action::Commit(commitment)))
}

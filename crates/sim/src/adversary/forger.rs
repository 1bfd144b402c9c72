//! Sends a signature that does not verify, or claims the unit of another member, as a coin falls.
//!
//! Caught by: the validator checks every signature; the ledger accepts exactly the assigned units.

use wire::{Action, Signed, Transaction};

use super::Liar;
use crate::random::Random;

pub(super) fn twist(liar: &Liar<'_>, mut transaction: Signed<Transaction>, draw: &mut Random) -> Signed<Transaction> {
    let Action::Commit(commitment) = &transaction.body.action else { return transaction };
    if draw.chance(500_000) {
        transaction.signature.0[7] ^= 1;
        return transaction;
    }
    let mut commitment = commitment.clone();
    commitment.receipts.truncate(1);
    let units = liar.ledger.round().map_or(1, |open| open.units);
    let claimed = |index: u32| (index + 1) % units.max(2);
    let open = liar.ledger.round().cloned();
    liar.change_receipts(commitment, |receipt| {
        receipt.index = claimed(receipt.index);
        if let Some(open) = &open {
            receipt.unit = open.unit_id(receipt.index);
        }
    })
}

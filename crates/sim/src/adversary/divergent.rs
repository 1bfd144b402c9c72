//! Attests a root of its own making, and claims to work from it.
//!
//! Caught by: the majority's root is canonical; the ledger records who differs and rejects receipts from other states.

use wire::{Action, Attestation, Hash, Signed, Transaction};

use super::Liar;

pub(super) fn twist(liar: &Liar<'_>, transaction: Signed<Transaction>) -> Signed<Transaction> {
    let wrong = |root: Hash| Hash::derive("cairn v1 sim divergent root", &[&root.0]);
    match transaction.body.action {
        Action::Attest(Attestation { round, stage, state_root }) => {
            liar.sign(Action::Attest(Attestation { round, stage, state_root: wrong(state_root) }))
        }
        Action::Commit(commitment) => {
            liar.change_receipts(commitment, |receipt| receipt.state_in = wrong(receipt.state_in))
        }
        Action::Join { .. } | Action::Leave { .. } => transaction,
    }
}

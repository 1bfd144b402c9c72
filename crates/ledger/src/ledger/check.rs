//! The rules by which a transaction is accepted. Signatures are not checked here: callers hold verified values.

use wire::{Action, Attestation, Commitment, PeerId, Receipt, Signed, Transaction, Wire};

use crate::error::Rejection;
use crate::ledger::round::RoundOpen;
use crate::ledger::state::{ACCOUNTS_MAX, State, Terms};

impl State {
    /// Whether the transaction would be accepted now.
    pub(crate) fn check(&self, terms: &Terms<'_>, transaction: &Signed<Transaction>) -> Result<(), Rejection> {
        let (signer, body) = (&transaction.signer, &transaction.body);
        if body.run != terms.run {
            return Err(Rejection::WrongRun { expected: terms.run, got: body.run });
        }
        body.validate().map_err(|field| Rejection::Malformed { field })?;
        match &body.action {
            Action::Join { sequence } => self.check_join(terms, signer, *sequence),
            Action::Leave { sequence } => self.check_leave(terms, signer, *sequence),
            Action::Attest(attestation) => self.check_attestation(signer, attestation),
            Action::Commit(commitment) => self.check_commitment(terms, signer, commitment),
        }
    }

    fn check_attestation(&self, signer: &PeerId, attestation: &Attestation) -> Result<(), Rejection> {
        let (round, rank) = self.open_round(signer, attestation.round)?;
        match round.slots[rank].attested {
            Some(_) => Err(Rejection::AlreadyAttested { round: round.round }),
            None => Ok(()),
        }
    }

    fn check_commitment(&self, terms: &Terms<'_>, signer: &PeerId, commitment: &Commitment) -> Result<(), Rejection> {
        let (round, rank) = self.open_round(signer, commitment.round)?;
        let number = round.round;
        if number == terms.charter.rounds {
            return Err(Rejection::AllRoundsDone { rounds: number });
        }
        if round.state_root.is_none() {
            return Err(Rejection::StateUnknown { round: number });
        }
        if round.slots[rank].committed.is_some() {
            return Err(Rejection::AlreadyCommitted { round: number });
        }
        let expected: Vec<u32> = round.units_of_rank(rank).collect();
        if expected.is_empty() {
            return Err(Rejection::NoUnits { round: number });
        }
        let got: Vec<u32> = commitment.receipts.iter().map(|receipt| receipt.body.index).collect();
        if got != expected {
            return Err(Rejection::WrongUnits { expected, got });
        }
        let paid = self.accounts.get(signer).map_or(0, |account| account.receipts);
        commitment.receipts.iter().zip(paid..).try_for_each(|(receipt, counter)| {
            if receipt.signer != *signer {
                return Err(Rejection::ReceiptSigner { index: receipt.body.index, signer: receipt.signer });
            }
            check_receipt(terms, round, &receipt.body, counter)
        })
    }

    /// The open round, when it is the one named and `signer` is its member, and the signer's place in it.
    fn open_round(&self, signer: &PeerId, got: u64) -> Result<(&RoundOpen, usize), Rejection> {
        let round = self.round.as_ref().ok_or(Rejection::NotStarted)?;
        if round.round != got {
            return Err(Rejection::RoundNotOpen { open: round.round, got });
        }
        let rank = round.rank(signer).ok_or(Rejection::NotMember { round: round.round })?;
        Ok((round, rank))
    }

    /// Whether there is room for an account of `peer`.
    pub(crate) fn check_room(&self, peer: &PeerId) -> Result<(), Rejection> {
        let full = self.accounts.all().len() >= ACCOUNTS_MAX && self.accounts.get(peer).is_none();
        if full { Err(Rejection::AccountsFull { max: ACCOUNTS_MAX }) } else { Ok(()) }
    }
}

/// Checks what a receipt says against what follows from public values.
fn check_receipt(terms: &Terms<'_>, round: &RoundOpen, receipt: &Receipt, counter: u64) -> Result<(), Rejection> {
    let index = receipt.index;
    if receipt.run != terms.run {
        return Err(Rejection::ReceiptRun { index, expected: terms.run, got: receipt.run });
    }
    if receipt.round != round.round {
        return Err(Rejection::ReceiptRound { index, expected: round.round, got: receipt.round });
    }
    if receipt.unit != round.unit_id(index) {
        return Err(Rejection::ReceiptUnit { index });
    }
    if let Some(expected) = round.state_root.filter(|root| *root != receipt.state_in) {
        return Err(Rejection::ReceiptState { index, expected, got: receipt.state_in });
    }
    let expected = terms.charter.unit_tokens;
    if receipt.tokens != expected {
        return Err(Rejection::ReceiptTokens { index, expected, got: receipt.tokens });
    }
    if receipt.counter != counter {
        return Err(Rejection::ReceiptCounter { index, expected: counter, got: receipt.counter });
    }
    Ok(())
}

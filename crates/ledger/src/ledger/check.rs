//! The rules by which a transaction is accepted. Signatures are not checked here: callers hold verified values.

use wire::{Action, Attestation, Commitment, Hash, PeerId, Receipt, Signed, Transaction, Wire};

use crate::error::Rejection;
use crate::ledger::membership::Join;
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
            Action::Join { sequence, stage, operator } => {
                let join = Join { sequence: *sequence, stage: *stage, operator: operator.as_ref() };
                self.check_join(terms, signer, &join)
            }
            Action::Leave { sequence } => self.check_leave(terms, signer, *sequence),
            Action::Attest(attestation) => self.check_attestation(signer, attestation),
            Action::Commit(commitment) => self.check_commitment(terms, signer, commitment),
        }
    }

    fn check_attestation(&self, signer: &PeerId, attestation: &Attestation) -> Result<(), Rejection> {
        let (round, rank) = self.open_round(signer, attestation.round)?;
        let expected = round.stages[rank];
        if attestation.stage != expected {
            return Err(Rejection::WrongStage { expected, got: attestation.stage });
        }
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
        let stage = round.stages[rank];
        let Some(state) = round.state_root_of(stage) else {
            return Err(Rejection::StateUnknown { round: number });
        };
        if round.slots[rank].committed.is_some() {
            return Err(Rejection::AlreadyCommitted { round: number });
        }
        check_units(round, signer, commitment)?;
        let before = self.accounts.get(signer).map_or(0, |account| account.counter);
        commitment.receipts.iter().zip(before..).try_for_each(|(receipt, counter)| {
            if receipt.signer != *signer {
                return Err(Rejection::ReceiptSigner { index: receipt.body.index, signer: receipt.signer });
            }
            check_receipt(terms, round, &receipt.body, Expected { stage, state, counter })
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

/// Checks that the receipts are for units that the signer may claim: with one stage exactly the assigned ones, with
/// several any of the round. That a commitment names no unit twice is part of its form.
fn check_units(round: &RoundOpen, signer: &PeerId, commitment: &Commitment) -> Result<(), Rejection> {
    let mut indices = commitment.receipts.iter().map(|receipt| receipt.body.index);
    if round.stages_len() > 1 {
        let units = round.units;
        return indices.find(|index| *index >= units).map_or(Ok(()), |got| Err(Rejection::NoUnit { units, got }));
    }
    let expected = round.units_of(signer);
    if expected.is_empty() {
        return Err(Rejection::NoUnits { round: round.round });
    }
    let got: Vec<u32> = indices.collect();
    if got == expected { Ok(()) } else { Err(Rejection::WrongUnits { expected, got }) }
}

/// What a receipt must say besides what follows from its round and unit.
struct Expected {
    stage: u16,
    /// The canonical starting root of the stage.
    state: Hash,
    counter: u64,
}

/// Checks what a receipt says against what follows from public values.
fn check_receipt(terms: &Terms<'_>, round: &RoundOpen, receipt: &Receipt, expected: Expected) -> Result<(), Rejection> {
    let Expected { stage, state, counter } = expected;
    let index = receipt.index;
    if receipt.run != terms.run {
        return Err(Rejection::ReceiptRun { index, expected: terms.run, got: receipt.run });
    }
    if receipt.round != round.round {
        return Err(Rejection::ReceiptRound { index, expected: round.round, got: receipt.round });
    }
    if receipt.stage != stage {
        return Err(Rejection::ReceiptStage { index, expected: stage, got: receipt.stage });
    }
    if receipt.unit != round.unit_id(index) {
        return Err(Rejection::ReceiptUnit { index });
    }
    if receipt.state_in != state {
        return Err(Rejection::ReceiptState { index, expected: state, got: receipt.state_in });
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

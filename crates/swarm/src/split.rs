//! What a peer may hold where the charter splits the weights, and how a payload gets a second holder there.
//!
//! Purpose: under [`Release::Split`](wire::Release) a peer holds states and payloads of its own stage only. Elsewhere the validator fetches
//! every payload before it orders the commitment, so that no member can stall a round by keeping its payload to itself; here it may
//! not, and members of the payload's stage do it in its place.
//!
//! Message sequence: `Submit` to the validator → it passes the commitment on, as `Submit`, to members of the commitment's stage → each
//! fetches the payload from its peer → who holds it sends the `Submit` back → the validator orders the commitment.
//!
//! Source: none; the rule that a committed payload has a holder is the training design's (section 2).
//!
//! Safety: a member of the stage besides the signer said that it holds the payload, unless the validator is connected with none. A
//! holder that lies can stall its own stage, together with the signer. Liveness: a commitment is passed on anew, to others, whenever its
//! peer submits it again.
//!
//! What it does not do: it does not keep a member from passing its blobs on outside of the protocol.

use std::collections::BTreeMap;

use ledger::Ledger;
use wire::{Action, Commitment, Hash, Message, PeerId, Signable, Signed, Transaction, Verified};

use crate::fetches::Need;
use crate::limits::PROVIDERS_MAX;
use crate::{FaultKind, Output, Peer, Time};

/// Commitments of the own stage whose payloads a validator wants to have a second holder, by signer.
#[derive(Debug, Default)]
pub(crate) struct Vouching {
    wanted: BTreeMap<PeerId, Verified<Transaction>>,
}

impl Vouching {
    /// Adds the payloads that are to be fetched.
    pub(crate) fn add_needs(&self, needs: &mut BTreeMap<Hash, Need>) {
        for transaction in self.wanted.values() {
            if let Some(commitment) = commitment_of(transaction) {
                let (bytes, providers) = (commitment.payload_bytes, vec![transaction.signer]);
                needs.entry(commitment.payload).or_insert(Need { bytes, providers });
            }
        }
    }

    /// Drops the commitments of rounds that are over, and gives their payloads.
    pub(crate) fn prune(&mut self, round: u64) -> Vec<Hash> {
        let over =
            |transaction: &Verified<Transaction>| commitment_of(transaction).is_none_or(|body| body.round < round);
        let dropped = self.wanted.extract_if(.., |_, transaction| over(transaction));
        dropped.filter_map(|(_, transaction)| commitment_of(&transaction).map(|body| body.payload)).collect()
    }
}

fn commitment_of(transaction: &Signed<Transaction>) -> Option<&Commitment> {
    match &transaction.body.action {
        Action::Commit(commitment) => Some(commitment),
        Action::Join { .. } | Action::Leave { .. } | Action::Attest(_) => None,
    }
}

/// The stage to which a commitment claims to belong.
pub(crate) fn stage_of(commitment: &Commitment) -> Option<u16> {
    commitment.receipts.first().map(|receipt| receipt.body.stage)
}

/// The stage of a peer's account.
fn account_stage(ledger: &Ledger, peer: &PeerId) -> Option<u16> {
    ledger.account(peer).map(|account| account.stage)
}

impl Peer {
    /// Whether the charter splits the weights over operators.
    pub(crate) fn is_split(&self) -> bool {
        self.ledger.charter().release.is_split()
    }

    /// Whether this peer may hold states and payloads of a stage.
    pub(crate) fn may_hold(&self, stage: u16) -> bool {
        !self.is_split() || stage == self.config.stage
    }

    /// Whether another peer may have, and give, what this one may hold.
    pub(crate) fn may_give(&self, peer: &PeerId) -> bool {
        !self.is_split() || account_stage(&self.ledger, peer) == Some(self.config.stage)
    }

    /// The members of a stage besides `signer` with whom this peer is connected.
    fn others_up(&self, stage: u16, signer: PeerId) -> impl Iterator<Item = PeerId> + '_ {
        let open = self.ledger.round().into_iter();
        let members = open.flat_map(move |open| open.members_of(stage)).copied();
        members.filter(move |peer| *peer != signer && self.links.is_up(*peer))
    }

    /// Passes a commitment of a stage whose payloads may not be fetched here on to members of that stage. `times` says how often before.
    pub(crate) fn ask_holders(&self, transaction: &Signed<Transaction>, times: u32, out: &mut Vec<Output>) {
        let Some(commitment) = commitment_of(transaction) else { return };
        let Some(stage) = stage_of(commitment).filter(|stage| !self.may_hold(*stage)) else { return };
        let mut others: Vec<PeerId> = self.others_up(stage, transaction.signer).collect();
        let order = |peer: &PeerId| {
            Hash::derive("cairn v1 holder order", &[&commitment.payload.0, &peer.0, &times.to_le_bytes()])
        };
        others.sort_by_key(order);
        others.truncate(PROVIDERS_MAX);
        let message = || Message::Submit(transaction.clone());
        out.extend(others.into_iter().map(|to| Output::Send { to, message: message() }));
    }

    /// Whether `from`, who passed a commitment on, says by that that it holds the payload.
    pub(crate) fn is_holder(&self, from: PeerId, transaction: &Signed<Transaction>) -> bool {
        let stage = commitment_of(transaction).and_then(stage_of);
        from != transaction.signer && stage.is_some() && account_stage(&self.ledger, &from) == stage
    }

    /// Whether a commitment whose payload may not be fetched here can be ordered: somebody of its stage holds the payload, or nobody of it
    /// is there to hold it.
    pub(crate) fn has_holder(&self, transaction: &Signed<Transaction>, is_vouched_for: bool) -> bool {
        let Some(stage) = commitment_of(transaction).and_then(stage_of) else { return false };
        !self.may_hold(stage) && (is_vouched_for || self.others_up(stage, transaction.signer).next().is_none())
    }

    /// Takes a commitment of the own stage that a validator passed on: gets its payload, and says so once it is here.
    pub(crate) fn vouch(&mut self, from: PeerId, transaction: Signed<Transaction>, now: Time, out: &mut Vec<Output>) {
        let is_asked = self.is_split() && self.ledger.is_validator(&from) && transaction.body.run == self.run;
        let (round, signer) = (self.target_round(), transaction.signer);
        let Some(commitment) = commitment_of(&transaction).filter(|commitment| commitment.round >= round) else {
            return;
        };
        let ours = stage_of(commitment) == Some(self.config.stage) && self.may_give(&signer) && signer != self.id;
        if !is_asked || !ours || commitment.payload_bytes > self.stage_terms().state_bytes {
            return;
        }
        let (payload, digest) = (commitment.payload, transaction.body.digest());
        let Ok(transaction) = transaction.verify() else {
            return self.fault(from, FaultKind::BadSignature, Some(digest), now, out);
        };
        self.vouching.wanted.insert(signer, transaction);
        self.needs_changed = true;
        if self.fetches.holds(&payload) {
            self.tell_holding(payload, None, now, out);
        }
    }

    /// Tells the validators of the commitments whose payload is here. Who announced another size than it has loses its commitment here.
    pub(crate) fn tell_holding(&mut self, payload: Hash, bytes: Option<u64>, now: Time, out: &mut Vec<Output>) {
        let mut liars = Vec::new();
        for (signer, transaction) in &self.vouching.wanted {
            let Some(commitment) = commitment_of(transaction).filter(|body| body.payload == payload) else { continue };
            if bytes.is_some_and(|bytes| bytes != commitment.payload_bytes) {
                liars.push((*signer, transaction.body.digest()));
                continue;
            }
            let message = Message::Submit(Signed::clone(transaction));
            out.extend(self.links.validators_up().map(|to| Output::Send { to, message: message.clone() }));
        }
        for (signer, digest) in liars {
            self.vouching.wanted.remove(&signer);
            self.fault(signer, FaultKind::UnavailablePayload, Some(digest), now, out);
        }
    }

    /// Gives up the payloads that were held for commitments to rounds that are over, unless they are in a block.
    pub(crate) fn forget_vouched(&mut self, out: &mut Vec<Output>) {
        let round = self.target_round();
        let payloads = self.vouching.prune(round);
        self.forget_unless_kept(payloads, out);
    }
}

//! The validator's duty: collect transactions, make sure of their payloads, order them in blocks.
//!
//! Purpose: one history that every peer can check. This version has one proposer, the charter's first validator; a
//! Byzantine-fault-tolerant engine takes its place when there are several.
//!
//! Message sequence: `Submit` → signatures and rules are checked → a commitment's payload is fetched from its peer → at most
//! every `block_interval_us` (longer among many, who all get every block), and at a round's deadline, a block is proposed → it is made durable → it is sent.
//!
//! Where the charter splits the weights, payloads of other stages are not fetched; members of their stages hold them (`split.rs`).
//!
//! Safety: a committed payload has a holder besides its peer, since it is fetched before it is included, or somebody of its stage says
//! that it holds it; a block is durable
//! before anybody sees it, so a validator that crashes never signs two blocks of one height that others could see.
//! Liveness: a transaction that could be accepted later (its round's root is not canonical yet) waits here; one that was
//! lost, or dropped because the pool was full, is submitted again by its peer.
//!
//! What it does not do: it does not keep the pool over a restart, and it does not judge whether units were computed honestly.

use std::collections::BTreeMap;

use ledger::{Ledger, Rejection, RoundOpen};
use wire::{
    Action, Block, Commitment, Hash, PeerId, RoundTime, Signable, Signed, Transaction, Verified, VerifiedBlock,
};

use crate::fetches::Need;
use crate::limits::{PAYLOAD_FETCHES_MAX, POOL_MAX, POOL_PER_SIGNER_MAX};
use crate::split::stage_of;
use crate::{FaultKind, HaltReason, Output, Peer, Time};

/// So many members, and each further ones, add an interval between blocks.
const MEMBERS_PER_INTERVAL: usize = 64;

/// What a validator holds for the next blocks.
#[derive(Debug, Default)]
pub(crate) struct Ordering {
    pool: BTreeMap<Hash, Waiting>,
    arrivals: u64,
    /// Whether something changed since the last proposal that may make a block.
    ready: bool,
    not_before: Time,
    /// The open round, and when this process first saw it open.
    opened: Option<(u64, Time)>,
}

#[derive(Debug)]
struct Waiting {
    transaction: Verified<Transaction>,
    arrival: u64,
    /// Who submitted it.
    from: PeerId,
    /// Whether somebody of its stage says that it holds the payload, where this is not for the validator to hold.
    vouched_for: bool,
    /// How often it was passed on to such members.
    asks: u32,
}

impl Waiting {
    /// Joins and leaves first, then attestations, which commitments may wait for.
    fn class(&self) -> u8 {
        match self.transaction.body.action {
            Action::Join { .. } | Action::Leave { .. } => 0,
            Action::Attest(_) => 1,
            Action::Commit(_) => 2,
        }
    }

    /// Its payload and the size it states.
    fn payload(&self) -> Option<(Hash, u64)> {
        match &self.transaction.body.action {
            Action::Commit(commitment) => Some((commitment.payload, commitment.payload_bytes)),
            Action::Join { .. } | Action::Leave { .. } | Action::Attest(_) => None,
        }
    }

    /// Its payload, as something to be fetched.
    fn need(&self) -> Option<(Hash, Need)> {
        let (payload, bytes) = self.payload()?;
        let mut providers = vec![self.transaction.signer];
        if self.from != self.transaction.signer {
            providers.push(self.from);
        }
        Some((payload, Need { bytes, providers }))
    }

    /// The stage of a commitment.
    fn stage(&self) -> Option<u16> {
        match &self.transaction.body.action {
            Action::Commit(commitment) => stage_of(commitment),
            Action::Join { .. } | Action::Leave { .. } | Action::Attest(_) => None,
        }
    }
}

impl Ordering {
    /// When the next proposal may be made, if there is anything for it.
    pub(crate) fn next_proposal(&self) -> Option<Time> {
        (self.ready && !self.pool.is_empty()).then_some(self.not_before)
    }

    /// When the open round, whose deadline is `at`, can be closed without all commitments.
    pub(crate) fn next_deadline(&self, at: Time, whole_us: u64) -> Time {
        self.not_before.max(self.lasts_until(at, whole_us))
    }

    /// A round stays open for its whole time while its validator runs: what was done before the validator was away is
    /// submitted again after it came back, and must not find the round closed.
    fn lasts_until(&self, deadline: Time, whole_us: u64) -> Time {
        self.opened.map_or(deadline, |(_, seen)| deadline.max(seen.after(whole_us)))
    }

    /// How long the open round is kept open.
    pub(crate) fn round_time(&self, open: &RoundOpen) -> RoundTime {
        let whole_us = open.deadline_us.saturating_sub(open.opened_us);
        let until = self.lasts_until(Time::from_micros(open.deadline_us), whole_us);
        RoundTime { round: open.round, until_us: until.as_micros() }
    }

    fn note_round(&mut self, round: Option<u64>, now: Time) {
        if self.opened.map(|(round, _)| round) != round {
            self.opened = round.map(|round| (round, now));
        }
    }

    /// Notes that a payload arrived, or anything else that may make a block.
    pub(crate) fn wake(&mut self) {
        self.ready = true;
    }

    /// Adds the payloads that commitments wait for, of the stages whose payloads this peer may hold.
    pub(crate) fn add_needs(&self, may_hold: impl Fn(u16) -> bool, needs: &mut BTreeMap<Hash, Need>) {
        for waiting in self.pool.values().filter(|waiting| waiting.stage().is_some_and(&may_hold)) {
            if let Some((payload, need)) = waiting.need() {
                needs.entry(payload).or_insert(need);
            }
        }
    }

    /// Takes the commitments to a payload out of the pool, and names their signers.
    fn take_by_payload(&mut self, payload: Hash, keep: impl Fn(u64) -> bool) -> Vec<(Hash, PeerId)> {
        let lies = |waiting: &Waiting| waiting.payload().is_some_and(|(hash, bytes)| hash == payload && !keep(bytes));
        let taken = self.pool.extract_if(.., |_, waiting| lies(waiting));
        taken.map(|(digest, waiting)| (digest, waiting.transaction.signer)).collect()
    }

    fn has_room(&self, signer: PeerId) -> bool {
        let of_signer = self.pool.values().filter(|waiting| waiting.transaction.signer == signer);
        self.pool.len() < POOL_MAX && of_signer.count() < POOL_PER_SIGNER_MAX
    }

    /// Whether the signer has another statement here for the same place.
    fn contradicts(&self, transaction: &Signed<Transaction>) -> bool {
        let same_place = |other: &Action| match (other, &transaction.body.action) {
            (Action::Commit(one), Action::Commit(two)) => one.round == two.round && stage_of(one) == stage_of(two),
            (Action::Attest(one), Action::Attest(two)) => (one.round, one.stage) == (two.round, two.stage),
            _ => false,
        };
        let mut others = self.pool.values().filter(|waiting| waiting.transaction.signer == transaction.signer);
        others.any(|waiting| same_place(&waiting.transaction.body.action))
    }

    /// The transactions for a block, in order: those whose payloads are `here`, or have none.
    fn candidates(&self, here: impl Fn(&Waiting) -> bool) -> Vec<Verified<Transaction>> {
        let mut chosen: Vec<&Waiting> = self.pool.values().filter(|waiting| here(waiting)).collect();
        chosen.sort_by_key(|waiting| (waiting.class(), waiting.arrival));
        chosen.into_iter().map(|waiting| waiting.transaction.clone()).collect()
    }

    /// Drops what can no longer be accepted, and gives the payloads of the dropped commitments.
    fn prune(&mut self, ledger: &Ledger) -> Vec<Hash> {
        let gone = |waiting: &Waiting| {
            let verdict = ledger.check(&waiting.transaction).err();
            verdict.is_some_and(|rejection| judge(&rejection, &waiting.transaction, ledger) != Verdict::Wait)
        };
        let dropped = self.pool.extract_if(.., |_, waiting| gone(waiting));
        dropped.filter_map(|(_, waiting)| waiting.payload()).map(|(payload, _)| payload).collect()
    }
}

/// What to do with a transaction that the ledger does not accept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It may be accepted later.
    Wait,
    /// An honest peer may have sent it: late, or twice.
    Drop,
    /// An honest peer never signs this.
    Fault,
    /// It contradicts what the signer said before.
    Equivocation,
}

fn judge(rejection: &Rejection, transaction: &Signed<Transaction>, ledger: &Ledger) -> Verdict {
    let signer = &transaction.signer;
    match rejection {
        Rejection::NotStarted | Rejection::StateUnknown { .. } => Verdict::Wait,
        Rejection::RoundNotOpen { open, got } if got > open => Verdict::Wait,
        Rejection::AlreadyAttested { .. } | Rejection::AlreadyCommitted { .. } => {
            let open = ledger.round();
            let same = match &transaction.body.action {
                Action::Attest(attestation) => {
                    open.and_then(|open| open.attestation(signer)) == Some(attestation.state_root)
                }
                Action::Commit(commitment) => open
                    .and_then(|open| open.commitment(signer))
                    .is_some_and(|entry| entry.payload == commitment.payload),
                Action::Join { .. } | Action::Leave { .. } => true,
            };
            if same { Verdict::Drop } else { Verdict::Equivocation }
        }
        Rejection::RoundNotOpen { .. }
        | Rejection::Finished
        | Rejection::AllRoundsDone { .. }
        | Rejection::AlreadyJoined
        | Rejection::NotJoined
        | Rejection::NotMember { .. }
        | Rejection::WrongSequence { .. }
        | Rejection::OperatorElsewhere { .. }
        | Rejection::WrongStage { .. }
        | Rejection::ReceiptStage { .. }
        | Rejection::AccountsFull { .. }
        | Rejection::MembersFull { .. } => Verdict::Drop,
        Rejection::Malformed { .. }
        | Rejection::WrongRun { .. }
        | Rejection::NoStage { .. }
        | Rejection::ForeignCertificate
        | Rejection::OperatorChanged { .. }
        | Rejection::NoUnit { .. }
        | Rejection::NoUnits { .. }
        | Rejection::WrongUnits { .. }
        | Rejection::ReceiptSigner { .. }
        | Rejection::ReceiptRun { .. }
        | Rejection::ReceiptRound { .. }
        | Rejection::ReceiptUnit { .. }
        | Rejection::ReceiptState { .. }
        | Rejection::ReceiptTokens { .. }
        | Rejection::ReceiptCounter { .. } => Verdict::Fault,
    }
}

impl Peer {
    /// Takes a submitted transaction into the pool, if it is one that a block could contain.
    pub(crate) fn collect(&mut self, from: PeerId, transaction: Signed<Transaction>, now: Time, out: &mut Vec<Output>) {
        if self.ordering.is_none() {
            return self.vouch(from, transaction, now, out);
        }
        let digest = transaction.body.digest();
        if self.is_pooled(from, &transaction, digest, out) {
            return;
        }
        let Some(ordering) = self.ordering.as_ref().filter(|ordering| ordering.has_room(transaction.signer)) else {
            return;
        };
        if transaction.body.run != self.run {
            return self.fault(from, FaultKind::WrongRun, Some(digest), now, out);
        }
        let Ok(transaction) = transaction.verify() else {
            return self.fault(from, FaultKind::BadSignature, Some(digest), now, out);
        };
        let signer = transaction.signer;
        let mut verdict = match self.ledger.check(&transaction) {
            Ok(()) => Verdict::Wait,
            Err(rejection) => match judge(&rejection, &transaction, &self.ledger) {
                Verdict::Fault => {
                    let kind = FaultKind::RejectedTransaction { reason: rejection.to_string() };
                    return self.fault(signer, kind, Some(digest), now, out);
                }
                verdict => verdict,
            },
        };
        if verdict == Verdict::Wait && ordering.contradicts(&transaction) {
            verdict = Verdict::Equivocation;
        }
        match verdict {
            Verdict::Wait => self.pool(from, transaction, digest, now, out),
            Verdict::Equivocation => self.fault(signer, FaultKind::Equivocation, Some(digest), now, out),
            Verdict::Drop | Verdict::Fault => {}
        }
    }

    /// Whether a transaction is in the pool. Who submits it again may thereby say that it holds the payload; its signer asks for such.
    fn is_pooled(
        &mut self,
        from: PeerId,
        transaction: &Signed<Transaction>,
        digest: Hash,
        out: &mut Vec<Output>,
    ) -> bool {
        let (key, holder) = (pool_key(transaction, digest), self.is_holder(from, transaction));
        let Some(ordering) = &mut self.ordering else { return false };
        let Some(waiting) = ordering.pool.get_mut(&key) else { return false };
        if holder {
            waiting.vouched_for = true;
            ordering.ready = true;
        } else if from == transaction.signer {
            waiting.asks += 1;
            let asks = waiting.asks;
            self.ask_holders(transaction, asks, out);
        }
        true
    }

    fn pool(
        &mut self,
        from: PeerId,
        transaction: Verified<Transaction>,
        digest: Hash,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        if let Action::Commit(commitment) = &transaction.body.action
            && self.repeats(&transaction.signer, commitment)
        {
            return;
        }
        if let Action::Commit(commitment) = &transaction.body.action
            && let Some(reason) = self.refuses(&transaction.signer, commitment)
        {
            let kind = FaultKind::RejectedTransaction { reason };
            return self.fault(transaction.signer, kind, Some(digest), now, out);
        }
        let vouched_for = self.is_holder(from, &transaction);
        if !vouched_for {
            self.ask_holders(&transaction, 0, out);
        }
        let Some(ordering) = &mut self.ordering else { return };
        let arrival = ordering.arrivals;
        ordering.arrivals += 1;
        ordering.ready = true;
        let key = pool_key(&transaction, digest);
        let waiting = Waiting { transaction, arrival, from, vouched_for, asks: 0 };
        let need = waiting.need().filter(|_| waiting.stage().is_some_and(|stage| self.may_hold(stage)));
        if let Some(ordering) = &mut self.ordering {
            ordering.pool.insert(key, waiting);
        }
        if let Some((payload, need)) = need {
            self.fetches.add_need(payload, need, now);
        }
    }

    /// Whether a commitment is the same work as one that is in a block or waits for one: replicas of one stage, both without a residual,
    /// that did the same units in the same order have the same payload. It would be paid nothing, and count the work twice.
    fn repeats(&self, signer: &PeerId, commitment: &Commitment) -> bool {
        let Some(open) = self.ledger.round().filter(|open| open.stages_len() > 1 && open.round == commitment.round)
        else {
            return false;
        };
        let stage = stage_of(commitment);
        let units = |commitment: &Commitment| -> Vec<u32> {
            commitment.receipts.iter().map(|receipt| receipt.body.index).collect()
        };
        let pooled = || self.ordering.iter().flat_map(|ordering| ordering.pool.values());
        let waits = pooled().any(|waiting| match &waiting.transaction.body.action {
            Action::Commit(other) if waiting.transaction.signer != *signer && other.round == commitment.round => {
                other.payload == commitment.payload && stage_of(other) == stage && units(other) == units(commitment)
            }
            _ => false,
        });
        let in_block = open
            .commitments()
            .any(|entry| entry.peer != *signer && entry.payload == commitment.payload && Some(entry.stage) == stage);
        let claimed = |unit: u32| stage.is_some_and(|stage| open.is_claimed(stage, unit));
        waits || in_block && units(commitment).into_iter().all(claimed)
    }

    /// Why a commitment that the ledger would accept is not worth fetching: it is larger than a whole state, or another
    /// peer announced the same payload before. Payloads are made from different units, so honest ones never agree; those that do are
    /// [repeated](Self::repeats) work.
    fn refuses(&self, signer: &PeerId, commitment: &Commitment) -> Option<String> {
        let largest = self.ledger.charter().stages.iter().map(|stage| stage.state_bytes).max();
        if Some(commitment.payload_bytes) > largest {
            return Some(format!("a payload of {} bytes is larger than the state", commitment.payload_bytes));
        }
        let mut committed = self.ledger.round().into_iter().flat_map(|open| open.commitments());
        let mut pooled = self.ordering.iter().flat_map(|ordering| ordering.pool.values());
        let copied = committed.any(|entry| entry.payload == commitment.payload && entry.peer != *signer)
            || pooled.any(|waiting| {
                let payload = waiting.payload().map(|(payload, _)| payload);
                payload == Some(commitment.payload) && waiting.transaction.signer != *signer
            });
        copied.then(|| "its payload was announced by another peer before".to_owned())
    }

    /// Notes the true size of a payload that arrived: who announced another loses its commitment.
    pub(crate) fn check_payload_size(&mut self, payload: Hash, bytes: u64, now: Time, out: &mut Vec<Output>) {
        let Some(ordering) = &mut self.ordering else { return };
        ordering.wake();
        for (digest, signer) in ordering.take_by_payload(payload, |stated| stated == bytes) {
            self.fault(signer, FaultKind::UnavailablePayload, Some(digest), now, out);
        }
    }

    /// Notes that all providers of a payload failed `times` times.
    pub(crate) fn note_unavailable_payload(&mut self, payload: Hash, times: u32, now: Time, out: &mut Vec<Output>) {
        let Some(ordering) = self.ordering.as_mut().filter(|_| times >= PAYLOAD_FETCHES_MAX) else { return };
        for (digest, signer) in ordering.take_by_payload(payload, |_| false) {
            self.needs_changed = true;
            self.fault(signer, FaultKind::UnavailablePayload, Some(digest), now, out);
        }
    }

    /// Makes a block if it is time for one. True when it did.
    pub(crate) fn order(&mut self, now: Time, out: &mut Vec<Output>) -> bool {
        let opened_us = self.ledger.round().map_or(0, |open| open.opened_us);
        let crowd =
            self.ledger.round().map_or(0, |open| open.members.len()).div_ceil(MEMBERS_PER_INTERVAL).max(1) as u64;
        let Some(ordering) = &mut self.ordering else { return false };
        ordering.note_round(self.ledger.round().map(|open| open.round), now);
        let lasts_until = |at: u64| ordering.lasts_until(Time::from_micros(at), at.saturating_sub(opened_us));
        let deadline = self.ledger.closes_at_us().is_some_and(|at| lasts_until(at) <= now);
        let due = deadline || (ordering.ready && !ordering.pool.is_empty());
        if !due || now < ordering.not_before {
            return false;
        }
        ordering.ready = false;
        ordering.not_before = now.after(self.config.block_interval_us.saturating_mul(crowd));
        let Some(ordering) = &self.ordering else { return false };
        let here = |waiting: &Waiting| match waiting.payload() {
            Some((payload, _)) => {
                self.fetches.holds(&payload) || self.has_holder(&waiting.transaction, waiting.vouched_for)
            }
            None => true,
        };
        let candidates = ordering.candidates(here);
        let Some(block) = self.propose(now, candidates) else { return false };
        let height = block.header.body.height;
        self.config.checked.remember(&block);
        if let Err(error) = self.adopt(VerifiedBlock::trusted(block.clone()), now, out) {
            self.ordering = None;
            self.halt(HaltReason::DamagedStore { height, reason: error.to_string() }, out);
            return false;
        }
        self.after_block(out);
        self.spread(&block, out);
        true
    }

    /// The next block. Its time is now, except where that alone would close a round whose deadline passed while this
    /// validator was away: then it is just before the deadline.
    fn propose(&self, now: Time, candidates: Vec<Verified<Transaction>>) -> Option<Block> {
        let now_us = now.as_micros();
        let open = self.ledger.round();
        let deadline_us = open.map_or(u64::MAX, |open| open.deadline_us);
        let whole_us = open.map_or(0, |open| deadline_us.saturating_sub(open.opened_us));
        let lasts_until = self.ordering.as_ref()?.lasts_until(Time::from_micros(deadline_us), whole_us);
        if now_us < deadline_us || now >= lasts_until {
            return self.ledger.propose(&self.identity, now_us, candidates);
        }
        let block = self.ledger.propose(&self.identity, deadline_us - 1, candidates.clone())?;
        let applied = self.ledger.clone().apply_verified(&VerifiedBlock::trusted(block.clone())).ok()?;
        if applied.closed.is_none() {
            return Some(block);
        }
        // Everybody has committed, so that the round closes at any time: the true one lets the next round start well.
        self.ledger.propose(&self.identity, now_us, candidates)
    }

    /// Drops from the pool what the newest block settled.
    fn after_block(&mut self, out: &mut Vec<Output>) {
        let Some(ordering) = &mut self.ordering else { return };
        let payloads = ordering.prune(&self.ledger);
        ordering.ready = true;
        self.forget_unless_kept(payloads, out);
    }
}

/// The name of a transaction in the pool: signers share digests when they say the same.
fn pool_key(transaction: &Signed<Transaction>, digest: Hash) -> Hash {
    Hash::derive("cairn v1 pool key", &[&transaction.signer.0, &digest.0])
}

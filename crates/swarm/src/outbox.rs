//! Own transactions on their way into a block.
//!
//! A transaction is made durable, then submitted to every connected validator, and again on a timer until a block settles
//! it: by containing it, or by making it moot. A connection that drops therefore costs time, never a transaction.

use ledger::{Ledger, Standing};
use wire::{Action, PeerId, Signed, Transaction};

use crate::backoff::{Backoff, Pace};
use crate::limits::OUTBOX_MAX;
use crate::{Output, Peer, Record, Time};

/// The transactions that wait for a block, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Vec<Signed<Transaction>>,
    backoff: Backoff,
    next: Option<Time>,
}

impl Outbox {
    /// Whether a transaction that satisfies `test` waits.
    pub(crate) fn any(&self, test: impl Fn(&Action) -> bool) -> bool {
        self.waiting.iter().any(|transaction| test(&transaction.body.action))
    }

    /// The waiting transactions, oldest first.
    pub(crate) fn waiting(&self) -> &[Signed<Transaction>] {
        &self.waiting
    }

    /// Adds a transaction; the oldest gives way when there are too many.
    pub(crate) fn push(&mut self, transaction: Signed<Transaction>) {
        if self.waiting.len() >= OUTBOX_MAX {
            self.waiting.remove(0);
        }
        self.waiting.push(transaction);
    }

    /// Drops what is settled.
    pub(crate) fn settle(&mut self, own: &PeerId, ledger: &Ledger) {
        let before = self.waiting.len();
        self.waiting.retain(|transaction| is_open(&transaction.body.action, own, ledger));
        if self.waiting.len() < before {
            self.backoff.reset();
        }
        if self.waiting.is_empty() {
            self.next = None;
        }
    }

    /// When the waiting transactions are due to be submitted again.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.next
    }

    fn plan(&mut self, now: Time, pace: &Pace) {
        self.next = (!self.waiting.is_empty()).then(|| now.after(self.backoff.next_us(pace)));
    }
}

/// Whether an own action could still change something.
fn is_open(action: &Action, own: &PeerId, ledger: &Ledger) -> bool {
    let account = ledger.account(own);
    let standing = account.map_or(Standing::Out, |account| account.standing);
    let joined = matches!(standing, Standing::Joining | Standing::Member);
    let next = account.map_or(0, |account| account.sequence);
    let member_of = |round: u64| ledger.round().filter(|open| open.round == round && open.is_member(own));
    match action {
        Action::Join { sequence, stage, .. } => {
            let there = joined && account.is_some_and(|account| account.stage == *stage);
            *sequence == next && !there && !ledger.finished()
        }
        Action::Leave { sequence } => *sequence == next && joined && !ledger.finished(),
        Action::Commit(commitment) => member_of(commitment.round).is_some_and(|open| open.commitment(own).is_none()),
        Action::Attest(attestation) => member_of(attestation.round).is_some_and(|open| open.attestation(own).is_none()),
    }
}

impl Peer {
    /// Signs an action, makes it durable and submits it. A leave is not made durable: a peer that starts again means to
    /// take part again.
    pub(crate) fn act(&mut self, action: Action, now: Time, out: &mut Vec<Output>) {
        let durable = !matches!(action, Action::Leave { .. });
        let transaction = self.identity.sign(Transaction { run: self.run, action });
        if durable {
            out.push(Output::Persist(Record::Outgoing(transaction.clone())));
        }
        self.outbox.push(transaction.clone());
        self.submit(&transaction, now, out);
        self.outbox.backoff.reset();
        self.outbox.plan(now, &self.pace);
    }

    /// Submits what waits when its time came.
    pub(crate) fn submit_due(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.outbox.next.is_some_and(|at| at <= now) {
            self.submit_all(now, out);
        }
    }

    /// Submits all that waits.
    pub(crate) fn submit_all(&mut self, now: Time, out: &mut Vec<Output>) {
        for transaction in self.outbox.waiting.clone() {
            self.submit(&transaction, now, out);
        }
        self.outbox.plan(now, &self.pace);
    }

    fn submit(&mut self, transaction: &Signed<Transaction>, now: Time, out: &mut Vec<Output>) {
        if self.ordering.is_some() {
            self.collect(self.id, transaction.clone(), now, out);
            return;
        }
        for to in self.links.validators_up() {
            out.push(Output::Send { to, message: wire::Message::Submit(transaction.clone()) });
        }
    }
}

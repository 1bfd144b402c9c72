//! What the end of a block does: start the run, close a round and mint its shares, open the next.

use std::sync::Arc;

use wire::{Hash, StageTerms};

use crate::accounts::Standing;
use crate::ledger::membership::NextRound;
use crate::ledger::round::{CommittedSet, Entry, RoundOpen};
use crate::ledger::state::{Applied, Canonical, MISSED_ROUNDS_MAX, ROUNDS_KEPT, State, Terms};

/// What a block's place in the chain gives to the fold.
#[derive(Clone, Copy)]
pub(crate) struct BlockPoint {
    pub(crate) time_us: u64,
    /// Digest of the parent.
    pub(crate) parent: Hash,
    pub(crate) transactions_root: Hash,
}

impl BlockPoint {
    /// The beacon of a round that this block opens. The validator that orders transactions can choose among beacons by
    /// choosing blocks; units do not pay differently, so there is little to gain.
    fn beacon(&self, round: u64) -> Hash {
        Hash::derive("cairn v1 beacon", &[&self.parent.0, &self.transactions_root.0, &round.to_le_bytes()])
    }
}

impl State {
    /// Does what is due at the end of a block.
    pub(crate) fn settle(&mut self, terms: &Terms<'_>, point: BlockPoint, applied: &mut Applied) {
        let time_us = point.time_us;
        if let Some(round) = &mut self.round {
            let parts = [&round.transcript.0[..], &point.transactions_root.0];
            round.transcript = Hash::derive("cairn v1 round transcript", &parts);
            round.note_time(time_us);
        }
        if self.round.as_ref().is_some_and(|round| round.stages_len() > 1 && time_us >= round.late_us()) {
            self.take_majorities(true, applied);
        }
        if let Some(round) = self.round.as_mut().filter(|round| time_us >= round.deadline_us && round.would_widen()) {
            round.widen();
            self.take_majorities(false, applied);
        }
        match &self.round {
            None if self.may_start(terms) => {
                let roots: Vec<Hash> = terms.charter.stages.iter().map(|stage| stage.genesis_state).collect();
                let canonical = roots.iter().zip(0..).map(|(root, stage)| Canonical { round: 0, stage, root: *root });
                applied.canonical.extend(canonical);
                let state_roots = roots.into_iter().map(Some).collect();
                let next = NextRound { round: 0, beacon: point.beacon(0), state_roots, time_us, before: None };
                self.open_round_with(terms, next, applied);
            }
            Some(round) if round.may_close(time_us, terms.charter.quorum) => {
                let number = round.round.checked_add(1).expect("the charter's rounds fit");
                let took_us = time_us.saturating_sub(round.opened_us);
                if round.is_complete() || !round.only_absent_missed() {
                    self.pace.note(terms.charter, took_us, round.is_complete());
                }
                let before = self.close(terms, applied);
                let (beacon, state_roots) = (point.beacon(number), vec![None; before.stages_len()]);
                let next = NextRound { round: number, beacon, state_roots, time_us, before: Some(&before) };
                self.open_round_with(terms, next, applied);
            }
            Some(_) if !self.is_finished(terms.charter) => {
                let deserted = self.relieved(terms, time_us);
                if !deserted.is_empty() {
                    self.open_again(terms, &deserted, time_us, applied);
                }
            }
            None | Some(_) => {}
        }
        applied.finished = self.is_finished(terms.charter);
    }

    /// Whether a block without transactions changes something once its time is the open round's deadline.
    pub(crate) fn is_due_at_deadline(&self, terms: &Terms<'_>) -> bool {
        let Some(round) = self.round.as_ref().filter(|_| !self.is_finished(terms.charter)) else { return false };
        let late = u64::MAX;
        round.would_widen() || round.may_close(late, terms.charter.quorum) || !self.relieved(terms, late).is_empty()
    }

    /// Closes the open round, and gives it.
    fn close(&mut self, terms: &Terms<'_>, applied: &mut Applied) -> RoundOpen {
        let round = self.round.take().expect("a round is open");
        self.pay(terms, &round);
        self.count_missed(&round, applied);
        let roots = round.state_roots.iter();
        let state_in = roots.map(|root| root.expect("a stage commits only once its root is known")).collect();
        let mut entries: Vec<Entry> = round.commitments().copied().collect();
        entries.sort_by_key(|entry| (entry.stage, entry.peer));
        let (beacon, coarser) = (round.beacon, round.coarser.to_vec());
        let set = CommittedSet { round: round.round, beacon, state_in, coarser, entries };
        self.totals.history = Hash::derive("cairn v1 history", &[&self.totals.history.0, &set.digest().0]);
        self.totals.rounds = sum(self.totals.rounds, 1);
        let set = Arc::new(set);
        if self.recent.len() == ROUNDS_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&set));
        let mut payloads: Vec<Hash> =
            self.recent.iter().flat_map(|set| set.entries.iter()).map(|entry| entry.payload).collect();
        payloads.sort_unstable();
        self.payloads = payloads.into();
        applied.closed = Some(set);
        round
    }

    /// Mints the round's shares over its paid units: first over the stages by their weights, then in each stage equally,
    /// because units have equal tokens. What the first division leaves goes to stage 0, what the second leaves to the
    /// stage's lowest paid unit.
    fn pay(&mut self, terms: &Terms<'_>, round: &RoundOpen) {
        let minted = terms.charter.shares_per_round;
        let mut purses = purses(minted, &terms.charter.stages);
        for committed in round.accepted() {
            let purse = &mut purses[usize::from(committed.entry.stage)];
            purse.units += u64::from(committed.paid);
            purse.lowest = purse.lowest.min(committed.lowest);
        }
        for committed in round.accepted() {
            let purse = purses[usize::from(committed.entry.stage)];
            assert!(purse.units > 0, "stage {} of round {} pays no unit", committed.entry.stage, round.round);
            let units = u64::from(committed.paid);
            let rest =
                if committed.paid > 0 && committed.lowest == purse.lowest { purse.shares % purse.units } else { 0 };
            let tokens = units.checked_mul(terms.charter.unit_tokens).expect("the charter's totals fit in 64 bits");
            let account = self.accounts.get_mut(&committed.entry.peer).expect("a member has an account");
            account.shares = sum(account.shares, purse.shares / purse.units * units + rest);
            account.tokens = sum(account.tokens, tokens);
            account.receipts = sum(account.receipts, units);
            account.receipts_root = committed.receipts_root;
            account.rounds = sum(account.rounds, u64::from(!committed.again));
            account.missed = 0;
            self.totals.tokens = sum(self.totals.tokens, tokens);
            self.totals.receipts = sum(self.totals.receipts, units);
        }
        self.totals.supply = sum(self.totals.supply, minted);
    }

    /// Counts a missed round for each member that let it pass, and drops who missed too many.
    fn count_missed(&mut self, round: &RoundOpen, applied: &mut Applied) {
        for (rank, peer) in round.members.iter().enumerate() {
            let missed = round.missed(rank);
            let attested = round.stages_len() > 1 && round.slots[rank].attested.is_some();
            if !missed && !attested {
                continue;
            }
            let account = self.accounts.get_mut(peer).expect("a member has an account");
            account.missed = if missed { account.missed + 1 } else { 0 };
            if account.missed >= MISSED_ROUNDS_MAX && account.standing == Standing::Member {
                account.standing = Standing::Out;
                applied.dropped.push(*peer);
            }
        }
    }
}

/// What one stage is paid for a round.
#[derive(Clone, Copy)]
struct Purse {
    shares: u64,
    /// Its paid units.
    units: u64,
    /// The lowest of them.
    lowest: u32,
}

/// Splits a round's shares over the stages by weight.
fn purses(minted: u64, stages: &[StageTerms]) -> Vec<Purse> {
    let weights: u128 = stages.iter().map(|stage| u128::from(stage.weight)).sum();
    let part = |weight: u32| u128::from(minted) * u128::from(weight) / weights;
    let shares = stages.iter().map(|stage| u64::try_from(part(stage.weight)).expect("at most what is minted"));
    let mut purses: Vec<Purse> = shares.map(|shares| Purse { shares, units: 0, lowest: u32::MAX }).collect();
    let rest = minted - purses.iter().map(|purse| purse.shares).sum::<u64>();
    purses[0].shares += rest;
    purses
}

/// Adds amounts that the charter keeps below 2^64.
fn sum(total: u64, amount: u64) -> u64 {
    total.checked_add(amount).expect("the charter's totals fit in 64 bits")
}

//! What the end of a block does: start the run, close a round and mint its shares, open the next.

use std::sync::Arc;

use wire::{Hash, PeerId};

use crate::accounts::Standing;
use crate::ledger::membership::NextRound;
use crate::ledger::round::{CommittedSet, RoundOpen};
use crate::ledger::state::{Applied, MISSED_ROUNDS_MAX, ROUNDS_KEPT, State, Terms};

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
        }
        match &self.round {
            None if self.joining >= terms.charter.start_members as usize => {
                let genesis = terms.charter.genesis_state;
                applied.canonical = Some((0, genesis));
                let next = NextRound { round: 0, beacon: point.beacon(0), state_root: Some(genesis), time_us };
                self.open_round_with(terms, next, applied);
            }
            Some(round) if round.may_close(time_us, terms.charter.quorum) => {
                let number = round.round.checked_add(1).expect("the charter's rounds fit");
                self.close(terms, applied);
                let next = NextRound { round: number, beacon: point.beacon(number), state_root: None, time_us };
                self.open_round_with(terms, next, applied);
            }
            Some(round) if round.is_vacant() && self.joining > 0 && !self.is_finished(terms.charter) => {
                let (round, beacon, state_root) = (round.round, round.beacon, round.state_root);
                self.open_round_with(terms, NextRound { round, beacon, state_root, time_us }, applied);
            }
            None | Some(_) => {}
        }
        applied.finished = self.is_finished(terms.charter);
    }

    fn close(&mut self, terms: &Terms<'_>, applied: &mut Applied) {
        let round = self.round.take().expect("a round is open");
        self.pay(terms, &round);
        self.count_missed(&round, applied);
        let state_in = round.state_root.expect("commitments are accepted only once the root is known");
        let entries = round.commitments().copied().collect();
        let set = CommittedSet { round: round.round, beacon: round.beacon, state_in, entries };
        self.totals.history = Hash::derive("cairn v1 history", &[&self.totals.history.0, &set.digest().0]);
        self.totals.rounds = sum(self.totals.rounds, 1);
        let set = Arc::new(set);
        if self.recent.len() == ROUNDS_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&set));
        applied.closed = Some(set);
    }

    /// Mints the round's shares over its accepted units. Units have equal tokens, so they get equal shares; what the
    /// division leaves goes to the unit with the lowest index.
    fn pay(&mut self, terms: &Terms<'_>, round: &RoundOpen) {
        let units = |rank: usize| round.units_of_rank(rank).count() as u64;
        let ranks = || (0..round.members.len()).filter(|rank| round.slots[*rank].committed.is_some());
        let units_paid: u64 = ranks().map(units).sum();
        assert!(units_paid > 0, "round {} closes with {} commitments and no unit", round.round, round.commitments);
        let minted = terms.charter.shares_per_round;
        let (each, rest) = (minted / units_paid, minted % units_paid);
        let lowest = ranks().min_by_key(|rank| round.units_of_rank(*rank).next());
        for rank in ranks() {
            let committed = round.slots[rank].committed.as_ref().expect("ranks with a commitment");
            let receipts = units(rank);
            let shares = each * receipts + if lowest == Some(rank) { rest } else { 0 };
            let account = self.accounts.get_mut(&committed.entry.peer).expect("a member has an account");
            account.shares = sum(account.shares, shares);
            account.tokens = sum(account.tokens, committed.entry.tokens);
            account.receipts = sum(account.receipts, receipts);
            account.receipts_root = committed.receipts_root;
            account.rounds = sum(account.rounds, 1);
            account.missed = 0;
            self.totals.tokens = sum(self.totals.tokens, committed.entry.tokens);
        }
        self.totals.supply = sum(self.totals.supply, minted);
        self.totals.receipts = sum(self.totals.receipts, units_paid);
    }

    /// Counts a missed round for each member that had units and committed nothing, and drops who missed too many.
    fn count_missed(&mut self, round: &RoundOpen, applied: &mut Applied) {
        let idle = |rank: &usize| round.slots[*rank].committed.is_none() && round.units_of_rank(*rank).next().is_some();
        let missing: Vec<PeerId> = (0..round.members.len()).filter(idle).map(|rank| round.members[rank]).collect();
        for peer in missing {
            let account = self.accounts.get_mut(&peer).expect("a member has an account");
            account.missed += 1;
            if account.missed >= MISSED_ROUNDS_MAX && account.standing == Standing::Member {
                account.standing = Standing::Out;
                applied.dropped.push(peer);
            }
        }
    }
}

/// Adds amounts that the charter keeps below 2^64.
fn sum(total: u64, amount: u64) -> u64 {
    total.checked_add(amount).expect("the charter's totals fit in 64 bits")
}

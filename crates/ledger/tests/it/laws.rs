//! Laws that hold whatever peers do.

use std::collections::BTreeSet;

use ledger::{Applied, Ledger};
use proptest::prelude::*;
use wire::{Action, Hash, Identity, Transaction, Verified};

use crate::support::{ROUND_US, World, stage_terms};

const PEERS: u8 = 6;

/// One thing that a peer tries; most are not possible at most times.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize, u16),
    Leave(usize),
    Attest(usize),
    Lie(usize),
    /// A commitment: with one stage to the assigned units, with several to those whose bit is set, from the highest down.
    Commit(usize, u8),
    /// A commitment with a receipt that claims too much.
    Overclaim(usize),
    /// Submits the n-th transaction ever made once more.
    Replay(usize),
    /// Ends the block.
    Block,
    /// Ends the block after the round's time.
    Deadline,
}

fn step(lies: bool) -> impl Strategy<Value = Step> {
    let peer = 0..usize::from(PEERS);
    let lie = if lies { 2 } else { 0 };
    prop_oneof![
        4 => (peer.clone(), 0u16..4).prop_map(|(peer, stage)| Step::Join(peer, stage)),
        1 => peer.clone().prop_map(Step::Leave),
        6 => peer.clone().prop_map(Step::Attest),
        lie => peer.clone().prop_map(Step::Lie),
        8 => (peer.clone(), any::<u8>()).prop_map(|(peer, units)| Step::Commit(peer, units)),
        lie => peer.prop_map(Step::Overclaim),
        2 => (0usize..1000).prop_map(Step::Replay),
        6 => Just(Step::Block),
        1 => Just(Step::Deadline),
    ]
}

/// The units below seven whose bit is set, from the highest down; unit 0 when there is none.
fn units(bits: u8) -> Vec<u32> {
    let units: Vec<u32> = (0..7).rev().filter(|unit| bits & (1 << unit) != 0).collect();
    if units.is_empty() { vec![0] } else { units }
}

/// Plays steps against a ledger, and checks the laws after each block.
struct Play {
    world: World,
    replica: Ledger,
    made: Vec<Verified<Transaction>>,
    accepted: Vec<Verified<Transaction>>,
    waiting: Vec<Verified<Transaction>>,
}

impl Play {
    fn new(stages: u8) -> Self {
        let world = World::with(PEERS, |charter| {
            charter.stages = (0..stages).map(stage_terms).collect();
            charter.stages[0].weight = 3;
            charter.rounds = 4;
            charter.start_members = 3;
            charter.quorum = 2;
            charter.units_per_round = 7;
        });
        let replica = world.ledger.clone();
        Self { world, replica, made: Vec::new(), accepted: Vec::new(), waiting: Vec::new() }
    }

    fn transaction(&self, step: Step) -> Option<Verified<Transaction>> {
        let world = &self.world;
        let peer = |number: usize| -> &Identity { &world.peers[number] };
        let started = world.ledger.round().is_some();
        match step {
            Step::Join(number, stage) => {
                Some(world.join_stage(peer(number), stage % world.ledger.charter().stages_len()))
            }
            Step::Leave(number) => Some(world.leave(peer(number))),
            Step::Attest(number) if started => Some(world.attest_honestly(peer(number))),
            Step::Lie(number) if started => Some(world.attest(peer(number), Hash::of(&[number as u8 % 2]))),
            Step::Commit(number, bits) if started => Some(match world.round().stages_len() {
                1 => world.commit(peer(number)),
                _ => world.commit_units(peer(number), &units(bits)),
            }),
            Step::Overclaim(number) if started => {
                let mut commitment = world.commitment(peer(number));
                let last = commitment.receipts.pop()?.body;
                let tokens = last.tokens + 1;
                commitment.receipts.push(peer(number).sign(wire::Receipt { tokens, ..last }));
                Some(world.sign(peer(number), Action::Commit(commitment)))
            }
            Step::Replay(which) => self.made.get(which % self.made.len().max(1)).cloned(),
            _ => None,
        }
    }

    /// The stage in which a peer is at home.
    fn home(&self, number: usize) -> u16 {
        u16::try_from(number).expect("few peers") % self.world.ledger.charter().stages_len()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Block => drop(self.block(1)),
            Step::Deadline => drop(self.block(ROUND_US)),
            _ => {
                let transaction = self.transaction(step);
                self.made.extend(transaction.clone());
                self.waiting.extend(transaction);
            }
        }
    }

    /// Proposes what is waiting, applies it on both ledgers and checks the laws.
    fn block(&mut self, later_us: u64) -> Option<Applied> {
        self.world.time_us += later_us;
        let waiting = std::mem::take(&mut self.waiting);
        let world = &mut self.world;
        let block = world.ledger.propose(&world.validator, world.time_us, waiting)?;
        let bytes = wire::encode(&block);
        let decoded: wire::Block = wire::decode(&bytes).expect("a proposed block is well formed");
        self.accepted.extend(decoded.transactions.iter().map(|signed| signed.clone().verify().expect("it was signed")));
        let applied = world.apply(block);
        assert_eq!(self.replica.apply(&decoded), Ok(applied.clone()));
        self.check_laws();
        Some(applied)
    }

    fn check_laws(&self) {
        let ledger = &self.world.ledger;
        assert_eq!(ledger.root(), self.replica.root(), "apply is deterministic");
        let accounts = ledger.accounts().iter();
        let (totals, charter) = (ledger.totals(), ledger.charter());
        assert_eq!(accounts.clone().map(|account| account.shares).sum::<u64>(), ledger.supply());
        assert_eq!(accounts.clone().map(|account| account.receipts).sum::<u64>(), totals.receipts);
        assert_eq!(accounts.map(|account| account.tokens).sum::<u64>(), totals.tokens);
        assert_eq!(ledger.supply(), totals.rounds * charter.shares_per_round);
        assert_eq!(totals.tokens, totals.receipts * charter.unit_tokens);
        for account in ledger.accounts() {
            assert!(account.receipts <= account.counter && account.rounds <= totals.rounds);
        }
        let due = ledger.closes_at_us().map(|at| ledger.propose(&self.world.validator, at, Vec::new()).is_some());
        assert_ne!(due, Some(false), "what is due changes something");
        for transaction in &self.accepted {
            assert!(ledger.check(transaction).is_err(), "accepted twice: {transaction:?}");
        }
    }

    /// No unit is paid twice, and every account has a piece that verifies.
    fn check_receipts(&self) {
        let (ledger, mut units) = (&self.world.ledger, BTreeSet::new());
        for account in ledger.accounts() {
            let paid = ledger.paid_receipts(&account.peer, &self.world.blocks);
            units.extend(paid.iter().map(|receipt| (receipt.body.stage, receipt.body.unit)));
            let piece = ledger.piece(&account.peer, paid).expect("there is a block");
            let summary = piece.verify().expect("the ledger's own piece verifies");
            assert_eq!(summary.shares, account.shares);
        }
        assert_eq!(units.len() as u64, ledger.totals().receipts);
        for set in ledger.recent() {
            let places =
                set.entries.windows(2).map(|pair| (pair[0].stage, pair[0].peer) < (pair[1].stage, pair[1].peer));
            assert!(places.into_iter().all(|ascends| ascends), "entries are ordered by stage and peer");
            for stage in 0..ledger.charter().stages_len() {
                assert!(!set.entries_of(stage).is_empty(), "every stage has a part in every set");
            }
        }
    }

    /// Everybody takes part again and is honest; gives the blocks until the run is finished.
    fn heal(&mut self) -> usize {
        for blocks in 0..100 {
            if self.world.ledger.finished() {
                return blocks;
            }
            for number in 0..usize::from(PEERS) {
                self.step(Step::Join(number, self.home(number)));
                self.step(Step::Attest(number));
            }
            self.block(1);
            for number in 0..usize::from(PEERS) {
                self.step(Step::Commit(number, u8::MAX));
            }
            self.block(1);
            if self.world.ledger.charter().stages_len() > 1 {
                self.block(ROUND_US);
            }
        }
        panic!("no progress: {:?}", self.world.round());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn safe_whatever_peers_do(stages in 1u8..=4, steps in prop::collection::vec(step(true), 1..160)) {
        let mut play = Play::new(stages);
        for step in steps {
            play.step(step);
        }
        play.block(1);
        play.check_receipts();
    }

    #[test]
    fn honest_peers_finish_after_any_history_of_honest_attestations(
        stages in 1u8..=4,
        steps in prop::collection::vec(step(false), 1..160),
    ) {
        let mut play = Play::new(stages);
        for step in steps {
            play.step(step);
        }
        let blocks = play.heal();
        let most = if stages == 1 { 12 } else { 16 };
        prop_assert!(blocks <= most, "it took {blocks} groups of blocks");
        play.check_receipts();
    }
}

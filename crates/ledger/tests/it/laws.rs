//! Laws that hold whatever peers do.

use std::collections::BTreeSet;

use ledger::{Applied, Ledger};
use proptest::prelude::*;
use wire::{Action, Hash, Identity, Transaction, Verified};

use crate::support::{ROUND_US, World, state_after};

const PEERS: u8 = 6;

/// One thing that a peer tries; most are not possible at most times.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    Attest(usize),
    Lie(usize),
    Commit(usize),
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
        4 => peer.clone().prop_map(Step::Join),
        1 => peer.clone().prop_map(Step::Leave),
        6 => peer.clone().prop_map(Step::Attest),
        lie => peer.clone().prop_map(Step::Lie),
        8 => peer.clone().prop_map(Step::Commit),
        lie => peer.prop_map(Step::Overclaim),
        2 => (0usize..1000).prop_map(Step::Replay),
        6 => Just(Step::Block),
        1 => Just(Step::Deadline),
    ]
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
    fn new() -> Self {
        let world = World::with(PEERS, |charter| {
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
            Step::Join(number) => Some(world.join(peer(number))),
            Step::Leave(number) => Some(world.leave(peer(number))),
            Step::Attest(number) if started => Some(world.attest(peer(number), state_after(&world.ledger))),
            Step::Lie(number) if started => Some(world.attest(peer(number), Hash::of(&[number as u8 % 2]))),
            Step::Commit(number) if started => Some(world.commit(peer(number))),
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
        for transaction in &self.accepted {
            assert!(ledger.check(transaction).is_err(), "accepted twice: {transaction:?}");
        }
    }

    /// No unit is paid twice, and every account has a piece that verifies.
    fn check_receipts(&self) {
        let (ledger, mut units) = (&self.world.ledger, BTreeSet::new());
        for account in ledger.accounts() {
            let paid = ledger.paid_receipts(&account.peer, &self.world.blocks);
            units.extend(paid.iter().map(|receipt| receipt.body.unit));
            let piece = ledger.piece(&account.peer, paid).expect("there is a block");
            let summary = piece.verify().expect("the ledger's own piece verifies");
            assert_eq!(summary.shares, account.shares);
        }
        assert_eq!(units.len() as u64, ledger.totals().receipts);
    }

    /// Everybody takes part again and is honest; gives the blocks until the run is finished.
    fn heal(&mut self) -> usize {
        for blocks in 0..100 {
            if self.world.ledger.finished() {
                return blocks;
            }
            for number in 0..usize::from(PEERS) {
                self.step(Step::Join(number));
                self.step(Step::Attest(number));
            }
            self.block(1);
            for number in 0..usize::from(PEERS) {
                self.step(Step::Commit(number));
            }
            self.block(1);
        }
        panic!("no progress: {:?}", self.world.round());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn safe_whatever_peers_do(steps in prop::collection::vec(step(true), 1..160)) {
        let mut play = Play::new();
        for step in steps {
            play.step(step);
        }
        play.block(1);
        play.check_receipts();
    }

    #[test]
    fn honest_peers_finish_after_any_history_of_honest_attestations(
        steps in prop::collection::vec(step(false), 1..160),
    ) {
        let mut play = Play::new();
        for step in steps {
            play.step(step);
        }
        let blocks = play.heal();
        prop_assert!(blocks <= 12, "it took {blocks} pairs of blocks");
        play.check_receipts();
    }
}

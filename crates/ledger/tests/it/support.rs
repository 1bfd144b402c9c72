//! A small world to drive a ledger in: known keys, a charter and ready-made transactions.

use ledger::{Applied, Canonical, Ledger, RoundOpen};
use wire::{
    Action, Attestation, Block, Charter, Commitment, Hash, Identity, LinkWishes, NumericProfile, OperatorCertificate,
    PeerId, Receipt, Release, RunId, Signed, StageTerms, Transaction, Verified,
};

/// Time of a round in microseconds.
pub(crate) const ROUND_US: u64 = 1_000_000;

pub(crate) struct World {
    pub(crate) validator: Identity,
    pub(crate) peers: Vec<Identity>,
    pub(crate) ledger: Ledger,
    pub(crate) blocks: Vec<Block>,
    pub(crate) time_us: u64,
}

pub(crate) fn identity(number: u8) -> Identity {
    Identity::from_secret([number; 32])
}

pub(crate) fn charter(validator: &Identity) -> Charter {
    Charter {
        name: "test".into(),
        validators: vec![validator.id()],
        recipe: Hash::of(b"recipe"),
        data: Hash::of(b"data"),
        tokenizer: Hash::of(b"tokenizer"),
        stages: vec![StageTerms { genesis_state: Hash::of(b"genesis"), state_bytes: 1000, weight: 1, coarser_max: 0 }],
        profile: NumericProfile::F32Fma,
        rounds: 3,
        units_per_round: 8,
        unit_tokens: 100,
        start_members: 4,
        quorum: 3,
        round_us_first: ROUND_US,
        round_us_max: ROUND_US,
        shares_per_round: 1003,
        release: Release::OpenNow,
        parent: None,
    }
}

pub(crate) fn stage_terms(stage: u8) -> StageTerms {
    StageTerms { genesis_state: Hash::of(&[b'g', stage]), state_bytes: 1000, weight: 1, coarser_max: 0 }
}

impl World {
    /// Four peers that have not joined yet.
    pub(crate) fn new() -> Self {
        Self::with(4, |_| {})
    }

    /// `peers` peers, sorted by id, and a charter changed by `change`.
    pub(crate) fn with(peers: u8, change: impl FnOnce(&mut Charter)) -> Self {
        let validator = identity(200);
        let mut peers: Vec<Identity> = (1..=peers).map(identity).collect();
        peers.sort_by_key(Identity::id);
        let mut charter = charter(&validator);
        change(&mut charter);
        let ledger = Ledger::new(&identity(201).sign(charter).verify().expect("signed just now"));
        Self { validator, peers, ledger, blocks: Vec::new(), time_us: 1 }
    }

    /// Four peers that have joined, so that round 0 is open.
    pub(crate) fn started() -> Self {
        let mut world = Self::new();
        world.join_all();
        world
    }

    /// As many peers in each stage as `staff` says, in the order of their ids, all joined; the stages weigh the same.
    pub(crate) fn staged(staff: &[u16], change: impl FnOnce(&mut Charter)) -> Self {
        let peers: u16 = staff.iter().sum();
        let mut world = Self::with(u8::try_from(peers).expect("few peers"), |charter| {
            charter.stages = (0..staff.len()).map(|stage| stage_terms(u8::try_from(stage).expect("few"))).collect();
            charter.start_members = u32::from(peers);
            change(charter);
        });
        let stages =
            staff.iter().zip(0..).flat_map(|(members, stage)| std::iter::repeat_n(stage, usize::from(*members)));
        let joins = world.peers.iter().zip(stages).map(|(peer, stage)| world.join_stage(peer, stage)).collect();
        world.block(joins);
        world
    }

    pub(crate) fn join_all(&mut self) -> Applied {
        let joins = self.peers.iter().map(|peer| self.join(peer)).collect();
        self.block(joins)
    }

    pub(crate) fn run(&self) -> RunId {
        self.ledger.run()
    }

    pub(crate) fn round(&self) -> &RoundOpen {
        self.ledger.round().expect("a round is open")
    }

    pub(crate) fn id(&self, peer: usize) -> PeerId {
        self.peers[peer].id()
    }

    pub(crate) fn sign(&self, peer: &Identity, action: Action) -> Verified<Transaction> {
        peer.sign(Transaction { run: self.run(), action }).verify().expect("signed just now")
    }

    /// A join of stage 0.
    pub(crate) fn join(&self, peer: &Identity) -> Verified<Transaction> {
        self.join_stage(peer, 0)
    }

    pub(crate) fn join_stage(&self, peer: &Identity, stage: u16) -> Verified<Transaction> {
        let sequence = self.ledger.next_sequence(&peer.id());
        self.sign(peer, Action::Join { sequence, stage, operator: None })
    }

    /// A join of a peer that `operator` runs.
    pub(crate) fn join_by(&self, operator: &Identity, peer: &Identity, stage: u16) -> Verified<Transaction> {
        let certificate = operator.sign(OperatorCertificate { run: self.run(), peer: peer.id() });
        let sequence = self.ledger.next_sequence(&peer.id());
        self.sign(peer, Action::Join { sequence, stage, operator: Some(certificate) })
    }

    pub(crate) fn leave(&self, peer: &Identity) -> Verified<Transaction> {
        self.sign(peer, Action::Leave { sequence: self.ledger.next_sequence(&peer.id()) })
    }

    pub(crate) fn attest(&self, peer: &Identity, root: Hash) -> Verified<Transaction> {
        let stage = self.stage(peer);
        self.sign(peer, Action::Attest(Attestation { round: self.round().round, stage, state_root: root }))
    }

    /// The stage of a peer in the open round; 0 for a stranger.
    pub(crate) fn stage(&self, peer: &Identity) -> u16 {
        self.round().stage_of(&peer.id()).unwrap_or(0)
    }

    /// The receipts of a peer for these units of the open round.
    pub(crate) fn receipts(&self, peer: &Identity, units: &[u32]) -> Vec<Receipt> {
        let (round, charter) = (self.round(), self.ledger.charter());
        let stage = self.stage(peer);
        let units = units.iter().copied();
        units
            .zip(self.ledger.next_counter(&peer.id())..)
            .map(|(index, counter)| Receipt {
                run: self.run(),
                round: round.round,
                index,
                stage,
                unit: round.unit_id(index),
                state_in: round.state_root_of(stage).unwrap_or_default(),
                data_root: Hash::of(b"data of a unit"),
                trace_root: Hash::of(b"trace"),
                output_root: Hash::of(&[index as u8]),
                tokens: charter.unit_tokens,
                loss_micronats: 7_600_000,
                counter,
            })
            .collect()
    }

    /// The commitment that a peer should make in the open round of a run of one stage.
    pub(crate) fn commitment(&self, peer: &Identity) -> Commitment {
        self.commitment_of(peer, &self.round().units_of(&peer.id()))
    }

    pub(crate) fn commitment_of(&self, peer: &Identity, units: &[u32]) -> Commitment {
        Commitment {
            round: self.round().round,
            payload: Hash::derive("cairn test payload", &[&peer.id().0, &self.round().round.to_le_bytes()]),
            payload_bytes: 12_345,
            residual_root: Hash::of(b"residual"),
            wishes: LinkWishes::default(),
            busy_percent: 0,
            receipts: self.receipts(peer, units).into_iter().map(|receipt| peer.sign(receipt)).collect(),
        }
    }

    pub(crate) fn commit(&self, peer: &Identity) -> Verified<Transaction> {
        self.sign(peer, Action::Commit(self.commitment(peer)))
    }

    /// A commitment to these units, in this order.
    pub(crate) fn commit_units(&self, peer: &Identity, units: &[u32]) -> Verified<Transaction> {
        self.sign(peer, Action::Commit(self.commitment_of(peer, units)))
    }

    /// Proposes and applies a block of these transactions, all of which must be accepted.
    pub(crate) fn block(&mut self, transactions: Vec<Verified<Transaction>>) -> Applied {
        let count = transactions.len();
        self.time_us += 1;
        let block = self.ledger.propose(&self.validator, self.time_us, transactions).expect("something changes");
        assert_eq!(block.transactions.len(), count, "a transaction was dropped");
        self.apply(block)
    }

    pub(crate) fn apply(&mut self, block: Block) -> Applied {
        let applied = self.ledger.apply(&block).expect("a proposed block is acceptable");
        self.blocks.push(block);
        applied
    }

    /// All peers commit; the round closes.
    pub(crate) fn commit_all(&mut self) -> Applied {
        let commits = self.peers.iter().map(|peer| self.commit(peer)).collect();
        self.block(commits)
    }

    /// All peers attest the same root.
    pub(crate) fn attest_all(&mut self) -> Applied {
        let root = state_after(&self.ledger);
        let attestations = self.peers.iter().map(|peer| self.attest(peer, root)).collect();
        self.block(attestations)
    }

    /// An attestation of the state that the peer's stage should have.
    pub(crate) fn attest_honestly(&self, peer: &Identity) -> Verified<Transaction> {
        self.attest(peer, stage_state_after(&self.ledger, self.stage(peer)))
    }

    /// Applies a block without transactions, at the open round's deadline.
    pub(crate) fn deadline(&mut self) -> Applied {
        let deadline = self.round().deadline_us;
        self.at_time(deadline)
    }

    /// Applies a block without transactions at a time, before which nothing is due.
    pub(crate) fn at_time(&mut self, deadline: u64) -> Applied {
        assert_eq!(self.ledger.closes_at_us(), Some(deadline));
        assert_eq!(self.ledger.propose(&self.validator, deadline - 1, Vec::new()), None);
        self.time_us = deadline;
        let block = self.ledger.propose(&self.validator, deadline, Vec::new()).expect("something is due");
        self.apply(block)
    }

    /// Runs all rounds to the end with honest peers.
    pub(crate) fn finish(&mut self) {
        while self.round().round < self.ledger.charter().rounds {
            self.commit_all();
            self.attest_all();
        }
        assert!(self.ledger.finished());
    }
}

/// The state that an honest fake trainer reaches: a function of the last committed set.
pub(crate) fn state_after(ledger: &Ledger) -> Hash {
    ledger.recent().next_back().map_or(ledger.charter().stages[0].genesis_state, |set| set.digest())
}

/// The state that a stage reaches: with one, that of [`state_after`].
pub(crate) fn stage_state_after(ledger: &Ledger, stage: u16) -> Hash {
    if ledger.charter().stages_len() == 1 {
        return state_after(ledger);
    }
    let terms = ledger.charter().stage(stage).expect("a stage of the run");
    let step = |digest: Hash| Hash::derive("cairn test stage state", &[&digest.0, &stage.to_le_bytes()]);
    ledger.recent().next_back().map_or(terms.genesis_state, |set| step(set.digest()))
}

/// The root that became canonical in a run of one stage.
pub(crate) fn canonical(round: u64, root: Hash) -> Vec<Canonical> {
    vec![Canonical { round, stage: 0, root }]
}

/// A forged copy: the same signature over another body.
pub(crate) fn forge<T: Clone>(signed: &Signed<T>, change: impl FnOnce(&mut T)) -> Signed<T> {
    let mut forged = signed.clone();
    change(&mut forged.body);
    forged
}

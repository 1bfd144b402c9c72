//! What the fold costs beside the signatures: all members of a run attest and commit, one block of each per round.
//!
//! `cargo bench -p ledger --bench fold` prints, for several sizes, milliseconds per round of checking signatures and of
//! applying verified blocks, and their ratio.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::time::{Duration, Instant};

use ledger::Ledger;
use wire::{
    Action, Attestation, Block, Charter, Commitment, Hash, Identity, LinkWishes, NumericProfile, Receipt, Release,
    StageTerms, Transaction, Verified,
};

const ROUNDS: u64 = 4;

fn identity(number: u32) -> Identity {
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&number.to_le_bytes());
    Identity::from_secret(secret)
}

fn ledger(validator: &Identity, members: u32) -> Ledger {
    let charter = Charter {
        name: "fold".into(),
        validators: vec![validator.id()],
        recipe: Hash::default(),
        data: Hash::default(),
        tokenizer: Hash::default(),
        stages: vec![StageTerms { genesis_state: Hash::of(b"genesis"), state_bytes: 1, weight: 1, coarser_max: 0 }],
        profile: NumericProfile::F32Fma,
        rounds: ROUNDS,
        units_per_round: members,
        unit_tokens: 1000,
        start_members: members,
        quorum: members,
        round_us_first: 1_000_000,
        round_us_max: 1_000_000,
        shares_per_round: 1_000_000,
        release: Release::OpenNow,
        parent: None,
    };
    Ledger::new(&validator.sign(charter).verify().expect("signed just now"))
}

/// What a peer submits for the open round: its attestation, or its commitment.
fn action(ledger: &Ledger, peer: &Identity, attest: bool) -> Action {
    let Some(round) = ledger.round() else { return Action::Join { sequence: 0, stage: 0, operator: None } };
    let set = ledger.recent().next_back();
    let state_root = set.map_or(ledger.charter().stages[0].genesis_state, |set| set.digest());
    if attest {
        return Action::Attest(Attestation { round: round.round, stage: 0, state_root });
    }
    let receipt = |index: u32| Receipt {
        run: ledger.run(),
        round: round.round,
        index,
        stage: 0,
        unit: round.unit_id(index),
        state_in: state_root,
        data_root: Hash::default(),
        trace_root: Hash::default(),
        output_root: Hash::default(),
        tokens: 1000,
        loss_micronats: 1,
        counter: ledger.next_counter(&peer.id()),
    };
    Action::Commit(Commitment {
        round: round.round,
        payload: Hash::of(&peer.id().0),
        payload_bytes: 1,
        residual_root: Hash::default(),
        wishes: LinkWishes::default(),
        busy_percent: 0,
        receipts: round.units_of(&peer.id()).into_iter().map(|index| peer.sign(receipt(index))).collect(),
    })
}

/// All blocks of a run.
fn blocks(mut ledger: Ledger, validator: &Identity, peers: &[Identity]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !ledger.finished() {
        let attest = ledger.round().is_some_and(|round| round.run_root().is_none());
        let run = ledger.run();
        let transactions: Vec<Verified<Transaction>> = peers
            .iter()
            .map(|peer| peer.sign(Transaction { run, action: action(&ledger, peer, attest) }))
            .map(|signed| signed.verify().expect("signed just now"))
            .collect();
        let block = ledger.propose(validator, 1, transactions).expect("something changes");
        ledger.apply(&block).expect("it was proposed");
        blocks.push(block);
    }
    blocks
}

fn per_round_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3 / ROUNDS as f64
}

fn main() {
    println!("{:>8} {:>22} {:>16} {:>10}", "members", "signatures ms/round", "fold ms/round", "ratio");
    for members in [10, 100, 1000] {
        let validator = identity(u32::MAX);
        let peers: Vec<Identity> = (0..members).map(identity).collect();
        let mut ledger = ledger(&validator, members);
        let blocks = blocks(ledger.clone(), &validator, &peers);
        let start = Instant::now();
        let verified: Vec<_> = blocks.into_iter().map(|block| block.verify().expect("genuine")).collect();
        let signatures = per_round_ms(start.elapsed());
        let start = Instant::now();
        for block in &verified {
            ledger.apply_verified(block).expect("genuine");
        }
        let fold = per_round_ms(start.elapsed());
        println!("{members:>8} {signatures:>22.3} {fold:>16.3} {:>9.1}x", signatures / fold);
    }
}

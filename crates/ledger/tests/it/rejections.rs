//! Transactions and blocks that are not accepted, each with its reason; and nothing of them is kept.

use ledger::{BlockError, Ledger, Rejection};
use wire::{Action, Block, Commitment, Hash, Receipt, RunId, Transaction};

use crate::support::{World, forge, identity, state_after};

/// The answer to peer 0's commitment after a change.
fn refused(world: &World, change: impl FnOnce(&mut Commitment)) -> Rejection {
    let mut commitment = world.commitment(&world.peers[0]);
    change(&mut commitment);
    let commit = world.sign(&world.peers[0], Action::Commit(commitment));
    world.ledger.check(&commit).expect_err("it was changed")
}

/// The answer to peer 0's commitment after a change of its second receipt.
fn refused_receipt(world: &World, change: impl FnOnce(&mut Receipt)) -> Rejection {
    refused(world, |commitment| {
        let mut receipt = commitment.receipts[1].body.clone();
        change(&mut receipt);
        commitment.receipts[1] = world.peers[0].sign(receipt);
    })
}

#[test]
fn a_commitment_must_fit_its_round_and_its_signer() {
    let world = World::started();
    let units = world.round().units_of(&world.id(0));
    assert_eq!(refused(&world, |commitment| commitment.round = 1), Rejection::RoundNotOpen { open: 0, got: 1 });
    let got = units[..1].to_vec();
    let fewer = refused(&world, |commitment| commitment.receipts.truncate(1));
    assert_eq!(fewer, Rejection::WrongUnits { expected: units.clone(), got });
    let none = refused(&world, |commitment| commitment.receipts.clear());
    assert_eq!(none, Rejection::Malformed { field: "a commitment must have 1 to 64 receipts" });
    let empty = refused(&world, |commitment| commitment.payload_bytes = 0);
    assert_eq!(empty, Rejection::Malformed { field: "payload_bytes must be 1 to 4 GiB" });
    let others = refused(&world, |commitment| *commitment = world.commitment(&world.peers[1]));
    assert_eq!(others, Rejection::WrongUnits { expected: units.clone(), got: world.round().units_of(&world.id(1)) });
    let borrowed = refused(&world, |commitment| {
        commitment.receipts[1] = world.peers[1].sign(commitment.receipts[1].body.clone());
    });
    assert_eq!(borrowed, Rejection::ReceiptSigner { index: units[1], signer: world.id(1) });
    let stranger = world.sign(&identity(99), Action::Commit(world.commitment(&world.peers[0])));
    assert_eq!(world.ledger.check(&stranger), Err(Rejection::NotMember { round: 0 }));
}

#[test]
fn a_receipt_must_say_what_follows_from_public_values() {
    let world = World::started();
    let index = world.round().units_of(&world.id(0))[1];
    let (run, other, root) = (world.run(), Hash::of(b"other"), Hash::of(b"genesis"));
    type Case = (Rejection, fn(&mut Receipt));
    let cases: [Case; 7] = [
        (Rejection::ReceiptRun { index, expected: run, got: RunId(other) }, |receipt| {
            receipt.run = RunId(Hash::of(b"other"));
        }),
        (Rejection::ReceiptRound { index, expected: 0, got: 7 }, |receipt| receipt.round = 7),
        (Rejection::ReceiptStage { index, expected: 0, got: 1 }, |receipt| receipt.stage = 1),
        (Rejection::ReceiptUnit { index }, |receipt| receipt.unit.0 = Hash::of(b"other")),
        (Rejection::ReceiptState { index, expected: root, got: other }, |receipt| {
            receipt.state_in = Hash::of(b"other");
        }),
        (Rejection::ReceiptTokens { index, expected: 100, got: 101 }, |receipt| receipt.tokens = 101),
        (Rejection::ReceiptCounter { index, expected: 1, got: 2 }, |receipt| receipt.counter = 2),
    ];
    for (expected, change) in cases {
        assert_eq!(refused_receipt(&world, change), expected);
    }
}

#[test]
fn a_forged_receipt_never_becomes_a_verified_transaction() {
    let world = World::started();
    let mut commitment = world.commitment(&world.peers[0]);
    commitment.receipts[0] = forge(&commitment.receipts[0], |receipt| receipt.output_root = Hash::of(b"forged"));
    let action = Action::Commit(commitment);
    let signed = world.peers[0].sign(Transaction { run: world.run(), action });
    let error = signed.verify().unwrap_err();
    assert_eq!((error.signer, error.name), (world.id(0), "receipt"));
}

#[test]
fn commitments_before_the_start_after_the_end_and_twice_are_refused() {
    let world = World::new();
    let attestation = Action::Attest(wire::Attestation { round: 0, stage: 0, state_root: Hash::of(b"genesis") });
    let early = world.sign(&world.peers[0], attestation);
    assert_eq!(world.ledger.check(&early), Err(Rejection::NotStarted));
    let mut world = World::started();
    let commit = world.commit(&world.peers[0]);
    world.block(vec![commit.clone()]);
    assert_eq!(world.ledger.check(&commit), Err(Rejection::AlreadyCommitted { round: 0 }));
    let rest = world.peers[1..].iter().map(|peer| world.commit(peer)).collect();
    world.block(rest);
    assert_eq!(world.ledger.check(&commit), Err(Rejection::RoundNotOpen { open: 1, got: 0 }));
    world.attest_all();
    world.finish();
    let mut late = world.commitment(&world.peers[0]);
    let receipts = commit.body.action.clone();
    let Action::Commit(Commitment { receipts, .. }) = receipts else { unreachable!("it is a commitment") };
    late.receipts = receipts;
    let late = world.sign(&world.peers[0], Action::Commit(late));
    assert_eq!(world.ledger.check(&late), Err(Rejection::AllRoundsDone { rounds: 3 }));
}

#[test]
fn a_peer_without_units_cannot_commit() {
    let mut world = World::with(4, |charter| charter.units_per_round = 3);
    world.join_all();
    let idle = world.peers.iter().find(|peer| world.round().units_of(&peer.id()).is_empty()).unwrap().clone();
    let busy = world.peers.iter().find(|peer| peer.id() != idle.id()).unwrap().clone();
    let commit = world.sign(&idle, Action::Commit(world.commitment(&busy)));
    assert_eq!(world.ledger.check(&commit), Err(Rejection::NoUnits { round: 0 }));
    let rest: Vec<_> =
        world.peers.iter().filter(|peer| peer.id() != idle.id()).map(|peer| world.commit(peer)).collect();
    assert!(world.block(rest).closed.is_some(), "nobody waits for a peer without units");
    assert_eq!(world.ledger.account(&idle.id()).unwrap().missed, 0);
}

#[test]
fn joins_and_leaves_are_for_one_run_and_used_once() {
    let mut world = World::started();
    let foreign =
        world.peers[0].sign(Transaction { run: RunId(Hash::of(b"x")), action: Action::Leave { sequence: 1 } });
    let foreign = foreign.verify().unwrap();
    let expected = Rejection::WrongRun { expected: world.run(), got: RunId(Hash::of(b"x")) };
    assert_eq!(world.ledger.check(&foreign), Err(expected));
    assert_eq!(world.ledger.check(&world.join(&world.peers[0])), Err(Rejection::AlreadyJoined));
    assert_eq!(world.ledger.check(&world.leave(&identity(99))), Err(Rejection::NotJoined));
    let elsewhere = world.join_stage(&identity(99), 1);
    assert_eq!(world.ledger.check(&elsewhere), Err(Rejection::NoStage { stages: 1, got: 1 }));
    let leave = world.leave(&world.peers[0]);
    world.block(vec![leave.clone()]);
    assert_eq!(world.ledger.check(&leave), Err(Rejection::NotJoined));
    let join = world.join(&world.peers[0]);
    world.block(vec![join]);
    assert_eq!(world.ledger.check(&leave), Err(Rejection::WrongSequence { expected: 3, got: 1 }));
}

/// Applies a changed copy of a good block that would come next; the ledger must not change.
fn block_error(world: &World, good: &Block, change: impl FnOnce(&mut Block)) -> BlockError {
    let mut block = good.clone();
    change(&mut block);
    let mut ledger = world.ledger.clone();
    let error = ledger.apply(&block).expect_err("it was changed");
    assert_eq!((ledger.root(), ledger.height()), (world.ledger.root(), world.ledger.height()));
    assert!(ledger.apply(good).is_ok(), "a refused block leaves the ledger as it was");
    error
}

#[test]
fn a_block_must_be_the_next_one() {
    let world = World::started();
    let commits = world.peers.iter().map(|peer| world.commit(peer)).collect();
    let good = world.ledger.propose(&world.validator, world.time_us + 1, commits).unwrap();
    let validator = &world.validator;
    let resigned = |change: fn(&mut wire::BlockHeader)| {
        block_error(&world, &good, |block| {
            let mut header = block.header.body.clone();
            change(&mut header);
            block.header = validator.sign(header);
        })
    };
    assert!(matches!(resigned(|header| header.run = RunId(Hash::default())), BlockError::WrongRun { .. }));
    assert_eq!(resigned(|header| header.height = 5), BlockError::WrongHeight { expected: 1, got: 5 });
    assert!(matches!(resigned(|header| header.parent = Hash::default()), BlockError::WrongParent { height: 1, .. }));
    assert_eq!(resigned(|header| header.time_us = 0), BlockError::TimeBackwards { parent: world.time_us, got: 0 });
    assert_eq!(resigned(|header| header.transactions_root = Hash::default()), BlockError::WrongTransactions);
    let wrong_root = resigned(|header| header.ledger_root = Hash::default());
    assert!(matches!(wrong_root, BlockError::WrongRoot { expected, .. } if expected == Hash::default()));
    let stranger = block_error(&world, &good, |block| block.header = identity(99).sign(block.header.body.clone()));
    assert_eq!(stranger, BlockError::ForeignValidator { signer: identity(99).id() });
    let forged = block_error(&world, &good, |block| block.header = forge(&block.header, |header| header.time_us += 1));
    assert!(matches!(forged, BlockError::Signature(error) if error.name == "block header"));
    let dropped = block_error(&world, &good, |block| block.transactions.truncate(3));
    assert_eq!(dropped, BlockError::WrongTransactions);
}

/// Signs a header for these transactions as a careless validator would.
fn careless(world: &World, transactions: Vec<wire::Signed<Transaction>>) -> Block {
    let (run, height, parent) = (world.run(), world.ledger.height(), world.ledger.head_digest());
    let transactions_root = Block::transactions_root(&transactions);
    let (time_us, ledger_root) = (world.time_us + 1, world.ledger.root());
    let header = wire::BlockHeader { run, height, parent, time_us, transactions_root, ledger_root };
    Block { header: world.validator.sign(header), transactions: transactions.into() }
}

#[test]
fn a_validator_cannot_put_in_what_changes_nothing_or_is_forged() {
    let world = World::started();
    let apply = |block: Block| world.ledger.clone().apply(&block).unwrap_err();
    assert_eq!(apply(careless(&World::started(), Vec::new())), BlockError::Idle);
    let commit = world.commit(&world.peers[0]).into_signed();
    let twice = apply(careless(&world, vec![commit.clone(), commit.clone()]));
    let rejection = Rejection::AlreadyCommitted { round: 0 };
    assert_eq!(twice, BlockError::Rejected { index: 1, signer: world.id(0), rejection });
    let forged = forge(&commit, |transaction| transaction.action = Action::Leave { sequence: 1 });
    let forged = apply(careless(&world, vec![forged]));
    assert!(matches!(forged, BlockError::Signature(error) if error.name == "transaction"));
}

#[test]
fn only_a_validator_proposes_and_an_idle_block_is_not_made() {
    let world = World::new();
    let join = world.join(&world.peers[0]);
    assert_eq!(world.ledger.propose(&identity(99), 1, vec![join.clone()]), None);
    assert_eq!(world.ledger.propose(&world.validator, 1, Vec::new()), None);
    let block = world.ledger.propose(&world.validator, 1, vec![join.clone(), join]).unwrap();
    assert_eq!(block.transactions.len(), 1, "what would be rejected is left out");
}

#[test]
fn a_proposal_never_goes_back_in_time() {
    let mut world = World::started();
    let head = world.ledger.time_us();
    let commit = world.commit(&world.peers[0]);
    let block = world.ledger.propose(&world.validator, 0, vec![commit]).unwrap();
    assert_eq!(block.header.body.time_us, head);
    world.apply(block);
}

#[test]
fn replicas_agree_and_a_trusted_block_gives_the_same_ledger() {
    let mut world = World::started();
    world.finish();
    let charter = world.ledger.signed_charter().clone().verify().unwrap();
    let (mut one, mut two) = (Ledger::new(&charter), Ledger::new(&charter));
    for block in &world.blocks {
        let applied = one.apply(block).unwrap();
        assert_eq!(two.apply_verified(&wire::VerifiedBlock::trusted(block.clone())), Ok(applied));
        assert_eq!(one.root(), two.root());
    }
    assert_eq!(one.root(), world.ledger.root());
    assert_eq!(state_after(&one), state_after(&world.ledger));
}

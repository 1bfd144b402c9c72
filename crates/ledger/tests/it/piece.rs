//! Pieces: what verifies, and what every tampering is answered with.

use ledger::{PIECE_BYTES_MAX, Piece, PieceError};
use wire::{Hash, RunId, Signed};

use crate::support::{World, forge, identity};

/// A finished run and the piece of its first peer.
fn piece() -> (World, Piece) {
    let mut world = World::started();
    world.finish();
    let peer = world.id(0);
    let receipts = world.ledger.paid_receipts(&peer, &world.blocks);
    let piece = world.ledger.piece(&peer, receipts).expect("it has an account");
    (world, piece)
}

#[test]
fn a_piece_verifies_offline_and_says_what_the_ledger_says() {
    let (world, piece) = piece();
    let summary = Piece::from_json(piece.to_json().as_bytes()).unwrap().verify().unwrap();
    let account = world.ledger.account(&world.id(0)).unwrap();
    assert_eq!((summary.shares, summary.supply), (account.shares, world.ledger.supply()));
    assert_eq!((summary.receipts, summary.rounds, summary.tokens), (6, 3, 600));
    assert_eq!((summary.run, summary.height), (world.run(), world.ledger.height() - 1));
    assert_eq!(summary.ledger_root, world.ledger.root());
    assert_eq!(summary.validator, world.validator.id());
}

#[test]
fn every_peer_has_a_piece_at_every_height() {
    let mut world = World::new();
    assert_eq!(world.ledger.piece(&world.id(0), Vec::new()), None, "no block yet");
    world.join_all();
    for round in 0..3 {
        let first = world.commit(&world.peers[1]);
        world.block(vec![first]);
        assert_pieces(&world, 2 * round);
        let rest = [0, 2, 3].map(|peer| world.commit(&world.peers[peer])).to_vec();
        world.block(rest);
        assert_pieces(&world, 2 * round + 2);
        world.attest_all();
        assert_pieces(&world, 2 * round + 2);
    }
    assert_eq!(world.ledger.piece(&identity(99).id(), Vec::new()), None, "no account");
}

/// Every peer's piece verifies, with so many receipts on average: those of the open round are not paid yet. Who commits early gets more units.
fn assert_pieces(world: &World, receipts: u64) {
    let mut all = 0;
    for peer in &world.peers {
        let paid = world.ledger.paid_receipts(&peer.id(), &world.blocks);
        let piece = world.ledger.piece(&peer.id(), paid).expect("it has an account");
        let summary = piece.verify().expect("the ledger's own piece verifies");
        all += summary.receipts;
        assert!(summary.receipts == receipts || receipts > 2, "the first round goes round");
    }
    assert_eq!(all, receipts * world.peers.len() as u64);
}

/// Verifies the piece after a change and gives the error.
fn error(change: impl FnOnce(&mut Piece)) -> PieceError {
    let (_, mut piece) = piece();
    change(&mut piece);
    let read = Piece::from_json(piece.to_json().as_bytes()).expect("still the JSON of a piece");
    read.verify().expect_err("it was tampered with")
}

#[test]
fn each_tampering_has_its_own_answer() {
    let (world, genuine) = piece();
    let (owner, stranger) = (world.id(0), identity(99));
    let ledger_root = world.ledger.root();
    let run = world.run();
    let other = RunId(Hash::of(b"another run"));

    let raised = error(|piece| piece.account.shares += 1);
    let shares = genuine.account.shares + 1;
    assert_eq!(raised, PieceError::Account { peer: owner, shares, ledger_root });
    assert_eq!(error(|piece| piece.totals.supply -= 1), PieceError::Totals { ledger_root });
    let moved = error(|piece| piece.account_proof.index += 1);
    assert!(matches!(moved, PieceError::Account { .. }), "{moved}");
    let other_proof = error(|piece| piece.account_proof = piece.totals_proof.clone());
    assert!(matches!(other_proof, PieceError::Account { .. }), "{other_proof}");

    let renamed = error(|piece| piece.charter.body.name = "mine".into());
    assert_eq!(renamed, PieceError::CharterSignature { signer: identity(201).id() });
    let unruly = error(|piece| piece.charter.body.rounds = 0);
    assert_eq!(unruly, PieceError::Charter { field: "rounds must be at least 1" });
    let resigned = error(|piece| {
        let mut charter = piece.charter.body.clone();
        charter.validators = vec![stranger.id()];
        piece.charter = stranger.sign(charter);
    });
    assert!(matches!(resigned, PieceError::HeaderRun { got, .. } if got == run), "{resigned}");

    let foreign = error(|piece| piece.header = stranger.sign(piece.header.body.clone()));
    assert_eq!(foreign, PieceError::ForeignValidator { signer: stranger.id() });
    let rewritten = error(|piece| piece.header = forge(&piece.header, |header| header.ledger_root = Hash::of(b"x")));
    assert_eq!(rewritten, PieceError::HeaderSignature { signer: world.validator.id() });

    assert_eq!(error(|piece| piece.receipts.truncate(5)), PieceError::ReceiptCount { expected: 6, got: 5 });
    let foreign_run = error(|piece| piece.receipts[2] = forge(&piece.receipts[2], |receipt| receipt.run = other));
    assert_eq!(foreign_run, PieceError::ReceiptRun { place: 2, expected: run, got: other });
    let borrowed = error(|piece| piece.receipts[1] = stranger.sign(piece.receipts[1].body.clone()));
    assert_eq!(borrowed, PieceError::ReceiptSigner { place: 1, signer: stranger.id() });
    let unsigned = error(|piece| piece.receipts[3] = forge(&piece.receipts[3], |receipt| receipt.tokens += 1));
    assert_eq!(unsigned, PieceError::ReceiptSignature { place: 3 });
    assert_eq!(error(|piece| piece.receipts.swap(0, 1)), PieceError::ReceiptCounter { place: 1, got: 0 });
    let rewritten = error(|piece| {
        let mut receipt = piece.receipts[5].body.clone();
        receipt.output_root = Hash::of(b"another output");
        piece.receipts[5] = identity_of(&world, &piece.receipts[5]).sign(receipt);
    });
    assert!(matches!(rewritten, PieceError::ReceiptChain { .. }), "{rewritten}");
}

fn identity_of<'a, T>(world: &'a World, signed: &Signed<T>) -> &'a wire::Identity {
    world.peers.iter().find(|peer| peer.id() == signed.signer).expect("one of the peers")
}

#[test]
fn text_that_is_no_piece_is_refused_with_the_place() {
    let (_, piece) = piece();
    let json = piece.to_json();
    for cut in [0, 1, 10, json.len() / 2, json.len() - 1] {
        let error = Piece::from_json(&json.as_bytes()[..cut]).unwrap_err();
        assert!(matches!(&error, PieceError::Json { detail } if detail.contains("EOF")), "{cut}: {error}");
    }
    let later = json.replacen("\"version\": 3", "\"version\": 4", 1);
    assert_eq!(Piece::from_json(later.as_bytes()), Err(PieceError::Version { expected: 3, got: 4 }));
    let extra = json.replacen("\"version\": 3", "\"version\": 3, \"owner\": \"me\"", 1);
    assert!(Piece::from_json(extra.as_bytes()).unwrap_err().to_string().contains("unknown field `owner`"));
    let hex = json.replacen(&piece.account.peer.to_string(), "zz", 1);
    assert!(Piece::from_json(hex.as_bytes()).unwrap_err().to_string().contains("is not 64 hexadecimal digits"));
    assert!(Piece::from_json(b"\xff\xfe").is_err());
    let big = vec![b' '; PIECE_BYTES_MAX + 1];
    let bytes = big.len();
    assert_eq!(Piece::from_json(&big), Err(PieceError::TooLarge { bytes, max: PIECE_BYTES_MAX }));
}

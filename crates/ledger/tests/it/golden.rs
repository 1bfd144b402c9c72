//! Frozen bytes of what the ledger's root and a piece cover, and the corpus of the piece's fuzz target.

use std::fs;
use std::path::PathBuf;

use ledger::{Account, CommittedSet, Entry, Piece, PieceError, Standing, Totals};
use wire::{Hash, PeerId, RunId};

use crate::support::World;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/piece")
}

fn hex_of<T: borsh::BorshSerialize>(value: &T) -> String {
    borsh::to_vec(value).expect("plain data").iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `count` bytes of the same value, in hexadecimal.
fn bytes(byte: u8, count: usize) -> String {
    format!("{byte:02x}").repeat(count)
}

/// A number of eight bytes below 256, in hexadecimal.
fn number(value: u8) -> String {
    format!("{value:02x}00000000000000")
}

#[test]
fn an_account_has_its_frozen_bytes() {
    let account = Account {
        peer: PeerId([1; 32]),
        operator: PeerId([12; 32]),
        standing: Standing::Member,
        stage: 10,
        sequence: 2,
        counter: 11,
        shares: 3,
        tokens: 4,
        receipts: 5,
        receipts_root: Hash([6; 32]),
        rounds: 7,
        missed: 8,
        divergences: 9,
    };
    let numbers: String = [2, 11, 3, 4, 5].map(number).concat();
    let expected =
        format!("{}{}020a00{numbers}{}{}08000000{}", bytes(1, 32), bytes(12, 32), bytes(6, 32), number(7), number(9));
    assert_eq!(hex_of(&account), expected);
    let standings = [Standing::Out, Standing::Joining, Standing::Member, Standing::Leaving];
    assert_eq!(standings.map(|standing| hex_of(&standing)), ["00", "01", "02", "03"]);
}

#[test]
fn totals_and_committed_sets_have_their_frozen_bytes() {
    let run = RunId(Hash([1; 32]));
    let totals = Totals { run, supply: 2, tokens: 3, receipts: 4, rounds: 5, history: Hash([6; 32]) };
    let numbers: String = (2..=5).map(number).collect();
    assert_eq!(hex_of(&totals), format!("{}{numbers}{}", bytes(1, 32), bytes(6, 32)));
    let entry = Entry {
        stage: 9,
        peer: PeerId([4; 32]),
        payload: Hash([5; 32]),
        payload_bytes: 6,
        tokens: 7,
        residual_root: Hash([8; 32]),
    };
    let set = CommittedSet {
        round: 1,
        beacon: Hash([2; 32]),
        state_in: vec![Hash([3; 32])],
        coarser: vec![1],
        entries: vec![entry],
    };
    let first = [number(1), bytes(2, 32), "01000000".into(), bytes(3, 32), "0100000001".into()].concat();
    let rest =
        ["01000000".into(), "0900".into(), bytes(4, 32), bytes(5, 32), number(6), number(7), bytes(8, 32)].concat();
    assert_eq!(hex_of(&set), first + &rest);
    assert_eq!(set.digest().to_string(), "6e22763813291e669f17952408d8e6bbcb3e78ab0cee4b8803c8e0a72812724e");
}

/// The roots of a whole small run: whatever changes them makes peers of two versions part.
#[test]
fn a_run_has_its_frozen_roots() {
    let mut world = World::new();
    let mut roots = vec![world.ledger.root()];
    world.join_all();
    roots.push(world.ledger.root());
    world.commit_all();
    roots.push(world.ledger.root());
    world.attest_all();
    roots.push(world.ledger.root());
    world.finish();
    roots.push(world.ledger.root());
    let roots: Vec<String> = roots.iter().map(Hash::to_string).collect();
    let frozen = [
        "6b9401c0f72f6c9c8bf675a112129e8c1f2456ef18dc814ee8f7b6144d9b3993",
        "2204d0581bd5a7c49bfa48440d5161c44b11401da3b6c27957fae928790ae6ee",
        "495155683504dab363306168a4d05e256836df980b17cbe572883416f186a890",
        "a8f9be4358bf81db1864ebe71f271d211e69a4fe66a1d7d420d6624cf96f5037",
        "84c04512a9b24446ef57b5769170bc8303e3d54a6ede9f2c2ac48da98b2df4d9",
    ];
    assert_eq!(roots, frozen);
}

#[test]
fn a_piece_has_its_frozen_json() {
    let mut world = World::started();
    world.finish();
    let receipts = world.ledger.paid_receipts(&world.id(0), &world.blocks);
    let piece = world.ledger.piece(&world.id(0), receipts).unwrap();
    let frozen = fs::read_to_string(corpus().join("good-finished-run.json")).unwrap();
    assert_eq!(piece.to_json(), frozen.trim_end());
}

/// Reads and verifies a piece; both are total.
fn verify(bytes: &[u8]) -> Result<(), PieceError> {
    Piece::from_json(bytes)?.verify().map(|_| ())
}

#[test]
fn the_corpus_of_the_piece_replays() {
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let outcome = verify(&fs::read(entry.path()).unwrap());
        assert!(!(name.starts_with("good-") && outcome.is_err()), "{name}: {outcome:?}");
        assert!(!(name.starts_with("bad-") && outcome.is_ok()), "{name} verifies");
        names.push(name);
    }
    assert!(names.len() >= 8, "{names:?}");
}

#[test]
fn any_change_of_one_byte_of_a_piece_is_noticed() {
    let genuine = fs::read(corpus().join("good-finished-run.json")).unwrap();
    let genuine = genuine.trim_ascii_end();
    let summary = Piece::from_json(genuine).unwrap().verify().unwrap();
    for place in (0..genuine.len()).step_by(7) {
        for byte in [b'0', b'7', b'f', b'"', b' ', b'}', 0xff] {
            let mut changed = genuine.to_vec();
            if changed[place] == byte {
                continue;
            }
            changed[place] = byte;
            let read = Piece::from_json(&changed).and_then(|piece| piece.verify());
            // White space outside strings means nothing; all else counts.
            assert!(read.is_err() || read == Ok(summary.clone()), "byte {place} as {byte}");
            if genuine[place].is_ascii_alphanumeric() {
                assert!(read.is_err(), "byte {place} as {byte}");
            }
        }
    }
}

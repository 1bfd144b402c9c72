//! Frozen bytes. A change here breaks every stored block, receipt and piece: it has to be deliberate, with a new
//! protocol version.

use wire::merkle::{Tree, leaf};
use wire::{Action, Block, Hash, Identity, NumericProfile, Release, Signable, UnitId, encode, run_root};

use crate::samples;

/// Name and hexadecimal bytes, one value per line.
const GOLDEN: &str = include_str!("golden.txt");

fn hex_of<T: borsh::BorshSerialize>(value: &T) -> String {
    hex::encode(borsh::to_vec(value).expect("writing to a vector cannot fail"))
}

fn values() -> Vec<(String, String)> {
    let mut values = Vec::new();
    let mut add = |name: &str, bytes: String| values.push((name.to_string(), bytes));
    add("hash", hex_of(&samples::hash(0x11)));
    add("peer-id", hex_of(&samples::worker().id()));
    add("profile-f32-fma", hex_of(&NumericProfile::F32Fma));
    add("profile-f32-muladd", hex_of(&NumericProfile::F32Muladd));
    add("charter", hex_of(&samples::charter()));
    add("charter-signed", hex_of(&samples::founder().sign(samples::charter())));
    add("run-id", hex_of(&samples::run()));
    add("unit-id", hex_of(&UnitId::derive(samples::run(), 5, samples::hash(0x21), 1)));
    add("receipt", hex_of(&samples::receipt(1)));
    add("receipt-signed", hex_of(&samples::worker().sign(samples::receipt(1))));
    add("receipt-digest", hex_of(&samples::receipt(1).digest()));
    add("commitment", hex_of(&samples::commitment()));
    add("operator-certificate-signed", hex_of(&samples::certificate()));
    add("operator-certificate-digest", hex_of(&samples::certificate().body.digest()));
    add("ticket", hex_of(&samples::ticket()));
    add("ticket-text", samples::ticket().to_string());
    for (name, answer) in ["files", "unknown-run"].iter().zip(samples::run_answers()) {
        add(&format!("run-answer-{name}"), hex_of(&answer));
    }
    for (name, release) in [("open-now", Release::OpenNow), ("split", Release::Split)] {
        add(&format!("release-{name}"), hex_of(&release));
    }
    for (name, transaction) in ["join", "leave", "commit", "attest"].iter().zip(samples::transactions()) {
        add(&format!("transaction-{name}"), hex_of(&transaction.body));
        add(&format!("transaction-{name}-signature"), hex_of(&transaction.signature));
        add(&format!("transaction-{name}-digest"), hex_of(&transaction.body.digest()));
    }
    let block = samples::block();
    add("block-header", hex_of(&block.header.body));
    add("block-header-digest", hex_of(&block.header.body.digest()));
    add("block-header-signature", hex_of(&block.header.signature));
    add("block", hex_of(&block));
    add("transactions-root", hex_of(&Block::transactions_root(&block.transactions)));
    add("transactions-root-empty", hex_of(&Block::transactions_root(&[])));
    let names = ["hello", "submit", "block", "blocks-wanted", "blocks", "charter"];
    let names = names.iter().chain(&[
        "stage-call",
        "stage-reply",
        "stage-refusal",
        "stage-sealed",
        "addresses",
        "payload-made",
        "passed-block",
    ]);
    for (name, message) in names.zip(samples::messages()) {
        add(&format!("message-{name}"), hex_of(&message));
    }
    add("inference-call", hex_of(&samples::inference_call()));
    let answers = ["fed", "busy", "wrong-stage", "unknown-state", "unknown-sequence", "bad-input", "failed"];
    for (name, answer) in answers.iter().zip(samples::inference_answers()) {
        add(&format!("inference-{name}"), hex_of(&answer));
    }
    add("run-root-1", hex_of(&run_root(&[samples::hash(1)])));
    add("run-root-3", hex_of(&run_root(&[1, 2, 3].map(samples::hash))));
    add("merkle-leaf", hex_of(&leaf(b"leaf")));
    add("merkle-proof", hex_of(&samples::proof()));
    for count in [0u8, 1, 2, 5] {
        let tree = Tree::new((0..count).map(|number| leaf(&[number])).collect());
        add(&format!("merkle-root-{count}"), hex_of(&tree.root()));
    }
    values
}

#[test]
fn every_type_has_its_frozen_bytes() {
    let lines: Vec<String> = values().into_iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
    let changed: Vec<&String> = lines.iter().filter(|line| !GOLDEN.lines().any(|frozen| frozen == *line)).collect();
    assert!(changed.is_empty(), "these are not the frozen bytes: {changed:#?}");
    assert!(GOLDEN.lines().eq(&lines), "a frozen value is missing or in another place");
}

/// Puts bytes together by hand, independently of the encoder.
fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn a_receipt_is_its_fields_in_order_little_endian() {
    let unit = UnitId::derive(samples::run(), 5, samples::hash(0x21), 1);
    let expected = join(&[
        &samples::run().0.0,
        &[5, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0],
        &[1, 0],
        &unit.0.0,
        &[0x22; 32],
        &[0x23; 32],
        &[0x24; 32],
        &[0x25; 32],
        &[0x00, 0x1e, 0, 0, 0, 0, 0, 0],
        &[0x80, 0x2d, 0x4e, 0, 0, 0, 0, 0],
        &[11, 0, 0, 0, 0, 0, 0, 0],
    ]);
    assert_eq!(encode(&samples::receipt(1)), expected);
}

#[test]
fn a_signed_value_is_signer_signature_body() {
    let signed = samples::transaction(Action::Join { sequence: 0x0102, stage: 0x0304, operator: None });
    let body = join(&[&samples::run().0.0, &[0], &[2, 1, 0, 0, 0, 0, 0, 0], &[4, 3], &[0]]);
    assert_eq!(encode(&signed.body), body);
    assert_eq!(encode(&signed), join(&[&samples::worker().id().0, &signed.signature.0, &body]));
}

#[test]
fn a_message_is_its_number_and_its_fields() {
    let messages: Vec<Vec<u8>> = samples::messages().iter().map(encode).collect();
    let open = [&[1, 5, 0, 0, 0, 0, 0, 0, 0][..], &1_764_000_040_000_000_u64.to_le_bytes()].concat();
    let expected = join(&[&[0], &[4, 0], &samples::run().0.0, &[7, 0, 0, 0, 0, 0, 0, 0], &open]);
    assert_eq!(messages[0], expected);
    assert_eq!(messages[3], [3, 3, 0, 0, 0, 0, 0, 0, 0]);
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(usize::from(message[0]), number);
    }
}

#[test]
fn a_stage_call_is_its_fields_in_order_little_endian() {
    let call = samples::stage_call();
    let expected = join(&[
        &[6],
        &[5, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0],
        &[1, 0, 0, 0],
        &[0x22; 32],
        &call.unit.0.0,
        &[1],
        &[2, 0, 0, 0],
        &call.hint[0].0,
        &call.hint[1].0,
        &[3, 0, 0, 0, 1, 2, 3],
    ]);
    assert_eq!(encode(&samples::messages()[6]), expected);
}

#[test]
fn an_inference_call_is_its_fields_in_order_little_endian() {
    let expected = join(&[
        &samples::run().0.0,
        &[1, 0],
        &[0x22; 32],
        &[2, 0, 0, 0],
        &[9, 0, 0, 0, 0, 0, 0, 0],
        &[0; 4],
        &[3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
        &[4, 0, 0, 0, 0, 0, 0, 0],
        &[17, 0, 0, 0],
        &[1, 0, 0, 0, 4, 3, 2, 1],
        &[2, 0, 0, 0, 6, 7],
        &[1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0],
    ]);
    assert_eq!(encode(&samples::inference_call()), expected);
}

#[test]
fn a_digest_is_blake3_over_length_and_bytes_under_the_domain() {
    let bytes = encode(&samples::receipt(1));
    let input = join(&[&(bytes.len() as u64).to_le_bytes(), &bytes]);
    let expected = blake3::derive_key("cairn v1 signature receipt", &input);
    assert_eq!(samples::receipt(1).digest(), Hash(expected));
}

#[test]
fn ed25519_keys_are_those_of_rfc_8032() {
    let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let secret: Hash = secret.parse().unwrap();
    let identity = Identity::from_secret(secret.0);
    assert_eq!(identity.id().to_string(), public);
    assert_eq!(identity.secret(), secret.0);
}

#[test]
fn the_root_of_one_stage_is_its_own_and_of_several_a_hash_over_all() {
    let roots: Vec<Hash> = (1..=3).map(samples::hash).collect();
    assert_eq!(run_root(&roots[..1]), roots[0]);
    let joined: Vec<u8> = roots.iter().flat_map(|root| root.0).collect();
    assert_eq!(run_root(&roots), Hash(blake3::derive_key("cairn v1 root over stages", &joined)));
}

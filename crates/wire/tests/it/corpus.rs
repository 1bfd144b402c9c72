//! Replays the corpora of the fuzz targets as ordinary tests.

use std::fs;
use std::path::PathBuf;

use wire::{
    Block, Charter, InferenceAnswer, InferenceCall, Message, RunAnswer, Ticket, Transaction, Wire, decode, encode,
};

/// The files of one target's corpus, sorted: name and bytes.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let entry = entry.expect("a readable folder");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a readable file"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// What the fuzz target does; files named `good-…` must decode, others named `bad-…` must not.
fn replay<T: Wire>(target: &str) {
    let mut good = 0;
    for (name, bytes) in corpus(target) {
        let decoded = decode::<T>(&bytes);
        assert!(!(name.starts_with("good-") && decoded.is_err()), "{target}/{name}: {:?}", decoded.err());
        assert!(!(name.starts_with("bad-") && decoded.is_ok()), "{target}/{name} decodes");
        if let Ok(value) = decoded {
            assert_eq!(encode(&value), bytes, "{target}/{name} has two encodings");
            good += 1;
        }
        crate::hostile::decode_as_everything(&bytes);
    }
    assert!(good > 0, "no file of {target} decodes");
}

#[test]
fn message() {
    replay::<Message>("message");
}

#[test]
fn transaction() {
    replay::<Transaction>("transaction");
}

#[test]
fn block() {
    replay::<Block>("block");
}

#[test]
fn inference() {
    replay::<InferenceCall>("inference_call");
    replay::<InferenceAnswer>("inference_answer");
}

#[test]
fn charter() {
    replay::<Charter>("charter");
}

#[test]
fn joining() {
    replay::<Ticket>("ticket");
    replay::<RunAnswer>("run_answer");
}

#[test]
fn ticket_text() {
    for (name, bytes) in corpus("ticket_text") {
        let parsed = String::from_utf8_lossy(&bytes).parse::<Ticket>();
        assert_eq!(parsed.is_ok(), name.starts_with("good-"), "{name}: {parsed:?}");
        if let Ok(ticket) = parsed {
            assert_eq!(ticket.to_string().parse(), Ok(ticket), "{name}");
        }
    }
}

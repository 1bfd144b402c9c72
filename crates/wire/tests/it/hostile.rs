//! Bytes from strangers: an error, never a panic, never more memory than a small multiple of what was sent.

use std::sync::Mutex;

use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use wire::merkle::Proof;
use wire::{
    Block, BlockHeader, Charter, InferenceAnswer, InferenceCall, Message, Receipt, RunAnswer, RunQuestion, Signed,
    Ticket, Transaction, Wire, decode, encode,
};

use crate::{samples, strategies};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;
/// The tests that measure memory run one after the other; what the other tests use meanwhile is small.
static MEASURING: Mutex<()> = Mutex::new(());

/// Decodes the bytes as every type; what decodes must encode to the same bytes.
pub(crate) fn decode_as_everything(bytes: &[u8]) {
    fn one<T: Wire>(bytes: &[u8]) {
        if let Ok(value) = decode::<T>(bytes) {
            assert_eq!(encode(&value), bytes, "{} has two encodings", T::NAME);
        }
    }
    one::<Charter>(bytes);
    one::<Signed<Charter>>(bytes);
    one::<Receipt>(bytes);
    one::<Transaction>(bytes);
    one::<Signed<Transaction>>(bytes);
    one::<BlockHeader>(bytes);
    one::<Block>(bytes);
    one::<Message>(bytes);
    one::<InferenceCall>(bytes);
    one::<InferenceAnswer>(bytes);
    one::<RunQuestion>(bytes);
    one::<RunAnswer>(bytes);
    one::<Ticket>(bytes);
    one::<Proof>(bytes);
}

fn genuine() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = samples::messages().iter().map(encode).collect();
    all.extend(samples::transactions().iter().map(encode));
    all.extend([encode(&samples::charter()), encode(&samples::block()), encode(&samples::receipt(1))]);
    all.push(encode(&samples::inference_call()));
    all.extend(samples::inference_answers().iter().map(encode));
    all.extend(samples::run_answers().iter().map(encode));
    all.push(encode(&samples::ticket()));
    all.push(encode(&samples::proof()));
    all
}

#[test]
fn every_truncation_is_an_error() {
    for bytes in genuine() {
        for cut in 0..bytes.len() {
            decode_as_everything(&bytes[..cut]);
        }
    }
    let message = encode(&samples::messages()[4]);
    for cut in 0..message.len() {
        assert!(decode::<Message>(&message[..cut]).is_err(), "cut at {cut}");
    }
}

/// Every length prefix in the samples, found by trying all places, claims 4 GiB.
#[test]
fn a_length_prefix_of_4_gib_is_an_error_at_once() {
    let _alone = MEASURING.lock().unwrap();
    let mib = 1024 * 1024;
    for bytes in genuine() {
        for place in 0..bytes.len().saturating_sub(4) {
            let mut bomb = bytes.clone();
            bomb[place..place + 4].fill(0xff);
            let before = PEAK.current_usage();
            PEAK.reset_peak_usage();
            decode_as_everything(&bomb);
            let used = PEAK.peak_usage().saturating_sub(before);
            assert!(used < 16 * mib, "place {place} of {} bytes allocates {used}", bytes.len());
        }
    }
}

#[test]
fn memory_is_a_small_multiple_of_the_message() {
    let _alone = MEASURING.lock().unwrap();
    let join = samples::transaction(wire::Action::Join { sequence: 0, stage: 0, operator: None });
    let mut block = samples::block();
    block.transactions = vec![join; 4096].into();
    let many = Message::Blocks(vec![block; 32]);
    let mut bytes = encode(&many);
    assert!(bytes.len() > 10 << 20);
    for last in [None, Some(0xff)] {
        // Once as it is, once refused only at the last byte.
        bytes.extend(last);
        let before = PEAK.current_usage();
        PEAK.reset_peak_usage();
        assert_eq!(decode::<Message>(&bytes).is_ok(), last.is_none());
        let used = PEAK.peak_usage().saturating_sub(before);
        // Vectors double as they grow; 16 MiB are left for the other tests.
        assert!(used < 6 * bytes.len() + (16 << 20), "{used} bytes for a message of {}", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_known_tag(tag in 0u8..12, bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode_as_everything(&[&[tag][..], &bytes].concat());
    }

    #[test]
    fn changed_bytes(
        message in strategies::message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&message);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        decode_as_everything(&bytes);
    }

    #[test]
    fn random_text_as_json(text in ".{0,200}") {
        let _ = serde_json::from_str::<Signed<Transaction>>(&text);
        let _ = text.parse::<wire::Hash>();
        let _ = text.parse::<wire::PeerId>();
    }
}

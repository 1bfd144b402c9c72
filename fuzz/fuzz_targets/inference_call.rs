//! Any bytes decode to a well-formed `InferenceCall` with exactly these bytes, or give an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{InferenceCall, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = decode::<InferenceCall>(bytes) {
        assert_eq!(encode(&value), bytes);
    }
});

//! Any bytes decode to a well-formed `InferenceAnswer` with exactly these bytes, or give an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{InferenceAnswer, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = decode::<InferenceAnswer>(bytes) {
        assert_eq!(encode(&value), bytes);
    }
});

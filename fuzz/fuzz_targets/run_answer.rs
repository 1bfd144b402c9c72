//! Any bytes decode to a well-formed `RunAnswer` with exactly these bytes, or give an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{RunAnswer, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = decode::<RunAnswer>(bytes) {
        assert_eq!(encode(&value), bytes);
    }
});

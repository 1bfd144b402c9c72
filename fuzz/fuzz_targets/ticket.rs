//! Any bytes decode to a well-formed `Ticket` with exactly these bytes, or give an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{Ticket, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = decode::<Ticket>(bytes) {
        assert_eq!(encode(&value), bytes);
    }
});

//! Sends bytes that are no messages: random ones, and honest ones cut short.
//!
//! Caught by: the decoder is total, and a peer that sends too many such bytes is barred for a while.

use wire::{Message, encode};

use crate::events::Parcel;
use crate::random::Random;

pub(super) fn twist(message: &Message, draw: &mut Random) -> Parcel {
    let mut bytes = encode(message);
    if draw.chance(500_000) {
        bytes.truncate(draw.index(bytes.len()));
    } else {
        let noise = |_| u8::try_from(draw.below(256)).expect("a byte");
        bytes = (0..64).map(noise).collect();
    }
    Parcel::Bytes(bytes)
}

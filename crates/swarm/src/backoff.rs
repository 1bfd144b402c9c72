//! Delays between tries: doubling up to a bound, spread per peer so that many peers do not try at one moment.

use wire::{Hash, PeerId};

/// The fixed part of every delay of one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    first_us: u64,
    max_us: u64,
    salt: u64,
}

impl Pace {
    /// Delays from `first_us` to `max_us`, spread by the peer's id.
    pub(crate) fn new(first_us: u64, max_us: u64, own: PeerId) -> Self {
        let hash = Hash::derive("cairn v1 backoff salt", &[&own.0]);
        let salt = hash.0.iter().take(8).fold(0, |salt, byte| salt << 8 | u64::from(*byte));
        Self { first_us: first_us.max(1), max_us: max_us.max(first_us).max(1), salt }
    }

    /// The first delay, without spread.
    pub(crate) fn first_us(&self) -> u64 {
        self.first_us
    }

    /// The longest delay, without spread.
    pub(crate) fn max_us(&self) -> u64 {
        self.max_us
    }
}

/// How often something failed in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts one more try and gives the delay until the next: the doubled delay plus up to a quarter of it.
    pub(crate) fn next_us(&mut self, pace: &Pace) -> u64 {
        let doubled = pace.first_us.saturating_mul(1 << self.failures.min(20)).min(pace.max_us);
        let spread = pace.salt.rotate_left(self.failures * 7) % (doubled / 4 + 1);
        self.failures = self.failures.saturating_add(1);
        doubled.saturating_add(spread)
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Tries since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

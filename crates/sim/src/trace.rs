//! The trace hash: everything that happened, in order, as one hash.

use swarm::Time;
use wire::Hash;

/// A running hash over events.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    events: u64,
}

impl Trace {
    /// An empty trace.
    pub(crate) fn new() -> Self {
        Self { hasher: blake3::Hasher::new_derive_key("cairn v1 sim trace"), events: 0 }
    }

    /// Adds an event: when, where, what, and numbers that tell it from others of its kind.
    pub(crate) fn add(&mut self, now: Time, host: usize, kind: &str, details: [u64; 2]) {
        self.events += 1;
        self.hasher.update(&now.as_micros().to_le_bytes());
        self.hasher.update(&(host as u64).to_le_bytes());
        self.hasher.update(&(kind.len() as u64).to_le_bytes());
        self.hasher.update(kind.as_bytes());
        for detail in details {
            self.hasher.update(&detail.to_le_bytes());
        }
    }

    /// The hash so far.
    pub(crate) fn hash(&self) -> Hash {
        Hash(*self.hasher.finalize().as_bytes())
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}

/// The first eight bytes of a hash, as a detail of an event.
pub(crate) fn detail(hash: &Hash) -> u64 {
    hash.0.iter().take(8).fold(0, |detail, byte| detail << 8 | u64::from(*byte))
}

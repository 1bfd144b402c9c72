//! Time as the protocol sees it: microseconds that the shell passes in.

use std::fmt;

/// A point in time, in microseconds: since the Unix epoch in `node`, since the start of the simulation in `sim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// The end of time.
    pub const MAX: Self = Self(u64::MAX);

    /// The point `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The point `micros` microseconds later; stops at the end of time.
    pub const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this point, 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06} s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Why a peer wants to be called at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeoutReason {
    /// A connection is due to be dialled, or dialled again.
    Dial,
    /// Neighbours are due to be told the own height.
    Announce,
    /// A request for blocks was not answered in time.
    AskBlocks,
    /// A transaction is not in a block yet and is due to be submitted again.
    Submit,
    /// A blob is due to be fetched again.
    Fetch,
    /// A job failed and is due to be tried again.
    Job,
    /// The validator is due to propose a block.
    Propose,
    /// The open round reaches its deadline.
    RoundDeadline,
    /// The pipeline waits for something no longer, or most of a round's time has passed.
    Stage,
}

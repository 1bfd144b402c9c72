//! What a stage can hold against its neighbours.

use std::fmt;

use wire::{Hash, PeerId, UnitId};

/// A neighbour's misbehaviour. It is recorded, and the work goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageFault {
    /// It called although it is no member of the stage before, or named another stage or unit than there is.
    WrongCall {
        /// What is wrong.
        what: &'static str,
    },
    /// Its call starts from another state than the round does.
    StaleState {
        /// The agreed root.
        expected: Hash,
        /// The root that it named.
        got: Hash,
    },
    /// Its bytes are not what a stage gives: the wrong length or shape, no numbers, another codec.
    BadBytes {
        /// The unit.
        unit: UnitId,
        /// What is wrong, as the trainer says, shortened.
        what: String,
    },
    /// It calls again and again.
    Flood,
    /// It answered what it was not asked.
    Unasked,
    /// The path in its reply does not begin with itself or does not lead through the stages.
    BadPath,
    /// Its bytes for a unit differ from others that answer the same question. One of the two is a lie; which, an audit finds.
    Mismatch {
        /// The unit.
        unit: UnitId,
        /// Hash of the bytes that came first, or that were computed here.
        earlier: Hash,
        /// Who sent those.
        earlier_from: PeerId,
        /// Hash of its bytes.
        got: Hash,
    },
}

impl StageFault {
    /// Whether it is certain that the peer is at fault. A mismatch shows only that one of two lied.
    pub fn is_certain(&self) -> bool {
        !matches!(self, Self::Mismatch { .. })
    }
}

impl fmt::Display for StageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCall { what } => write!(f, "made a call that no neighbour makes: {what}"),
            Self::StaleState { expected, got } => {
                write!(f, "calls from state `{got:?}` where `{expected:?}` is agreed")
            }
            Self::BadBytes { unit, what } => {
                write!(f, "sent bytes for unit `{:?}` that no stage gives: {what}", unit.0)
            }
            Self::Flood => f.write_str("calls more often than any neighbour needs to"),
            Self::Unasked => f.write_str("answered what it was not asked"),
            Self::BadPath => f.write_str("names a path that does not lead through the stages"),
            Self::Mismatch { unit, earlier, earlier_from, got } => {
                let unit = unit.0;
                write!(f, "sent `{got:?}` for unit `{unit:?}` where `{earlier_from:?}` sent `{earlier:?}`")
            }
        }
    }
}

//! Boundary codecs: what travels between two stages of a model, forward and backward.
//!
//! Purpose: a micro-batch's hidden states, and their gradient, in as few bytes as the link between two peers asks for. A codec is
//! two choices that do not depend on each other:
//!
//! | choice | made by | values |
//! |---|---|---|
//! | [`Space`]: which numbers a token has | the recipe, for the run | all `width`; `rank` coordinates in a frozen or a learned basis |
//! | [`Precision`]: how a number is written | the recipe, and in its range the members of each round, by what their links carry | f32, bf16, 8 or 4 bits with a scale per token |
//!
//! Both directions carry the same coordinates: forward `z = (h − t)·A`, read as `h' = z·Aᵀ + t`; backward the gradient of `h'` as
//! `g·A`, read as `(g·A)·Aᵀ`, which is exactly the gradient of `h`. `t` is the token part ([`token_part`](Projection)): what everybody
//! can derive from the token ids, which follow from the unit's name and never travel.
//!
//! Sources: per-token absmax integers with stochastically rounded gradients, and the learned projector (MAPL, arXiv:2606.05484): training
//! design, section 3; the frozen subspace: Protocol Models, arXiv:2506.01260.
//!
//! Deviations: a token's scale travels as bf16, rounded up so that no code leaves its range; the projector's token part is the
//! *initial* embedding, which follows from the run's seed, so that no stage but the first needs the table. (MAPL does not say.)
//!
//! Everything here is a pure function with the same bits on every machine: what a stage sent can be computed again by anybody.
//!
//! What it deliberately does not do: choose among a recipe's precisions (that needs measured links), or know peers.

mod codec;
mod numbers;
mod space;

/// Largest magnitude of a number of a hidden state.
pub const HIDDEN_MAX: u32 = 1_000_000;
/// Largest magnitude of a number of a gradient of a mean loss.
pub const GRADIENT_MAX: u32 = 1_000;

pub use codec::{BASIS_RATE, Codec, CodecError};
pub use numbers::{HEADER_BYTES, Precision, Rounding, decode, encode, encoded_bytes, precision_of};
pub use space::{Projection, Space, initial_basis};

/// Why bytes are not what a neighbouring stage sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundaryError {
    /// The first byte names no precision.
    #[error("boundary: unknown precision {tag}")]
    UnknownPrecision {
        /// The byte.
        tag: u8,
    },
    /// The message is written in another precision than this boundary has in this round.
    #[error("boundary: {}, where this round has {}", got.name(), expected.name())]
    WrongPrecision {
        /// The round's.
        expected: Precision,
        /// The message's.
        got: Precision,
    },
    /// The message is of another shape than the micro-batch.
    #[error("boundary: {got_rows} × {got_columns} values, and the micro-batch has {rows} × {columns}")]
    WrongShape {
        /// Tokens of the micro-batch.
        rows: usize,
        /// Numbers of a token.
        columns: usize,
        /// Tokens that the message says.
        got_rows: usize,
        /// Numbers of a token that the message says.
        got_columns: usize,
    },
    /// More or fewer bytes than the header says.
    #[error("boundary: {got} bytes, where the header says {expected}")]
    WrongLength {
        /// What the header says.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A value is infinite or not a number.
    #[error("boundary: row {row} has a value that is not finite")]
    NotFinite {
        /// The token.
        row: usize,
    },
    /// A value beyond what training can make of honest ones: it could push a sum over all micro-batches out of the finite numbers.
    #[error("boundary: row {row} has a value above {limit}")]
    TooLarge {
        /// The token.
        row: usize,
        /// Largest magnitude.
        limit: u32,
    },
    /// A code that no encoder writes.
    #[error("boundary: row {row} has a code outside of its range")]
    BadCode {
        /// The token.
        row: usize,
    },
}

#[cfg(test)]
mod tests;

//! Turns verified work into shares: a pure fold over ordered blocks.
//!
//! Purpose: every peer that applies the same blocks holds the same members, rounds, committed sets, accounts and root.
//! Source: sections 1 and 2 of the training design (committed set), section 2 of the verification design (receipts),
//! and the ownership laws of the product design.
//!
//! What it does not do: it orders nothing, keeps no blocks and no receipts (an account holds a hash chain over its
//! receipts), reads no clock (time is what block headers say), and does not judge whether a unit was computed honestly.

mod accounts;
mod error;
mod ledger;
mod piece;

pub use accounts::{Account, Standing};
pub use error::{BlockError, Rejection};
pub use ledger::round::{COMMITTEE_SIZE, CommittedSet, Entry, RoundOpen, UNITS_PER_MEMBER_MAX, assignment};
pub use ledger::state::{ACCOUNTS_MAX, Applied, Canonical, MISSED_ROUNDS_MAX, ROUNDS_KEPT, Totals};
pub use ledger::{BLOCK_BYTES_PROPOSED_MAX, Ledger};
pub use piece::{PIECE_BYTES_MAX, PIECE_VERSION, Piece, PieceError, PieceSummary};

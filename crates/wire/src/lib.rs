//! Names, signs and encodes what peers say.
//!
//! Everything that two peers exchange or that a stranger later verifies is defined here: identities, hashes, receipts,
//! transactions, blocks and messages, with one canonical encoding (borsh) and domain-separated ed25519 signatures.
//!
//! A value that was decoded is well formed: [`decode`] checks lengths, ranges and trailing bytes. A value inside
//! [`Verified`] also had its signature checked. This crate knows no tensors, no clocks and no sockets.

pub mod charter;
pub mod encoding;
pub mod hash;
pub mod identity;
pub mod inference;
pub mod join;
pub mod merkle;
pub mod message;
pub mod operator;
pub mod receipt;
pub mod stage;
pub mod ticket;
pub mod transaction;
pub mod transactions;

pub use charter::{Charter, NumericProfile, Release, ReleaseError, RunId, STAGES_MAX, StageTerms, run_root};
pub use encoding::{DecodeError, Wire, decode, encode};
pub use hash::Hash;
pub use identity::{Domain, Identity, PeerId, Signable, Signature, SignatureError, Signed, Verified};
pub use inference::{InferenceAnswer, InferenceCall, InferenceRefusal, SequenceFeed};
pub use join::{RunAnswer, RunFiles, RunQuestion};
pub use message::{Message, PROTOCOL_VERSION, PayloadMade, PeerAddress, RoundTime};
pub use operator::OperatorCertificate;
pub use receipt::{Receipt, UnitId};
pub use stage::{RefusalReason, StageCall, StageRefusal, StageReply, StageSealed};
pub use ticket::{Ticket, TicketError};
pub use transaction::{
    Action, Attestation, Block, BlockHeader, Commitment, LinkWish, LinkWishes, Transaction, VerifiedBlock,
};
pub use transactions::Transactions;

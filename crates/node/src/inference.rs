//! Inference through the stages of a model that no machine holds as a whole.
//!
//! Purpose: whoever wants to use a run's model calls one replica of every stage in turn, over connections of their own. A replica
//! ([`InferenceServer`]) keeps the keys and values of the sequences that it was fed; a consumer ([`InferenceClient`]) knows the tokens, and
//! carries hidden states from stage to stage.
//!
//! Protocol: QUIC with the protocol name [`ALPN`], beside that of messages and that of blobs. A call is a bidirectional stream of its own:
//! a frame each way, a `u32` little-endian length and the canonical bytes of [`wire::InferenceCall`] or [`wire::InferenceAnswer`]. The
//! requests that a consumer decodes together travel together.
//!
//! Sequence of a token: call to stage 0 with the tokens → hidden states → call to stage 1 with these → … → logits of the last stage. When a
//! replica fails, or has forgotten a sequence, the consumer takes another one and feeds every sequence from its beginning: the bits are
//! the same, since prefill and decoding give the same ones.
//!
//! Deviation: stages do not call each other, as Petals' servers can; a token takes a round trip to every stage instead of a way around.
//! In exchange the consumer knows who failed, and needs no trust between stages.
//!
//! Bounds: a server works on [`CALLS_MAX`] calls at a time and does not read more, keeps [`MODELS_MAX`] states, [`SEQUENCES_MAX`] sequences
//! of each, and [`CACHE_BYTES`] or more for them; a call that takes longer than [`CALL_SECONDS_MAX`] to arrive or to be answered has failed.
//!
//! What it does not do: keep secrets (a stage can reconstruct what is asked), check that a replica computes what it should (receipts of
//! inference are a later matter), or count and pay for what it serves.

mod client;
mod server;

use std::time::Duration;

pub use client::{
    INTERRUPTIONS_MAX, InferenceClient, PAUSE, Replica, StagedError, StagedFeed, StagedModel, StagedSequence,
};
pub use server::InferenceServer;
pub(crate) use server::serving_bytes;

/// What consumers ask for when they connect.
pub const ALPN: &[u8] = b"cairn-inference/1";
/// Calls of all consumers that a server reads or works on at a time.
pub const CALLS_MAX: usize = 8;
/// States that a server keeps ready.
pub const MODELS_MAX: usize = 2;
/// Sequences that a server keeps of one state.
pub const SEQUENCES_MAX: usize = 256;
/// Memory for the sequences of one state; more where [`CACHED_CONTEXTS`] of the model need it.
pub const CACHE_BYTES: usize = 16 << 20;
/// Sequences of the longest kind for which a server has memory in any case.
pub const CACHED_CONTEXTS: usize = 4;
/// How long a call may take.
pub const CALL_SECONDS_MAX: u64 = 10;
const CALL_TIME: Duration = Duration::from_secs(CALL_SECONDS_MAX);

#[cfg(test)]
mod tests;

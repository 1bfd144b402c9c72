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

use iroh::endpoint::{RecvStream, SendStream};
use wire::{DecodeError, Wire};

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

const LENGTH_BYTES: usize = 4;
/// Memory for a frame grows by this much as its bytes arrive, so that a false length costs its sender the bytes.
const READ_BYTES: usize = 64 << 10;

/// A frame could not be sent or read.
#[derive(Debug, thiserror::Error)]
enum FrameError {
    #[error("the connection: {0}")]
    Connection(String),
    #[error("a frame of {bytes} bytes is larger than the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("no answer in {CALL_SECONDS_MAX} s")]
    TimeOut,
}

async fn read_frame<T: Wire>(stream: &mut RecvStream) -> Result<T, FrameError> {
    let lost = |error: &dyn std::fmt::Display| FrameError::Connection(error.to_string());
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await.map_err(|error| lost(&error))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > T::BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: length, max: T::BYTES_MAX });
    }
    let mut body = Vec::with_capacity(length.min(READ_BYTES));
    while body.len() < length {
        let start = body.len();
        body.resize(length.min(start + READ_BYTES), 0);
        stream.read_exact(&mut body[start..]).await.map_err(|error| lost(&error))?;
    }
    Ok(wire::decode(&body)?)
}

async fn write_frame<T: Wire>(stream: &mut SendStream, value: &T) -> Result<(), FrameError> {
    let body = wire::encode(value);
    if body.len() > T::BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: body.len(), max: T::BYTES_MAX });
    }
    let length = u32::try_from(body.len()).expect("BYTES_MAX fits in a u32");
    let lost = |error: &dyn std::fmt::Display| FrameError::Connection(error.to_string());
    stream.write_all(&length.to_le_bytes()).await.map_err(|error| lost(&error))?;
    stream.write_all(&body).await.map_err(|error| lost(&error))?;
    stream.finish().map_err(|error| lost(&error))
}

#[cfg(test)]
mod tests;

//! One value on a stream of a connection: a `u32` little-endian length, and the value's canonical bytes.

use iroh::endpoint::{RecvStream, SendStream};
use wire::{DecodeError, Wire};

use crate::limits::{PART_BYTES, Rate};

const LENGTH_BYTES: usize = 4;
/// Memory for a frame grows by this much as its bytes arrive, so that a false length costs its sender the bytes.
const READ_BYTES: usize = 64 << 10;

/// A frame could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection: {0}")]
    Connection(String),
    #[error("a frame of {bytes} bytes is larger than the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("no answer in time")]
    TimeOut,
}

/// Reads one value, and no more than it may have.
pub(crate) async fn read_frame<T: Wire>(stream: &mut RecvStream) -> Result<T, FrameError> {
    read_frame_at(stream, None).await
}

/// As [`read_frame`], at a rate if there is one.
pub(crate) async fn read_frame_at<T: Wire>(stream: &mut RecvStream, down: Option<&Rate>) -> Result<T, FrameError> {
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
        if let Some(down) = down {
            down.take_of(body.len() - start, length).await;
        }
    }
    Ok(wire::decode(&body)?)
}

/// Writes one value, and ends the stream.
pub(crate) async fn write_frame<T: Wire>(stream: &mut SendStream, value: &T) -> Result<(), FrameError> {
    write_frame_at(stream, value, None).await
}

/// As [`write_frame`], at a rate if there is one.
pub(crate) async fn write_frame_at<T: Wire>(
    stream: &mut SendStream,
    value: &T,
    up: Option<&Rate>,
) -> Result<(), FrameError> {
    let body = wire::encode(value);
    if body.len() > T::BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: body.len(), max: T::BYTES_MAX });
    }
    let length = u32::try_from(body.len()).expect("BYTES_MAX fits in a u32");
    let lost = |error: &dyn std::fmt::Display| FrameError::Connection(error.to_string());
    stream.write_all(&length.to_le_bytes()).await.map_err(|error| lost(&error))?;
    for part in body.chunks(if up.is_some() { PART_BYTES } else { body.len().max(1) }) {
        if let Some(up) = up {
            up.take_of(part.len(), body.len()).await;
        }
        stream.write_all(part).await.map_err(|error| lost(&error))?;
    }
    stream.finish().map_err(|error| lost(&error))
}

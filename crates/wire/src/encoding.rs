//! The canonical encoding: borsh, with bounds.
//!
//! Source: the borsh specification, version 1 (little-endian integers, `u32` lengths, one byte for a variant).
//!
//! Decoding is total: any byte string gives a value or a [`DecodeError`], in memory bounded by a small multiple of the
//! input's length and a constant (a length prefix is believed only as far as bytes follow). Trailing bytes are an error,
//! so one value has exactly one encoding. It checks no signature: that is [`Signed::verify`](crate::Signed::verify).

use borsh::{BorshDeserialize, BorshSerialize};

/// A type that peers exchange: it has one canonical encoding and says what well formed means.
pub trait Wire: BorshSerialize + BorshDeserialize {
    /// The name of the type in error messages.
    const NAME: &'static str;
    /// The largest encoding that is accepted, in bytes.
    const BYTES_MAX: usize;

    /// Checks ranges and lengths that the encoding alone cannot express.
    ///
    /// # Errors
    /// A phrase that names the offending field.
    fn validate(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// The bytes are not a well-formed value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the type may have.
    #[error("{name} of {bytes} bytes is larger than the limit of {max}")]
    TooLarge {
        /// The type.
        name: &'static str,
        /// Bytes given.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Truncated, mistyped or trailing bytes.
    #[error("malformed {name}: {detail}")]
    Malformed {
        /// The type.
        name: &'static str,
        /// What the decoder says.
        detail: String,
    },
    /// Well-typed, but a field is out of its range.
    #[error("invalid {name}: {field}")]
    Invalid {
        /// The type.
        name: &'static str,
        /// The field and its rule.
        field: &'static str,
    },
}

/// The canonical bytes of a value.
pub fn encode<T: Wire>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to a vector cannot fail")
}

/// Reads a value from its canonical bytes, and validates it.
///
/// # Errors
/// [`DecodeError`] when the bytes are too many, malformed, followed by others, or describe a value out of range.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let name = T::NAME;
    if bytes.len() > T::BYTES_MAX {
        return Err(DecodeError::TooLarge { name, bytes: bytes.len(), max: T::BYTES_MAX });
    }
    let value = T::try_from_slice(bytes).map_err(|error| DecodeError::Malformed { name, detail: error.to_string() })?;
    value.validate().map_err(|field| DecodeError::Invalid { name, field })?;
    Ok(value)
}

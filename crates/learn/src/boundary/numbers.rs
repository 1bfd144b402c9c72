//! Numbers on the wire: a frozen, versioned format, its encoder and its total decoder.
//!
//! ```text
//! 1 byte   precision: 1 f32, 2 bf16, 3 int8, 4 int4
//! 4 bytes  rows (tokens), u32 little-endian
//! 4 bytes  columns (numbers of a token), u32 little-endian
//! then row by row:
//!   f32, bf16   the values, little-endian
//!   int8        scale as bf16, then one signed byte each, -127 to 127
//!   int4        scale as bf16, then two values a byte, the first in the low half, -7 to 7 in two's complement; zero fills the last byte
//! ```

use serde::{Deserialize, Serialize};
use tensor::random::Stream;

use super::BoundaryError;

/// Bytes in front of the values.
pub const HEADER_BYTES: usize = 9;

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 4 bits and a scale for each token.
    Int4,
    /// 8 bits and a scale for each token.
    Int8,
    /// The upper half of an f32, rounded to nearest even.
    Bf16,
    /// As it is: exact.
    F32,
}

impl Precision {
    /// All, the smallest first.
    pub const ALL: [Self; 4] = [Self::Int4, Self::Int8, Self::Bf16, Self::F32];

    /// The name for people, as in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Bits of one number, without the scale of its token.
    pub fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::Bf16 => 16,
            Self::Int8 => 8,
            Self::Int4 => 4,
        }
    }

    /// The precision that is so many steps smaller, or the smallest.
    pub fn coarser(self, steps: u8) -> Self {
        let place = Self::ALL.iter().position(|known| *known == self).expect("all are listed");
        Self::ALL[place.saturating_sub(usize::from(steps))]
    }

    /// How many steps smaller `coarsest` is; 0 when it is not.
    pub fn steps_to(self, coarsest: Self) -> u8 {
        let between = Self::ALL.iter().filter(|known| coarsest <= **known && **known < self).count();
        u8::try_from(between).expect("there are four")
    }

    fn tag(self) -> u8 {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 3,
            Self::Int4 => 4,
        }
    }

    fn from_tag(tag: u8) -> Result<Self, BoundaryError> {
        let found = Self::ALL.into_iter().find(|precision| precision.tag() == tag);
        found.ok_or(BoundaryError::UnknownPrecision { tag })
    }

    /// Bytes of one token with `columns` numbers.
    fn row_bytes(self, columns: usize) -> usize {
        match self {
            Self::F32 => 4 * columns,
            Self::Bf16 => 2 * columns,
            Self::Int8 => 2 + columns,
            Self::Int4 => 2 + columns.div_ceil(2),
        }
    }

    /// The largest code of an integer.
    fn largest(self) -> f32 {
        if self == Self::Int4 { 7.0 } else { 127.0 }
    }
}

/// How integers are rounded. Numbers of f32 and bf16 are always rounded to nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even: for hidden states.
    Nearest,
    /// Up or down at random, so that the mean over many is the value: for gradients. The key follows from the unit's id.
    Stochastic([u8; 32]),
}

/// Bytes of a message.
pub fn encoded_bytes(precision: Precision, rows: usize, columns: usize) -> usize {
    HEADER_BYTES + rows * precision.row_bytes(columns)
}

/// Writes `values`, rows of `columns` numbers.
///
/// Error of int8 and int4 with [`Rounding::Nearest`]: at most half a scale, where a scale is at most 1.008 times the largest magnitude of
/// its token over 127 or 7; twice that with [`Rounding::Stochastic`]. Of bf16: 2⁻⁸ of the value.
///
/// # Errors
/// A value is not finite, or its magnitude is above `limit`.
///
/// # Panics
/// When `columns` is 0, the values are not whole rows, or a size does not fit 32 bits.
pub fn encode(
    precision: Precision,
    values: &[f32],
    columns: usize,
    rounding: Rounding,
    limit: u32,
) -> Result<Vec<u8>, BoundaryError> {
    assert!(columns > 0 && values.len().is_multiple_of(columns), "{} values in rows of {columns}", values.len());
    let rows = values.len() / columns;
    let size = |size: usize| u32::try_from(size).expect("a micro-batch has fewer than 2^32 tokens and columns");
    let mut out = Vec::with_capacity(encoded_bytes(precision, rows, columns));
    out.push(precision.tag());
    out.extend(size(rows).to_le_bytes());
    out.extend(size(columns).to_le_bytes());
    let mut rounder = Rounder::new(rounding);
    for (row, values) in values.chunks_exact(columns).enumerate() {
        check_row(values, row, limit)?;
        encode_row(precision, values, &mut rounder, &mut out);
    }
    Ok(out)
}

/// Checks that all values of a row are finite and at most `limit`.
fn check_row(values: &[f32], row: usize, limit: u32) -> Result<(), BoundaryError> {
    if !values.iter().all(|value| value.is_finite()) {
        return Err(BoundaryError::NotFinite { row });
    }
    match values.iter().all(|value| value.abs() <= limit as f32) {
        true => Ok(()),
        false => Err(BoundaryError::TooLarge { row, limit }),
    }
}

/// Appends a row of values that were checked.
fn encode_row(precision: Precision, values: &[f32], rounder: &mut Rounder, out: &mut Vec<u8>) {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    match precision {
        Precision::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Precision::Bf16 => out.extend(values.iter().flat_map(|&value| to_bf16(value).to_le_bytes())),
        Precision::Int8 | Precision::Int4 => {
            let scale = to_bf16_above(largest / precision.largest());
            let step = from_bf16(scale);
            out.extend(scale.to_le_bytes());
            let most = precision.largest();
            let codes = values.iter().map(|&value| {
                let exact = if step > 0.0 { value / step } else { 0.0 };
                rounder.round(exact).clamp(-most, most) as i8
            });
            if precision == Precision::Int8 {
                out.extend(codes.map(|code| code as u8));
            } else {
                append_halves(codes, out);
            }
        }
    }
}

/// Appends codes of four bits, two in a byte.
fn append_halves(mut codes: impl Iterator<Item = i8>, out: &mut Vec<u8>) {
    while let Some(low) = codes.next() {
        let high = codes.next().unwrap_or(0);
        out.push((low as u8 & 15) | (high as u8) << 4);
    }
}

/// The precision in which a message is written, as it says.
///
/// # Errors
/// Its first byte names none.
pub fn precision_of(bytes: &[u8]) -> Result<Precision, BoundaryError> {
    let tag = bytes.first().ok_or(BoundaryError::WrongLength { expected: HEADER_BYTES, got: 0 })?;
    Precision::from_tag(*tag)
}

/// Reads a message of `rows` × `columns` numbers. It allocates what these sizes need and no more.
///
/// # Errors
/// [`BoundaryError`] for a message that no encoder writes, one of another shape, or with numbers above `limit` (but for what the rounding of
/// honest ones adds).
pub fn decode(bytes: &[u8], rows: usize, columns: usize, limit: u32) -> Result<Vec<f32>, BoundaryError> {
    let short = BoundaryError::WrongLength { expected: HEADER_BYTES, got: bytes.len() };
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
    let precision = Precision::from_tag(header[0])?;
    let size = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (got_rows, got_columns) = (size(1), size(5));
    if (got_rows, got_columns) != (rows, columns) {
        return Err(BoundaryError::WrongShape { rows, columns, got_rows, got_columns });
    }
    let expected = encoded_bytes(precision, rows, columns);
    if bytes.len() != expected {
        return Err(BoundaryError::WrongLength { expected, got: bytes.len() });
    }
    let mut values = Vec::with_capacity(rows * columns);
    for (row, bytes) in body.chunks_exact(precision.row_bytes(columns).max(1)).enumerate() {
        decode_row(precision, bytes, columns, row, &mut values)?;
        check_row(&values[row * columns..], row, limit.saturating_add(limit / 64))?;
    }
    Ok(values)
}

fn decode_row(
    precision: Precision,
    bytes: &[u8],
    columns: usize,
    row: usize,
    values: &mut Vec<f32>,
) -> Result<(), BoundaryError> {
    match precision {
        Precision::F32 => {
            values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        Precision::Bf16 => values.extend(bytes.chunks_exact(2).map(|b| from_bf16(u16::from_le_bytes([b[0], b[1]])))),
        Precision::Int8 | Precision::Int4 => {
            let step = from_bf16(u16::from_le_bytes([bytes[0], bytes[1]]));
            if step.is_sign_negative() {
                return Err(BoundaryError::BadCode { row });
            }
            let codes = &bytes[2..];
            let code = |place: usize| match precision {
                Precision::Int8 => codes[place] as i8,
                _ => (codes[place / 2] << (4 * (1 - place % 2))) as i8 >> 4,
            };
            let padded = if precision == Precision::Int4 { columns.next_multiple_of(2) } else { columns };
            let outside = |place: usize| code(place) < -(precision.largest() as i8);
            if (0..columns).any(outside) || (columns..padded).any(|place| code(place) != 0) {
                return Err(BoundaryError::BadCode { row });
            }
            values.extend((0..columns).map(|place| f32::from(code(place)) * step));
        }
    }
    Ok(())
}

/// Rounds to integers.
struct Rounder(Option<Stream>);

impl Rounder {
    fn new(rounding: Rounding) -> Self {
        Self(match rounding {
            Rounding::Nearest => None,
            Rounding::Stochastic(key) => Some(Stream::new(key, "boundary rounding")),
        })
    }

    #[inline]
    fn round(&mut self, value: f32) -> f32 {
        match &mut self.0 {
            None => value.round_ties_even(),
            Some(stream) => {
                let below = value.floor();
                below + f32::from(u8::from(stream.uniform() < value - below))
            }
        }
    }
}

fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// To nearest, ties to even. Too large a value becomes infinite.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The smallest bf16 that is not below `value`, which is not negative.
fn to_bf16_above(value: f32) -> u16 {
    (value.to_bits().wrapping_add(0xffff) >> 16) as u16
}

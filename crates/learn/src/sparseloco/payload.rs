//! The bytes of a payload: a frozen, versioned format and its total decoder.
//!
//! ```text
//! 4 bytes  "SLC1"
//! 4 bytes  entries of a chunk, u32 little-endian
//! 4 bytes  entries kept of a whole chunk, u32 little-endian
//! 8 bytes  parameters, u64 little-endian
//! then one bit stream, least significant bit first, over all chunks of all tensors in order:
//!   8 bits       exponent x of the level values, at most 115
//!   4 x 7 bits   level values, two's complement multiples of 2^(x - 105)
//!   kept x       gap to the index before, Rice coded
//!   kept x 2     level
//! zeros to the end of the byte
//! ```

use model::Layout;

use super::bits::{Reader, Writer, rice_parameter};
use super::chunk::{LEVEL_BITS, Levels};
use super::{chunk_lengths, entries, keep_of};
use crate::recipe::Compression;

/// Bytes in front of the bit stream.
pub const HEADER_BYTES: usize = 20;

/// Largest magnitude of a level value, by its format. It keeps every sum of payloads finite.
pub const VALUE_MAX: f32 = 65_536.0;

const MAGIC: &[u8; 4] = b"SLC1";

/// Why bytes are not a payload of this run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The first bytes are not those of a payload.
    #[error("payload: not a payload, or of an unknown version")]
    Foreign,
    /// The payload is for another model or another recipe.
    #[error("payload: `{field}` is {got}, and the recipe's is {expected}")]
    WrongRecipe {
        /// The field of the header.
        field: &'static str,
        /// Its value.
        got: u64,
        /// The value that the recipe gives.
        expected: u64,
    },
    /// The bytes end too early, or an index leaves its chunk.
    #[error("payload: chunk {chunk} is damaged")]
    Damaged {
        /// The chunk, counted over all tensors.
        chunk: usize,
    },
    /// A value is too large for any training step.
    #[error("payload: chunk {chunk} has values above {VALUE_MAX}")]
    BadValue {
        /// The chunk, counted over all tensors.
        chunk: usize,
    },
    /// Bytes follow the last chunk, or the last byte is not filled with zeros.
    #[error("payload: bytes after the last chunk")]
    Trailing,
}

/// A decoded payload: the entries that a peer sends, per tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct SparsePayload {
    indices: Vec<u32>,
    values: Vec<f32>,
    /// One past the last entry of each tensor.
    ends: Vec<usize>,
}

impl SparsePayload {
    /// The entries of tensor `tensor` (its place in the layout): positions in the flat parameter vector, strictly ascending,
    /// and their values.
    ///
    /// # Panics
    /// When the layout has no such tensor.
    pub fn tensor(&self, tensor: usize) -> (&[u32], &[f32]) {
        let start = tensor.checked_sub(1).map_or(0, |before| self.ends[before]);
        let range = start..self.ends[tensor];
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Number of tensors.
    pub fn tensors(&self) -> usize {
        self.ends.len()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are no entries; never true for a decoded payload.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// Most bytes of any payload with this layout, so that a longer blob need not be fetched.
pub fn payload_bytes_max(layout: &Layout, compression: Compression) -> usize {
    let bits: usize = chunk_lengths(layout, compression)
        .map(|len| {
            let keep = keep_of(compression, len);
            let parameter = rice_parameter(len, keep);
            LEVEL_BITS + keep * (3 + parameter as usize) + (len >> parameter)
        })
        .sum();
    HEADER_BYTES + bits.div_ceil(8)
}

/// Bytes that a payload of this layout has in the mean, when the entries kept lie evenly: each gap then has a geometric law, and its
/// Rice code a quotient with the mean `x / (1 - x)`, where `x` is the chance that `2^b` entries in a row are not kept.
pub fn payload_bytes_mean(layout: &Layout, compression: Compression) -> f64 {
    let bits = |len: usize| {
        if len == 0 {
            return 0.0;
        }
        let keep = keep_of(compression, len);
        let parameter = rice_parameter(len, keep);
        let skipped = (1.0 - keep as f64 / len as f64).powf(f64::from(1u32 << parameter));
        let gap = f64::from(parameter) + 1.0 + if skipped < 1.0 { skipped / (1.0 - skipped) } else { 0.0 };
        LEVEL_BITS as f64 + keep as f64 * (2.0 + gap)
    };
    let chunk = compression.chunk as usize;
    let tensor = |len: usize| (len / chunk) as f64 * bits(chunk) + bits(len % chunk);
    let bits: f64 = layout.tensors().iter().map(|info| tensor(info.len())).sum();
    HEADER_BYTES as f64 + bits / 8.0
}

fn header(layout: &Layout, compression: Compression) -> [(&'static str, usize, u64); 3] {
    [
        ("chunk", 4, u64::from(compression.chunk)),
        ("keep", 4, u64::from(compression.keep)),
        ("parameters", 8, layout.len() as u64),
    ]
}

pub(super) fn start(layout: &Layout, compression: Compression) -> Writer {
    let mut bytes = MAGIC.to_vec();
    for (_, width, value) in header(layout, compression) {
        bytes.extend_from_slice(&value.to_le_bytes()[..width]);
    }
    Writer::new(bytes)
}

/// Decodes a payload. It never allocates more than the layout's number of entries asks for.
///
/// # Errors
/// The bytes are damaged, or belong to another model or recipe.
pub fn decode(layout: &Layout, compression: Compression, bytes: &[u8]) -> Result<SparsePayload, PayloadError> {
    let body = check_header(layout, compression, bytes)?;
    let mut reader = Reader::new(body);
    let count = entries(layout, compression);
    let (mut indices, mut values) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut ends = Vec::with_capacity(layout.tensors().len());
    let mut number = 0;
    for tensor in layout.tensors() {
        for start in (0..tensor.len()).step_by(compression.chunk as usize) {
            let len = (compression.chunk as usize).min(tensor.len() - start);
            let keep = keep_of(compression, len);
            let first = indices.len();
            let levels = read_levels(&mut reader, number)?;
            read_indices(&mut reader, len, keep, (tensor.offset + start) as u32, &mut indices)
                .ok_or(PayloadError::Damaged { chunk: number })?;
            for _ in first..indices.len() {
                let level = reader.take(2).ok_or(PayloadError::Damaged { chunk: number })?;
                values.push(levels[level as usize]);
            }
            number += 1;
        }
        ends.push(indices.len());
    }
    match reader.at_end() {
        true => Ok(SparsePayload { indices, values, ends }),
        false => Err(PayloadError::Trailing),
    }
}

fn check_header<'a>(layout: &Layout, compression: Compression, bytes: &'a [u8]) -> Result<&'a [u8], PayloadError> {
    let (head, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(PayloadError::Foreign)?;
    let mut fields = head.strip_prefix(MAGIC).ok_or(PayloadError::Foreign)?;
    for (field, width, expected) in header(layout, compression) {
        let (value, rest) = fields.split_at(width);
        let got = value.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        if got != expected {
            return Err(PayloadError::WrongRecipe { field, got, expected });
        }
        fields = rest;
    }
    Ok(body)
}

fn read_levels(reader: &mut Reader<'_>, chunk: usize) -> Result<[f32; 4], PayloadError> {
    let levels = Levels::read(reader).ok_or(PayloadError::Damaged { chunk })?;
    levels.map(Levels::values).ok_or(PayloadError::BadValue { chunk })
}

fn read_indices(reader: &mut Reader<'_>, len: usize, keep: usize, offset: u32, indices: &mut Vec<u32>) -> Option<()> {
    let parameter = rice_parameter(len, keep);
    let mut next = 0;
    for _ in 0..keep {
        let index = next + reader.take_rice(parameter, len as u32 - next)?;
        indices.push(offset + index);
        next = index + 1;
    }
    Some(())
}

//! Quantised tensors in the form that products read, codes and scales unchanged.

use tensor::{QuantisedBlock, QuantisedFormat, QuantisedMatrix};

use super::blocks::{q4_k_scale_and_offset, scale, signed};
use super::{Gguf, GgufError, TensorType};

/// Values in a block of a [`QuantisedMatrix`].
const LEN: usize = 32;

impl TensorType {
    /// The form of this type that products read, if it has one.
    pub fn quantised_format(self) -> Option<QuantisedFormat> {
        match self {
            Self::Q8_0 => Some(QuantisedFormat::Q8_0),
            Self::Q4_0 => Some(QuantisedFormat::Q4_0),
            Self::Q4_1 => Some(QuantisedFormat::Q4_1),
            Self::Q4K => Some(QuantisedFormat::Q4K),
            Self::Q6K => Some(QuantisedFormat::Q6K),
            _ => None,
        }
    }
}

impl Gguf<'_> {
    /// A matrix as it is stored, whose row `i` is row `source(i)` of the file. Nothing when its type has no such form.
    ///
    /// # Errors
    /// There is no tensor with that name, or a scale is NaN or infinite.
    ///
    /// # Panics
    /// When the tensor is no matrix, or `source` gives a row that it has not.
    pub fn quantised_matrix(
        &self,
        name: &str,
        source: impl Fn(usize) -> usize,
    ) -> Result<Option<QuantisedMatrix>, GgufError> {
        let tensor = self.tensor(name)?;
        let Some(format) = tensor.tensor_type.quantised_format() else { return Ok(None) };
        let &[cols, rows] = tensor.dimensions.as_slice() else { panic!("`{name}` is no matrix") };
        let (cols, rows) = (cols as usize, rows as usize);
        let data = self.data(name)?;
        let row_bytes = cols / tensor.tensor_type.block_len() * tensor.tensor_type.block_bytes();
        let block = |row, at| block(format, &data[source(row) * row_bytes..][..row_bytes], at);
        match QuantisedMatrix::new(format, rows, cols, block) {
            Some(matrix) => Ok(Some(matrix)),
            // The values say which of them is not finite; where all are, the infinite scale has zeros only.
            None => self.tensor_f32(name).and(Err(GgufError::NotFinite {
                name: name.to_owned(),
                index: 0,
                value: f32::INFINITY,
            })),
        }
    }
}

/// Block `at`, of 32 values, in the data of a row.
fn block(format: QuantisedFormat, row: &[u8], at: usize) -> QuantisedBlock {
    match format {
        QuantisedFormat::Q8_0 => {
            let block = &row[at * 34..][..34];
            // From -128 to 127 as 0 to 255.
            let codes = std::array::from_fn(|i| block[2 + i] ^ 0x80);
            QuantisedBlock { codes, scales: [scale(block, 0); 2], minimum: 0.0 }
        }
        QuantisedFormat::Q4_0 => {
            let block = &row[at * 18..][..18];
            QuantisedBlock { codes: nibbles(&block[2..]), scales: [scale(block, 0); 2], minimum: 0.0 }
        }
        QuantisedFormat::Q4_1 => {
            let block = &row[at * 20..][..20];
            QuantisedBlock { codes: nibbles(&block[4..]), scales: [scale(block, 0); 2], minimum: scale(block, 2) }
        }
        QuantisedFormat::Q4K => {
            let (block, part) = (&row[at / 8 * 144..][..144], at % 8);
            let (packed, bytes) = block[4..].split_at(12);
            let (of_scale, of_offset) = q4_k_scale_and_offset(packed, part);
            let (bytes, shift) = (&bytes[part / 2 * LEN..][..LEN], part % 2 * 4);
            QuantisedBlock {
                codes: std::array::from_fn(|i| bytes[i] >> shift & 15),
                scales: [scale(block, 0) * f32::from(of_scale); 2],
                minimum: -(scale(block, 2) * f32::from(of_offset)),
            }
        }
        QuantisedFormat::Q6K => {
            let (block, part) = (&row[at / 8 * 210..][..210], at % 8);
            let (half, quarter) = (part / 4, part % 4);
            let lower = &block[half * 64 + quarter % 2 * LEN..][..LEN];
            let upper = &block[128 + half * LEN..][..LEN];
            // From -32 to 31 as codes around 128.
            let code = |i: usize| 96 + (lower[i] >> (quarter / 2 * 4) & 15 | (upper[i] >> (quarter * 2) & 3) << 4);
            let unit = scale(block, 208);
            let scales = [0, 1].map(|i| unit * signed(block[192 + part * 2 + i]));
            QuantisedBlock { codes: std::array::from_fn(code), scales, minimum: 0.0 }
        }
    }
}

/// Sixteen bytes: the lower halves, then the upper.
fn nibbles(bytes: &[u8]) -> [u8; LEN] {
    std::array::from_fn(|i| if i < LEN / 2 { bytes[i] & 15 } else { bytes[i - LEN / 2] >> 4 })
}

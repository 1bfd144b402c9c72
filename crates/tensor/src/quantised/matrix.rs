//! Quantised weights, laid out for the products.

use super::BLOCK;
use crate::arch::LANES;
use crate::math::{f16_to_f32, f32_to_f16};

/// How the codes of a block become values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantisedFormat {
    /// `(code - 128) · scale`, codes of 8 bits, a binary16 scale for 32 values.
    Q8_0,
    /// `(code - 8) · scale`, codes of 4 bits, a binary16 scale for 32 values.
    Q4_0,
    /// `code · scale + minimum`, codes of 4 bits, a binary16 scale and minimum for 32 values.
    Q4_1,
    /// As [`QuantisedFormat::Q4_1`], with an f32 scale and minimum.
    Q4K,
    /// `(code - 128) · scale`, codes of 8 bits (of which it uses 6), an f32 scale for 16 values.
    Q6K,
}

impl QuantisedFormat {
    /// Values that share a scale.
    pub fn scale_len(self) -> usize {
        if self == Self::Q6K { BLOCK / 2 } else { BLOCK }
    }

    /// Whether blocks have a minimum.
    pub fn has_minimum(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q4K)
    }

    /// Whether codes have 4 bits instead of 8.
    pub(super) fn is_nibbles(self) -> bool {
        matches!(self, Self::Q4_0 | Self::Q4_1 | Self::Q4K)
    }

    /// What a code is less than its integer.
    pub(super) fn offset(self) -> i32 {
        match self {
            Self::Q8_0 | Self::Q6K => 128,
            Self::Q4_0 => 8,
            Self::Q4_1 | Self::Q4K => 0,
        }
    }

    fn has_half_scales(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1)
    }

    /// Lines of 64 bytes for a block of 16 rows.
    pub(super) fn lines(self) -> usize {
        if self.is_nibbles() { BLOCK / 8 } else { BLOCK / 4 }
    }
}

/// The codes, scales and minimum of 32 values of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QuantisedBlock {
    /// The codes, with their offset.
    pub codes: [u8; BLOCK],
    /// The scales of the first and the last 16 values; equal where a scale is for 32.
    pub scales: [f32; 2],
    /// The minimum; 0 in formats without.
    pub minimum: f32,
}

/// Sixty-four bytes on a cache line: four codes of 8 bits for each of 16 rows, or eight of 4 bits.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

/// Scales or minima of 16 rows, in groups of rows, each by blocks.
#[derive(Clone, Debug)]
pub(super) enum Numbers {
    Half(Vec<[u16; LANES]>),
    Single(Vec<[f32; LANES]>),
}

impl Numbers {
    fn zeros(half: bool, len: usize) -> Self {
        if half { Self::Half(vec![[0; LANES]; len]) } else { Self::Single(vec![[0.0; LANES]; len]) }
    }

    fn get(&self, at: usize, lane: usize) -> f32 {
        match self {
            Self::Half(values) => f16_to_f32(values[at][lane]),
            Self::Single(values) => values[at][lane],
        }
    }

    /// Sets a number and says whether it is finite and as exact as it came.
    fn set(&mut self, at: usize, lane: usize, value: f32) -> bool {
        match self {
            Self::Half(values) => values[at][lane] = f32_to_f16(value),
            Self::Single(values) => values[at][lane] = value,
        }
        value.is_finite() && self.get(at, lane) == value
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Half(values) => size_of_val(values.as_slice()),
            Self::Single(values) => size_of_val(values.as_slice()),
        }
    }
}

/// A matrix `[rows, cols]` of quantised weights, ready for [`matmul_quantised`](super::matmul_quantised).
#[derive(Clone, Debug)]
pub struct QuantisedMatrix {
    format: QuantisedFormat,
    rows: usize,
    cols: usize,
    /// `[group of 16 rows][block][line]`.
    pub(super) lines: Vec<Line>,
    /// `[group][block][half, where a scale is for 16 values]`.
    pub(super) scales: Numbers,
    /// `[group][block]`, or nothing in formats without.
    pub(super) minima: Numbers,
}

impl QuantisedMatrix {
    /// Makes a matrix from the blocks of its rows. Returns nothing when a scale or a minimum is not finite, or not a
    /// binary16 where the format keeps such.
    ///
    /// # Panics
    /// When `cols` is not a multiple of 32, or a code does not fit the format.
    pub fn new(
        format: QuantisedFormat,
        rows: usize,
        cols: usize,
        block: impl Fn(usize, usize) -> QuantisedBlock,
    ) -> Option<Self> {
        assert!(cols.is_multiple_of(BLOCK), "rows of {cols} values, which are not whole blocks of {BLOCK}");
        let (groups, blocks) = (rows.div_ceil(LANES), cols / BLOCK);
        let (half, parts) = (format.has_half_scales(), BLOCK / format.scale_len());
        let mut matrix = Self {
            format,
            rows,
            cols,
            // Rows that only fill the last group up have codes that stand for 0, or the scale 0.
            lines: vec![Line([0; 64]); groups * blocks * format.lines()],
            scales: Numbers::zeros(half, groups * blocks * parts),
            minima: Numbers::zeros(half, if format.has_minimum() { groups * blocks } else { 0 }),
        };
        let mut sound = true;
        for row in 0..rows {
            for at in 0..blocks {
                sound &= matrix.set(row, at, &block(row, at));
            }
        }
        sound.then_some(matrix)
    }

    fn set(&mut self, row: usize, block: usize, values: &QuantisedBlock) -> bool {
        let (format, lane) = (self.format, row % LANES);
        let at = row / LANES * (self.cols / BLOCK) + block;
        let lines = &mut self.lines[at * format.lines()..][..format.lines()];
        if format.is_nibbles() {
            let (low, high) = values.codes.split_at(BLOCK / 2);
            for (i, (low, high)) in low.iter().zip(high).enumerate() {
                assert!(*low < 16 && *high < 16, "codes {low} and {high} of 4 bits");
                lines[i / 4].0[4 * lane + i % 4] = low | high << 4;
            }
        } else {
            for (i, code) in values.codes.iter().enumerate() {
                lines[i / 4].0[4 * lane + i % 4] = *code;
            }
        }
        let parts = BLOCK / format.scale_len();
        let scales = (0..parts).all(|part| self.scales.set(at * parts + part, lane, values.scales[part]));
        scales && (!format.has_minimum() || self.minima.set(at, lane, values.minimum))
    }

    /// The format.
    pub fn format(&self) -> QuantisedFormat {
        self.format
    }

    /// Number of rows, which are outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, which are inputs of a product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice()) + self.scales.bytes() + self.minima.bytes()
    }

    /// One block of a row, as it was given.
    ///
    /// # Panics
    /// When there is no such row or block.
    pub fn block(&self, row: usize, block: usize) -> QuantisedBlock {
        assert!(row < self.rows && block < self.cols / BLOCK, "block {block} of row {row}");
        let (format, lane) = (self.format, row % LANES);
        let at = row / LANES * (self.cols / BLOCK) + block;
        let lines = &self.lines[at * format.lines()..][..format.lines()];
        let byte = |i: usize| lines[i / 4].0[4 * lane + i % 4];
        let codes = std::array::from_fn(|i| match (format.is_nibbles(), i < BLOCK / 2) {
            (false, _) => byte(i),
            (true, true) => byte(i) & 15,
            (true, false) => byte(i - BLOCK / 2) >> 4,
        });
        let parts = BLOCK / format.scale_len();
        let scales = std::array::from_fn(|half| self.scales.get(at * parts + half.min(parts - 1), lane));
        let minimum = if format.has_minimum() { self.minima.get(at, lane) } else { 0.0 };
        QuantisedBlock { codes, scales, minimum }
    }

    /// Writes the values of a row: `(code - offset) · scale`, rounded, plus the minimum, rounded.
    ///
    /// # Panics
    /// When there is no such row or `out` has not `cols` values.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "values of a row");
        for (at, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let block = self.block(row, at);
            for (i, (out, code)) in out.iter_mut().zip(block.codes).enumerate() {
                let integer = i32::from(code) - self.format.offset();
                let value = integer as f32 * block.scales[2 * i / BLOCK];
                *out = if self.format.has_minimum() { value + block.minimum } else { value };
            }
        }
    }
}

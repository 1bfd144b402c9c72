//! Activations of 8 bits.

use super::{BLOCK, WORDS};
use crate::Context;
use crate::arch::{LANES, lanes_kernel};
use crate::fault::slip_f32;

/// Blocks that one task quantises.
const TASK_BLOCKS: usize = 512;

/// 1.5 · 2²³: adding it rounds a number of magnitude below 2²² to an integer, ties to even, in the low bits.
const SHIFT: f32 = 12_582_912.0;

/// A block of 32 activations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowBlock {
    /// The signed codes, four to a word, the first in the lowest byte.
    pub(super) words: [i32; WORDS],
    /// Sums of the codes of the first and the last 16 values.
    pub(super) sums: [i32; 2],
    /// What a code is worth.
    pub(super) scale: f32,
    /// `scale · float(sum of all codes)`, rounded once.
    pub(super) weighted: f32,
}

/// Rows of activations, quantised by [`quantise_rows`]; they keep their memory between calls.
#[derive(Clone, Debug, Default)]
pub struct QuantisedRows {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) blocks: Vec<RowBlock>,
}

impl QuantisedRows {
    /// For every block its codes as floats, its scale and what all its codes are worth.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f32> + '_ {
        self.blocks.iter().flat_map(|block| {
            let codes = block.words.into_iter().flat_map(i32::to_le_bytes).map(|code| f32::from(code as i8));
            codes.chain([block.scale, block.weighted])
        })
    }

    /// The blocks of one row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[RowBlock] {
        let blocks = self.cols / BLOCK;
        &self.blocks[row * blocks..][..blocks]
    }
}

/// Quantises `x` `[rows, cols]` into `out`.
///
/// # Panics
/// When `cols` is not a multiple of 32 or `x` has another size.
pub fn quantise_rows(ctx: &Context, rows: usize, cols: usize, x: &[f32], out: &mut QuantisedRows) {
    assert!(cols.is_multiple_of(BLOCK), "rows of {cols} values, which are not whole blocks of {BLOCK}");
    assert_eq!(x.len(), rows * cols, "quantise_rows: {rows} rows of {cols}");
    (out.rows, out.cols) = (rows, cols);
    out.blocks.resize(x.len() / BLOCK, RowBlock::default());
    let work = x.chunks(TASK_BLOCKS * BLOCK).zip(out.blocks.chunks_mut(TASK_BLOCKS)).collect();
    ctx.threads().for_each(work, |(x, blocks): (&[f32], &mut [RowBlock])| quantise(ctx.variant(), x, blocks));
    if let Some(block) = out.blocks.first_mut() {
        block.scale = slip_f32("quantise_rows", block.scale);
    }
}

lanes_kernel! {
    fn quantise<'a>(s; x: &'a [f32], blocks: &'a mut [RowBlock]) {
        for (x, block) in x.as_chunks::<BLOCK>().0.iter().zip(blocks) {
            let (first, last) = (s.load(&x[..LANES]), s.load(&x[LANES..]));
            let zero = s.splat(0.0);
            let magnitude = |v| s.max(v, s.sub(zero, v));
            let largest = s.max_lanes(s.max(magnitude(first), magnitude(last)));
            // Zero, or NaN when a value is not finite.
            let fault = s.sum_lanes(s.add(s.mul(first, zero), s.mul(last, zero)));
            let reciprocal = 127.0 / largest;
            let reciprocal = if reciprocal.is_finite() { reciprocal } else { 0.0 };
            let shift = s.splat_i(SHIFT.to_bits() as i32);
            let mut codes = [shift; 2];
            for (codes, x) in codes.iter_mut().zip([first, last]) {
                let shifted = s.add(s.mul(x, s.splat(reciprocal)), s.splat(SHIFT));
                *codes = s.sub_i(s.bits(shifted), shift);
            }
            block.words = s.low_bytes(codes[0], codes[1]);
            block.sums = [s.sum_i(codes[0]), s.sum_i(codes[1])];
            block.scale = largest / 127.0 + fault;
            block.weighted = block.scale * block.sums[0].wrapping_add(block.sums[1]) as f32;
        }
    }
}

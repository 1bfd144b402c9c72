//! Activations times quantised weights: the reference, and the tile of a few rows by 16 outputs.

use super::matrix::{Line, Numbers, QuantisedFormat, QuantisedMatrix};
use super::rows::{QuantisedRows, RowBlock};
use super::{BLOCK, WORDS};
use crate::Context;
use crate::arch::{Isa, LANES, Lanes, MatMut, Task, Variant, multiply_add};
use crate::fault::slip;
use crate::profile::in_profile;

/// Fewest groups of 16 outputs that a task gets: less is not worth handing to another thread.
const TASK_GROUPS: usize = 4;

/// How many lines ahead of the products the weights are asked for: enough requests are then on their way that the memory's
/// latency does not limit a single row.
const PREFETCH_LINES: usize = 64;

/// Tasks for each thread, so that one that was held up is helped out by the others.
const TASKS_PER_THREAD: usize = 2;

/// Computes `out` `[x.rows, w.rows]` (+)= x · wᵀ for each of some weights, by the contract of the module.
///
/// Several weights at once are handed to the threads together, which saves waiting for each of them.
///
/// # Panics
/// When a size does not match.
pub fn matmul_quantised(
    ctx: &Context,
    x: &QuantisedRows,
    mut products: Vec<(&QuantisedMatrix, &mut [f32])>,
    accumulate: bool,
) {
    let rows = x.rows;
    let mut tasks = Vec::new();
    for (w, out) in &mut products {
        let w: &QuantisedMatrix = w;
        assert_eq!(x.cols, w.cols(), "matmul_quantised: columns of activations and of weights");
        assert_eq!(out.len(), rows * w.rows(), "matmul_quantised: {rows} × {} outputs", w.rows());
        if out.is_empty() {
            continue;
        }
        if ctx.isa() == Isa::Scalar {
            in_profile!(ctx.profile(), FUSED => reference::<FUSED>(ctx, x, w, out, accumulate));
            continue;
        }
        let groups = w.rows().div_ceil(LANES);
        let threads = ctx.threads().count();
        let share = if threads == 1 { groups } else { groups.div_ceil(threads * TASKS_PER_THREAD).max(TASK_GROUPS) };
        let tiles = MatMut::new(out, rows, w.rows(), w.rows()).tiles(rows, share * LANES);
        tasks.extend(tiles.into_iter().enumerate().map(|(i, out)| (w, i * share, out)));
    }
    ctx.threads().for_each(tasks, |(w, first, out): (&QuantisedMatrix, usize, MatMut<'_>)| {
        task(ctx.variant(), x, w, first, out, accumulate);
    });
    for (_, out) in &mut products {
        slip("matmul_quantised", out);
    }
}

/// The outputs `out` of the groups of `w` from `first` on.
fn task(variant: Variant, x: &QuantisedRows, w: &QuantisedMatrix, first: usize, out: MatMut<'_>, accumulate: bool) {
    let (eights, fours) = (w.lines.as_chunks().0, w.lines.as_chunks().0);
    match (w.format(), &w.scales, &w.minima) {
        (QuantisedFormat::Q8_0, Numbers::Half(scales), _) => {
            variant.run(Groups { format: Bytes { lines: eights, scales }, x, first, out, accumulate });
        }
        (QuantisedFormat::Q6K, Numbers::Single(scales), _) => {
            let scales = scales.as_chunks().0;
            variant.run(Groups { format: BytesInHalves { lines: eights, scales }, x, first, out, accumulate });
        }
        (QuantisedFormat::Q4_0, Numbers::Half(scales), _) => {
            variant.run(Groups { format: Nibbles { lines: fours, scales }, x, first, out, accumulate });
        }
        (QuantisedFormat::Q4_1, Numbers::Half(scales), Numbers::Half(minima)) => {
            variant.run(Groups { format: NibblesMinimum { lines: fours, scales, minima }, x, first, out, accumulate });
        }
        (QuantisedFormat::Q4K, Numbers::Single(scales), Numbers::Single(minima)) => {
            variant.run(Groups { format: NibblesMinimum { lines: fours, scales, minima }, x, first, out, accumulate });
        }
        (format, ..) => unreachable!("{format:?} with numbers of another kind"),
    }
}

/// The contract, as it is written.
fn reference<const FUSED: bool>(
    ctx: &Context,
    x: &QuantisedRows,
    w: &QuantisedMatrix,
    out: &mut [f32],
    accumulate: bool,
) {
    let rows = out.chunks_exact_mut(w.rows()).enumerate().collect();
    ctx.threads().for_each(rows, |(row, out): (usize, &mut [f32])| {
        for (output, out) in out.iter_mut().enumerate() {
            let mut sum = if accumulate { *out } else { 0.0 };
            for (at, x) in x.row(row).iter().enumerate() {
                sum = reference_block::<FUSED>(w, output, at, x, sum);
            }
            *out = sum;
        }
    });
}

fn reference_block<const FUSED: bool>(
    w: &QuantisedMatrix,
    output: usize,
    at: usize,
    x: &RowBlock,
    mut sum: f32,
) -> f32 {
    let (format, w) = (w.format(), w.block(output, at));
    let len = format.scale_len();
    for (part, codes) in w.codes.chunks_exact(len).enumerate() {
        let words = &x.words[part * len / 4..];
        let products = codes
            .iter()
            .enumerate()
            .map(|(i, code)| (i32::from(*code) - format.offset()) * i32::from(words[i / 4].to_le_bytes()[i % 4] as i8));
        let dot: i32 = products.sum();
        sum = multiply_add::<FUSED>(dot as f32, w.scales[part] * x.scale, sum);
    }
    if format.has_minimum() {
        sum = multiply_add::<FUSED>(w.minimum, x.weighted, sum);
    }
    sum
}

/// The groups of 16 outputs of one task.
struct Groups<'a, 'c, F> {
    format: F,
    x: &'a QuantisedRows,
    /// The first group.
    first: usize,
    /// The outputs from there on.
    out: MatMut<'c>,
    accumulate: bool,
}

impl<F: Format> Task for Groups<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Groups { format, x, first, mut out, accumulate } = self;
        for group in 0..out.cols().div_ceil(LANES) {
            let mut tile = GroupTile { s, format, x, group: first + group, col: group * LANES, accumulate };
            let mut row = 0;
            while row + S::QUANTISED_ROWS <= x.rows {
                match S::QUANTISED_ROWS {
                    8 => tile.rows::<8>(row, &mut out),
                    _ => tile.rows::<4>(row, &mut out),
                }
                row += S::QUANTISED_ROWS.max(4);
            }
            if row + 4 <= x.rows {
                tile.rows::<4>(row, &mut out);
                row += 4;
            }
            if row + 2 <= x.rows {
                tile.rows::<2>(row, &mut out);
                row += 2;
            }
            if row < x.rows {
                tile.rows::<1>(row, &mut out);
            }
        }
    }
}

/// A group of 16 outputs, for any rows of activations.
struct GroupTile<'a, S, F> {
    s: S,
    format: F,
    x: &'a QuantisedRows,
    group: usize,
    /// The group's column in the task's outputs.
    col: usize,
    accumulate: bool,
}

impl<S: Lanes, F: Format> GroupTile<'_, S, F> {
    #[inline(always)]
    fn rows<const ROWS: usize>(&mut self, first: usize, out: &mut MatMut<'_>) {
        let (s, x) = (self.s, self.x);
        let mut sums = [s.splat(0.0); ROWS];
        if self.accumulate {
            for (i, sum) in sums.iter_mut().enumerate() {
                let old = &out.row(first + i)[self.col..];
                *sum = s.load_or(&old[..old.len().min(LANES)], 0.0);
            }
        }
        let mut rows: [&[RowBlock]; ROWS] = [&[]; ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = x.row(first + i);
        }
        let blocks = x.cols / BLOCK;
        for block in 0..blocks {
            let mut at: [&RowBlock; ROWS] = [&rows[0][block]; ROWS];
            for (at, row) in at.iter_mut().zip(rows) {
                *at = &row[block];
            }
            self.format.add(s, self.group * blocks + block, at, &mut sums);
        }
        for (i, sum) in sums.into_iter().enumerate() {
            let out = &mut out.row(first + i)[self.col..];
            let count = out.len().min(LANES);
            s.store_some(sum, &mut out[..count]);
        }
    }
}

/// A format for the tile: how a block of 16 weight rows changes the sums of some rows of activations.
trait Format: Copy {
    /// Adds block `at` to the sums.
    fn add<S: Lanes, const ROWS: usize>(self, s: S, at: usize, x: [&RowBlock; ROWS], sums: &mut [S::F; ROWS]);
}

/// Scales or minima of 16 rows in one of two precisions.
trait Sixteen {
    fn load<S: Lanes>(&self, s: S) -> S::F;
}

impl Sixteen for [u16; LANES] {
    #[inline(always)]
    fn load<S: Lanes>(&self, s: S) -> S::F {
        s.load_halves(self)
    }
}

impl Sixteen for [f32; LANES] {
    #[inline(always)]
    fn load<S: Lanes>(&self, s: S) -> S::F {
        s.load(self)
    }
}

/// Eight bits, a scale for 32 values.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    lines: &'a [[Line; WORDS]],
    scales: &'a [[u16; LANES]],
}

impl Format for Bytes<'_> {
    #[inline(always)]
    fn add<S: Lanes, const ROWS: usize>(self, s: S, at: usize, x: [&RowBlock; ROWS], sums: &mut [S::F; ROWS]) {
        let codes = load_lines(s, &self.lines[at]);
        let scale = self.scales[at].load(s);
        let mut dots = [s.splat_i(0); ROWS];
        for (dot, x) in dots.iter_mut().zip(x) {
            *dot = s.start_offset(x.sums[0] + x.sums[1]);
        }
        // Word by word, so that the rows' folds overlap.
        for (word, codes) in codes.into_iter().enumerate() {
            for (dot, x) in dots.iter_mut().zip(x) {
                *dot = s.dot_offset(codes, s.splat_i(x.words[word]), *dot);
            }
        }
        for ((sum, dot), x) in sums.iter_mut().zip(dots).zip(x) {
            *sum = s.mul_add(s.float_i(dot), s.mul(scale, s.splat(x.scale)), *sum);
        }
    }
}

/// Eight bits, a scale for 16 values.
#[derive(Clone, Copy)]
struct BytesInHalves<'a> {
    lines: &'a [[Line; WORDS]],
    scales: &'a [[[f32; LANES]; 2]],
}

impl Format for BytesInHalves<'_> {
    #[inline(always)]
    fn add<S: Lanes, const ROWS: usize>(self, s: S, at: usize, x: [&RowBlock; ROWS], sums: &mut [S::F; ROWS]) {
        let codes = load_lines(s, &self.lines[at]);
        let scales = &self.scales[at];
        for (sum, x) in sums.iter_mut().zip(x) {
            let halves = codes.chunks_exact(WORDS / 2).zip(x.words.chunks_exact(WORDS / 2));
            for ((codes, words), (scale, total)) in halves.zip(scales.iter().zip(x.sums)) {
                let mut dot = s.start_offset(total);
                for (codes, word) in codes.iter().zip(words) {
                    dot = s.dot_offset(*codes, s.splat_i(*word), dot);
                }
                *sum = s.mul_add(s.float_i(dot), s.mul(scale.load(s), s.splat(x.scale)), *sum);
            }
        }
    }
}

/// Four bits less 8.
#[derive(Clone, Copy)]
struct Nibbles<'a> {
    lines: &'a [[Line; WORDS / 2]],
    scales: &'a [[u16; LANES]],
}

impl Format for Nibbles<'_> {
    #[inline(always)]
    fn add<S: Lanes, const ROWS: usize>(self, s: S, at: usize, x: [&RowBlock; ROWS], sums: &mut [S::F; ROWS]) {
        let scale = self.scales[at].load(s);
        let dots = dot_nibbles(s, &self.lines[at], x, -8);
        for ((sum, dot), x) in sums.iter_mut().zip(dots).zip(x) {
            *sum = s.mul_add(s.float_i(dot), s.mul(scale, s.splat(x.scale)), *sum);
        }
    }
}

/// Four bits and a minimum.
struct NibblesMinimum<'a, N> {
    lines: &'a [[Line; WORDS / 2]],
    scales: &'a [N],
    minima: &'a [N],
}

impl<N> Clone for NibblesMinimum<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for NibblesMinimum<'_, N> {}

impl<N: Sixteen> Format for NibblesMinimum<'_, N> {
    #[inline(always)]
    fn add<S: Lanes, const ROWS: usize>(self, s: S, at: usize, x: [&RowBlock; ROWS], sums: &mut [S::F; ROWS]) {
        let (scale, minimum) = (self.scales[at].load(s), self.minima[at].load(s));
        let dots = dot_nibbles(s, &self.lines[at], x, 0);
        for ((sum, dot), x) in sums.iter_mut().zip(dots).zip(x) {
            *sum = s.mul_add(s.float_i(dot), s.mul(scale, s.splat(x.scale)), *sum);
            *sum = s.mul_add(minimum, s.splat(x.weighted), *sum);
        }
    }
}

#[inline(always)]
fn load_lines<S: Lanes, const LINES: usize>(s: S, lines: &[Line; LINES]) -> [S::B; LINES] {
    for line in 0..LINES {
        s.prefetch_far(lines.as_ptr().wrapping_add(PREFETCH_LINES + line).cast());
    }
    let mut bytes = [s.load_bytes(&lines[0].0); LINES];
    for (bytes, line) in bytes.iter_mut().zip(lines) {
        *bytes = s.load_bytes(&line.0);
    }
    bytes
}

/// The integer part of a block of 4-bit codes, each plus `offset`. A line has the codes of word `i` in its lower halves, and those of
/// word `i + 4` in its upper ones.
#[inline(always)]
fn dot_nibbles<S: Lanes, const ROWS: usize>(
    s: S,
    lines: &[Line; WORDS / 2],
    x: [&RowBlock; ROWS],
    offset: i32,
) -> [S::I; ROWS] {
    let mut dots = [s.splat_i(0); ROWS];
    // Line by line, so that the rows' folds overlap and the codes stay in registers.
    for (i, bytes) in load_lines(s, lines).into_iter().enumerate() {
        let (low, high) = (s.low_nibbles(bytes), s.high_nibbles(bytes));
        for (dot, x) in dots.iter_mut().zip(x) {
            *dot = s.fold_nibbles(low, s.splat_i(x.words[i]), *dot);
            *dot = s.fold_nibbles(high, s.splat_i(x.words[i + WORDS / 2]), *dot);
        }
    }
    for (dot, x) in dots.iter_mut().zip(x) {
        *dot = s.nibble_sum(*dot);
        if offset != 0 {
            *dot = s.add_i(*dot, s.splat_i(offset * (x.sums[0] + x.sums[1])));
        }
    }
    dots
}

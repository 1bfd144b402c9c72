//! The fast product: B packed into panels, A copied in blocks, the micro-kernel over both.
//!
//! Source: the loop order of BLIS (Van Zee & van de Geijn, 2015). Deviation: k is never split across threads or partial sums; a later
//! block of k continues the fold from the spilled f32 accumulators.

use super::Operand;
use crate::Context;
use crate::arch::{Block, LANES, Lanes, MatMut, ROW_STRIDE, Strips, lanes_kernel, packed_len};
use crate::scratch::Scratch;

/// Steps of k per block: a block of A fits the second-level cache, a panel of B the first.
const BLOCK_K: usize = 256;

/// Rows of C per task when rows are split.
const TASK_ROWS: usize = 96;

/// The largest m that always has its columns split.
const FEW_ROWS: usize = 48;

/// Columns of C per task when there are few rows.
const NARROW_COLS: usize = 128;

/// The smallest n that has its columns split: a packed block of all columns would leave the second-level cache.
const MANY_COLS: usize = 2048;

/// Columns of C per task when there are many.
const WIDE_COLS: usize = 512;

/// Values of B packed at once when rows are split.
const PACKED_B: usize = 1 << 18;

/// How many steps of k ahead the copy of A by columns prefetches: the processor does not foresee its strides.
const PREFETCH_STEPS: usize = 8;

/// Steps of k per task that packs B.
const PACK_STEPS: usize = 64;

/// C (+)= A · B.
pub(super) fn product(ctx: &Context, k: usize, a: Operand<'_>, b: Operand<'_>, c: MatMut<'_>, accumulate: bool) {
    if c.rows() == 0 || c.cols() == 0 {
        return;
    }
    if c.rows() <= FEW_ROWS {
        split_columns(ctx, NARROW_COLS, k, a, b, c, accumulate);
    } else if c.cols() >= MANY_COLS {
        split_columns(ctx, WIDE_COLS, k, a, b, c, accumulate);
    } else {
        split_rows(ctx, k, a, b, c, accumulate);
    }
}

/// Splits the columns of C; every task packs its part of B, one block of k at a time, and keeps it in its cache for all rows.
fn split_columns(
    ctx: &Context,
    task_cols: usize,
    k: usize,
    a: Operand<'_>,
    b: Operand<'_>,
    c: MatMut<'_>,
    accumulate: bool,
) {
    let variant = ctx.variant();
    let (tile_rows, panel) = variant.tile();
    let rows = c.rows();
    let tiles = c.tiles(rows, task_cols).into_iter().enumerate().collect();
    ctx.threads().for_each(tiles, |(task, mut c): (usize, MatMut<'_>)| {
        let cols = c.cols();
        let panels = cols.div_ceil(panel);
        let mut packed_a = Scratch::new(packed_a_len(tile_rows, rows.min(TASK_ROWS)));
        let mut packed_b = Scratch::new(panels * packed_len(BLOCK_K, panel));
        let mut from = 0;
        while from == 0 || from < k {
            let depth = (k - from).min(BLOCK_K);
            let packed = MatMut::new(&mut packed_b, panels, depth * panel, packed_len(depth, panel));
            pack_panels(variant, b.from(from, task * task_cols), cols, panel, packed);
            let accumulate = accumulate || from > 0;
            for (i, mut c) in c.top(rows).tiles(TASK_ROWS, cols).into_iter().enumerate() {
                let strips = copy_a(ctx, a, i * TASK_ROWS, c.rows(), from, depth, &mut packed_a);
                variant.run(Block { k: depth, a: strips, b: &packed_b, c: &mut c, accumulate });
            }
            from += BLOCK_K;
        }
    });
}

/// Packs B for all tasks (in pieces of k that the second-level cache holds), then splits the rows of C.
fn split_rows(ctx: &Context, k: usize, a: Operand<'_>, b: Operand<'_>, mut c: MatMut<'_>, accumulate: bool) {
    let variant = ctx.variant();
    let panel = variant.tile().1;
    let (rows, cols) = (c.rows(), c.cols());
    let panels = cols.div_ceil(panel);
    let piece = (PACKED_B / (panels * panel)).next_multiple_of(BLOCK_K).min(k.next_multiple_of(BLOCK_K));
    let mut packed = Scratch::new(piece / BLOCK_K * panels * packed_len(BLOCK_K, panel));
    let mut from = 0;
    while from == 0 || from < k {
        let piece = (k - from).min(piece);
        pack_b(ctx, b, from, piece, cols, &mut packed);
        let packed = &packed;
        let tiles = c.top(rows).tiles(TASK_ROWS, cols).into_iter().enumerate().collect();
        ctx.threads().for_each(tiles, |(task, mut c): (usize, MatMut<'_>)| {
            let mut packed_a = Scratch::new(packed_a_len(variant.tile().0, c.rows()));
            for (block, start) in (0..piece.max(1)).step_by(BLOCK_K).enumerate() {
                let depth = (piece - start).min(BLOCK_K);
                let strips = copy_a(ctx, a, task * TASK_ROWS, c.rows(), from + start, depth, &mut packed_a);
                let b = &packed[block * panels * packed_len(BLOCK_K, panel)..];
                variant.run(Block { k: depth, a: strips, b, c: &mut c, accumulate: accumulate || from + start > 0 });
            }
        });
        from += piece.max(1);
    }
}

/// The most values that a product keeps packed on a thread: its part of A, and of B all columns of a block of k.
pub(super) fn scratch_len() -> usize {
    const WIDEST_TILE: usize = 64;
    let panels = MANY_COLS.div_ceil(WIDEST_TILE);
    let packed_b = (panels * packed_len(BLOCK_K, WIDEST_TILE)).max(PACKED_B);
    packed_b + TASK_ROWS * (ROW_STRIDE + packed_len(BLOCK_K, 1))
}

fn packed_a_len(tile_rows: usize, rows: usize) -> usize {
    (rows * ROW_STRIDE).max(rows.div_ceil(tile_rows) * packed_len(BLOCK_K, tile_rows))
}

/// Copies rows `row..row + rows`, steps `from..from + depth` of A to where the micro-kernel reads them fastest.
fn copy_a<'s>(
    ctx: &Context,
    a: Operand<'_>,
    row: usize,
    rows: usize,
    from: usize,
    depth: usize,
    packed: &'s mut Scratch,
) -> Strips<'s> {
    if depth == 0 {
        return Strips::Packed(packed);
    }
    let a = Operand { data: &a.data[row * a.row_stride + from * a.col_stride..], ..a };
    if a.col_stride == 1 {
        for (row, out) in packed.chunks_mut(ROW_STRIDE).take(rows).enumerate() {
            out[..depth].copy_from_slice(&a.data[row * a.row_stride..][..depth]);
        }
        return Strips::Rows(packed);
    }
    assert_eq!(a.row_stride, 1, "an operand with two strides");
    pack_strips(ctx.variant(), a.data, a.col_stride, rows, depth, packed);
    Strips::Packed(packed)
}

lanes_kernel! {
    /// Copies A stored by columns into groups of `TILE_ROWS` rows, `[k][TILE_ROWS]`.
    fn pack_strips<'a>(
        s; data: &'a [f32], stride: usize, rows: usize, depth: usize, packed: &'a mut [f32]
    ) {
        let group_rows = tile_rows(s);
        for p in 0..depth {
            let column = &data[p * stride..][..rows];
            let ahead = data.as_ptr().wrapping_add((p + PREFETCH_STEPS) * stride);
            for line in (0..rows).step_by(LANES) {
                s.prefetch(ahead.wrapping_add(line));
            }
            for (group, values) in column.chunks(group_rows).enumerate() {
                let at = group * packed_len(depth, group_rows) + p * group_rows;
                // A whole vector is stored where it stays inside the group: later steps of k overwrite what is too much.
                let ahead = &data[p * stride + group * group_rows..];
                if p * group_rows + LANES <= depth * group_rows && ahead.len() >= LANES {
                    s.store(s.load(ahead), &mut packed[at..]);
                } else {
                    packed[at..at + values.len()].copy_from_slice(values);
                }
            }
        }
    }
}

#[inline(always)]
fn tile_rows<S: Lanes>(_: S) -> usize {
    S::TILE_ROWS
}

/// Packs `piece` steps of k of all of B: `[block of k][panel][k][TILE_COLS]`.
fn pack_b(ctx: &Context, b: Operand<'_>, from: usize, piece: usize, cols: usize, packed: &mut [f32]) {
    let variant = ctx.variant();
    let panel = variant.tile().1;
    let panels = cols.div_ceil(panel);
    let mut work = Vec::new();
    let blocks = packed.chunks_mut(panels * packed_len(BLOCK_K, panel));
    for (packed, start) in blocks.zip((0..piece).step_by(BLOCK_K)) {
        let depth = (piece - start).min(BLOCK_K);
        // Every task reads whole rows of a few steps of k, and writes them to all panels.
        let tasks =
            MatMut::new(packed, panels, depth * panel, packed_len(depth, panel)).tiles(panels, PACK_STEPS * panel);
        work.extend(tasks.into_iter().zip((from + start..).step_by(PACK_STEPS)));
    }
    ctx.threads().for_each(work, |(packed, from)| pack_panels(variant, b.from(from, 0), cols, panel, packed));
}

lanes_kernel! {
    /// Packs the first `cols` columns of B into panels, one per row of `packed`, each `[k][panel]`; missing columns are zero.
    fn pack_panels<'a>(s; b: Operand<'a>, cols: usize, panel: usize, packed: MatMut<'a>) {
        let mut packed = packed;
        let depth = packed.cols() / panel;
        if b.col_stride == 1 {
            for p in 0..depth {
                let row = &b.data[p * b.row_stride..][..cols];
                for (i, row) in row.chunks(panel).enumerate() {
                    let out = &mut packed.row(i)[p * panel..][..panel];
                    for at in (0..panel).step_by(LANES) {
                        s.store(s.load_or(row.get(at..).unwrap_or(&[]), 0.0), &mut out[at..]);
                    }
                }
            }
            return;
        }
        assert_eq!(b.row_stride, 1, "an operand with two strides");
        for first in (0..packed.rows() * panel).step_by(LANES) {
            let (out, at) = (packed.row(first / panel), first % panel);
            for p in (0..depth).step_by(LANES) {
                let steps = (depth - p).min(LANES);
                let mut columns = [s.splat(0.0); LANES];
                for (i, column) in columns.iter_mut().enumerate().take(cols.saturating_sub(first)) {
                    *column = s.load_or(&b.data[(first + i) * b.col_stride + p..][..steps], 0.0);
                }
                for (i, row) in s.transpose(columns).into_iter().enumerate().take(steps) {
                    s.store(row, &mut out[(p + i) * panel + at..]);
                }
            }
        }
    }
}

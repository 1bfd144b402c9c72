//! The register-blocked micro-kernel of every matrix product.
//!
//! It computes a tile of C, `TILE_ROWS` × `TILE_COLS` at most, as one fold over k with all accumulators in registers.

use super::{LANES, Lanes, MatMut, Task};

/// How the rows of A that a block reads are stored. `i` is the row, `p` the fold's index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strips<'a> {
    /// Groups of `TILE_ROWS` rows, each `[k][TILE_ROWS]`, [`packed_len`] apart.
    Packed(&'a [f32]),
    /// Element (i, p) at `i · ROW_STRIDE + p`.
    Rows(&'a [f32]),
    /// Element (i, p) at `i · TILE_COLS + p`: the output of another block, with one panel.
    Panel(&'a [f32]),
    /// Element (i, p) at `p · step + i`.
    Columns(&'a [f32], usize),
}

/// Values between two groups of [`Strips::Packed`] or two panels: a cache line, so that they do not all fall into the same sets.
const PAD: usize = LANES;

/// The length of a group of `TILE_ROWS` rows or of a panel of `TILE_COLS` columns, with the gap to the next.
pub(crate) fn packed_len(k: usize, width: usize) -> usize {
    k * width + PAD
}

/// Distance between rows of [`Strips::Rows`]: 17 cache lines, so that rows spread over the cache's sets.
pub(crate) const ROW_STRIDE: usize = 272;

/// C (+)= A · B, where B lies in panels of `TILE_COLS` columns, each `[k][TILE_COLS]`, [`packed_len`] apart.
#[derive(Debug)]
pub(crate) struct Block<'a, 'c> {
    /// The fold's length.
    pub(crate) k: usize,
    /// The rows of A, as many as C has.
    pub(crate) a: Strips<'a>,
    /// The panels of B.
    pub(crate) b: &'a [f32],
    /// Where the result goes.
    pub(crate) c: &'a mut MatMut<'c>,
    /// Whether the fold starts from C's old values.
    pub(crate) accumulate: bool,
}

impl Task for Block<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Block { k, a, b, c, accumulate } = self;
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 {
            return;
        }
        let groups = rows.div_ceil(S::TILE_ROWS);
        let panel = packed_len(k, S::TILE_COLS);
        let need = cols.div_ceil(S::TILE_COLS) * panel - PAD;
        assert!(b.len() >= need, "a block with {} values of B instead of {need}", b.len());
        // Distances: between groups, between rows of a group, between steps of k; and the values that must exist.
        let (data, group, layout, step, need) = match a {
            Strips::Packed(a) => {
                let group = packed_len(k, S::TILE_ROWS);
                (a, group, RowLayout::Next, S::TILE_ROWS, groups * group - PAD)
            }
            Strips::Rows(a) => {
                assert!(k <= ROW_STRIDE, "{k} values in a row of {ROW_STRIDE}");
                (a, S::TILE_ROWS * ROW_STRIDE, RowLayout::Stride, 1, (rows - 1) * ROW_STRIDE + k)
            }
            Strips::Panel(a) => {
                assert!(k <= S::TILE_COLS, "{k} values in a row of {}", S::TILE_COLS);
                (a, S::TILE_ROWS * S::TILE_COLS, RowLayout::Panel, 1, (rows - 1) * S::TILE_COLS + k)
            }
            Strips::Columns(a, step) => (a, S::TILE_ROWS, RowLayout::Next, step, k.saturating_sub(1) * step + rows),
        };
        assert!(k == 0 || data.len() >= need, "a block with {} values of A instead of {need}", data.len());
        for col in (0..cols).step_by(S::TILE_COLS) {
            for row in (0..rows).step_by(S::TILE_ROWS) {
                let next = if row + S::TILE_ROWS < rows { (row + S::TILE_ROWS, col) } else { (0, col + S::TILE_COLS) };
                let tile = Tile {
                    k,
                    a: data[row / S::TILE_ROWS * group..].as_ptr(),
                    layout,
                    step,
                    b: b[col / S::TILE_COLS * panel..].as_ptr(),
                    c: c.at(row, col),
                    stride: c.stride(),
                    cols: (cols - col).min(S::TILE_COLS),
                    accumulate,
                    next: c.near(next.0, next.1),
                };
                // SAFETY: the asserts above cover every element of A and B that rows < `rows` and p < `k` name; `at` and
                // `cols` keep the tile of C inside its window, of which we hold the only reference.
                unsafe { s.tile((rows - row).min(S::TILE_ROWS), tile) };
            }
        }
    }
}

/// The distance between the rows of A in a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowLayout {
    /// 1.
    Next,
    /// [`ROW_STRIDE`].
    Stride,
    /// `TILE_COLS`.
    Panel,
}

/// The arguments of one micro-kernel call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) layout: RowLayout,
    pub(crate) step: usize,
    pub(crate) b: *const f32,
    pub(crate) c: *mut f32,
    pub(crate) stride: usize,
    pub(crate) cols: usize,
    pub(crate) accumulate: bool,
    /// Where the next tile of C is, to be asked for meanwhile.
    pub(crate) next: *const f32,
}

/// Chooses the micro-kernel for a number of rows and a layout, so that both are constants in it.
macro_rules! micro_tile {
    ($s:expr, $rows:expr, $tile:expr, $vectors:literal, $cols:literal, [$($n:literal),*]) => {
        match ($rows, $tile.layout) {
            $(
                ($n, $crate::arch::RowLayout::Next) => $crate::arch::micro::<_, $n, $vectors, 1>($s, $tile),
                ($n, $crate::arch::RowLayout::Stride) =>
                    $crate::arch::micro::<_, $n, $vectors, { $crate::arch::ROW_STRIDE }>($s, $tile),
                ($n, $crate::arch::RowLayout::Panel) => $crate::arch::micro::<_, $n, $vectors, $cols>($s, $tile),
            )*
            _ => unreachable!("a tile of {} rows", $rows),
        }
    };
}
pub(crate) use micro_tile;

/// One tile: `ROWS` rows by `VECTORS` vectors, rows of A `ROW` apart.
///
/// # Safety
/// For every row i < `ROWS` and p < k: `a + i·ROW + p·step` is readable; `b` holds k rows of `VECTORS` vectors; `c + i·stride` is
/// readable and writable for `cols` values, and nobody else uses them.
#[inline(always)]
pub(crate) unsafe fn micro<S: Lanes, const ROWS: usize, const VECTORS: usize, const ROW: usize>(s: S, tile: Tile) {
    let Tile { k, mut a, step, mut b, c, stride, cols, accumulate, next, .. } = tile;
    let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
    let full = cols == VECTORS * LANES;
    if accumulate {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                let count = if full { LANES } else { cols.saturating_sub(j * LANES).min(LANES) };
                // SAFETY: the caller's promise: `count` values from here lie in the tile.
                let c = unsafe { std::slice::from_raw_parts(c.wrapping_add(i * stride + j * LANES), count) };
                *sum = if full { s.load(c) } else { s.load_or(c, 0.0) };
            }
        }
    }
    // The first steps of k ask for the next tile's cache lines, one each.
    let early = k.min(ROWS * VECTORS);
    for (from, to) in [(0, early), (early, k)] {
        for p in from..to {
            if from == 0 {
                s.prefetch(next.wrapping_add(p / VECTORS * stride + p % VECTORS * LANES));
            }
            // SAFETY: the caller's promise.
            let vectors: [S::F; VECTORS] =
                std::array::from_fn(|j| s.load(unsafe { std::slice::from_raw_parts(b.add(j * LANES), LANES) }));
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let x = s.splat(unsafe { *a.add(i * ROW) });
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = s.mul_add(x, vector, *sum);
                }
            }
            a = a.wrapping_add(step);
            b = b.wrapping_add(VECTORS * LANES);
        }
    }
    // Two loops, so that the common one keeps the sums in registers.
    if full {
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise.
                let c = unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(i * stride + j * LANES), LANES) };
                s.store(*sum, c);
            }
        }
        return;
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            let count = cols.saturating_sub(j * LANES).min(LANES);
            // SAFETY: the caller's promise: `count` values from here lie in the tile.
            let c = unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(i * stride + j * LANES), count) };
            s.store_some(*sum, c);
        }
    }
}

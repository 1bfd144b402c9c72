//! Matrix products: each output is a left fold over `k`, ascending, of the profile's fold steps.
//!
//! The fold starts from +0, or from the output's old value when the product accumulates. Blocking for caches may spill and
//! reload the f32 accumulator; nothing ever splits `k`. Hence the result is independent of blocking, threads, instruction set and
//! of the other rows: a row of a batch has the bits it has alone.
//!
//! Cost: 2·m·n·k FLOPs; reads each operand once per cache block. Error: at most `k` roundings per output.

mod blocked;
mod reference;

use crate::Context;
use crate::arch::{Isa, LANES, Lanes, MatMut, lanes_kernel};
use crate::fault::slip;
use crate::profile::in_profile;

/// How to read an operand: element (row, column) is `data[row * row_stride + column * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> Operand<'a> {
    fn new(layout: Layout, data: &'a [f32], stride: usize, rows: usize, cols: usize) -> Self {
        let (row_stride, col_stride) = match layout {
            Layout::Plain => (stride, 1),
            Layout::Transposed => (1, stride),
        };
        if rows > 0 && cols > 0 {
            let need = (rows - 1) * row_stride + (cols - 1) * col_stride + 1;
            assert!(data.len() >= need, "a {rows} × {cols} operand of {need} values in a slice of {}", data.len());
        }
        Operand { data, row_stride, col_stride }
    }

    /// The operand without its first rows and columns.
    fn from(&self, row: usize, col: usize) -> Self {
        let start = (row * self.row_stride + col * self.col_stride).min(self.data.len());
        Operand { data: &self.data[start..], ..*self }
    }

    #[inline(always)]
    fn at(&self, row: usize, col: usize) -> f32 {
        self.data[row * self.row_stride + col * self.col_stride]
    }
}

/// Whether an operand is stored as the product reads it or transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Rows of the operand are rows in memory.
    Plain,
    /// Rows of the operand are columns in memory.
    Transposed,
}

/// The sizes of a product: C `[m, n]` = A `[m, k]` · B `[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmShape {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A and rows of B: the length of every fold.
    pub k: usize,
}

/// An operand inside a larger matrix: its first element is `data[0]`, rows in memory are `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The values, from the operand's first element on.
    pub data: &'a [f32],
    /// Distance between rows in memory.
    pub stride: usize,
    /// Whether memory rows are the operand's rows.
    pub layout: Layout,
}

/// The most values that one product keeps packed on a thread.
pub(crate) fn scratch_len() -> usize {
    blocked::scratch_len()
}

/// Computes C `[m, n]` (+)= A `[m, k]` · B `[k, n]`, all row-major and dense.
///
/// # Panics
/// When a slice is too short.
#[allow(clippy::too_many_arguments)]
pub fn matmul_nn(ctx: &Context, m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    let a = View { data: a, stride: k, layout: Layout::Plain };
    let b = View { data: b, stride: n, layout: Layout::Plain };
    matmul_strided(ctx, GemmShape { m, n, k }, a, b, c, n, accumulate);
    slip("matmul_nn", c);
}

/// Computes C `[m, n]` (+)= A `[m, k]` · Bᵀ with B `[n, k]`: `y = x·Wᵀ` for a weight stored as `[out, in]`.
///
/// # Panics
/// When a slice is too short.
#[allow(clippy::too_many_arguments)]
pub fn matmul_nt(ctx: &Context, m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    let a = View { data: a, stride: k, layout: Layout::Plain };
    let b = View { data: b, stride: k, layout: Layout::Transposed };
    matmul_strided(ctx, GemmShape { m, n, k }, a, b, c, n, accumulate);
    slip("matmul_nt", c);
}

/// Computes C `[m, n]` (+)= Aᵀ · B with A `[k, m]` and B `[k, n]`: `dW = dyᵀ·x`.
///
/// # Panics
/// When a slice is too short.
#[allow(clippy::too_many_arguments)]
pub fn matmul_tn(ctx: &Context, m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    let a = View { data: a, stride: m, layout: Layout::Transposed };
    let b = View { data: b, stride: n, layout: Layout::Plain };
    matmul_strided(ctx, GemmShape { m, n, k }, a, b, c, n, accumulate);
    slip("matmul_tn", c);
}

/// Computes C (+)= A · B for windows of larger matrices; rows of C are `c_stride` apart.
///
/// # Panics
/// When a slice is too short or a row of C is longer than its stride.
pub fn matmul_strided(
    ctx: &Context,
    shape: GemmShape,
    a: View<'_>,
    b: View<'_>,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    let GemmShape { m, n, k } = shape;
    let a = Operand::new(a.layout, a.data, a.stride, m, k);
    let b = Operand::new(b.layout, b.data, b.stride, k, n);
    let target = MatMut::new(c, m, n, c_stride);
    if ctx.isa() == Isa::Scalar {
        in_profile!(ctx.profile(), FUSED => reference::product::<FUSED>(ctx, k, a, b, target, accumulate));
    } else {
        blocked::product(ctx, k, a, b, target, accumulate);
    }
    slip("matmul_strided", c);
}

/// Runs `steps` rounds of independent fold steps in registers, as many as a product's tile keeps there, and returns their FLOPs:
/// the peak that a product can reach on one core.
pub fn multiply_add_burst(ctx: &Context, steps: usize) -> u64 {
    let vectors = std::hint::black_box(burst(ctx.variant(), &steps)).1;
    (steps * vectors * LANES * 2) as u64
}

lanes_kernel! {
    fn burst<'a>(s; steps: &'a usize) -> (f32, usize) {
        burst_in_registers(s, *steps)
    }
}

/// More sums than there are registers would measure the cache, and many fewer how long one step takes.
#[inline(always)]
fn burst_in_registers<S: Lanes>(s: S, steps: usize) -> (f32, usize) {
    if S::TILE_COLS > LANES { burst_of::<S, 12>(s, steps) } else { burst_of::<S, 6>(s, steps) }
}

/// The sum of `VECTORS` vectors, so that none is left out, and their number.
#[inline(always)]
fn burst_of<S: Lanes, const VECTORS: usize>(s: S, steps: usize) -> (f32, usize) {
    let mut sums: [_; VECTORS] = std::array::from_fn(|i| s.splat(std::hint::black_box(i as f32)));
    let (a, b) = (s.splat(std::hint::black_box(0.999)), s.splat(std::hint::black_box(0.001)));
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = s.mul_add(*sum, a, b);
        }
    }
    (sums.into_iter().map(|sum| s.sum_lanes(sum)).sum(), VECTORS)
}

//! The reference product: the contract written down, and the fallback.

use super::Operand;
use crate::Context;
use crate::arch::{MatMut, multiply_add};

/// Rows of C that one task computes.
const TASK_ROWS: usize = 16;

/// C (+)= A · B, one row at a time.
pub(super) fn product<const FUSED: bool>(
    ctx: &Context,
    k: usize,
    a: Operand<'_>,
    b: Operand<'_>,
    c: MatMut<'_>,
    accumulate: bool,
) {
    if c.rows() == 0 || c.cols() == 0 {
        return;
    }
    let cols = c.cols();
    let tiles = c.tiles(TASK_ROWS, cols).into_iter().enumerate().collect();
    ctx.threads().for_each(tiles, |(tile, mut c): (usize, MatMut<'_>)| {
        for row in 0..c.rows() {
            row_product::<FUSED>(k, tile * TASK_ROWS + row, a, b, c.row(row), accumulate);
        }
    });
}

fn row_product<const FUSED: bool>(
    k: usize,
    row: usize,
    a: Operand<'_>,
    b: Operand<'_>,
    c: &mut [f32],
    accumulate: bool,
) {
    if !accumulate {
        c.fill(0.0);
    }
    if b.col_stride != 1 {
        for (col, c) in c.iter_mut().enumerate() {
            *c = (0..k).fold(*c, |sum, p| multiply_add::<FUSED>(a.at(row, p), b.at(p, col), sum));
        }
        return;
    }
    for p in 0..k {
        let a = a.at(row, p);
        let b = &b.data[p * b.row_stride..][..c.len()];
        for (c, b) in c.iter_mut().zip(b) {
            *c = multiply_add::<FUSED>(a, *b, *c);
        }
    }
}

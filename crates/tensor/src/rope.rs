//! Rotary position embedding (Su et al., arXiv:2104.09864) in the half-split convention of Hugging Face's Llama.

use crate::Context;
use crate::arch::{LANES, lanes_kernel};
use crate::fault::slip;
use crate::math::{cos_f64, exp_f64, ln_f64, sin_f64};

/// Rows that one task handles.
const TASK_ROWS: usize = 64;

/// Cosines and sines for every position: two arrays of `[context, head_dim / 2]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    half: usize,
    context: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Computes the table: angle = position · theta^(−2i / head_dim), in f64, by our own functions.
    ///
    /// # Panics
    /// When `head_dim` is odd or `theta` is not positive.
    pub fn new(head_dim: usize, context: usize, theta: f32) -> RopeTable {
        RopeTable::scaled(head_dim, context, theta, |frequency| frequency)
    }

    /// Computes the table of [`RopeTable::new`] with each frequency, in radians per position, replaced by what `scale` makes of
    /// it: how models that were trained on short texts read long ones.
    ///
    /// # Panics
    /// As [`RopeTable::new`].
    pub fn scaled(head_dim: usize, context: usize, theta: f32, scale: impl Fn(f64) -> f64) -> RopeTable {
        assert!(head_dim.is_multiple_of(2), "an odd head_dim: {head_dim}");
        assert!(theta > 0.0, "theta must be positive: {theta}");
        let half = head_dim / 2;
        let log_theta = ln_f64(f64::from(theta));
        let frequency = |i: usize| exp_f64(-(2.0 * i as f64 / head_dim as f64) * log_theta);
        let frequencies: Vec<f64> = (0..half).map(frequency).map(scale).collect();
        let angles = || (0..context).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        let mut cos: Vec<f32> = angles().map(|angle| cos_f64(angle) as f32).collect();
        slip("rope_table", &mut cos);
        RopeTable { half, context, cos, sin: angles().map(|angle| sin_f64(angle) as f32).collect() }
    }

    /// The number of positions.
    pub fn context(&self) -> usize {
        self.context
    }

    /// All cosines and all sines, `[context, head_dim / 2]` each.
    pub(crate) fn values(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    fn row(&self, position: u32) -> (&[f32], &[f32]) {
        let position = position as usize;
        assert!(position < self.context, "position {position} outside a table of {}", self.context);
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Rotates `x` `[rows, heads · head_dim]` in place; row `i` is at `positions[i]`. `inverse` rotates back, which is the backward.
///
/// For each pair `a = x[i]`, `b = x[i + head_dim/2]`: `a' = a·cos − b·sin`, `b' = b·cos + a·sin`, each with one fused multiply-add.
///
/// # Panics
/// When sizes do not match or a position is outside the table.
#[allow(clippy::too_many_arguments)]
pub fn rope(
    ctx: &Context,
    rows: usize,
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &RopeTable,
    x: &mut [f32],
    inverse: bool,
) {
    let d = heads * head_dim;
    assert_eq!(positions.len(), rows, "rope: one position per row");
    assert_eq!(x.len(), rows * d, "rope: size of x");
    assert_eq!(head_dim, 2 * table.half, "rope: the table's head_dim");
    if d == 0 {
        return;
    }
    let work = x.chunks_mut(TASK_ROWS * d).zip(positions.chunks(TASK_ROWS)).collect();
    ctx.threads().for_each(work, |(x, positions)| rotate_rows(ctx.variant(), x, positions, table, d, inverse));
    slip("rope", x);
}

lanes_kernel! {
    fn rotate_rows<'a>(s; x: &'a mut [f32], positions: &'a [u32], table: &'a RopeTable, d: usize, inverse: bool) {
        let sign = s.splat(if inverse { -1.0 } else { 1.0 });
        for (x, position) in x.chunks_exact_mut(d).zip(positions) {
            let (cos, sin) = table.row(*position);
            for head in x.chunks_exact_mut(2 * table.half) {
                let (a, b) = head.split_at_mut(table.half);
                let angles = cos.chunks(LANES).zip(sin.chunks(LANES));
                for ((a, b), (cos, sin)) in a.chunks_mut(LANES).zip(b.chunks_mut(LANES)).zip(angles) {
                    let (cos, sin) = (s.load_or(cos, 0.0), s.mul(sign, s.load_or(sin, 0.0)));
                    let (old_a, old_b) = (s.load_or(a, 0.0), s.load_or(b, 0.0));
                    let minus = s.mul(s.mul(old_b, sin), s.splat(-1.0));
                    s.store_some(s.mul_add(old_a, cos, minus), a);
                    s.store_some(s.mul_add(old_b, cos, s.mul(old_a, sin)), b);
                }
            }
        }
    }
}

//! Elementwise kernels and whole-array reductions over flat arrays.

use crate::Context;
use crate::arch::{LANES, lanes_kernel};
use crate::fault::{slip, slip_bool, slip_f64};
use crate::reduce::dot_lanes;

/// Values that one task handles; also the chunk of whole-array sums.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Values per f32 partial sum of [`dot`] and [`sum_squares`]; the partial sums are added in f64, in order.
const SUM_CHUNK: usize = 1024;

/// Computes `y += x`.
///
/// # Panics
/// When the lengths differ.
pub fn add_assign(ctx: &Context, y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "add_assign of different lengths");
    let work = y.chunks_mut(CHUNK).zip(x.chunks(CHUNK)).collect();
    ctx.threads().for_each(work, |(y, x)| add_chunk(ctx.variant(), y, x));
    slip("add_assign", y);
}

/// Computes `y += a·x` as one fused multiply-add per value.
///
/// # Panics
/// When the lengths differ.
pub fn axpy(ctx: &Context, a: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(y.len(), x.len(), "axpy of different lengths");
    let work = y.chunks_mut(CHUNK).zip(x.chunks(CHUNK)).collect();
    ctx.threads().for_each(work, |(y, x)| axpy_chunk(ctx.variant(), a, y, x));
    slip("axpy", y);
}

/// Computes `x *= a`.
pub fn scale(ctx: &Context, a: f32, x: &mut [f32]) {
    ctx.threads().for_each(x.chunks_mut(CHUNK).collect(), |x| scale_chunk(ctx.variant(), a, x));
    slip("scale", x);
}

/// Computes Σ x²: chunks of 1024 values by the row reduction in f32, then the chunks in f64, in order.
pub fn sum_squares(ctx: &Context, x: &[f32]) -> f64 {
    slip_f64("sum_squares", dot(ctx, x, x))
}

/// Computes Σ x·y: chunks of 1024 values by the row reduction in f32, then the chunks in f64, in order.
///
/// # Panics
/// When the lengths differ.
pub fn dot(ctx: &Context, x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "dot of different lengths");
    let mut partial = vec![0.0f32; x.len().div_ceil(SUM_CHUNK)];
    let work = partial.chunks_mut(CHUNK / SUM_CHUNK).zip(x.chunks(CHUNK).zip(y.chunks(CHUNK))).collect();
    ctx.threads().for_each(work, |(partial, (x, y))| dot_chunk(ctx.variant(), partial, x, y));
    slip_f64("dot", partial.into_iter().map(f64::from).sum())
}

/// Tells whether no value is infinite or NaN.
pub fn is_finite(ctx: &Context, x: &[f32]) -> bool {
    let finite = |x: &[f32]| x.iter().fold(true, |all, x| all & x.is_finite());
    slip_bool("is_finite", ctx.threads().map(x.chunks(CHUNK).collect(), finite).into_iter().all(|finite| finite))
}

lanes_kernel! {
    fn add_chunk<'a>(s; y: &'a mut [f32], x: &'a [f32]) {
        for (y, x) in y.chunks_mut(LANES).zip(x.chunks(LANES)) {
            s.store_some(s.add(s.load_or(y, 0.0), s.load_or(x, 0.0)), y);
        }
    }
}

lanes_kernel! {
    fn axpy_chunk<'a>(s; a: f32, y: &'a mut [f32], x: &'a [f32]) {
        let a = s.splat(a);
        for (y, x) in y.chunks_mut(LANES).zip(x.chunks(LANES)) {
            s.store_some(s.mul_add(a, s.load_or(x, 0.0), s.load_or(y, 0.0)), y);
        }
    }
}

lanes_kernel! {
    fn scale_chunk<'a>(s; a: f32, x: &'a mut [f32]) {
        let a = s.splat(a);
        for x in x.chunks_mut(LANES) {
            s.store_some(s.mul(s.load_or(x, 0.0), a), x);
        }
    }
}

lanes_kernel! {
    fn dot_chunk<'a>(s; partial: &'a mut [f32], x: &'a [f32], y: &'a [f32]) {
        for (partial, (x, y)) in partial.iter_mut().zip(x.chunks(SUM_CHUNK).zip(y.chunks(SUM_CHUNK))) {
            *partial = dot_lanes(s, x, y);
        }
    }
}

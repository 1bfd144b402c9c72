//! RMSNorm (Zhang & Sennrich, arXiv:1910.07467): `out = x · inv_rms · gain` per row.

use crate::Context;
use crate::arch::{LANES, Lanes, lanes_kernel};
use crate::fault::slip;
use crate::reduce::dot_lanes;

/// Rows that one forward task handles.
const TASK_ROWS: usize = 32;

/// Row chunks of the gain's gradient: the contract's fixed split of a sum across rows.
const GAIN_CHUNKS: usize = 32;

/// Computes `out = (x · inv_rms) · gain` for rows of `d` values, with `inv_rms = 1 / √(Σx²/d + eps)` kept for the backward.
///
/// # Panics
/// When a size does not match.
#[allow(clippy::too_many_arguments)]
pub fn rmsnorm_forward(
    ctx: &Context,
    rows: usize,
    d: usize,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    out: &mut [f32],
    inv_rms: &mut [f32],
) {
    assert!(x.len() == rows * d && out.len() == rows * d, "rmsnorm_forward: sizes of x and out");
    assert!(gain.len() == d && inv_rms.len() == rows, "rmsnorm_forward: sizes of gain and inv_rms");
    if d == 0 {
        return;
    }
    let inputs = x.chunks(TASK_ROWS * d);
    let work = out.chunks_mut(TASK_ROWS * d).zip(inv_rms.chunks_mut(TASK_ROWS)).zip(inputs).collect();
    ctx.threads().for_each(work, |((out, inv_rms), x)| forward_rows(ctx.variant(), x, gain, eps, out, inv_rms));
    slip("rmsnorm_forward", out);
}

/// Computes the gradient: `dx` is overwritten, `dgain` accumulates.
///
/// `dx = inv_rms·(dout·gain) − x · inv_rms³/d · Σ(dout·gain·x)`, `dgain += Σ_rows dout · (x·inv_rms)`; the sum across rows takes 32
/// fixed chunks of rows, each in order, then the chunks in order.
///
/// # Panics
/// When a size does not match.
#[allow(clippy::too_many_arguments)]
pub fn rmsnorm_backward(
    ctx: &Context,
    rows: usize,
    d: usize,
    x: &[f32],
    gain: &[f32],
    inv_rms: &[f32],
    dout: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
) {
    backward(ctx, Backward { rows, d, x, gain, inv_rms, dout, accumulate: false }, dx, dgain);
}

/// Computes the gradient like [`rmsnorm_backward`], but adds it to `dx`: the residual stream's gradient in one pass.
///
/// # Panics
/// When a size does not match.
#[allow(clippy::too_many_arguments)]
pub fn rmsnorm_backward_add(
    ctx: &Context,
    rows: usize,
    d: usize,
    x: &[f32],
    gain: &[f32],
    inv_rms: &[f32],
    dout: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
) {
    backward(ctx, Backward { rows, d, x, gain, inv_rms, dout, accumulate: true }, dx, dgain);
}

struct Backward<'a> {
    rows: usize,
    d: usize,
    x: &'a [f32],
    gain: &'a [f32],
    inv_rms: &'a [f32],
    dout: &'a [f32],
    accumulate: bool,
}

fn backward(ctx: &Context, pass: Backward<'_>, dx: &mut [f32], dgain: &mut [f32]) {
    let Backward { rows, d, x, gain, inv_rms, dout, accumulate } = pass;
    let size = rows * d;
    assert!(x.len() == size && dout.len() == size && dx.len() == size, "rmsnorm_backward: sizes of x, dout and dx");
    assert!(gain.len() == d && dgain.len() == d && inv_rms.len() == rows, "rmsnorm_backward: sizes of the vectors");
    if size == 0 {
        return;
    }
    let chunk = rows.div_ceil(GAIN_CHUNKS);
    let mut partial = vec![0.0f32; rows.div_ceil(chunk) * d];
    let inputs = x.chunks(chunk * d).zip(dout.chunks(chunk * d)).zip(inv_rms.chunks(chunk));
    let work = dx.chunks_mut(chunk * d).zip(partial.chunks_mut(d)).zip(inputs).collect();
    ctx.threads().for_each(work, |((dx, dgain), ((x, dout), inv_rms))| {
        backward_rows(ctx.variant(), Rows { x, gain, inv_rms, dout, accumulate }, dx, dgain);
    });
    for partial in partial.chunks(d) {
        for (sum, x) in dgain.iter_mut().zip(partial) {
            *sum += x;
        }
    }
    slip("rmsnorm_backward", dx);
}

struct Rows<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    inv_rms: &'a [f32],
    dout: &'a [f32],
    accumulate: bool,
}

lanes_kernel! {
    fn forward_rows<'a>(
        s; x: &'a [f32], gain: &'a [f32], eps: f32, out: &'a mut [f32], inv_rms: &'a mut [f32]
    ) {
        let d = gain.len();
        for ((x, out), inv_rms) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(inv_rms) {
            let mean = dot_lanes(s, x, x) / d as f32;
            *inv_rms = 1.0 / (mean + eps).sqrt();
            let inv = s.splat(*inv_rms);
            for ((x, gain), out) in x.chunks(LANES).zip(gain.chunks(LANES)).zip(out.chunks_mut(LANES)) {
                s.store_some(s.mul(s.mul(s.load_or(x, 0.0), inv), s.load_or(gain, 0.0)), out);
            }
        }
    }
}

lanes_kernel! {
    fn backward_rows<'a>(s; rows: Rows<'a>, dx: &'a mut [f32], dgain: &'a mut [f32]) {
        let d = rows.gain.len();
        let inputs = rows.x.chunks_exact(d).zip(rows.dout.chunks_exact(d)).zip(rows.inv_rms);
        for (dx, ((x, dout), inv)) in dx.chunks_exact_mut(d).zip(inputs) {
            let inv = *inv;
            let pull = projection(s, x, dout, rows.gain) * inv * inv * inv / d as f32;
            let (inv, pull) = (s.splat(inv), s.splat(-pull));
            for i in (0..d).step_by(LANES) {
                let end = d.min(i + LANES);
                let (x, dout) = (s.load_or(&x[i..end], 0.0), s.load_or(&dout[i..end], 0.0));
                let gain = s.load_or(&rows.gain[i..end], 0.0);
                let sum = s.mul_add(dout, s.mul(x, inv), s.load_or(&dgain[i..end], 0.0));
                s.store_some(sum, &mut dgain[i..end]);
                let mut value = s.mul_add(pull, x, s.mul(s.mul(dout, gain), inv));
                if rows.accumulate {
                    value = s.add(s.load_or(&dx[i..end], 0.0), value);
                }
                s.store_some(value, &mut dx[i..end]);
            }
        }
    }
}

/// Σ (dout·gain)·x by the row reduction.
#[inline(always)]
fn projection<S: Lanes>(s: S, x: &[f32], dout: &[f32], gain: &[f32]) -> f32 {
    let mut lanes = s.splat(0.0);
    for ((x, dout), gain) in x.chunks(LANES).zip(dout.chunks(LANES)).zip(gain.chunks(LANES)) {
        let scaled = s.mul(s.load_or(dout, 0.0), s.load_or(gain, 0.0));
        lanes = s.mul_add(scaled, s.load_or(x, 0.0), lanes);
    }
    s.sum_lanes(lanes)
}

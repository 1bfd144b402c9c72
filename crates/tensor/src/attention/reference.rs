//! The reference: one query row at a time, every fold written as the contract states it.

use super::{AttentionShape, CacheShape, Saved};
use crate::Context;
use crate::arch::{One, Portable, multiply_add};
use crate::math::{exp_lanes, ln_f64};
use crate::reduce::{dot_lanes, sum_lanes};

/// One head's rows inside an array of rows of several heads.
#[derive(Clone, Copy)]
struct Head<'a> {
    data: &'a [f32],
    stride: usize,
    offset: usize,
    dim: usize,
}

impl<'a> Head<'a> {
    fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride + self.offset..][..self.dim]
    }
}

pub(super) fn forward<const FUSED: bool>(
    ctx: &Context,
    shape: AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    stats: &mut [f32],
) {
    let AttentionShape { tokens, heads, kv_heads, head_dim, .. } = shape;
    let (q_row, kv_row) = (heads * head_dim, kv_heads * head_dim);
    if shape.q_len() == 0 {
        return;
    }
    let inputs = q.chunks(tokens * q_row).zip(k.chunks(tokens * kv_row).zip(v.chunks(tokens * kv_row)));
    let work = out.chunks_mut(tokens * q_row).zip(stats.chunks_mut(heads * tokens)).zip(inputs).collect();
    ctx.threads().for_each(work, |((out, stats), (q, (k, v)))| {
        for head in 0..heads {
            let kv = head / (heads / kv_heads) * head_dim;
            let k = Head { data: k, stride: kv_row, offset: kv, dim: head_dim };
            let v = Head { data: v, stride: kv_row, offset: kv, dim: head_dim };
            for t in 0..tokens {
                let at = t * q_row + head * head_dim;
                let row = &mut out[at..at + head_dim];
                stats[head * tokens + t] = attend::<FUSED>(&q[at..at + head_dim], k, v, t + 1, shape.scale(), row);
            }
        }
    });
}

/// Query rows from position `start` on, over keys and values `[length, kv_heads · head_dim]`.
pub(super) fn cached<const FUSED: bool>(
    shape: CacheShape,
    start: usize,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
) {
    let CacheShape { heads, kv_heads, head_dim } = shape;
    let (stride, row) = (kv_heads * head_dim, heads * head_dim);
    for (i, (q, out)) in q.chunks_exact(row).zip(out.chunks_exact_mut(row)).enumerate() {
        for (head, (q, out)) in q.chunks(head_dim).zip(out.chunks_mut(head_dim)).enumerate() {
            let offset = head / (heads / kv_heads) * head_dim;
            let k = Head { data: keys, stride, offset, dim: head_dim };
            let v = Head { data: values, stride, offset, dim: head_dim };
            attend::<FUSED>(q, k, v, start + i + 1, shape.scale(), out);
        }
    }
}

/// One query row over `length` positions; returns the row's log-sum-exp.
fn attend<const FUSED: bool>(q: &[f32], k: Head<'_>, v: Head<'_>, length: usize, scale: f32, out: &mut [f32]) -> f32 {
    let mut weights: Vec<f32> = (0..length).map(|j| fold::<FUSED>(q, k.row(j)) * scale).collect();
    let max = weights.iter().fold(f32::NEG_INFINITY, |max, x| if max > *x { max } else { *x });
    for weight in &mut weights {
        *weight = exp_lanes(One::<FUSED>, *weight - max);
    }
    let sum = sum_lanes(Portable::<FUSED>, &weights);
    out.fill(0.0);
    for (j, weight) in weights.iter().enumerate() {
        for (out, v) in out.iter_mut().zip(v.row(j)) {
            *out = multiply_add::<FUSED>(*weight, *v, *out);
        }
    }
    for out in out {
        *out = *out * (1.0 / sum) + 0.0;
    }
    (f64::from(max) + ln_f64(f64::from(sum))) as f32
}

pub(super) fn backward<const FUSED: bool>(
    ctx: &Context,
    shape: AttentionShape,
    saved: &Saved<'_>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let AttentionShape { tokens, heads, kv_heads, head_dim, .. } = shape;
    if shape.q_len() == 0 {
        return;
    }
    let (q_len, kv_len) = (tokens * heads * head_dim, tokens * kv_heads * head_dim);
    let outputs = dq.chunks_mut(q_len).zip(dk.chunks_mut(kv_len).zip(dv.chunks_mut(kv_len)));
    ctx.threads().for_each(outputs.enumerate().collect(), |(sequence, (dq, (dk, dv)))| {
        let (q, kv) = (sequence * q_len..(sequence + 1) * q_len, sequence * kv_len..(sequence + 1) * kv_len);
        let stats = sequence * heads * tokens..(sequence + 1) * heads * tokens;
        let saved = Saved {
            q: &saved.q[q.clone()],
            k: &saved.k[kv.clone()],
            v: &saved.v[kv],
            out: &saved.out[q.clone()],
            stats: &saved.stats[stats],
            dout: &saved.dout[q],
        };
        dk.fill(0.0);
        dv.fill(0.0);
        for head in 0..heads {
            for t in 0..tokens {
                backward_row::<FUSED>(shape, &saved, head, t, dq, dk, dv);
            }
        }
        for x in dk.iter_mut().chain(dv) {
            *x += 0.0;
        }
    });
}

fn backward_row<const FUSED: bool>(
    shape: AttentionShape,
    saved: &Saved<'_>,
    head: usize,
    t: usize,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let AttentionShape { tokens, heads, kv_heads, head_dim, .. } = shape;
    let (stride, offset) = (kv_heads * head_dim, head / (heads / kv_heads) * head_dim);
    let at = t * heads * head_dim + head * head_dim;
    let row = at..at + head_dim;
    let (q, out, dout) = (&saved.q[row.clone()], &saved.out[row.clone()], &saved.dout[row.clone()]);
    let k = Head { data: saved.k, stride, offset, dim: head_dim };
    let v = Head { data: saved.v, stride, offset, dim: head_dim };
    let stat = saved.stats[head * tokens + t];
    let d = dot_lanes(Portable::<FUSED>, dout, out);
    let dq = &mut dq[row];
    dq.fill(0.0);
    for j in 0..=t {
        let weight = exp_lanes(One::<FUSED>, fold::<FUSED>(q, k.row(j)) * shape.scale() - stat);
        let dscore = (weight * (fold::<FUSED>(dout, v.row(j)) - d)) * shape.scale();
        let kv = j * stride + offset..j * stride + offset + head_dim;
        accumulate::<FUSED>(dscore, k.row(j), dq);
        accumulate::<FUSED>(dscore, q, &mut dk[kv.clone()]);
        accumulate::<FUSED>(weight, dout, &mut dv[kv]);
    }
    for dq in dq {
        *dq += 0.0;
    }
}

/// Σ x·y: a left fold from 0.
fn fold<const FUSED: bool>(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).fold(0.0, |sum, (x, y)| multiply_add::<FUSED>(*x, *y, sum))
}

fn accumulate<const FUSED: bool>(a: f32, x: &[f32], sum: &mut [f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum = multiply_add::<FUSED>(a, *x, *sum);
    }
}

//! Causal attention with grouped key/value heads: forward, backward, and over a cache in pages.
//!
//! Purpose: softmax(q·kᵀ / √head_dim)·v per head, without ever storing a tokens × tokens matrix: scratch memory is tokens × panel
//! (16 or 32 query rows, as the instruction set has it), whatever the panel the bits are the same (tested at 4096 tokens).
//! Source: the blocked recomputation of FlashAttention (Dao et al., arXiv:2205.14135).
//! Deviation: the softmax takes two passes over a block of query rows instead of an online rescaling, because its bits must not depend on
//! blocking. The order of every fold is part of the contract:
//! - score: a left fold over head_dim of fused multiply-adds from 0, then one multiplication by 1/√head_dim;
//! - weight: e^(score − row's largest score); their sum by the row reduction over key positions (lane = position mod 16);
//! - output: a left fold over key positions, ascending, times 1 / sum, plus +0 (so that a zero is positive and masked terms cannot show);
//! - statistic for the backward: `max + ln(sum)`, in f64, rounded once;
//! - backward: weight = e^(score − statistic); D = dout·out by the row reduction; dscore = (weight · (dweight − D)) · scale;
//!   dq folds over key positions ascending; dk and dv fold over the group's heads ascending, then query positions ascending.

mod blocked;
mod cached;
mod reference;

pub use cached::{CacheShape, CachedRows, PAGE, attention_cached};

use crate::Context;
use crate::arch::Isa;
use crate::fault::slip;
use crate::profile::in_profile;

/// The most values that a pass keeps packed on a thread: keys and values, two blocks of scores, and blocks of rows.
pub(crate) fn scratch_len(tokens: usize, head_dim: usize) -> usize {
    let panel = blocked::MAX_PANEL;
    let packed = (tokens + panel) * (head_dim + panel);
    2 * packed + 2 * tokens * panel + 5 * panel.max(head_dim) * (panel.max(head_dim) + panel)
}

/// What the backward reads.
struct Saved<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    stats: &'a [f32],
    dout: &'a [f32],
}

/// The sizes of a batch of sequences.
///
/// q, out and their gradients are `[batch · tokens, heads · head_dim]`; k, v and theirs `[batch · tokens, kv_heads · head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Positions per sequence.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `h` reads `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Values in q, out and their gradients.
    pub fn q_len(&self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    /// Values in k, v and their gradients.
    pub fn kv_len(&self) -> usize {
        self.batch * self.tokens * self.kv_heads * self.head_dim
    }

    /// Values in the statistics: `[batch, heads, tokens]`.
    pub fn stats_len(&self) -> usize {
        self.batch * self.heads * self.tokens
    }

    fn check(&self) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads), "heads must be a multiple of kv_heads");
        assert!(self.head_dim > 0, "an empty head");
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Computes causal attention. `out` is overwritten; `stats` `[batch, heads, tokens]` keeps log-sum-exp for the backward.
///
/// Cost: about 2·batch·heads·tokens²·head_dim FLOPs.
///
/// # Panics
/// When a size does not match.
pub fn attention_forward(
    ctx: &Context,
    shape: AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    stats: &mut [f32],
) {
    shape.check();
    assert!(q.len() == shape.q_len() && out.len() == shape.q_len(), "attention_forward: sizes of q and out");
    assert!(k.len() == shape.kv_len() && v.len() == shape.kv_len(), "attention_forward: sizes of k and v");
    assert_eq!(stats.len(), shape.stats_len(), "attention_forward: size of stats");
    if ctx.isa() == Isa::Scalar {
        in_profile!(ctx.profile(), FUSED => reference::forward::<FUSED>(ctx, shape, q, k, v, out, stats));
    } else {
        blocked::forward(ctx, shape, q, k, v, out, stats);
    }
    slip("attention_forward", out);
}

/// Computes the gradients of [`attention_forward`], which are overwritten. Weights are recomputed from `stats`.
///
/// Cost: about 5·batch·heads·tokens²·head_dim FLOPs.
///
/// # Panics
/// When a size does not match.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    ctx: &Context,
    shape: AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    stats: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    shape.check();
    let (q_len, kv_len) = (shape.q_len(), shape.kv_len());
    assert!(q.len() == q_len && out.len() == q_len && dout.len() == q_len, "attention_backward: sizes of q, out, dout");
    assert!(k.len() == kv_len && v.len() == kv_len, "attention_backward: sizes of k and v");
    assert!(dq.len() == q_len && dk.len() == kv_len && dv.len() == kv_len, "attention_backward: sizes of dq, dk, dv");
    assert_eq!(stats.len(), shape.stats_len(), "attention_backward: size of stats");
    let saved = &Saved { q, k, v, out, stats, dout };
    if ctx.isa() == Isa::Scalar {
        in_profile!(ctx.profile(), FUSED => reference::backward::<FUSED>(ctx, shape, saved, dq, dk, dv));
    } else {
        blocked::backward(ctx, shape, saved, dq, dk, dv);
    }
    slip("attention_backward", dk);
}

#[cfg(test)]
mod tests;

//! The AdamW element update (Loshchilov & Hutter, arXiv:1711.05101), with an operation order fixed by the contract.

use crate::Context;
use crate::arch::{LANES, Lanes, lanes_kernel};
use crate::elementwise::CHUNK;
use crate::fault::slip;

/// The scalars of one AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, multiplied by `lr`.
    pub weight_decay: f32,
    /// 1 − beta1ᵗ, with t counted from 1.
    pub bias1: f32,
    /// 1 − beta2ᵗ, with t counted from 1.
    pub bias2: f32,
}

impl AdamwStep {
    /// Makes the scalars of step `t`, counted from 1. Powers are repeated multiplication in f64, in order.
    pub fn new(t: u64, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32) -> AdamwStep {
        let power = |beta: f32| (0..t.min(1_000_000)).fold(1.0f64, |power, _| power * f64::from(beta));
        AdamwStep {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            bias1: (1.0 - power(beta1)) as f32,
            bias2: (1.0 - power(beta2)) as f32,
        }
    }
}

/// Updates parameters and both moments in place:
/// `m = β₁m + (1−β₁)g`, `v = β₂v + (1−β₂)g²`, `p = p(1 − lr·wd) − lr/b₁ · m / (√v / √b₂ + eps)`.
///
/// Cost: 28 bytes per parameter.
///
/// # Panics
/// When the lengths differ.
pub fn adamw_update(ctx: &Context, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32], step: AdamwStep) {
    let len = params.len();
    assert!(grads.len() == len && m.len() == len && v.len() == len, "adamw_update of different lengths");
    let work = params.chunks_mut(CHUNK).zip(grads.chunks(CHUNK)).zip(m.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK)));
    ctx.threads().for_each(work.collect(), |((p, g), (m, v))| update_chunk(ctx.variant(), p, g, m, v, step));
    slip("adamw_update", params);
}

lanes_kernel! {
    fn update_chunk<'a>(s; p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], v: &'a mut [f32], step: AdamwStep) {
        let constants = Constants {
            beta1: s.splat(step.beta1),
            rest1: s.splat(1.0 - step.beta1),
            beta2: s.splat(step.beta2),
            rest2: s.splat(1.0 - step.beta2),
            keep: s.splat(1.0 - step.lr * step.weight_decay),
            rate: s.splat(-(step.lr / step.bias1)),
            root: s.splat(1.0 / step.bias2.sqrt()),
            eps: s.splat(step.eps),
        };
        let groups = p.chunks_mut(LANES).zip(g.chunks(LANES)).zip(m.chunks_mut(LANES).zip(v.chunks_mut(LANES)));
        for ((p, g), (m, v)) in groups {
            let old = Values { p: s.load_or(p, 0.0), m: s.load_or(m, 0.0), v: s.load_or(v, 0.0) };
            let new = update(s, &constants, old, s.load_or(g, 0.0));
            s.store_some(new.p, p);
            s.store_some(new.m, m);
            s.store_some(new.v, v);
        }
    }
}

struct Constants<F> {
    beta1: F,
    rest1: F,
    beta2: F,
    rest2: F,
    keep: F,
    rate: F,
    root: F,
    eps: F,
}

struct Values<F> {
    p: F,
    m: F,
    v: F,
}

#[inline(always)]
fn update<S: Lanes>(s: S, c: &Constants<S::F>, old: Values<S::F>, g: S::F) -> Values<S::F> {
    let m = s.mul_add(c.beta1, old.m, s.mul(c.rest1, g));
    let v = s.mul_add(c.beta2, old.v, s.mul(s.mul(c.rest2, g), g));
    let denominator = s.mul_add(s.sqrt(v), c.root, c.eps);
    let p = s.mul_add(c.rate, s.div(m, denominator), s.mul(old.p, c.keep));
    Values { p, m, v }
}

//! The cases of transcendental functions, random numbers and reductions.

use super::inputs::Inputs;
use super::{Digest, Kernel};
use crate::arch::{LANES, lanes_kernel};
use crate::math::{self, cos_f64, exp_f64, exp_lanes, ln_f64, sigmoid_lanes, sin_f64, tanh_f64};
use crate::random::Stream;
use crate::reduce::{self, dot_lanes, max_lanes, sum_lanes};
use crate::{Context, is_finite};

/// The cases, lower kernels first.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel { name: "exp", built_on: &[], compute: exp },
    Kernel { name: "sigmoid", built_on: &["exp"], compute: sigmoid },
    Kernel { name: "exp_f64", built_on: &[], compute: wide_exp },
    Kernel { name: "ln", built_on: &[], compute: ln },
    Kernel { name: "sin", built_on: &[], compute: sin },
    Kernel { name: "cos", built_on: &[], compute: cos },
    Kernel { name: "tanh", built_on: &["exp_f64"], compute: tanh },
    Kernel { name: "powf", built_on: &["exp_f64", "ln"], compute: powf },
    Kernel { name: "sqrt", built_on: &[], compute: |_, digest| scalar("sqrt", digest, math::sqrt) },
    Kernel { name: "rsqrt", built_on: &[], compute: |_, digest| scalar("rsqrt", digest, math::rsqrt) },
    Kernel { name: "random_bits", built_on: &[], compute: random_bits },
    Kernel { name: "random_normal", built_on: &["random_bits", "ln", "sin", "cos"], compute: random_normal },
    Kernel { name: "row_sum", built_on: &[], compute: row_sum },
    Kernel { name: "row_dot", built_on: &[], compute: row_dot },
    Kernel { name: "row_max", built_on: &[], compute: row_max },
    Kernel { name: "is_finite", built_on: &[], compute: finite },
];

/// Lengths of rows: single, short of a vector, whole, with a tail, several chunks.
const LENGTHS: [usize; 6] = [1, 15, 16, 17, 333, 2051];

fn scalar(name: &str, digest: &mut Digest, function: impl Fn(f32) -> f32) {
    let results: Vec<f32> = Inputs::new(name).sweep().into_iter().map(function).collect();
    digest.values(&results);
}

/// Hashes an f64 function over the sweep and over numbers that f32 cannot hold, kept to those that `accepts`.
fn wide(name: &str, digest: &mut Digest, accepts: impl Fn(f64) -> bool, function: impl Fn(f64) -> f64) {
    let mut inputs = Inputs::new(name);
    let sweep = inputs.sweep();
    let fractions = (0..2000).map(|_| (inputs.bits() >> 11) as f64 / 9_007_199_254_740_992.0 * 200.0 - 100.0);
    for x in sweep.into_iter().map(f64::from).chain(fractions).filter(|x| accepts(*x)) {
        digest.wide(function(x));
    }
}

fn exp(ctx: &Context, digest: &mut Digest) {
    vector("exp", ctx, digest, true, |x| math::exp(ctx.profile(), x));
}

fn sigmoid(ctx: &Context, digest: &mut Digest) {
    vector("sigmoid", ctx, digest, false, |x| math::sigmoid(ctx.profile(), x));
}

/// Hashes the vector form of a function and its scalar form.
fn vector(name: &str, ctx: &Context, digest: &mut Digest, is_exp: bool, function: impl Fn(f32) -> f32) {
    let x = Inputs::new(name).sweep();
    let mut out = vec![0.0; x.len()];
    exponentials(ctx.variant(), &x, &mut out, is_exp);
    digest.values(&out);
    scalar(name, digest, function);
}

lanes_kernel! {
    fn exponentials<'a>(s; x: &'a [f32], out: &'a mut [f32], is_exp: bool) {
        for (x, out) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
            let x = s.load_or(x, 0.0);
            let value = if is_exp { exp_lanes(s, x) } else { sigmoid_lanes(s, x) };
            s.store_some(value, out);
        }
    }
}

fn wide_exp(_: &Context, digest: &mut Digest) {
    wide("exp_f64", digest, |_| true, exp_f64);
}

fn ln(_: &Context, digest: &mut Digest) {
    wide("ln", digest, |x| x.is_finite() && x > 0.0, ln_f64);
    scalar("ln", digest, math::ln);
}

/// Arguments that the trigonometric functions are made for: below 2³⁰.
fn near(x: f64) -> bool {
    x.abs() <= 1_073_741_824.0
}

fn sin(_: &Context, digest: &mut Digest) {
    wide("sin", digest, near, sin_f64);
    scalar("sin", digest, |x| if near(f64::from(x)) { math::sin(x) } else { 0.0 });
}

fn cos(_: &Context, digest: &mut Digest) {
    wide("cos", digest, near, cos_f64);
    scalar("cos", digest, |x| if near(f64::from(x)) { math::cos(x) } else { 0.0 });
}

fn tanh(_: &Context, digest: &mut Digest) {
    wide("tanh", digest, |_| true, tanh_f64);
    scalar("tanh", digest, math::tanh);
}

fn powf(_: &Context, digest: &mut Digest) {
    for y in [0.0, 0.5, -0.37, 2.0, 13.7, -150.0] {
        scalar("powf", digest, |x| math::powf(x, y));
    }
}

fn random_bits(_: &Context, digest: &mut Digest) {
    for purpose in ["init", "data"] {
        let mut stream = Stream::new([7; 32], purpose);
        digest.integers(&std::array::from_fn::<u32, 1001, _>(|_| stream.next_u32()));
        stream.seek(u64::MAX);
        let uniform: Vec<f32> = (0..300).map(|_| stream.uniform()).collect();
        digest.values(&uniform);
        for n in [1, 2, 7, 1000, (1 << 63) + 1] {
            let drawn = stream.below(n);
            digest.integers(&[drawn as u32, (drawn >> 32) as u32]);
        }
    }
}

fn random_normal(_: &Context, digest: &mut Digest) {
    let mut values = vec![0.0; 3001];
    Stream::new([9; 32], "init").fill_normal(0.02, &mut values);
    digest.values(&values);
}

fn row_sum(ctx: &Context, digest: &mut Digest) {
    rows("row_sum", ctx, digest, 0);
    let x = Inputs::new("row_sum").values(333);
    digest.values(&[reduce::sum(&x)]);
}

fn row_dot(ctx: &Context, digest: &mut Digest) {
    rows("row_dot", ctx, digest, 1);
    let mut inputs = Inputs::new("row_dot");
    let (x, y) = (inputs.values(333), inputs.values(333));
    digest.values(&[reduce::dot(ctx.profile(), &x, &y)]);
    // No large number hides how the small ones are rounded.
    let (x, y) = (inputs.plain(333), inputs.plain(333));
    digest.values(&[reduction(ctx.variant(), &x, &y, 1), reduce::dot(ctx.profile(), &x, &y)]);
}

fn row_max(ctx: &Context, digest: &mut Digest) {
    rows("row_max", ctx, digest, 2);
}

fn rows(name: &str, ctx: &Context, digest: &mut Digest, which: usize) {
    let mut inputs = Inputs::new(name);
    for len in LENGTHS {
        let (x, y) = (inputs.values(len), inputs.values(len));
        digest.values(&[reduction(ctx.variant(), &x, &y, which)]);
        if which < 2 {
            let x = inputs.with_specials(len);
            digest.values(&[reduction(ctx.variant(), &x, &y, which)]);
        }
    }
}

lanes_kernel! {
    fn reduction<'a>(s; x: &'a [f32], y: &'a [f32], which: usize) -> f32 {
        match which {
            0 => sum_lanes(s, x),
            1 => dot_lanes(s, x, y),
            _ => max_lanes(s, x),
        }
    }
}

fn finite(ctx: &Context, digest: &mut Digest) {
    for len in LENGTHS {
        let mut x = Inputs::new("is_finite").values(len);
        digest.integers(&[u32::from(is_finite(ctx, &x))]);
        for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            x[len / 2] = special;
            digest.integers(&[u32::from(is_finite(ctx, &x))]);
        }
    }
}

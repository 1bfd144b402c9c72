//! Transcendental functions on the contract's operations: the same bits on every machine, never the platform's libm.
//!
//! [`exp`] and [`sigmoid`] have a vector form with the same bits, used by softmax and SwiGLU, and a value in each profile. The others are rare (once per row, or
//! once per table) and are computed in f64 with polynomials, then rounded once, so they are within half a unit in the last
//! place and a hair. Sources: Cephes `expf` for the f32 polynomial; Taylor series and Cody–Waite reduction for the f64 forms.

mod half;
mod wide;

pub use half::{bf16_to_f32, f16_to_f32, f32_to_f16};
pub(crate) use wide::ln as ln_f64;
pub(crate) use wide::{cos as cos_f64, exp as exp_f64, sin as sin_f64, tanh as tanh_f64};

use crate::arch::{Lanes, One};
use crate::fault::{slip_f32, slip_lanes};
use crate::profile::{Profile, in_profile};

/// Largest error of [`exp`] in units in the last place (tested against f64).
pub const EXP_MAX_ULP: f64 = 1.1;
/// Largest error of [`sigmoid`] for `x >= -87` in units in the last place (tested against f64).
pub const SIGMOID_MAX_ULP: f64 = 2.6;
/// Largest error of [`rsqrt`] in units in the last place (tested against f64, for every mantissa).
pub const RSQRT_MAX_ULP: f64 = 1.5;
/// Largest error of [`ln`], [`sin`], [`cos`], [`tanh`] and [`powf`] in units in the last place (tested against f64).
pub const ROUNDED_MAX_ULP: f64 = 0.501;

/// Computes eˣ. Overflows to infinity, underflows gradually; NaN stays NaN. Error below [`EXP_MAX_ULP`].
pub fn exp(profile: Profile, x: f32) -> f32 {
    in_profile!(profile, FUSED => exp_lanes(One::<FUSED>, x))
}

/// Computes 1 / (1 + e⁻ˣ). Error below [`SIGMOID_MAX_ULP`] for `x >= -87`; below -88.7 the result is zero.
pub fn sigmoid(profile: Profile, x: f32) -> f32 {
    in_profile!(profile, FUSED => sigmoid_lanes(One::<FUSED>, x))
}

/// Computes the natural logarithm. Error below [`ROUNDED_MAX_ULP`]. Zero gives -infinity, a negative number NaN.
pub fn ln(x: f32) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x == f32::INFINITY {
        return x;
    }
    wide::ln(f64::from(x)) as f32
}

/// Computes the sine of `x` radians; error below [`ROUNDED_MAX_ULP`] for |x| up to 10⁶. Infinite input gives NaN.
pub fn sin(x: f32) -> f32 {
    wide::sin(f64::from(x)) as f32
}

/// Computes the cosine of `x` radians; error below [`ROUNDED_MAX_ULP`] for |x| up to 10⁶. Infinite input gives NaN.
pub fn cos(x: f32) -> f32 {
    wide::cos(f64::from(x)) as f32
}

/// Computes the hyperbolic tangent. Error below [`ROUNDED_MAX_ULP`].
pub fn tanh(x: f32) -> f32 {
    wide::tanh(f64::from(x)) as f32
}

/// Computes xʸ for `x >= 0` as e^(y·ln x). Error below [`ROUNDED_MAX_ULP`] where |y·ln x| is at most 88; a negative base gives NaN.
pub fn powf(x: f32, y: f32) -> f32 {
    if y == 0.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 || x == f32::INFINITY {
        return if (x == 0.0) == (y > 0.0) { 0.0 } else { f32::INFINITY };
    }
    slip_f32("powf", wide::exp(f64::from(y) * wide::ln(f64::from(x))) as f32)
}

/// Computes √x, correctly rounded.
pub fn sqrt(x: f32) -> f32 {
    slip_f32("sqrt", x.sqrt())
}

/// Computes 1 / √x as two correctly rounded operations; never the processor's approximation. Error below [`RSQRT_MAX_ULP`].
pub fn rsqrt(x: f32) -> f32 {
    slip_f32("rsqrt", 1.0 / x.sqrt())
}

/// The vector form of [`exp`].
#[inline(always)]
pub(crate) fn exp_lanes<S: Lanes>(s: S, x: S::F) -> S::F {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer and leaves it in the low bits
    let x = s.max(s.splat(-105.0), x);
    let x = s.min(s.splat(89.0), x);
    let shifted = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(MAGIC));
    let n = s.sub(shifted, s.splat(MAGIC));
    let r = s.mul_add(n, s.splat(-0.693_359_4), x);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let p = s.splat(1.987_569_1e-4);
    let p = s.mul_add(p, r, s.splat(1.398_199_9e-3));
    let p = s.mul_add(p, r, s.splat(8.333_452e-3));
    let p = s.mul_add(p, r, s.splat(4.166_579_6e-2));
    let p = s.mul_add(p, r, s.splat(1.666_666_5e-1));
    let p = s.mul_add(p, r, s.splat(0.5));
    let p = s.mul_add(p, s.mul(r, r), r);
    let p = s.add(p, s.splat(1.0));
    // 2ⁿ in two factors, so that results down to the smallest subnormal are rounded once.
    let n = s.sub_i(s.bits(shifted), s.splat_i(MAGIC.to_bits() as i32));
    let half = s.half_i(n);
    let rest = s.sub_i(n, half);
    let p = s.mul(p, power_of_two(s, half));
    slip_lanes(s, "exp", s.mul(p, power_of_two(s, rest)))
}

/// The vector form of [`sigmoid`].
#[inline(always)]
pub(crate) fn sigmoid_lanes<S: Lanes>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    slip_lanes(s, "sigmoid", s.div(one, s.add(one, exp_lanes(s, s.mul(x, s.splat(-1.0))))))
}

#[inline(always)]
fn power_of_two<S: Lanes>(s: S, n: S::I) -> S::F {
    s.floats(s.to_exponent_i(s.add_i(n, s.splat_i(127))))
}

#[cfg(test)]
mod tests;

//! The f64 forms, on mul_add, add, multiply and divide only.

use crate::fault::slip_f64;

const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²

/// eˣ; error about one unit in the last place of f64 in the normal range of f32.
pub(crate) fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let x = x.clamp(-800.0, 800.0);
    let shifted = x.mul_add(std::f64::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(-6.931_471_803_691_238e-1, x);
    let r = n.mul_add(-1.908_214_929_270_587_7e-10, r);
    let mut sum = 1.0;
    for i in (1..=14).rev() {
        sum = (sum * r / f64::from(i)) + 1.0;
    }
    let n = (shifted.to_bits() as i64).wrapping_sub(SHIFT.to_bits() as i64);
    let half = n >> 1;
    slip_f64("exp_f64", sum * power_of_two(half) * power_of_two(n - half))
}

/// The natural logarithm of a positive, finite, normal number.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // Cut at √½, so that the mantissa lies in [√½, √2).
    let offset = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let exponent = (offset as i64) >> 52;
    let mantissa = f64::from_bits(bits.wrapping_sub((exponent as u64) << 52));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for i in (1..=12).rev() {
        sum = (sum + 1.0 / f64::from(2 * i + 1)) * square;
    }
    let log = 2.0 * s.mul_add(sum, s);
    let n = exponent as f64;
    slip_f64("ln", n.mul_add(6.931_471_803_691_238e-1, n.mul_add(1.908_214_929_270_587_7e-10, log)))
}

/// The sine, for |x| up to 2³⁰.
pub(crate) fn sin(x: f64) -> f64 {
    let (r, quadrant) = reduce(x);
    let sine = match quadrant {
        0 => sin_near_zero(r),
        1 => cos_near_zero(r),
        2 => -sin_near_zero(r),
        _ => -cos_near_zero(r),
    };
    slip_f64("sin", sine)
}

/// The cosine, for |x| up to 2³⁰.
pub(crate) fn cos(x: f64) -> f64 {
    let (r, quadrant) = reduce(x);
    let cosine = match quadrant {
        0 => cos_near_zero(r),
        1 => -sin_near_zero(r),
        2 => -cos_near_zero(r),
        _ => sin_near_zero(r),
    };
    slip_f64("cos", cosine)
}

/// The hyperbolic tangent.
pub(crate) fn tanh(x: f64) -> f64 {
    if x.abs() < 0.02 {
        let q = x * x;
        let series = q.mul_add(62.0 / 2835.0, -17.0 / 315.0).mul_add(q, 2.0 / 15.0).mul_add(q, -1.0 / 3.0);
        return x.mul_add(q * series, x);
    }
    let e = exp(-2.0 * x.abs());
    slip_f64("tanh", ((1.0 - e) / (1.0 + e)).copysign(x))
}

fn power_of_two(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// Takes multiples of π/2 off: the rest in [-π/4, π/4] and the quadrant 0..4.
fn reduce(x: f64) -> (f64, u64) {
    let shifted = x.mul_add(std::f64::consts::FRAC_2_PI, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(-std::f64::consts::FRAC_PI_2, x);
    let r = n.mul_add(-6.123_233_995_736_766e-17, r);
    (r, shifted.to_bits() & 3)
}

fn sin_near_zero(r: f64) -> f64 {
    let square = r * r;
    let mut sum = 1.0;
    for i in (1..=9).rev() {
        sum = (-square / f64::from(2 * i * (2 * i + 1))).mul_add(sum, 1.0);
    }
    sum * r
}

fn cos_near_zero(r: f64) -> f64 {
    let square = r * r;
    let mut sum = 1.0;
    for i in (1..=9).rev() {
        sum = (-square / f64::from((2 * i - 1) * (2 * i))).mul_add(sum, 1.0);
    }
    sum
}

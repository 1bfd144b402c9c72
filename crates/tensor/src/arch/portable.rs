//! The portable lanes: the reference for every other implementation, and the fallback where none applies.

use super::{LANES, Lanes, Tile, micro_tile};
use crate::math::f16_to_f32;

/// Sixteen lanes as an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable<const FUSED: bool>;

/// A single lane, for scalar uses of the vector functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct One<const FUSED: bool>;

/// Whether every processor of this target has a fused multiply-add, so that `f32::mul_add` is an instruction, not a call of libm.
const HAS_FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// A fold step, `a·b + c`: rounded once when `FUSED`, otherwise after the product and after the sum.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    match (FUSED, HAS_FUSED) {
        (false, _) => a * b + c,
        (true, true) => a.mul_add(b, c),
        (true, false) => exact_multiply_add(a, b, c),
    }
}

/// `a·b + c`, rounded once, from f64 operations that vectorise.
///
/// The product of two f32 is exact in f64. The sum is rounded to odd, which the second rounding, to f32, cannot spoil (Boldo &
/// Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008): its error is found
/// by Knuth's two-sum, and an inexact sum with an even last bit moves one unit towards the error.
#[inline(always)]
fn exact_multiply_add(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let high = sum - product;
    let error = (product - (sum - high)) + (c - high);
    let bits = sum.to_bits();
    // With an infinity or a NaN the error is NaN, and nothing moves.
    let inexact = (error < 0.0) | (error > 0.0);
    let step = if (error > 0.0) == (sum > 0.0) { 1u64 } else { u64::MAX };
    let moved = bits.wrapping_add(if inexact & (bits & 1 == 0) { step } else { 0 });
    f64::from_bits(moved) as f32
}

macro_rules! map {
    (|$i:ident| $value:expr) => {
        std::array::from_fn(
            #[inline(always)]
            |$i| $value,
        )
    };
}

impl<const FUSED: bool> Lanes for Portable<FUSED> {
    const WIDTH: usize = LANES;
    const TILE_ROWS: usize = 6;
    const TILE_COLS: usize = 16;
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 64];
    const QUANTISED_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = &x[..LANES];
        map!(|i| x[i])
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32]) {
        out[..LANES].copy_from_slice(&v);
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        map!(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        map!(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        map!(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        map!(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        map!(|i| multiply_add::<FUSED>(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        map!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        map!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        map!(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        map!(|i| a[i].to_bits() as i32)
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        map!(|i| f32::from_bits(a[i] as u32))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        map!(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        map!(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn half_i(self, a: Self::I) -> Self::I {
        map!(|i| a[i] >> 1)
    }
    #[inline(always)]
    fn to_exponent_i(self, a: Self::I) -> Self::I {
        map!(|i| a[i] << 23)
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> Self::B {
        *x
    }
    #[inline(always)]
    fn low_nibbles(self, a: Self::B) -> Self::B {
        a.map(|code| code & 15)
    }
    #[inline(always)]
    fn high_nibbles(self, a: Self::B) -> Self::B {
        a.map(|code| code >> 4)
    }
    #[inline(always)]
    fn dot_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        map!(|i| sum[i] + dot_bytes(&codes[4 * i..4 * i + 4], x[i], 0))
    }
    #[inline(always)]
    fn start_offset(self, _sum: i32) -> Self::I {
        [0; LANES]
    }
    #[inline(always)]
    fn dot_offset(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        map!(|i| sum[i] + dot_bytes(&codes[4 * i..4 * i + 4], x[i], 128))
    }
    #[inline(always)]
    fn float_i(self, a: Self::I) -> Self::F {
        map!(|i| a[i] as f32)
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; LANES]) -> Self::F {
        map!(|i| f16_to_f32(x[i]))
    }
    #[inline(always)]
    unsafe fn tile(self, rows: usize, tile: Tile) {
        // SAFETY: the caller's promise is passed on.
        unsafe { micro_tile!(self, rows, tile, 1, 16, [1, 2, 3, 4, 5, 6]) }
    }
}

impl<const FUSED: bool> Lanes for One<FUSED> {
    const WIDTH: usize = 1;
    const TILE_ROWS: usize = 1;
    const TILE_COLS: usize = 1;
    type F = f32;
    type I = i32;
    type B = ();
    const QUANTISED_ROWS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> f32 {
        x[0]
    }
    #[inline(always)]
    fn store(self, v: f32, out: &mut [f32]) {
        out[0] = v;
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        multiply_add::<FUSED>(a, b, c)
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn sqrt(self, a: f32) -> f32 {
        a.sqrt()
    }
    #[inline(always)]
    fn bits(self, a: f32) -> i32 {
        a.to_bits() as i32
    }
    #[inline(always)]
    fn floats(self, a: i32) -> f32 {
        f32::from_bits(a as u32)
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> i32 {
        x
    }
    #[inline(always)]
    fn add_i(self, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn sub_i(self, a: i32, b: i32) -> i32 {
        a.wrapping_sub(b)
    }
    #[inline(always)]
    fn half_i(self, a: i32) -> i32 {
        a >> 1
    }
    #[inline(always)]
    fn to_exponent_i(self, a: i32) -> i32 {
        a << 23
    }
    fn load_bytes(self, _x: &[u8; 64]) {
        unreachable!("{NO_BYTES}")
    }
    fn low_nibbles(self, _a: ()) {
        unreachable!("{NO_BYTES}")
    }
    fn high_nibbles(self, _a: ()) {
        unreachable!("{NO_BYTES}")
    }
    fn dot_nibbles(self, _codes: (), _x: i32, _sum: i32) -> i32 {
        unreachable!("{NO_BYTES}")
    }
    fn start_offset(self, _sum: i32) -> i32 {
        unreachable!("{NO_BYTES}")
    }
    fn dot_offset(self, _codes: (), _x: i32, _sum: i32) -> i32 {
        unreachable!("{NO_BYTES}")
    }
    #[inline(always)]
    fn float_i(self, a: i32) -> f32 {
        a as f32
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; LANES]) -> f32 {
        f16_to_f32(x[0])
    }
    unsafe fn tile(self, _rows: usize, _tile: Tile) {
        unreachable!("a single lane has no product tile")
    }
}

/// Why a single lane has no byte operations.
const NO_BYTES: &str = "quantised products run on whole vectors";

/// `Σ (code - offset) · x` over four codes and the four signed bytes of `x`, the lowest first.
#[inline(always)]
fn dot_bytes(codes: &[u8], x: i32, offset: i32) -> i32 {
    let x = x.to_le_bytes();
    (0..4).map(|i| (i32::from(codes[i]) - offset) * i32::from(x[i] as i8)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_software_multiply_add_is_the_fused_one() {
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for i in 0..4_000_000 {
            let (a, b, mut c) = (f32::from_bits(draw()), f32::from_bits(draw()), f32::from_bits(draw()));
            match i % 4 {
                // Cancellation and ties: the addend near the product, or half a unit beside it.
                0 => c = -(a * b),
                1 => c = f32::from_bits((a * b).to_bits() ^ (draw() & 3)),
                2 => c = a * b * f32::from_bits(0x3380_0000 + (draw() & 0x0380_0000)),
                _ => {}
            }
            let (got, expected) = (exact_multiply_add(a, b, c), a.mul_add(b, c));
            assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{a:e} · {b:e} + {c:e}");
        }
    }
}

//! Lanes for WebAssembly with simd128, which has no fused multiply-add: the profile that wants one computes it
//! exactly in f64.

use std::arch::wasm32::*;

use super::{LANES, Lanes, Tile, micro_tile};
use crate::math::f16_to_f32;

/// The instruction set that this program was compiled for; a module that uses it loads only where it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Simd128<const FUSED: bool>;

macro_rules! each {
    (|$i:ident| $call:expr) => {
        std::array::from_fn(
            #[inline(always)]
            |$i| $call,
        )
    };
}

macro_rules! pairwise {
    ($name:ident, $intrinsic:ident, $type:ident) => {
        #[inline(always)]
        fn $name(self, a: Self::$type, b: Self::$type) -> Self::$type {
            each!(|i| $intrinsic(a[i], b[i]))
        }
    };
}

impl<const FUSED: bool> Lanes for Simd128<FUSED> {
    const WIDTH: usize = LANES;
    const TILE_ROWS: usize = 3;
    const TILE_COLS: usize = 16;
    type F = [v128; 4];
    type I = [v128; 4];
    type B = [v128; 4];
    const QUANTISED_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [f32x4_splat(x); 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = &x[..LANES];
        // SAFETY: four values from `4 · i` lie in the slice.
        each!(|i| unsafe { v128_load(x.as_ptr().add(4 * i).cast()) })
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32]) {
        let out = &mut out[..LANES];
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: four values from `4 · i` lie in the slice.
            unsafe { v128_store(out.as_mut_ptr().add(4 * i).cast(), v) }
        }
    }
    pairwise!(add, f32x4_add, F);
    pairwise!(sub, f32x4_sub, F);
    pairwise!(mul, f32x4_mul, F);
    pairwise!(div, f32x4_div, F);
    pairwise!(add_i, i32x4_add, I);
    pairwise!(sub_i, i32x4_sub, I);
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        if !FUSED {
            return self.add(self.mul(a, b), c);
        }
        each!(|i| multiply_add_4(a[i], b[i], c[i]))
    }
    // `pmax(x, y)` is `x < y ? y : x`, and `pmin(x, y)` is `y < x ? y : x`.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each!(|i| f32x4_pmax(b[i], a[i]))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each!(|i| f32x4_pmin(b[i], a[i]))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        each!(|i| f32x4_sqrt(a[i]))
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        a
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        a
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [i32x4_splat(x); 4]
    }
    #[inline(always)]
    fn half_i(self, a: Self::I) -> Self::I {
        each!(|i| i32x4_shr(a[i], 1))
    }
    #[inline(always)]
    fn to_exponent_i(self, a: Self::I) -> Self::I {
        each!(|i| i32x4_shl(a[i], 23))
    }
    #[inline(always)]
    fn sum_lanes(self, v: Self::F) -> f32 {
        let v = f32x4_add(f32x4_add(v[0], v[2]), f32x4_add(v[1], v[3]));
        let v = f32x4_add(v, i32x4_shuffle::<2, 3, 2, 3>(v, v));
        f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v)
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> Self::B {
        // SAFETY: sixteen bytes from `16 · i` lie in the array.
        each!(|i| unsafe { v128_load(x.as_ptr().add(16 * i).cast()) })
    }
    #[inline(always)]
    fn low_nibbles(self, a: Self::B) -> Self::B {
        each!(|i| v128_and(a[i], i8x16_splat(15)))
    }
    #[inline(always)]
    fn high_nibbles(self, a: Self::B) -> Self::B {
        each!(|i| u8x16_shr(a[i], 4))
    }
    #[inline(always)]
    fn dot_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        each!(|i| i32x4_add(sum[i], dot_signed(codes[i], x[i])))
    }
    #[inline(always)]
    fn start_offset(self, _sum: i32) -> Self::I {
        self.splat_i(0)
    }
    #[inline(always)]
    fn dot_offset(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        self.dot_nibbles(each!(|i| v128_xor(codes[i], u8x16_splat(128))), x, sum)
    }
    #[inline(always)]
    fn float_i(self, a: Self::I) -> Self::F {
        each!(|i| f32x4_convert_i32x4(a[i]))
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; LANES]) -> Self::F {
        self.load(&x.map(f16_to_f32))
    }
    #[inline(always)]
    unsafe fn tile(self, rows: usize, tile: Tile) {
        // SAFETY: the caller's promise is passed on.
        unsafe { micro_tile!(self, rows, tile, 1, 16, [1, 2, 3]) }
    }
}

/// The sums of four products of signed bytes for each of four lanes; a product fits 16 bits.
#[inline(always)]
fn dot_signed(a: v128, b: v128) -> v128 {
    let low = i32x4_extadd_pairwise_i16x8(i16x8_extmul_low_i8x16(a, b));
    let high = i32x4_extadd_pairwise_i16x8(i16x8_extmul_high_i8x16(a, b));
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high))
}

/// `a·b + c`, rounded once.
#[inline(always)]
fn multiply_add_4(a: v128, b: v128, c: v128) -> v128 {
    let high = |v: v128| i32x4_shuffle::<2, 3, 2, 3>(v, v);
    i32x4_shuffle::<0, 1, 4, 5>(multiply_add_2(a, b, c), multiply_add_2(high(a), high(b), high(c)))
}

/// The first two lanes of `a·b + c`: exact product and sum rounded to odd in f64, as the portable lanes do it.
#[inline(always)]
fn multiply_add_2(a: v128, b: v128, c: v128) -> v128 {
    let [a, b, c] = [a, b, c].map(|v| f64x2_promote_low_f32x4(v));
    let product = f64x2_mul(a, b);
    let sum = f64x2_add(product, c);
    let high = f64x2_sub(sum, product);
    let error = f64x2_add(f64x2_sub(product, f64x2_sub(sum, high)), f64x2_sub(c, high));
    let zero = f64x2_splat(0.0);
    let positive = f64x2_gt(error, zero);
    let inexact = v128_or(f64x2_lt(error, zero), positive);
    let even = i64x2_eq(v128_and(sum, i64x2_splat(1)), i64x2_splat(0));
    // 1 when the error has the sum's sign, else -1.
    let step = v128_or(v128_xor(positive, f64x2_gt(sum, zero)), i64x2_splat(1));
    let moved = i64x2_add(sum, v128_and(v128_and(inexact, even), step));
    f32x4_demote_f64x2_zero(moved)
}

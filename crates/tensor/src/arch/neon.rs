//! NEON lanes for 64-bit ARM, where every processor has them.

use std::arch::aarch64::*;

use super::{LANES, Lanes, Tile, micro_tile};
use crate::math::f16_to_f32;

/// NEON, which belongs to the architecture: no proof is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neon<const FUSED: bool>;

/// Four vectors of four lanes.
type Quad<V> = [V; 4];

/// Expands to one intrinsic on each of the four vectors.
macro_rules! each {
    (|$i:ident| $call:expr) => {
        std::array::from_fn(
            #[inline(always)]
            |$i| {
                // SAFETY: NEON is part of every 64-bit ARM processor; these intrinsics touch no memory.
                #[allow(unused_unsafe)]
                unsafe {
                    $call
                }
            },
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

impl<const FUSED: bool> Lanes for Neon<FUSED> {
    const WIDTH: usize = LANES;
    // 24 accumulators, 4 vectors of B and one of A in 32 registers.
    const TILE_ROWS: usize = 6;
    const TILE_COLS: usize = 16;
    type F = Quad<float32x4_t>;
    type I = Quad<int32x4_t>;
    type B = Quad<uint8x16_t>;
    const QUANTISED_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        each!(|_i| vdupq_n_f32(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = &x[..LANES];
        // SAFETY: four values from `4 · i` lie in the slice.
        std::array::from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32]) {
        let out = &mut out[..LANES];
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: four values from `4 · i` lie in the slice.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), v) }
        }
    }
    pairwise!(add, vaddq_f32, F);
    pairwise!(sub, vsubq_f32, F);
    pairwise!(mul, vmulq_f32, F);
    pairwise!(div, vdivq_f32, F);
    pairwise!(add_i, vaddq_s32, I);
    pairwise!(sub_i, vsubq_s32, I);
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        if !FUSED {
            return self.add(self.mul(a, b), c);
        }
        each!(|i| vfmaq_f32(c[i], a[i], b[i]))
    }
    // The processor's own maximum and minimum treat NaN and zeros otherwise.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each!(|i| vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each!(|i| vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        each!(|i| vsqrtq_f32(a[i]))
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        each!(|i| vreinterpretq_s32_f32(a[i]))
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        each!(|i| vreinterpretq_f32_s32(a[i]))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        each!(|_i| vdupq_n_s32(x))
    }
    #[inline(always)]
    fn half_i(self, a: Self::I) -> Self::I {
        each!(|i| vshrq_n_s32::<1>(a[i]))
    }
    #[inline(always)]
    fn to_exponent_i(self, a: Self::I) -> Self::I {
        each!(|i| vshlq_n_s32::<23>(a[i]))
    }
    #[inline(always)]
    fn sum_lanes(self, v: Self::F) -> f32 {
        // SAFETY: as in `each`.
        #[allow(unused_unsafe)]
        unsafe {
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        }
    }
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        let mut out = rows;
        for down in 0..4 {
            for across in 0..4 {
                let block = transpose_4(std::array::from_fn(|i| rows[4 * down + i][across]));
                for (i, row) in block.into_iter().enumerate() {
                    out[4 * across + i][down] = row;
                }
            }
        }
        out
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> Self::B {
        // SAFETY: sixteen bytes from `16 · i` lie in the array.
        std::array::from_fn(|i| unsafe { vld1q_u8(x.as_ptr().add(16 * i)) })
    }
    #[inline(always)]
    fn low_nibbles(self, a: Self::B) -> Self::B {
        each!(|i| vandq_u8(a[i], vdupq_n_u8(15)))
    }
    #[inline(always)]
    fn high_nibbles(self, a: Self::B) -> Self::B {
        each!(|i| vshrq_n_u8::<4>(a[i]))
    }
    #[inline(always)]
    fn dot_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        each!(|i| vaddq_s32(sum[i], dot_signed(vreinterpretq_s8_u8(codes[i]), vreinterpretq_s8_s32(x[i]))))
    }
    #[inline(always)]
    fn start_offset(self, _sum: i32) -> Self::I {
        self.splat_i(0)
    }
    #[inline(always)]
    fn dot_offset(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        self.dot_nibbles(each!(|i| veorq_u8(codes[i], vdupq_n_u8(128))), x, sum)
    }
    #[inline(always)]
    fn float_i(self, a: Self::I) -> Self::F {
        each!(|i| vcvtq_f32_s32(a[i]))
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; LANES]) -> Self::F {
        self.load(&x.map(f16_to_f32))
    }
    #[inline(always)]
    unsafe fn tile(self, rows: usize, tile: Tile) {
        // SAFETY: the caller's promise is passed on.
        unsafe { micro_tile!(self, rows, tile, 1, 16, [1, 2, 3, 4, 5, 6]) }
    }
}

/// The sums of four products of signed bytes for each of four lanes; a product fits 16 bits.
#[inline(always)]
fn dot_signed(a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as in `each`.
    #[allow(unused_unsafe)]
    unsafe {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
        let high = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
        vpaddq_s32(low, high)
    }
}

/// Transposes 4 × 4.
#[inline(always)]
fn transpose_4(r: Quad<float32x4_t>) -> Quad<float32x4_t> {
    // SAFETY: as in `each`.
    #[allow(unused_unsafe)]
    unsafe {
        let t = [vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]), vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3])];
        let t = t.map(|v| vreinterpretq_f64_f32(v));
        let out = [vtrn1q_f64(t[0], t[2]), vtrn1q_f64(t[1], t[3]), vtrn2q_f64(t[0], t[2]), vtrn2q_f64(t[1], t[3])];
        out.map(|v| vreinterpretq_f32_f64(v))
    }
}

//! AVX2+FMA and AVX-512 lanes for x86-64.

use std::arch::x86_64::*;

use super::{LANES, Lanes, Tile, micro_tile};

/// Proof that this machine has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2<const FUSED: bool>(());

/// Proof that this machine has AVX-512 F, VL, BW, DQ and VNNI. Machines without the last use AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512<const FUSED: bool>(());

impl<const FUSED: bool> Avx2<FUSED> {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Avx2(()))
    }

    /// The same proof for another profile.
    pub(crate) fn in_profile<const OTHER: bool>(self) -> Avx2<OTHER> {
        let Avx2(()) = self;
        Avx2(())
    }
}

impl<const FUSED: bool> Avx512<FUSED> {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let has = Avx2::<FUSED>::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni");
        has.then_some(Avx512(()))
    }

    /// The same proof for another profile.
    pub(crate) fn in_profile<const OTHER: bool>(self) -> Avx512<OTHER> {
        let Avx512(()) = self;
        Avx512(())
    }
}

/// Expands to a call of an intrinsic.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: `self` proves that the instruction set is present (`detect` is the only constructor). Loads and stores go
        // through references to arrays of the vector's size.
        unsafe { $call }
    };
}

macro_rules! pairwise {
    ($name:ident, $intrinsic:ident, $type:ident) => {
        #[inline(always)]
        fn $name(self, a: Self::$type, b: Self::$type) -> Self::$type {
            intrinsic!(($intrinsic(a.0, b.0), $intrinsic(a.1, b.1)))
        }
    };
}

impl<const FUSED: bool> Lanes for Avx2<FUSED> {
    const WIDTH: usize = LANES;
    const TILE_ROWS: usize = 6;
    const TILE_COLS: usize = 16;
    type F = (__m256, __m256);
    type I = (__m256i, __m256i);
    type B = (__m256i, __m256i);
    const QUANTISED_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        intrinsic!((_mm256_set1_ps(x), _mm256_set1_ps(x)))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = &x[..LANES];
        intrinsic!((_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))))
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32]) {
        let out = &mut out[..LANES];
        intrinsic!({
            _mm256_storeu_ps(out.as_mut_ptr(), v.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v.1);
        })
    }
    pairwise!(add, _mm256_add_ps, F);
    pairwise!(sub, _mm256_sub_ps, F);
    pairwise!(mul, _mm256_mul_ps, F);
    pairwise!(div, _mm256_div_ps, F);
    pairwise!(max, _mm256_max_ps, F);
    pairwise!(min, _mm256_min_ps, F);
    pairwise!(add_i, _mm256_add_epi32, I);
    pairwise!(sub_i, _mm256_sub_epi32, I);
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        if !FUSED {
            return self.add(self.mul(a, b), c);
        }
        intrinsic!((_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        intrinsic!((_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1)))
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        intrinsic!((_mm256_castps_si256(a.0), _mm256_castps_si256(a.1)))
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        intrinsic!((_mm256_castsi256_ps(a.0), _mm256_castsi256_ps(a.1)))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        intrinsic!((_mm256_set1_epi32(x), _mm256_set1_epi32(x)))
    }
    #[inline(always)]
    fn half_i(self, a: Self::I) -> Self::I {
        intrinsic!((_mm256_srai_epi32::<1>(a.0), _mm256_srai_epi32::<1>(a.1)))
    }
    #[inline(always)]
    fn to_exponent_i(self, a: Self::I) -> Self::I {
        intrinsic!((_mm256_slli_epi32::<23>(a.0), _mm256_slli_epi32::<23>(a.1)))
    }
    #[inline(always)]
    fn sum_lanes(self, v: Self::F) -> f32 {
        intrinsic!(sum_256(_mm256_add_ps(v.0, v.1)))
    }
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        let quarter = |first: usize, high: bool| -> [__m256; 8] {
            let rows = std::array::from_fn(|i| if high { rows[first + i].1 } else { rows[first + i].0 });
            intrinsic!(transpose_256(rows))
        };
        let (a, b, c, d) = (quarter(0, false), quarter(8, false), quarter(0, true), quarter(8, true));
        std::array::from_fn(|i| if i < 8 { (a[i], b[i]) } else { (c[i - 8], d[i - 8]) })
    }
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    fn prefetch_far(self, address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> Self::B {
        intrinsic!((_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().add(32).cast())))
    }
    #[inline(always)]
    fn low_nibbles(self, a: Self::B) -> Self::B {
        intrinsic!({
            let mask = _mm256_set1_epi8(15);
            (_mm256_and_si256(a.0, mask), _mm256_and_si256(a.1, mask))
        })
    }
    #[inline(always)]
    fn high_nibbles(self, a: Self::B) -> Self::B {
        self.low_nibbles(intrinsic!((_mm256_srli_epi16::<4>(a.0), _mm256_srli_epi16::<4>(a.1))))
    }
    #[inline(always)]
    fn dot_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        // Two products of at most 15 · 127 fit 16 bits.
        intrinsic!({
            let pairs = (_mm256_maddubs_epi16(codes.0, x.0), _mm256_maddubs_epi16(codes.1, x.1));
            self.add_i(sum, add_pairs(pairs))
        })
    }
    #[inline(always)]
    fn fold_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        // Sixteen products of at most 15 · 127 still fit 16 bits: eight words need no wider sums.
        intrinsic!({
            let pairs = (_mm256_maddubs_epi16(codes.0, x.0), _mm256_maddubs_epi16(codes.1, x.1));
            (_mm256_add_epi16(sum.0, pairs.0), _mm256_add_epi16(sum.1, pairs.1))
        })
    }
    #[inline(always)]
    fn nibble_sum(self, sum: Self::I) -> Self::I {
        intrinsic!(add_pairs(sum))
    }
    #[inline(always)]
    fn start_offset(self, _sum: i32) -> Self::I {
        self.splat_i(0)
    }
    #[inline(always)]
    fn dot_offset(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        // The magnitude of a code, at most 128, times x with the code's sign: two products of at most 128 · 127 fit 16 bits.
        intrinsic!({
            let flip = _mm256_set1_epi8(-128);
            let codes = (_mm256_xor_si256(codes.0, flip), _mm256_xor_si256(codes.1, flip));
            let x = (_mm256_sign_epi8(x.0, codes.0), _mm256_sign_epi8(x.1, codes.1));
            let codes = (_mm256_abs_epi8(codes.0), _mm256_abs_epi8(codes.1));
            let pairs = (_mm256_maddubs_epi16(codes.0, x.0), _mm256_maddubs_epi16(codes.1, x.1));
            self.add_i(sum, add_pairs(pairs))
        })
    }
    #[inline(always)]
    fn float_i(self, a: Self::I) -> Self::F {
        intrinsic!((_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)))
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; LANES]) -> Self::F {
        intrinsic!({
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x.as_ptr().add(8).cast());
            (_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        })
    }
    #[inline(always)]
    fn max_lanes(self, v: Self::F) -> f32 {
        intrinsic!(max_256(_mm256_max_ps(v.0, v.1)))
    }
    #[inline(always)]
    fn low_bytes(self, first: Self::I, last: Self::I) -> [i32; 8] {
        intrinsic!(low_bytes_256([first.0, first.1, last.0, last.1]))
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        intrinsic!(sum_i_256(_mm256_add_epi32(a.0, a.1)))
    }
    #[inline(always)]
    unsafe fn tile(self, rows: usize, tile: Tile) {
        // SAFETY: the caller's promise is passed on.
        unsafe { micro_tile!(self, rows, tile, 1, 16, [1, 2, 3, 4, 5, 6]) }
    }
}

macro_rules! wide {
    ($name:ident, $intrinsic:ident, $type:ty) => {
        #[inline(always)]
        fn $name(self, a: $type, b: $type) -> $type {
            intrinsic!($intrinsic(a, b))
        }
    };
}

impl<const FUSED: bool> Lanes for Avx512<FUSED> {
    const WIDTH: usize = LANES;
    const TILE_ROWS: usize = 12;
    const TILE_COLS: usize = 32;
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    const QUANTISED_ROWS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        intrinsic!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = &x[..LANES];
        intrinsic!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32]) {
        let out = &mut out[..LANES];
        intrinsic!(_mm512_storeu_ps(out.as_mut_ptr(), v))
    }
    wide!(add, _mm512_add_ps, __m512);
    wide!(sub, _mm512_sub_ps, __m512);
    wide!(mul, _mm512_mul_ps, __m512);
    wide!(div, _mm512_div_ps, __m512);
    wide!(max, _mm512_max_ps, __m512);
    wide!(min, _mm512_min_ps, __m512);
    wide!(add_i, _mm512_add_epi32, __m512i);
    wide!(sub_i, _mm512_sub_epi32, __m512i);
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        if !FUSED {
            return self.add(self.mul(a, b), c);
        }
        intrinsic!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        intrinsic!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        intrinsic!(_mm512_castps_si512(a))
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        intrinsic!(_mm512_castsi512_ps(a))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        intrinsic!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn half_i(self, a: Self::I) -> Self::I {
        intrinsic!(_mm512_srai_epi32::<1>(a))
    }
    #[inline(always)]
    fn to_exponent_i(self, a: Self::I) -> Self::I {
        intrinsic!(_mm512_slli_epi32::<23>(a))
    }
    #[inline(always)]
    fn load_or(self, x: &[f32], fill: f32) -> Self::F {
        if x.len() >= LANES {
            return self.load(x);
        }
        // SAFETY: as for every intrinsic here; the mask keeps the load inside the slice.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), (1u16 << x.len()) - 1, x.as_ptr()) }
    }
    #[inline(always)]
    fn store_some(self, v: Self::F, out: &mut [f32]) {
        if out.len() >= LANES {
            return self.store(v, out);
        }
        // SAFETY: as for every intrinsic here; the mask keeps the store inside the slice.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), (1u16 << out.len()) - 1, v) }
    }
    #[inline(always)]
    fn sum_lanes(self, v: Self::F) -> f32 {
        intrinsic!({
            let high = _mm512_extractf32x8_ps::<1>(v);
            sum_256(_mm256_add_ps(_mm512_castps512_ps256(v), high))
        })
    }
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        intrinsic!(transpose_512(rows))
    }
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    fn prefetch_far(self, address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> Self::B {
        intrinsic!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn low_nibbles(self, a: Self::B) -> Self::B {
        intrinsic!(_mm512_and_si512(a, _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn high_nibbles(self, a: Self::B) -> Self::B {
        self.low_nibbles(intrinsic!(_mm512_srli_epi16::<4>(a)))
    }
    #[inline(always)]
    fn dot_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        intrinsic!(_mm512_dpbusd_epi32(sum, codes, x))
    }
    #[inline(always)]
    fn start_offset(self, sum: i32) -> Self::I {
        self.splat_i(-128 * sum)
    }
    #[inline(always)]
    fn dot_offset(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        self.dot_nibbles(codes, x, sum)
    }
    #[inline(always)]
    fn float_i(self, a: Self::I) -> Self::F {
        intrinsic!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn load_halves(self, x: &[u16; LANES]) -> Self::F {
        intrinsic!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn max_lanes(self, v: Self::F) -> f32 {
        intrinsic!(max_256(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))))
    }
    #[inline(always)]
    fn low_bytes(self, first: Self::I, last: Self::I) -> [i32; 8] {
        // SAFETY: as for every intrinsic here; 16 bytes each go to an array of 32.
        unsafe {
            let mut words = [0; 8];
            _mm_storeu_si128(words.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(first));
            _mm_storeu_si128(words.as_mut_ptr().add(4).cast(), _mm512_cvtepi32_epi8(last));
            words
        }
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        intrinsic!(sum_i_256(_mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a))))
    }
    #[inline(always)]
    unsafe fn tile(self, rows: usize, tile: Tile) {
        // SAFETY: the caller's promise is passed on.
        unsafe { micro_tile!(self, rows, tile, 2, 32, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) }
    }
}

/// Adds neighbouring pairs of 16-bit integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_pairs(pairs: (__m256i, __m256i)) -> (__m256i, __m256i) {
    let ones = _mm256_set1_epi16(1);
    (_mm256_madd_epi16(pairs.0, ones), _mm256_madd_epi16(pairs.1, ones))
}

/// The lower half of the reduction tree: lane `i` takes `i + 4`, `i + 2`, `i + 1`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_256(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// The largest lane by the tree of [`sum_256`]; of each pair the second where it is not smaller.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn max_256(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// The sum of 8 integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_i_256(a: __m256i) -> i32 {
    let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
    let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b00_00_11_10>(a));
    _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0b00_00_00_01>(a)))
}

/// The low bytes of 32 integers, as words.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn low_bytes_256(lanes: [__m256i; 4]) -> [i32; 8] {
    let low = _mm256_set1_epi32(255);
    let lanes = lanes.map(|lanes| _mm256_and_si256(lanes, low));
    // Both packings work on halves of 128 bits, which the permutation puts in order.
    let first = _mm256_packus_epi32(lanes[0], lanes[1]);
    let last = _mm256_packus_epi32(lanes[2], lanes[3]);
    let bytes = _mm256_packus_epi16(first, last);
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let mut words = [0; 8];
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(bytes, order)) };
    words
}

/// Transposes 8 × 8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transpose_256(r: [__m256; 8]) -> [__m256; 8] {
    let mut t = r;
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..2 {
        let at = 4 * i;
        u[at] = _mm256_shuffle_ps::<0x44>(t[at], t[at + 2]);
        u[at + 1] = _mm256_shuffle_ps::<0xee>(t[at], t[at + 2]);
        u[at + 2] = _mm256_shuffle_ps::<0x44>(t[at + 1], t[at + 3]);
        u[at + 3] = _mm256_shuffle_ps::<0xee>(t[at + 1], t[at + 3]);
    }
    let mut out = u;
    for i in 0..4 {
        out[i] = _mm256_permute2f128_ps::<0x20>(u[i], u[i + 4]);
        out[i + 4] = _mm256_permute2f128_ps::<0x31>(u[i], u[i + 4]);
    }
    out
}

/// Transposes 16 × 16.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
fn transpose_512(r: [__m512; LANES]) -> [__m512; LANES] {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // u[4g + c]: column c of each 4-lane block, for rows 4g..4g+4.
    let mut u = t;
    for i in 0..4 {
        let at = 4 * i;
        u[at] = _mm512_shuffle_ps::<0x44>(t[at], t[at + 2]);
        u[at + 1] = _mm512_shuffle_ps::<0xee>(t[at], t[at + 2]);
        u[at + 2] = _mm512_shuffle_ps::<0x44>(t[at + 1], t[at + 3]);
        u[at + 3] = _mm512_shuffle_ps::<0xee>(t[at + 1], t[at + 3]);
    }
    let mut out = u;
    for c in 0..4 {
        let even_low = _mm512_shuffle_f32x4::<0x88>(u[c], u[4 + c]);
        let odd_low = _mm512_shuffle_f32x4::<0xdd>(u[c], u[4 + c]);
        let even_high = _mm512_shuffle_f32x4::<0x88>(u[8 + c], u[12 + c]);
        let odd_high = _mm512_shuffle_f32x4::<0xdd>(u[8 + c], u[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
    }
    out
}

/// Instantiates a task with AVX2 and FMA enabled.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run_avx2<T: super::Task, const FUSED: bool>(task: T, s: Avx2<FUSED>) -> T::Output {
    task.run(s)
}

/// Instantiates a task with AVX-512 enabled.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn run_avx512<T: super::Task, const FUSED: bool>(task: T, s: Avx512<FUSED>) -> T::Output {
    task.run(s)
}

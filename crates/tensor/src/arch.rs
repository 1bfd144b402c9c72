//! Instruction sets: the witness of what the processor has, and the vector operations the kernels are written in.
//!
//! A kernel is one generic source over [`Lanes`], 16 virtual f32 lanes. [`Variant::run`] instantiates it inside a function that
//! enables the instruction set, so that everything inlines into it. All implementations of an operation are exactly rounded
//! IEEE-754 operations on the same lanes in the same order: the bits are equal by construction. The numeric profile is a constant
//! of the lanes, and decides one operation: the fold step.
//!
//! This is the only module of the workspace with `unsafe`.
#![allow(unsafe_code)]

mod matrix;
mod micro;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::profile::{Profile, in_profile};

pub(crate) use matrix::MatMut;
pub(crate) use micro::{Block, ROW_STRIDE, RowLayout, Strips, Tile, micro, micro_tile, packed_len};
#[cfg(target_arch = "aarch64")]
use neon::Neon;
pub(crate) use portable::{One, Portable, multiply_add};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use wasm::Simd128;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512};

/// Number of virtual lanes: the width that every row reduction of the contract is defined over.
pub(crate) const LANES: usize = 16;

/// An instruction set that this machine was proven to have.
///
/// The choice never changes a result, only its speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Scalar,
    Generic,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<true>),
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
}

impl Isa {
    /// The reference implementation, available everywhere: folds as the contract writes them.
    #[allow(non_upper_case_globals)]
    pub const Scalar: Isa = Isa(Level::Scalar);

    /// The blocked algorithms on portable lanes, for the compiler to vectorise: the fast path of other processors.
    #[allow(non_upper_case_globals)]
    pub const Generic: Isa = Isa(Level::Generic);

    /// Finds the fastest instruction set of this machine.
    pub fn detect() -> Isa {
        Isa::available()[0]
    }

    /// Lists every instruction set of this machine, the fastest first; the last one is [`Isa::Scalar`].
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(Avx512::detect().map(|proof| Isa(Level::Avx512(proof))));
            found.extend(Avx2::detect().map(|proof| Isa(Level::Avx2(proof))));
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Isa(Level::Neon));
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        found.push(Isa(Level::Simd128));
        found.extend([Isa::Generic, Isa::Scalar]);
        found
    }

    /// Returns the name for people, e.g. `avx2`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            Level::Generic => "generic",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128 => "simd128",
        }
    }

    /// Runs `task` instantiated for this instruction set and profile.
    #[inline]
    fn run<T: Task, const FUSED: bool>(self, task: T) -> T::Output {
        match self.0 {
            Level::Scalar | Level::Generic => task.run(Portable::<FUSED>),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the proof shows that the processor has the enabled features.
            Level::Avx2(proof) => unsafe { x86::run_avx2(task, proof.in_profile::<FUSED>()) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the proof shows that the processor has the enabled features.
            Level::Avx512(proof) => unsafe { x86::run_avx512(task, proof.in_profile::<FUSED>()) },
            #[cfg(target_arch = "aarch64")]
            Level::Neon => task.run(Neon::<FUSED>),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128 => task.run(Simd128::<FUSED>),
        }
    }

    /// Rows and columns of the micro-kernel's tile.
    pub(crate) fn tile(self) -> (usize, usize) {
        match self.0 {
            Level::Scalar | Level::Generic => (Portable::<true>::TILE_ROWS, Portable::<true>::TILE_COLS),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => (Avx2::<true>::TILE_ROWS, Avx2::<true>::TILE_COLS),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => (Avx512::<true>::TILE_ROWS, Avx512::<true>::TILE_COLS),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => (Neon::<true>::TILE_ROWS, Neon::<true>::TILE_COLS),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128 => (Simd128::<true>::TILE_ROWS, Simd128::<true>::TILE_COLS),
        }
    }
}

/// One instantiation of every kernel: an instruction set, which changes no result, and a numeric profile, which does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) isa: Isa,
    pub(crate) profile: Profile,
}

impl Variant {
    /// Runs `task` instantiated for this instruction set and profile.
    #[inline]
    pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
        in_profile!(self.profile, FUSED => self.isa.run::<T, FUSED>(task))
    }

    /// Rows and columns of the micro-kernel's tile.
    pub(crate) fn tile(self) -> (usize, usize) {
        self.isa.tile()
    }
}

/// A kernel body, generic over the lanes it runs on.
pub(crate) trait Task {
    /// What the body returns.
    type Output;

    /// Runs the body; implementations are `#[inline(always)]`.
    fn run<S: Lanes>(self, s: S) -> Self::Output;
}

/// Defines a kernel: a function whose first argument is the [`Variant`] and whose body is generic over the named [`Lanes`] value.
macro_rules! lanes_kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$life:lifetime>($s:ident; $($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$life>(variant: $crate::arch::Variant, $($arg: $ty),*) $(-> $out)? {
            struct Call<$life> { $($arg: $ty,)* _life: std::marker::PhantomData<&$life ()> }
            impl<$life> $crate::arch::Task for Call<$life> {
                type Output = lanes_kernel!(@out $($out)?);
                #[inline(always)]
                fn run<Lane: $crate::arch::Lanes>(self, $s: Lane) -> Self::Output {
                    let Call { $($arg,)* _life } = self;
                    $body
                }
            }
            variant.run(Call { $($arg,)* _life: std::marker::PhantomData })
        }
    };
    (@out) => { () };
    (@out $out:ty) => { $out };
}
pub(crate) use lanes_kernel;

/// Elementwise operations on a fixed number of f32 lanes. Every operation rounds once, as IEEE-754 demands, but the
/// fold step of the profile without fused operations, which rounds twice.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// How many lanes a vector has: [`LANES`], or 1 for [`One`].
    const WIDTH: usize;
    /// Rows of the micro-kernel's tile.
    const TILE_ROWS: usize;
    /// Columns of the micro-kernel's tile.
    const TILE_COLS: usize;
    /// A vector of f32.
    type F: Copy;
    /// A vector of i32.
    type I: Copy;

    /// All lanes equal to `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Loads the first [`Lanes::WIDTH`] values of `x`; panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::F;
    /// Stores into the first [`Lanes::WIDTH`] values of `out`; panics when there are fewer.
    fn store(self, v: Self::F, out: &mut [f32]);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// A fold step, `a * b + c`, rounded as the profile of the lanes says.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: the second operand wins on NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: the second operand wins on NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The correctly rounded square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// The bits of each lane.
    fn bits(self, a: Self::F) -> Self::I;
    /// The floats with these bits.
    fn floats(self, a: Self::I) -> Self::F;
    /// All lanes equal to `x`.
    fn splat_i(self, x: i32) -> Self::I;
    /// `a + b`, wrapping.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`, wrapping.
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a >> 1`, keeping the sign.
    fn half_i(self, a: Self::I) -> Self::I;
    /// `a << 23`: moves an integer into the exponent field.
    fn to_exponent_i(self, a: Self::I) -> Self::I;

    /// A vector of bytes: four for each of [`LANES`] lanes.
    type B: Copy;
    /// Rows of activations that a quantised product takes at once.
    const QUANTISED_ROWS: usize;

    /// Loads 64 bytes.
    fn load_bytes(self, x: &[u8; 64]) -> Self::B;
    /// The lower four bits of each byte.
    fn low_nibbles(self, a: Self::B) -> Self::B;
    /// The upper four bits of each byte.
    fn high_nibbles(self, a: Self::B) -> Self::B;
    /// `sum + Σ code · x` over the four bytes of each lane: codes from 0 to 15, `x` four signed bytes from -127 to 127. Exact.
    fn dot_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I;
    /// As [`Lanes::dot_nibbles`], for a fold over at most eight words: `sum` starts at zero and has a form of its own, of which
    /// [`Lanes::nibble_sum`] makes the integers.
    #[inline(always)]
    fn fold_nibbles(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I {
        self.dot_nibbles(codes, x, sum)
    }
    /// The integers of a fold of [`Lanes::fold_nibbles`].
    #[inline(always)]
    fn nibble_sum(self, sum: Self::I) -> Self::I {
        sum
    }
    /// Where a fold of [`Lanes::dot_offset`] starts, for activations whose sum over the whole fold is `sum`.
    fn start_offset(self, sum: i32) -> Self::I;
    /// As [`Lanes::dot_nibbles`] with codes from 0 to 255 that stand for themselves less 128; exact together with
    /// [`Lanes::start_offset`].
    fn dot_offset(self, codes: Self::B, x: Self::I, sum: Self::I) -> Self::I;
    /// The integers as floats, rounded to nearest even.
    fn float_i(self, a: Self::I) -> Self::F;
    /// Loads [`LANES`] finite IEEE 754 binary16 numbers, as their bits.
    fn load_halves(self, x: &[u16; LANES]) -> Self::F;

    /// The low bytes of 32 integers, in order, as 8 words.
    #[inline(always)]
    fn low_bytes(self, first: Self::I, last: Self::I) -> [i32; 8] {
        let lanes = [self.to_array(self.floats(first)), self.to_array(self.floats(last))];
        let byte = |i: usize| lanes[i / LANES][i % LANES].to_bits() as u8;
        std::array::from_fn(|word| i32::from_le_bytes(std::array::from_fn(|i| byte(4 * word + i))))
    }

    /// The sum of the lanes, wrapping.
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        self.to_array(self.floats(a)).iter().fold(0, |sum, lane| sum.wrapping_add(lane.to_bits() as i32))
    }

    /// Computes one tile of a product.
    ///
    /// # Safety
    /// As for [`micro`], with `rows` at most `TILE_ROWS` and `TILE_COLS` columns.
    unsafe fn tile(self, rows: usize, tile: Tile);

    /// Asks for the cache line of an address, which need not be valid; a hint without effect on results.
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        let _ = address;
    }

    /// As [`Lanes::prefetch`], into the second-level cache.
    #[inline(always)]
    fn prefetch_far(self, address: *const f32) {
        let _ = address;
    }

    /// Transposes 16 vectors: lane `j` of row `i` goes to lane `i` of row `j`.
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        let from = rows.map(|row| self.to_array(row));
        std::array::from_fn(|i| self.load(&std::array::from_fn::<f32, LANES, _>(|j| from[j][i])))
    }

    /// Loads up to [`LANES`] values; missing lanes are `fill`.
    #[inline(always)]
    fn load_or(self, x: &[f32], fill: f32) -> Self::F {
        if x.len() >= Self::WIDTH {
            return self.load(x);
        }
        let mut lanes = [fill; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// Stores as many lanes as `out` has room for.
    #[inline(always)]
    fn store_some(self, v: Self::F, out: &mut [f32]) {
        if out.len() >= Self::WIDTH {
            return self.store(v, out);
        }
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        let n = out.len();
        out.copy_from_slice(&lanes[..n]);
    }

    /// The lanes as an array; lanes past [`Lanes::WIDTH`] are zero.
    #[inline(always)]
    fn to_array(self, v: Self::F) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        lanes
    }

    /// Adds the 16 lanes by the fixed tree (8, 4, 2, 1).
    #[inline(always)]
    fn sum_lanes(self, v: Self::F) -> f32 {
        sum_tree(self.to_array(v))
    }

    /// The largest lane.
    #[inline(always)]
    fn max_lanes(self, v: Self::F) -> f32 {
        let mut lanes = self.to_array(v);
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = if lanes[i] > lanes[i + width] { lanes[i] } else { lanes[i + width] };
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// The contract's reduction tree: lane `i` takes lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
#[inline(always)]
pub(crate) fn sum_tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

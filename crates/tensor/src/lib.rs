//! Bit-exact kernels on slices: the compute layer of Cairn and the determinism contract it obeys.
//!
//! Purpose: every kernel gives the same bits for the same inputs on every machine, for every instruction set and every number
//! of threads, so that any peer can replay any unit of work exactly. Kernels are free functions on row-major slices and plain
//! sizes; each takes a [`Context`] first, which names the instruction set ([`Isa`]) and the [`Threads`] to use. Neither choice
//! changes a bit of the result.
//!
//! The contract, in two [`Profile`]s that differ in the first line only:
//! - f32, round to nearest even, subnormals on ([`check_float_environment`]); each fold step is one fused multiply-add (`f32-fma`), or
//!   a product and a sum, each rounded (`f32-muladd`). Nothing else is ever contracted.
//! - A matrix product's output is a left fold over `k`, ascending ([`gemm`]); SIMD runs across outputs only.
//! - Row reductions use 16 virtual lanes and one fixed tree ([`reduce`]), the same in every implementation.
//! - Sums across rows use fixed row chunks, in order; losses are per row and summed in f64, in order.
//! - exp, ln, sin, cos, tanh and the rest are our own code on these operations ([`math`]), never the platform's libm.
//!   Their f64 forms, which end in one rounding, are fused in both profiles.
//! - Random numbers are counter-based ([`random`]).
//! - Where a result is NaN is part of the contract; the NaN's bits are not, because processors choose them differently. Attention and
//!   the largest value of a row are defined for numbers only: a NaN or infinity in a committed tensor makes a unit invalid.
//!
//! Proof: [`conformance`] has fixed inputs and golden hashes for every kernel. They are the same on x86-64 with AVX2, AVX-512 and
//! without, on aarch64 with and without NEON and on wasm32 with and without simd128, with one and two threads where there are
//! any, in debug and release builds; `.ci/platforms` runs them all. A fault of one unit in the last place in any kernel is found and
//! named (a test). Targets without a fused multiply-add compute it exactly in software, several times slower;
//! `f32-muladd` is the profile for them.
//!
//! What this crate deliberately does not know: models, files, optimiser schedules, networks.
//!
//! Deviation from the usual layout of such crates: the vector code is one generic source over the crate's `Lanes` trait, whose
//! implementations (portable, AVX2, AVX-512, NEON, wasm simd128) live in `arch`, the only module with `unsafe`.

mod adamw;
mod arch;
mod attention;
mod bias;
pub mod conformance;
mod context;
mod elementwise;
mod embedding;
mod environment;
mod fault;
pub mod gemm;
mod hashing;
mod loss;
pub mod math;
mod norm;
mod profile;
mod quantised;
pub mod random;
pub mod reduce;
mod rope;
mod scratch;
mod swiglu;

pub use adamw::{AdamwStep, adamw_update};
pub use arch::Isa;
pub use attention::{
    AttentionShape, CacheShape, CachedRows, PAGE, attention_backward, attention_cached, attention_forward,
};
pub use bias::{bias_backward, bias_forward};
pub use context::{Context, Threads};
pub use elementwise::{add_assign, axpy, dot, is_finite, scale, sum_squares};
pub use embedding::{embedding_gather, embedding_scatter_add};
pub use environment::{FloatEnvironmentError, check_float_environment};
pub use gemm::{matmul_nn, matmul_nt, matmul_tn};
pub use hashing::{TILE, slice_root, tile_root};
pub use loss::{cross_entropy, head_loss, head_loss_forward, head_loss_frozen};
pub use norm::{rmsnorm_backward, rmsnorm_backward_add, rmsnorm_forward};
pub use profile::{Profile, UnknownProfile};
pub use quantised::{QuantisedBlock, QuantisedFormat, QuantisedMatrix, QuantisedRows, matmul_quantised, quantise_rows};
pub use rope::{RopeTable, rope};
pub use scratch::scratch_bytes;
pub use swiglu::{swiglu_backward, swiglu_forward};

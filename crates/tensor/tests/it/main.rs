//! Kernels against the reference, against finite differences, and against themselves on other threads and instruction sets.

mod attention;
mod gemm;
mod golden;
mod hashing;
mod kernels;
mod support;

//! Products with quantised weights: integers inside a block, one f32 fold over the blocks.
//!
//! Purpose: decoding reads every weight once per token, so a weight of 4 or 8 bits is read four to eight times faster than an
//! f32. Weights keep the codes and scales of their file (the block formats of GGUF); activations are quantised to 8 bits in
//! blocks of 32, each row on its own.
//!
//! The contract, per output (the same bits for every instruction set, number of threads and number of rows):
//! - an activation block: `scale = largest magnitude / 127`, `code = round(x · (127 / largest magnitude))`, ties to even; a block
//!   whose largest magnitude is so small that the reciprocal overflows has codes 0; one with a NaN or an infinity has the scale NaN;
//! - the sum of code · code inside a block is an integer, hence exact and free of order;
//! - blocks ascending: `acc = fma(float(sum), weight scale · activation scale, acc)`, and for formats with a minimum then
//!   `acc = fma(minimum, activation scale · float(sum of the activation's codes), acc)`, each product in front of an fma rounded once.
//!
//! Layout: weights lie in groups of 16 rows, lane = row, so that SIMD runs across outputs; a line of 64 bytes holds four
//! steps of k for each of the 16 rows. Source of the block formats: `ggml-common.h` of ggml. Deviation: llama.cpp rounds the
//! activations' scales to 16 bits and adds up in an order that depends on the processor.

mod matrix;
mod product;
mod rows;

pub use matrix::{QuantisedBlock, QuantisedFormat, QuantisedMatrix};
pub use product::matmul_quantised;
pub use rows::{QuantisedRows, quantise_rows};

/// Values in a block of activations, and in most blocks of weights.
const BLOCK: usize = 32;

/// Words of four codes in a block of activations.
const WORDS: usize = BLOCK / 4;

#[cfg(test)]
mod tests;

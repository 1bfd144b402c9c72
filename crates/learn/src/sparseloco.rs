//! SparseLoCo: what a peer sends of its pseudo-gradient, and what it keeps for the next round.
//!
//! Source: SparseLoCo (Sarfi et al., arXiv:2508.15706) in the form that the training design, section 2, fixes. Per tensor, in
//! flat chunks of `chunk` entries (the last one of a tensor is shorter and keeps in proportion):
//!
//! ```text
//! e = beta * e + delta                      fold_residual
//! I = indices of the `keep` largest |e|     (ties: the lowest index)
//! q = 2-bit quantisation of e[I]            four levels, cut at mean - sd, mean, mean + sd;
//!                                           a level's value is the mean of its members
//! e[I] -= q                                 what was sent leaves the residual exactly
//! payload = Rice coded gaps of I, 2-bit levels, four level values
//! ```
//!
//! Cost: about 5.5 + 2 bits per entry at 256 of 4096 and 7.5 + 2 at 64 of 4096, and 36 bits per chunk.
//!
//! Deviations: the shift by the mean is folded into the level values, so no separate shift travels; the four level values
//! share one exponent and have seven bits each (at 64 of 4096, four f32 would cost as much as a fifth of the payload). What
//! their rounding changes stays in the residual, like any other error of the quantisation.
//!
//! What it deliberately does not do: it knows no peers, weights or rounds; `outer` combines payloads.

use model::Layout;

use crate::recipe::Compression;

mod bits;
mod chunk;
mod payload;

pub use bits::rice_parameter;
pub use payload::{
    HEADER_BYTES, PayloadError, SparsePayload, VALUE_MAX, decode, payload_bytes_max, payload_bytes_mean,
};

/// Why a residual cannot be encoded: training has diverged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("pseudo-gradient: `{tensor}` has a value that is not finite")]
pub struct NotFinite {
    /// The first tensor with such a value.
    pub tensor: String,
}

/// Adds a unit's pseudo-gradient to the residual: `e = beta · e + delta`, each operation rounded.
///
/// # Panics
/// When the lengths differ.
pub fn fold_residual(residual: &mut [f32], delta: &[f32], beta: f32) {
    assert_eq!(residual.len(), delta.len(), "fold_residual: residual and pseudo-gradient");
    for (e, d) in residual.iter_mut().zip(delta) {
        *e = beta * *e + d;
    }
}

/// Encodes the largest entries of `residual` and subtracts what the payload says from it.
///
/// # Errors
/// A value is not finite; the residual is then unchanged.
///
/// # Panics
/// When `residual` does not have the layout's length.
pub fn encode(layout: &Layout, compression: Compression, residual: &mut [f32]) -> Result<Vec<u8>, NotFinite> {
    assert_eq!(residual.len(), layout.len(), "encode: residual and layout");
    for tensor in layout.tensors() {
        if !residual[tensor.range()].iter().all(|e| e.is_finite()) {
            return Err(NotFinite { tensor: tensor.name.clone() });
        }
    }
    let mut writer = payload::start(layout, compression);
    for tensor in layout.tensors() {
        for entries in residual[tensor.range()].chunks_mut(compression.chunk as usize) {
            chunk::encode(entries, keep_of(compression, entries.len()), &mut writer);
        }
    }
    Ok(writer.finish())
}

/// Entries kept of a chunk with `len` entries: in proportion, rounded to nearest, at least one.
pub fn keep_of(compression: Compression, len: usize) -> usize {
    let (chunk, keep) = (u64::from(compression.chunk), u64::from(compression.keep));
    (((len as u64 * keep + chunk / 2) / chunk) as usize).max(1)
}

/// Entries that every payload of this layout has.
pub fn entries(layout: &Layout, compression: Compression) -> usize {
    chunk_lengths(layout, compression).map(|len| keep_of(compression, len)).sum()
}

/// The lengths of all chunks in order.
fn chunk_lengths(layout: &Layout, compression: Compression) -> impl Iterator<Item = usize> {
    let chunk = compression.chunk as usize;
    layout.tensors().iter().flat_map(move |tensor| {
        let len = tensor.len();
        (0..len).step_by(chunk).map(move |start| chunk.min(len - start))
    })
}

/// The root of a residual, to which a peer commits each round: BLAKE3 of its values as little-endian bytes.
pub fn residual_root(residual: &[f32]) -> [u8; 32] {
    tensor::slice_root(residual)
}

/// Bits that an ideal code needs for the indices of `keep` entries among `len`, per entry: `log2 C(len, keep) / keep`.
pub fn entropy_bits_per_index(len: usize, keep: usize) -> f64 {
    let log2_factorial = |n: usize| (2..=n).map(|i| (i as f64).log2()).sum::<f64>();
    (log2_factorial(len) - log2_factorial(keep) - log2_factorial(len - keep)) / keep as f64
}

#[cfg(test)]
mod tests;

//! How others exchange what their replicas changed, to compare with: for measurements only, no run on a network uses them.
//!
//! | way | source | bytes of a payload |
//! |---|---|---|
//! | dense | DiLoCo (Douillard et al., arXiv:2311.08105) | 4 per parameter |
//! | int8 | DiLoCo with 8-bit pseudo-gradients (Streaming DiLoCo, arXiv:2501.18512, goes down to 4) | 1 per parameter, a scale per chunk |
//! | sign-DCT | DeMo (Peng et al., arXiv:2411.19870) as DisTrO runs it: the largest cosine coefficients, one bit each | 16-bit place and sign |
//!
//! Deviations. DeMo exchanges after each step and learns with a rate of its own; here it exchanges after a unit's inner steps, like the others,
//! and a tensor moves by the sign of the aggregate times the mean magnitude of the replicas' pseudo-gradients, which is sent along as one
//! number per tensor. Its chunks are flat runs of [`DCT_CHUNK`] entries, not squares.

use model::Layout;

use crate::recipe::Compression;

/// Entries of a chunk of int8.
const INT8_CHUNK: usize = 4096;
/// Entries of a chunk whose cosine transform is taken.
const DCT_CHUNK: usize = 64;
/// Bits of a place and a sign, as Psyche sends them.
const SIGN_DCT_BITS: usize = 16 + 1;

/// Rounds a pseudo-gradient to 8 bits per entry, as its receivers see it; gives the bytes of the payload.
pub(super) fn int8(delta: &mut [f32]) -> u64 {
    for chunk in delta.chunks_mut(INT8_CHUNK) {
        let largest = chunk.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        if scale > 0.0 {
            chunk.iter_mut().for_each(|value| *value = (*value / scale).round() * scale);
        }
    }
    (delta.len() + 4 * delta.len().div_ceil(INT8_CHUNK)) as u64
}

/// What a replica sends by sign-DCT.
pub(super) struct SignDct {
    /// One signed unit coefficient per kept place, in the cosine domain; 0 elsewhere.
    signs: Vec<f32>,
    /// Mean magnitude of the pseudo-gradient, by tensor.
    magnitudes: Vec<f32>,
    /// Bytes of the payload.
    pub(super) bytes: u64,
}

/// Takes the largest cosine coefficients of each chunk out of the residual; sends their signs. As dense as the recipe's own compression, and
/// at least one of each chunk.
pub(super) fn sign_dct(layout: &Layout, compression: Compression, residual: &mut [f32], delta: &[f32]) -> SignDct {
    let keep = (DCT_CHUNK * compression.keep as usize / compression.chunk as usize).max(1);
    let mut sent = SignDct { signs: vec![0.0; residual.len()], magnitudes: Vec::new(), bytes: 0 };
    let table = Cosines::new();
    for tensor in layout.tensors() {
        let range = tensor.range();
        let values = &delta[range.clone()];
        sent.magnitudes.push(values.iter().map(|value| value.abs()).sum::<f32>() / values.len().max(1) as f32);
        sent.bytes += 4;
        for (chunk, signs) in residual[range.clone()].chunks_mut(DCT_CHUNK).zip(sent.signs[range].chunks_mut(DCT_CHUNK))
        {
            let coefficients = table.forward(chunk);
            let mut places: Vec<usize> = (0..chunk.len()).collect();
            places.sort_by(|one, other| coefficients[*other].abs().total_cmp(&coefficients[*one].abs()));
            places.truncate(keep.min(chunk.len()));
            let mut kept = vec![0.0; chunk.len()];
            for place in &places {
                kept[*place] = coefficients[*place];
                signs[*place] = coefficients[*place].signum();
            }
            sent.bytes += (places.len() * SIGN_DCT_BITS).div_ceil(8) as u64;
            table.inverse(&kept).iter().zip(chunk).for_each(|(sent, left)| *left -= sent);
        }
    }
    sent
}

/// The step that all replicas' signs ask for.
pub(super) fn sign_dct_step(layout: &Layout, sent: &[SignDct]) -> Vec<f32> {
    let mut step = vec![0.0; layout.len()];
    let table = Cosines::new();
    for (place, tensor) in layout.tensors().iter().enumerate() {
        let range = tensor.range();
        let magnitude = sent.iter().map(|one| one.magnitudes[place]).sum::<f32>() / sent.len().max(1) as f32;
        for first in range.clone().step_by(DCT_CHUNK) {
            let chunk = first..(first + DCT_CHUNK).min(range.end);
            let mut sum = vec![0.0; chunk.len()];
            for one in sent {
                sum.iter_mut().zip(&one.signs[chunk.clone()]).for_each(|(sum, sign)| *sum += sign);
            }
            for (step, value) in step[chunk].iter_mut().zip(table.inverse(&sum)) {
                *step = if value == 0.0 { 0.0 } else { value.signum() * magnitude };
            }
        }
    }
    step
}

/// The orthonormal cosine transform (DCT-II) of up to [`DCT_CHUNK`] entries, by its definition.
struct Cosines {
    /// By length less one: row `k`, column `n`.
    tables: Vec<std::sync::OnceLock<Vec<f32>>>,
}

impl Cosines {
    fn new() -> Self {
        Self { tables: (0..DCT_CHUNK).map(|_| std::sync::OnceLock::new()).collect() }
    }

    fn table(&self, len: usize) -> &[f32] {
        self.tables[len - 1].get_or_init(|| {
            let row = |k: usize| {
                let scale = if k == 0 { (1.0 / len as f64).sqrt() } else { (2.0 / len as f64).sqrt() };
                let angle = move |n: usize| std::f64::consts::PI * (n as f64 + 0.5) * k as f64 / len as f64;
                (0..len).map(move |n| (scale * angle(n).cos()) as f32)
            };
            (0..len).flat_map(row).collect()
        })
    }

    fn forward(&self, values: &[f32]) -> Vec<f32> {
        let rows = self.table(values.len()).chunks(values.len());
        rows.map(|row| row.iter().zip(values).map(|(cosine, value)| cosine * value).sum()).collect()
    }

    fn inverse(&self, coefficients: &[f32]) -> Vec<f32> {
        let mut values = vec![0.0; coefficients.len()];
        let rows = self.table(coefficients.len()).chunks(coefficients.len());
        for (row, coefficient) in rows.zip(coefficients).filter(|(_, coefficient)| **coefficient != 0.0) {
            values.iter_mut().zip(row).for_each(|(value, cosine)| *value += coefficient * cosine);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn the_cosine_transform_is_its_own_inverse_and_keeps_lengths() {
        let table = Cosines::new();
        for len in [1, 7, DCT_CHUNK] {
            let values: Vec<f32> = (0..len).map(|n| ((n * 37 % 11) as f32) - 5.0).collect();
            let coefficients = table.forward(&values);
            let back = table.inverse(&coefficients);
            assert!(values.iter().zip(&back).all(|(value, back)| (value - back).abs() < 1e-4), "{len}");
            let square = |all: &[f32]| all.iter().map(|value| value * value).sum::<f32>();
            assert!((square(&values) / square(&coefficients) - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn int8_is_within_half_a_step_and_a_quarter_of_the_bytes() {
        let exact: Vec<f32> = (0..10_000).map(|n| ((n % 255) as f32 - 127.0) / 100.0).collect();
        let mut rounded = exact.clone();
        assert_eq!(int8(&mut rounded), 10_000 + 3 * 4);
        assert!(exact.iter().zip(&rounded).all(|(exact, rounded)| (exact - rounded).abs() <= 0.0051));
    }

    #[test]
    fn what_sign_dct_sends_leaves_the_residual() {
        let recipe = Recipe::tiny();
        let layout = recipe.layout();
        let delta: Vec<f32> = (0..layout.len()).map(|n| ((n * 7919 % 1_000) as f32 - 500.0) / 1e5).collect();
        let mut residual = delta.clone();
        let sent = sign_dct(&layout, recipe.compression, &mut residual, &delta);
        let square = |all: &[f32]| all.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        assert!(square(&residual) < square(&delta), "{} {}", square(&residual), square(&delta));
        assert!(sent.bytes < 4 * layout.len() as u64, "{} for {}", sent.bytes, layout.len());
        let step = sign_dct_step(&layout, &[sent]);
        assert!(step.iter().filter(|value| **value != 0.0).count() > layout.len() / 2);
    }
}

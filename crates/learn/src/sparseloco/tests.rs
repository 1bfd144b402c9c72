use model::{Attention, Config, Layout, Stage};
use proptest::prelude::*;
use tensor::random::Stream;

use super::*;

fn config() -> Config {
    Config {
        vocab: 300,
        width: 16,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
        ff: 24,
        context: 32,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: true,
        attention: Attention::PLAIN,
    }
}

fn layout() -> Layout {
    Stage::whole(config()).unwrap().layout()
}

fn compression(keep: u32) -> Compression {
    Compression { chunk: 4096, keep, beta: 0.95 }
}

fn noise(seed: u8, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Stream::new([seed; 32], "sparseloco test").fill_normal(1e-3, &mut values);
    values
}

fn dense(payload: &SparsePayload, len: usize) -> Vec<f32> {
    let mut all = vec![0.0; len];
    for tensor in 0..payload.tensors() {
        let (indices, values) = payload.tensor(tensor);
        indices.iter().zip(values).for_each(|(&index, &value)| all[index as usize] = value);
    }
    all
}

#[test]
fn what_was_sent_leaves_the_residual_exactly() {
    let layout = layout();
    for keep in [1, 64, 256, 4096] {
        let before = noise(keep as u8, layout.len());
        let mut residual = before.clone();
        let bytes = encode(&layout, compression(keep), &mut residual).unwrap();
        let sent = decode(&layout, compression(keep), &bytes).unwrap();
        assert_eq!(sent.len(), entries(&layout, compression(keep)));
        let dense = dense(&sent, layout.len());
        for (i, (left, (whole, sent))) in residual.iter().zip(before.iter().zip(&dense)).enumerate() {
            assert_eq!(left.to_bits(), (whole - sent).to_bits(), "keep {keep}, entry {i}");
        }
        assert!(bytes.len() <= payload_bytes_max(&layout, compression(keep)));
    }
}

#[test]
fn indices_are_ascending_inside_their_tensor_and_the_largest() {
    let layout = layout();
    let before = noise(3, layout.len());
    let bytes = encode(&layout, compression(256), &mut before.clone()).unwrap();
    let sent = decode(&layout, compression(256), &bytes).unwrap();
    for (place, tensor) in layout.tensors().iter().enumerate() {
        let (indices, _) = sent.tensor(place);
        assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(indices.iter().all(|&index| tensor.range().contains(&(index as usize))));
    }
    let first = &before[..4096];
    let (indices, _) = sent.tensor(0);
    let kept: Vec<f32> = indices.iter().filter(|&&i| i < 4096).map(|&i| first[i as usize].abs()).collect();
    let smallest = kept.iter().copied().fold(f32::INFINITY, f32::min);
    assert_eq!(kept.len(), 256);
    assert_eq!(first.iter().filter(|e| e.abs() >= smallest).count(), 256);
}

#[test]
fn the_residual_decays_and_gathers() {
    let mut residual = vec![1.0, -2.0];
    fold_residual(&mut residual, &[0.5, 0.25], 0.5);
    assert_eq!(residual, [1.0, -0.75]);
}

/// The bytes of version 1, which never change: other versions must read or refuse them.
#[test]
fn golden_bytes() {
    let layout = layout();
    let mut residual: Vec<f32> =
        (0..layout.len()).map(|i| ((i * 2_654_435_761) % 1_000_003) as f32 - 500_001.0).collect();
    residual.iter_mut().for_each(|e| *e /= 524_288.0);
    let bytes = encode(&layout, compression(64), &mut residual).unwrap();
    let head: String = bytes[..48].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((bytes.len(), head.as_str(), blake3::hash(&bytes).to_hex().as_str()), GOLDEN);
}

const GOLDEN: (usize, &str, &str) = (
    203,
    "534c43310010000040000000701a0000000000006343400f00301f6398af30ccc718e6630cf31586f918c37c8c61bec2",
    "5aa6c4a3840d01471b1242259e60dc65b700034caeb5332d5ab3d1f66fc71e69",
);

#[test]
fn values_that_are_not_finite_are_named_and_change_nothing() {
    let layout = layout();
    let at = layout.tensors()[2].clone();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut residual = noise(1, layout.len());
        residual[at.offset + 1] = bad;
        let before: Vec<u32> = residual.iter().map(|e| e.to_bits()).collect();
        let error = encode(&layout, compression(64), &mut residual).unwrap_err();
        assert_eq!(error.tensor, at.name);
        assert_eq!(before, residual.iter().map(|e| e.to_bits()).collect::<Vec<_>>());
    }
}

#[test]
fn damage_is_named() {
    let layout = layout();
    let good = encode(&layout, compression(64), &mut noise(1, layout.len())).unwrap();
    let refuse = |bytes: &[u8]| decode(&layout, compression(64), bytes).unwrap_err();
    assert_eq!(refuse(b""), PayloadError::Foreign);
    assert_eq!(refuse(&[b"SLC2", &good[4..]].concat()), PayloadError::Foreign);
    assert_eq!(refuse(&[&good[..], &[0]].concat()), PayloadError::Trailing);
    assert!(matches!(refuse(&good[..good.len() - 1]), PayloadError::Damaged { .. }));
    let mut huge = good.clone();
    huge[HEADER_BYTES] = 116;
    assert_eq!(refuse(&huge), PayloadError::BadValue { chunk: 0 });
    let other = decode(&layout, compression(256), &good).unwrap_err();
    assert_eq!(other, PayloadError::WrongRecipe { field: "keep", got: 64, expected: 256 });
}

#[test]
fn the_code_is_near_the_entropy_bound() {
    let layout = Stage::whole(Config { vocab: 2048, width: 64, ..config() }).unwrap().layout();
    for (keep, rice_max) in [(64u32, 1.03), (256, 1.03)] {
        let bytes = encode(&layout, compression(keep), &mut noise(9, layout.len())).unwrap();
        let chunks = layout.tensors().iter().map(|tensor| tensor.len().div_ceil(4096)).sum::<usize>();
        let kept = entries(&layout, compression(keep));
        let index_bits = (bytes.len() - HEADER_BYTES) as f64 * 8.0 - chunks as f64 * 36.0 - kept as f64 * 2.0;
        let bound = entropy_bits_per_index(4096, keep as usize);
        let ratio = index_bits / kept as f64 / bound;
        assert!((1.0..rice_max).contains(&ratio), "keep {keep}: {ratio} of {bound} bits");
    }
}

#[test]
fn the_mean_size_of_a_payload_is_known_before() {
    let layout = Stage::whole(Config { vocab: 2048, width: 64, ..config() }).unwrap().layout();
    for keep in [64, 256, 292, 1024, 4096] {
        let bytes = encode(&layout, compression(keep), &mut noise(9, layout.len())).unwrap().len() as f64;
        let ratio = payload_bytes_mean(&layout, compression(keep)) / bytes;
        assert!((0.99..1.01).contains(&ratio), "keep {keep}: {ratio} of {bytes} bytes");
    }
}

#[test]
fn the_default_density_is_at_least_sixty_times_smaller() {
    let layout = Stage::whole(Config { vocab: 2048, width: 128, head_dim: 64, ff: 384, ..config() }).unwrap().layout();
    for (keep, ratio) in [(256, 60.0), (64, 200.0)] {
        let bytes = encode(&layout, compression(keep), &mut noise(9, layout.len())).unwrap();
        let measured = layout.len() as f64 * 4.0 / bytes.len() as f64;
        assert!(measured > ratio, "keep {keep}: {measured}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..6000), headed in any::<bool>()) {
        let layout = layout();
        let mut bytes = payload::start(&layout, compression(64)).finish();
        if !headed { bytes.clear(); }
        bytes.extend(body);
        if let Ok(payload) = decode(&layout, compression(64), &bytes) {
            prop_assert_eq!(payload.len(), entries(&layout, compression(64)));
        }
    }

    #[test]
    fn damaged_payloads_decode_to_sound_ones_or_not_at_all(
        seed in any::<u8>(), flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4), cut in any::<prop::sample::Index>(), cutting in any::<bool>(),
    ) {
        let layout = layout();
        let mut bytes = encode(&layout, compression(64), &mut noise(seed, layout.len())).unwrap();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if cutting { bytes.truncate(cut.index(bytes.len())); }
        if let Ok(payload) = decode(&layout, compression(64), &bytes) {
            prop_assert_eq!(payload.len(), entries(&layout, compression(64)));
            for (place, tensor) in layout.tensors().iter().enumerate() {
                let (indices, values) = payload.tensor(place);
                prop_assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(indices.iter().all(|&index| tensor.range().contains(&(index as usize))));
                prop_assert!(values.iter().all(|value| value.is_finite()));
            }
        }
    }

    #[test]
    fn any_finite_residual_survives(values in proptest::collection::vec(any::<f32>(), 40)) {
        let layout = layout();
        let mut residual: Vec<f32> = (0..layout.len()).map(|i| values[i % 40]).map(|v| if v.is_finite() { v } else { 0.0 }).collect();
        let bytes = encode(&layout, compression(256), &mut residual).unwrap();
        prop_assert!(decode(&layout, compression(256), &bytes).is_ok());
        prop_assert!(residual.iter().all(|e| !e.is_nan()));
    }
}

//! Conversions of single numbers and blocks.

use super::*;

/// The number that the bits of a binary16 mean, from the standard's formula.
fn meaning(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

#[test]
fn every_f16_is_read_exactly_and_written_back() {
    for bits in 0..=u16::MAX {
        let value = f16_to_f32(bits);
        let expected = meaning(bits);
        assert_eq!(value.is_nan(), expected.is_nan(), "{bits:#06x}");
        assert_eq!(value.is_sign_negative(), bits >> 15 == 1, "{bits:#06x}");
        if value.is_nan() {
            assert_eq!(f32_to_f16(value), bits & 0x8000 | 0x7e00);
        } else {
            assert_eq!(f64::from(value), expected, "{bits:#06x}");
            assert_eq!(f32_to_f16(value), bits);
        }
    }
}

#[test]
fn numbers_between_two_f16_go_to_the_nearest_and_ties_to_even() {
    for bits in 0..0x7c00u16 {
        let (low, above) = (f16_to_f32(bits), bits + 1);
        // The last one's neighbour is infinite, and rounding acts as if the numbers went on.
        let high = if above == 0x7c00 { 65_536.0 } else { f16_to_f32(above) };
        // Exact: an f32 has 13 more bits than it needs.
        let middle = low + (high - low) / 2.0;
        let even = if bits % 2 == 0 { bits } else { above };
        let just = |offset: i32| f32::from_bits((middle.to_bits() as i32 + offset) as u32);
        for (value, expected) in [(middle, even), (just(-1), bits), (just(1), above)] {
            assert_eq!(f32_to_f16(value), expected, "{value:e}");
            assert_eq!(f32_to_f16(-value), expected | 0x8000, "{value:e}");
        }
    }
    for (value, expected) in
        [(f32::INFINITY, 0x7c00), (f32::MAX, 0x7c00), (f32::MIN_POSITIVE, 0), (f32::from_bits(1), 0), (0.0, 0)]
    {
        assert_eq!(f32_to_f16(value), expected, "{value:e}");
        assert_eq!(f32_to_f16(-value), expected | 0x8000, "{value:e}");
    }
}

#[test]
fn every_bf16_is_the_upper_half_of_an_f32() {
    for bits in 0..=u16::MAX {
        assert_eq!(bf16_to_f32(bits).to_bits(), u32::from(bits) << 16);
    }
}

#[test]
fn the_table_of_types_is_consistent() {
    for tensor_type in TensorType::ALL {
        assert_eq!(TensorType::from_id(tensor_type.id()), Some(tensor_type));
        assert!([1, 32, 64, 128, 256].contains(&tensor_type.block_len()), "{tensor_type}");
        assert!(tensor_type.block_bytes() <= tensor_type.block_len() * 8, "{tensor_type}");
        let (data, mut out) = (vec![0; tensor_type.block_bytes()], vec![1.0; tensor_type.block_len()]);
        let done = tensor_type.dequantise(&data, &mut out);
        assert_eq!(done.is_ok(), tensor_type.is_supported(), "{tensor_type}");
        assert!(out.iter().all(|&value| value == if done.is_ok() { 0.0 } else { 1.0 }), "{tensor_type}");
    }
    let ids: Vec<u32> = TensorType::ALL.iter().map(|tensor_type| tensor_type.id()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let supported: Vec<&str> =
        TensorType::ALL.iter().filter(|kind| kind.is_supported()).map(|kind| kind.name()).collect();
    assert_eq!(supported, ["F32", "F16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "BF16"]);
    for id in [4, 5, 31, 33, 36, 38, 43, u32::MAX] {
        assert_eq!(TensorType::from_id(id), None);
    }
}

#[test]
fn products_are_exact_so_that_fused_operations_change_nothing() {
    // The integer factors of each type: scale and value of Q4_K and Q6_K, value alone of the others.
    let factors =
        [(63.0, 15.0), (61.0, 13.0), (-127.0, 31.0), (-128.0, -32.0), (1.0, -127.0), (1.0, 15.0), (1.0, 11.0)];
    for bits in 0..0x7c00u16 {
        let unit = f16_to_f32(bits);
        for (scale, value) in factors {
            let product = unit * scale * value;
            assert_eq!(f64::from(product), f64::from(unit) * f64::from(scale) * f64::from(value), "{unit:e}");
            assert_eq!((product - 0.1).to_bits(), (unit * scale).mul_add(value, -0.1).to_bits(), "{unit:e}");
        }
    }
}

#[test]
fn a_quantised_row_is_within_half_a_scale() {
    let values: Vec<f32> = (0..320).map(|index| ((index * index) as f32 * 0.013).sin() * 3.0).collect();
    let mut blocks = vec![0; 340];
    quantise_q8_0(&values, &mut blocks);
    let mut back = vec![0.0; 320];
    TensorType::Q8_0.dequantise(&blocks, &mut back).unwrap();
    for (block, (values, back)) in values.chunks(32).zip(back.chunks(32)).enumerate() {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for (value, back) in values.iter().zip(back) {
            // Half a scale, and the rounding of the scale to 11 bits times at most 127.
            let allowed = largest / 127.0 * (0.5 + 127.0 / 2048.0) * 1.001;
            assert!((value - back).abs() <= allowed, "block {block}: {back} for {value}");
        }
    }
}

#[test]
fn the_smallest_rows_quantise_to_zero() {
    let mut blocks = [1; 34];
    quantise_q8_0(&[0.0; 32], &mut blocks);
    assert_eq!(blocks, [0; 34]);
    quantise_q8_0(&[f32::from_bits(1); 32], &mut blocks);
    let mut back = [1.0; 32];
    TensorType::Q8_0.dequantise(&blocks, &mut back).unwrap();
    assert_eq!(back, [0.0; 32]);
}

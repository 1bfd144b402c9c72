use proptest::prelude::*;
use tensor::Context;
use tensor::random::Stream;

use super::*;

fn normal(seed: u8, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Stream::new([seed; 32], "boundary test").fill_normal(1.5, &mut values);
    values
}

fn round_trip(precision: Precision, values: &[f32], columns: usize, rounding: Rounding) -> Vec<f32> {
    let bytes = encode(precision, values, columns, rounding, HIDDEN_MAX).unwrap();
    assert_eq!(bytes.len(), encoded_bytes(precision, values.len() / columns, columns));
    decode(&bytes, values.len() / columns, columns, HIDDEN_MAX).unwrap()
}

#[test]
fn f32_is_exact_and_the_others_keep_their_bounds() {
    let columns = 33;
    let values = normal(1, 50 * columns);
    for precision in Precision::ALL {
        for rounding in [Rounding::Nearest, Rounding::Stochastic([7; 32])] {
            let got = round_trip(precision, &values, columns, rounding);
            for (values, got) in values.chunks(columns).zip(got.chunks(columns)) {
                let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                let steps = if rounding == Rounding::Nearest { 0.5 } else { 1.0 };
                for (value, got) in values.iter().zip(got) {
                    let bound = match precision {
                        Precision::F32 => 0.0,
                        Precision::Bf16 => value.abs() / 256.0,
                        Precision::Int8 => steps * 1.008 * largest / 127.0,
                        Precision::Int4 => steps * 1.008 * largest / 7.0,
                    };
                    assert!(
                        (value - got).abs() <= bound * 1.000_01,
                        "{precision:?} {rounding:?}: {value} became {got}"
                    );
                }
            }
        }
    }
}

#[test]
fn stochastic_rounding_is_right_on_average_and_the_same_for_the_same_key() {
    let values = [1.0f32, 0.31, -0.77, 0.049];
    let mut sums = [0.0f64; 4];
    let draws: u32 = 4000;
    for draw in 0..draws {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&draw.to_le_bytes());
        let got = round_trip(Precision::Int4, &values, 4, Rounding::Stochastic(key));
        sums.iter_mut().zip(&got).for_each(|(sum, got)| *sum += f64::from(*got));
        assert_eq!(got, round_trip(Precision::Int4, &values, 4, Rounding::Stochastic(key)));
    }
    for (sum, value) in sums.iter().zip(values) {
        let mean = sum / f64::from(draws);
        assert!((mean - f64::from(value)).abs() < 0.006, "{value} became {mean} on average");
    }
}

#[test]
fn the_format_is_frozen() {
    let values = [1.0f32, -0.5, 0.25, 0.0, 3.0, -3.0];
    let hex = |precision| hex(&encode(precision, &values, 3, Rounding::Nearest, HIDDEN_MAX).unwrap());
    assert_eq!(hex(Precision::Int4), "040200000003000000133ed702dc3e7009");
    assert_eq!(hex(Precision::Int8), "030200000003000000023c7ec120c23c007f81");
    assert_eq!(hex(Precision::Bf16), "020200000003000000803f00bf803e0000404040c0");
    assert_eq!(&hex(Precision::F32)[..18], "010200000003000000");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_no_encoder_writes_is_refused() {
    let good = encode(Precision::Int4, &normal(2, 6), 3, Rounding::Nearest, HIDDEN_MAX).unwrap();
    let edited = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode(&bytes, 2, 3, HIDDEN_MAX).unwrap_err()
    };
    assert_eq!(decode(&good[..5], 2, 3, HIDDEN_MAX).unwrap_err(), BoundaryError::WrongLength { expected: 9, got: 5 });
    assert_eq!(edited(0, 9), BoundaryError::UnknownPrecision { tag: 9 });
    assert!(matches!(edited(1, 200), BoundaryError::WrongShape { got_rows: 200, .. }));
    assert!(matches!(decode(&good, 2, 4, HIDDEN_MAX), Err(BoundaryError::WrongShape { columns: 4, .. })));
    assert!(matches!(decode(&good[..good.len() - 1], 2, 3, HIDDEN_MAX), Err(BoundaryError::WrongLength { .. })));
    assert_eq!(edited(10, 0x7f), BoundaryError::NotFinite { row: 0 }, "a scale of infinity");
    assert_eq!(edited(10, 0xbf), BoundaryError::BadCode { row: 0 }, "a negative scale");
    assert_eq!(edited(11, 0x08), BoundaryError::BadCode { row: 0 }, "a code of -8");
    assert_eq!(edited(12, good[12] | 0x10), BoundaryError::BadCode { row: 0 }, "something in the filling");
    let int8 = encode(Precision::Int8, &[1.0, -1.0], 2, Rounding::Nearest, HIDDEN_MAX).unwrap();
    let mut bad = int8.clone();
    bad[12] = 0x80;
    assert_eq!(decode(&bad, 1, 2, HIDDEN_MAX).unwrap_err(), BoundaryError::BadCode { row: 0 });
    let mut nan = encode(Precision::F32, &[1.0, 2.0], 1, Rounding::Nearest, HIDDEN_MAX).unwrap();
    nan[13..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(decode(&nan, 2, 1, HIDDEN_MAX).unwrap_err(), BoundaryError::NotFinite { row: 1 });
}

#[test]
fn what_is_not_finite_is_not_written() {
    for precision in Precision::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = encode(precision, &[0.0, 1.0, bad, 1.0], 2, Rounding::Nearest, HIDDEN_MAX).unwrap_err();
            assert_eq!(error, BoundaryError::NotFinite { row: 1 });
        }
    }
    let large = |values: &[f32]| encode(Precision::F32, values, 1, Rounding::Nearest, GRADIENT_MAX).unwrap_err();
    assert_eq!(large(&[1.0, -1000.5]), BoundaryError::TooLarge { row: 1, limit: GRADIENT_MAX });
    let bytes = encode(Precision::F32, &[2000.0], 1, Rounding::Nearest, HIDDEN_MAX).unwrap();
    assert!(matches!(decode(&bytes, 1, 1, GRADIENT_MAX), Err(BoundaryError::TooLarge { row: 0, .. })));
    for precision in Precision::ALL {
        let bytes = encode(precision, &[1000.0, -3.0], 2, Rounding::Nearest, GRADIENT_MAX).unwrap();
        assert!(decode(&bytes, 1, 2, GRADIENT_MAX).is_ok(), "rounding up at the limit is no offence");
    }
    for precision in [Precision::Int8, Precision::Int4] {
        assert_eq!(round_trip(precision, &[0.0, -0.0], 2, Rounding::Nearest), [0.0, 0.0]);
        let smallest = f32::from_bits(1);
        assert!(round_trip(precision, &[smallest, 0.0], 2, Rounding::Nearest)[0] >= 0.0);
    }
}

proptest! {
    #[test]
    fn any_bytes_give_values_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), rows in 0usize..4, columns in 1usize..5) {
        if let Ok(values) = decode(&bytes, rows, columns, HIDDEN_MAX) {
            prop_assert_eq!(values.len(), rows * columns);
            prop_assert!(values.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn any_finite_values_survive(bits in prop::collection::vec(any::<u32>(), 1..40), columns in 1usize..5) {
        let mut values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.abs() < 1e6).collect();
        values.truncate(values.len() / columns * columns);
        let exact = round_trip(Precision::F32, &values, columns, Rounding::Nearest);
        prop_assert!(exact.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        for precision in [Precision::Int4, Precision::Int8] {
            let _ = round_trip(precision, &values, columns, Rounding::Stochastic([1; 32]));
        }
    }
}

fn projection<'a>(basis: &'a [f32], table: &'a [f32]) -> Projection<'a> {
    Projection { width: 12, rank: 5, basis, table }
}

#[test]
fn a_basis_is_orthonormal_and_follows_from_its_seed() {
    let basis = initial_basis([3; 32], "test", 12, 5);
    for i in 0..5 {
        for j in 0..5 {
            let product: f32 = (0..12).map(|row| basis[row * 5 + i] * basis[row * 5 + j]).sum();
            assert!((product - f32::from(u8::from(i == j))).abs() < 1e-6, "columns {i} and {j}: {product}");
        }
    }
    assert_eq!(basis, initial_basis([3; 32], "test", 12, 5));
    assert_ne!(basis, initial_basis([3; 32], "other", 12, 5));
}

#[test]
fn what_lies_in_the_subspace_is_exact_both_ways_and_a_scale_after_the_write_breaks_it() {
    let ctx = Context::single();
    let (basis, table) = (initial_basis([3; 32], "test", 12, 5), normal(4, 20 * 12));
    let projection = projection(&basis, &table);
    let ids = [3u32, 19, 0, 7];
    let hidden = projection.hidden(&ctx, &normal(5, 4 * 5), &ids);
    let error = |hidden: &[f32]| {
        let back = projection.hidden(&ctx, &projection.coordinates(&ctx, hidden, &ids), &ids);
        back.iter().zip(hidden).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()))
    };
    assert!(error(&hidden) < 1e-5, "{}", error(&hidden));
    // A gain per channel after the write, as a post-norm has, leaves the subspace.
    let scaled: Vec<f32> = hidden.iter().enumerate().map(|(i, h)| h * (1.0 + 0.1 * (i % 12) as f32)).collect();
    assert!(error(&scaled) > 0.05, "{}", error(&scaled));
}

/// Loss `Σ w·h'` of the hidden states after the boundary: its gradient with respect to them is `w`.
#[test]
fn gradients_agree_with_finite_differences() {
    let ctx = Context::single();
    let (basis, table) = (initial_basis([3; 32], "test", 12, 5), normal(4, 20 * 12));
    let ids = [3u32, 19, 0];
    let (hidden, weights) = (normal(6, 3 * 12), normal(7, 3 * 12));
    let loss = |basis: &[f32], hidden: &[f32]| -> f64 {
        let projection = projection(basis, &table);
        let after = projection.hidden(&ctx, &projection.coordinates(&ctx, hidden, &ids), &ids);
        after.iter().zip(&weights).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum()
    };
    let at = projection(&basis, &table);
    let coordinates = at.gradient_coordinates(&ctx, &weights);
    let gradient = at.gradient(&ctx, &coordinates);
    let mut dbasis = vec![0.0; basis.len()];
    at.add_sender_half(&ctx, &hidden, &ids, &coordinates, &mut dbasis);
    at.add_receiver_half(&ctx, &weights, &at.coordinates(&ctx, &hidden, &ids), &mut dbasis);
    let check = |values: &[f32], gradient: &[f32], loss: &dyn Fn(&[f32]) -> f64| {
        for place in 0..values.len() {
            let mut moved = values.to_vec();
            moved[place] += 1e-2;
            let above = loss(&moved);
            moved[place] = values[place] - 1e-2;
            let slope = (above - loss(&moved)) / 2e-2;
            assert!((slope - f64::from(gradient[place])).abs() < 2e-2, "{place}: {slope} and {}", gradient[place]);
        }
    };
    check(&hidden, &gradient, &|hidden| loss(&basis, hidden));
    check(&basis, &dbasis, &|basis| loss(basis, &hidden));
}

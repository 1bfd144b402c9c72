use super::*;
use crate::random::Stream;
use crate::{Context, Isa, Profile};

const FORMATS: [QuantisedFormat; 5] =
    [QuantisedFormat::Q8_0, QuantisedFormat::Q4_0, QuantisedFormat::Q4_1, QuantisedFormat::Q4K, QuantisedFormat::Q6K];

fn stream() -> Stream {
    Stream::new([7; 32], "quantised")
}

/// A number that a binary16 holds.
fn short(stream: &mut Stream) -> f32 {
    crate::math::f16_to_f32(crate::math::f32_to_f16(stream.normal() * 0.01))
}

fn blocks(format: QuantisedFormat, count: usize, stream: &mut Stream) -> Vec<QuantisedBlock> {
    let block = |stream: &mut Stream| {
        // The extremes are frequent, so that sums reach their largest magnitudes.
        let largest = if matches!(format, QuantisedFormat::Q8_0 | QuantisedFormat::Q6K) { 255 } else { 15 };
        let mut code = || match stream.below(4) {
            0 => 0,
            1 => largest,
            _ => stream.below(u64::from(largest) + 1) as u8,
        };
        let codes = std::array::from_fn(|_| code());
        let first = short(stream);
        let last = if format == QuantisedFormat::Q6K { short(stream) } else { first };
        let minimum = if format.has_minimum() { short(stream) } else { 0.0 };
        QuantisedBlock { codes, scales: [first, last], minimum }
    };
    (0..count).map(|_| block(stream)).collect()
}

fn matrix(format: QuantisedFormat, rows: usize, cols: usize, stream: &mut Stream) -> QuantisedMatrix {
    let blocks = blocks(format, rows * cols / BLOCK, stream);
    QuantisedMatrix::new(format, rows, cols, |row, at| blocks[row * (cols / BLOCK) + at]).expect("finite scales")
}

fn activations(rows: usize, cols: usize, stream: &mut Stream) -> Vec<f32> {
    // Some blocks have one large value, so that their other codes are small.
    (0..rows * cols).map(|i| stream.normal() * if i % 97 == 0 { 50.0 } else { 1.0 }).collect()
}

fn product(ctx: &Context, x: &[f32], rows: usize, w: &QuantisedMatrix, start: Option<&[f32]>) -> Vec<u32> {
    let mut quantised = QuantisedRows::default();
    quantise_rows(ctx, rows, w.cols(), x, &mut quantised);
    let mut out = start.map_or(vec![7.0; rows * w.rows()], <[f32]>::to_vec);
    matmul_quantised(ctx, &quantised, vec![(w, &mut out)], start.is_some());
    out.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_reference_bits() {
    let mut stream = stream();
    for format in FORMATS {
        for (rows, outputs, cols) in [(1, 1, 32), (2, 16, 64), (3, 17, 96), (7, 100, 32), (13, 33, 160), (20, 200, 64)]
        {
            let (w, x) = (matrix(format, outputs, cols, &mut stream), activations(rows, cols, &mut stream));
            let start: Vec<f32> = (0..rows * outputs).map(|_| stream.normal()).collect();
            for start in [None, Some(start.as_slice())] {
                for (profile, isa) in
                    Profile::ALL.into_iter().flat_map(|a| Isa::available().into_iter().map(move |b| (a, b)))
                {
                    let expected = product(&Context::scalar().with_profile(profile), &x, rows, &w, start);
                    for threads in [1, 2] {
                        let ctx = Context::new(threads).with_isa(isa).with_profile(profile);
                        let what = format!("{format:?}, {rows} × {outputs} × {cols}, {profile} on {}", isa.name());
                        assert_eq!(product(&ctx, &x, rows, &w, start), expected, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_beside_others() {
    let mut stream = stream();
    let (rows, outputs, cols) = (21, 40, 96);
    let (w, x) = (matrix(QuantisedFormat::Q4_1, outputs, cols, &mut stream), activations(rows, cols, &mut stream));
    let ctx = Context::single();
    let together = product(&ctx, &x, rows, &w, None);
    for row in 0..rows {
        let alone = product(&ctx, &x[row * cols..][..cols], 1, &w, None);
        assert_eq!(alone, together[row * outputs..][..outputs], "row {row}");
    }
}

#[test]
fn products_are_near_those_of_the_values() {
    let mut stream = stream();
    for format in FORMATS {
        let (rows, outputs, cols) = (3, 20, 256);
        let w = matrix(format, outputs, cols, &mut stream);
        let x: Vec<f32> = (0..rows * cols).map(|_| stream.normal()).collect();
        let got = product(&Context::single(), &x, rows, &w, None);
        let mut values = vec![0.0; cols];
        for output in 0..outputs {
            w.row(output, &mut values);
            let size: f64 = values.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            for row in 0..rows {
                let x = &x[row * cols..][..cols];
                let exact: f64 = x.iter().zip(&values).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let got = f64::from(f32::from_bits(got[row * outputs + output]));
                // A code is off by at most half of 1/127 of the block's largest, here about 3.
                assert!((got - exact).abs() < 0.012 * 4.0 * size, "{format:?}: {got} instead of {exact}");
            }
        }
    }
}

#[test]
fn blocks_come_back_as_they_were_given() {
    let mut stream = stream();
    for format in FORMATS {
        let (rows, cols) = (19, 96);
        let given = blocks(format, rows * cols / BLOCK, &mut stream);
        let w = QuantisedMatrix::new(format, rows, cols, |row, at| given[row * 3 + at]).expect("finite scales");
        for row in 0..rows {
            for at in 0..3 {
                assert_eq!(w.block(row, at), given[row * 3 + at], "{format:?}");
            }
        }
    }
}

#[test]
fn scales_that_are_not_finite_or_too_long_are_refused() {
    let with = |scale: f32| {
        let block = QuantisedBlock { codes: [130; 32], scales: [scale; 2], minimum: 0.0 };
        QuantisedMatrix::new(QuantisedFormat::Q8_0, 1, 32, |_, _| block).is_some()
    };
    assert!(with(0.5) && with(0.0) && with(-2.0));
    assert!(!with(f32::NAN) && !with(f32::INFINITY) && !with(0.1) && !with(1e9));
}

#[test]
fn activations_round_to_nearest_even_and_faults_show() {
    let ctx = Context::single();
    let mut x = [0.0f32; 160];
    x[0] = 127.0;
    x[1] = 2.5;
    x[2] = -3.5;
    x[32] = f32::from_bits(1);
    x[64] = f32::NAN;
    x[100] = f32::NEG_INFINITY;
    x[128] = -1e38;
    let mut rows = QuantisedRows::default();
    quantise_rows(&ctx, 1, 160, &x, &mut rows);
    let codes = |at: usize| rows.row(0)[at].words.map(i32::to_le_bytes).as_flattened().to_vec();
    assert_eq!(codes(0)[..4], [127, 2, (-4i8) as u8, 0], "ties to even");
    assert_eq!((rows.row(0)[0].scale, rows.row(0)[0].sums), (1.0, [125, 0]));
    assert_eq!(codes(1), [0; 32], "too small to divide by");
    assert!(rows.row(0)[2].scale.is_nan() && rows.row(0)[3].scale.is_nan());
    assert_eq!((codes(4)[0], rows.row(0)[4].scale), ((-127i8) as u8, 1e38 / 127.0));
}

#[test]
#[should_panic(expected = "not whole blocks")]
fn rows_that_are_not_whole_blocks_are_a_mistake_of_the_caller() {
    quantise_rows(&Context::single(), 1, 33, &[0.0; 33], &mut QuantisedRows::default());
}

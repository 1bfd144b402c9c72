//! Products: the fold itself, and every path equal to it bit for bit.

use tensor::gemm::{GemmShape, Layout, View, matmul_strided};
use tensor::{Context, Profile, matmul_nn, matmul_nt, matmul_tn};

use crate::support::{assert_bits, fast_contexts, profiles, scalar_threads, stream, values};

type Matmul = fn(&Context, usize, usize, usize, &[f32], &[f32], &mut [f32], bool);
const VARIANTS: [(&str, Matmul); 3] = [("nn", matmul_nn), ("nt", matmul_nt), ("tn", matmul_tn)];

#[test]
fn the_reference_is_the_fold() {
    let (m, n, k) = (5, 7, 33);
    let (a, b, old) = (values(1, m * k), values(2, k * n), values(3, m * n));
    let step = |profile, a: f32, b: f32, sum: f32| match profile {
        Profile::F32Fma => a.mul_add(b, sum),
        Profile::F32Muladd => a * b + sum,
    };
    for (accumulate, profile) in [false, true].into_iter().flat_map(|old| Profile::ALL.map(|profile| (old, profile))) {
        let mut expected = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                let start = if accumulate { old[i * n + j] } else { 0.0 };
                expected[i * n + j] = (0..k).fold(start, |sum, p| step(profile, a[i * k + p], b[p * n + j], sum));
            }
        }
        for ctx in [Context::scalar(), scalar_threads()].map(|ctx| ctx.with_profile(profile)) {
            let mut c = old.clone();
            matmul_nn(&ctx, m, n, k, &a, &b, &mut c, accumulate);
            assert_bits(&c, &expected, "nn");
            let mut c = old.clone();
            matmul_nt(&ctx, m, n, k, &a, &transpose(k, n, &b), &mut c, accumulate);
            assert_bits(&c, &expected, "nt");
            let mut c = old.clone();
            matmul_tn(&ctx, m, n, k, &transpose(m, k, &a), &b, &mut c, accumulate);
            assert_bits(&c, &expected, "tn");
        }
    }
}

#[test]
fn every_path_equals_the_reference() {
    let mut shapes = vec![
        (1, 1, 1),
        (1, 200, 300),
        (3, 17, 0),
        (48, 130, 257),
        (49, 33, 256),
        (50, 31, 513),
        (97, 64, 40),
        (200, 1, 70),
        (64, 300, 520),
        (60, 8200, 260),
    ];
    let mut random = stream(4);
    for _ in 0..12 {
        shapes.push((1 + random.below(120) as usize, 1 + random.below(140) as usize, random.below(600) as usize));
    }
    for (m, n, k) in shapes {
        let (a, b, old) = (values(5, m * k), values(6, k * n), values(7, m * n));
        for (name, matmul) in VARIANTS {
            for accumulate in [false, true] {
                for (scalar, fast) in profiles() {
                    let mut expected = old.clone();
                    matmul(&scalar, m, n, k, &a, &b, &mut expected, accumulate);
                    for ctx in fast {
                        if ctx.isa().name() == "generic" && m * n * k > 10_000_000 {
                            continue;
                        }
                        let mut c = old.clone();
                        matmul(&ctx, m, n, k, &a, &b, &mut c, accumulate);
                        assert_bits(&c, &expected, &format!("{name} {m}x{n}x{k} on {ctx:?}, accumulate {accumulate}"));
                    }
                }
            }
        }
    }
}

#[test]
fn windows_of_larger_matrices() {
    let shape = GemmShape { m: 21, n: 19, k: 23 };
    let (a, b) = (values(8, 64 * 64), values(9, 64 * 64));
    for (a_layout, b_layout) in
        [(Layout::Plain, Layout::Transposed), (Layout::Transposed, Layout::Plain), (Layout::Plain, Layout::Plain)]
    {
        let a = View { data: &a[3..], stride: 64, layout: a_layout };
        let b = View { data: &b[5..], stride: 64, layout: b_layout };
        let old = values(10, 40 * 22);
        let mut expected = old.clone();
        matmul_strided(&Context::scalar(), shape, a, b, &mut expected, 40, false);
        for row in 0..22 {
            assert_bits(&expected[row * 40 + 19..(row + 1) * 40], &old[row * 40 + 19..(row + 1) * 40], "outside");
        }
        for ctx in fast_contexts() {
            let mut c = old.clone();
            matmul_strided(&ctx, shape, a, b, &mut c, 40, false);
            assert_bits(&c, &expected, "window");
        }
    }
}

#[test]
fn a_row_of_a_batch_has_the_bits_it_has_alone() {
    let (m, n, k) = (130, 70, 300);
    let (a, b) = (values(11, m * k), values(12, n * k));
    let ctx = Context::new(2);
    let mut all = vec![0.0; m * n];
    matmul_nt(&ctx, m, n, k, &a, &b, &mut all, false);
    for row in [0, 1, 77, 129] {
        let mut alone = vec![0.0; n];
        matmul_nt(&ctx, 1, n, k, &a[row * k..(row + 1) * k], &b, &mut alone, false);
        assert_bits(&alone, &all[row * n..(row + 1) * n], "row");
    }
}

#[test]
fn subnormals_survive() {
    let tiny = f32::from_bits(3);
    for ctx in fast_contexts().into_iter().chain([Context::scalar()]) {
        let mut c = [0.0; 4];
        matmul_nn(&ctx, 2, 2, 1, &[tiny, 1.0], &[1.0, 0.5], &mut c, false);
        assert_bits(&c, &[tiny, f32::from_bits(2), 1.0, 0.5], "products with a subnormal");
    }
}

fn transpose(rows: usize, cols: usize, x: &[f32]) -> Vec<f32> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| x[row * cols + col])).collect()
}

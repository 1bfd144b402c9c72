//! Norm, rotary embedding, SwiGLU, embedding, loss and optimiser: other paths, threads, and gradients.

use tensor::random::Stream;
use tensor::*;

use crate::support::{assert_bits, check_gradient, normal, profiles, scalar_threads, stream, values};

/// Runs `kernel` on every context and compares all its outputs with the single-threaded reference.
#[track_caller]
fn same_everywhere(what: &str, kernel: impl Fn(&Context) -> Vec<Vec<f32>>) {
    for (scalar, fast) in profiles() {
        let expected = kernel(&scalar);
        for ctx in fast.into_iter().chain([scalar_threads().with_profile(scalar.profile())]) {
            for (i, (got, expected)) in kernel(&ctx).iter().zip(&expected).enumerate() {
                assert_bits(got, expected, &format!("{what}, output {i}, on {ctx:?}"));
            }
        }
    }
}

/// Row counts and widths around the lane and task boundaries, and random ones.
fn sizes() -> Vec<(usize, usize)> {
    let mut random = stream(17);
    let drawn = (0..8).map(|_| (1 + random.below(100) as usize, 1 + random.below(200) as usize));
    [(1, 1), (3, 15), (33, 16), (64, 17), (70, 256), (130, 48)].into_iter().chain(drawn.collect::<Vec<_>>()).collect()
}

fn norm(ctx: &Context, rows: usize, d: usize, x: &[f32], gain: &[f32], dout: &[f32]) -> Vec<Vec<f32>> {
    let (mut out, mut inv) = (vec![7.0; rows * d], vec![7.0; rows]);
    rmsnorm_forward(ctx, rows, d, x, gain, 1e-5, &mut out, &mut inv);
    let (mut dx, mut dgain) = (vec![7.0; rows * d], normal(20, d));
    rmsnorm_backward(ctx, rows, d, x, gain, &inv, dout, &mut dx, &mut dgain);
    let mut sum = normal(21, rows * d);
    rmsnorm_backward_add(ctx, rows, d, x, gain, &inv, dout, &mut sum, &mut dgain);
    vec![out, inv, dx, dgain, sum]
}

#[test]
fn norm_is_the_same_everywhere() {
    for (rows, d) in sizes() {
        let (x, gain, dout) = (values(1, rows * d), values(2, d), values(3, rows * d));
        same_everywhere("norm", |ctx| norm(ctx, rows, d, &x, &gain, &dout));
    }
}

#[test]
fn norm_gradients_match_finite_differences() {
    let (rows, d) = (3, 10);
    let (x, gain, dout) = (normal(4, rows * d), normal(5, d), normal(6, rows * d));
    let loss = |x: &[f32], gain: &[f32]| -> f64 {
        let rows = x.chunks(d).zip(dout.chunks(d)).map(|(x, dout)| {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / d as f64;
            let products =
                x.iter().zip(gain).zip(dout).map(|((x, g), w)| f64::from(*x) * f64::from(*g) * f64::from(*w));
            products.sum::<f64>() / (mean + 1e-5).sqrt()
        });
        rows.sum()
    };
    let ctx = Context::single();
    let results = norm(&ctx, rows, d, &x, &gain, &dout);
    check_gradient(&x, &results[2], 2e-3, |x| loss(x, &gain));
    let mut dgain = vec![0.0; d];
    rmsnorm_backward(&ctx, rows, d, &x, &gain, &results[1], &dout, &mut vec![0.0; rows * d], &mut dgain);
    check_gradient(&gain, &dgain, 2e-3, |gain| loss(&x, gain));
    let added: Vec<f32> = normal(21, rows * d).iter().zip(&results[2]).map(|(old, dx)| old + dx).collect();
    assert_bits(&results[4], &added, "the adding form");
}

#[test]
fn rope_is_the_same_everywhere() {
    for (rows, heads, head_dim) in [(1, 1, 2), (70, 3, 8), (65, 2, 32), (9, 4, 34), (130, 1, 64)] {
        let table = RopeTable::new(head_dim, 300, 10_000.0);
        let mut random = stream(30);
        let positions: Vec<u32> = (0..rows).map(|_| random.below(300) as u32).collect();
        let x = values(31, rows * heads * head_dim);
        for inverse in [false, true] {
            same_everywhere("rope", |ctx| {
                let mut x = x.clone();
                rope(ctx, rows, heads, head_dim, &positions, &table, &mut x, inverse);
                vec![x]
            });
        }
    }
}

#[test]
fn rope_rotates_by_the_angle_of_the_position() {
    let (head_dim, theta) = (6, 500.0f32);
    let table = RopeTable::new(head_dim, 1000, theta);
    let x = normal(32, head_dim);
    let mut y = x.clone();
    let ctx = Context::single();
    rope(&ctx, 1, 1, head_dim, &[777], &table, &mut y, false);
    for i in 0..3 {
        let angle = 777.0 * f64::from(theta).powf(-2.0 * i as f64 / head_dim as f64);
        let (a, b) = (f64::from(x[i]), f64::from(x[i + 3]));
        assert!((f64::from(y[i]) - (a * angle.cos() - b * angle.sin())).abs() < 1e-6);
        assert!((f64::from(y[i + 3]) - (b * angle.cos() + a * angle.sin())).abs() < 1e-6);
    }
    // The rotation is orthogonal: its inverse is its backward.
    rope(&ctx, 1, 1, head_dim, &[777], &table, &mut y, true);
    assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-6), "{x:?} came back as {y:?}");
}

#[test]
fn rope_gradient_matches_finite_differences() {
    let table = RopeTable::new(4, 50, 100.0);
    let (x, dout) = (normal(33, 16), normal(34, 16));
    let ctx = Context::single();
    let positions = [3, 49];
    let mut dx = dout.clone();
    rope(&ctx, 2, 2, 4, &positions, &table, &mut dx, true);
    check_gradient(&x, &dx, 1e-4, |x| {
        let mut y = x.to_vec();
        rope(&ctx, 2, 2, 4, &positions, &table, &mut y, false);
        y.iter().zip(&dout).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
    });
}

#[test]
fn swiglu_is_the_same_everywhere() {
    for len in [1, 15, 16, 1000, 16_385, 40_000] {
        let (mut gate, up, dout) = (values(40, len), values(41, len), values(42, len));
        for (i, gate) in gate.iter_mut().enumerate() {
            *gate *= [1.0, 30.0, 200.0][i % 3];
        }
        same_everywhere("swiglu", |ctx| {
            let (mut out, mut dgate, mut dup) = (vec![7.0; len], vec![7.0; len], vec![7.0; len]);
            swiglu_forward(ctx, &gate, &up, &mut out);
            swiglu_backward(ctx, &gate, &up, &dout, &mut dgate, &mut dup);
            vec![out, dgate, dup]
        });
    }
}

#[test]
fn swiglu_gradients_match_finite_differences() {
    let (gate, up, dout) = (normal(43, 40), normal(44, 40), normal(45, 40));
    let loss = |gate: &[f32], up: &[f32]| -> f64 {
        let terms = gate.iter().zip(up).zip(&dout).map(|((g, u), w)| {
            let g = f64::from(*g);
            g / (1.0 + (-g).exp()) * f64::from(*u) * f64::from(*w)
        });
        terms.sum()
    };
    let (mut dgate, mut dup) = (vec![0.0; 40], vec![0.0; 40]);
    swiglu_backward(&Context::single(), &gate, &up, &dout, &mut dgate, &mut dup);
    check_gradient(&gate, &dgate, 1e-3, |gate| loss(gate, &up));
    check_gradient(&up, &dup, 1e-3, |up| loss(&gate, up));
    let mut out = vec![0.0; 40];
    swiglu_forward(&Context::single(), &gate, &up, &mut out);
    let total: f64 = out.iter().zip(&dout).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
    assert!((total - loss(&gate, &up)).abs() < 1e-5);
}

#[test]
fn embedding_gathers_and_scatters() {
    let (vocab, d) = (11, 5);
    let table = normal(50, vocab * d);
    let tokens = [3, 0, 10, 3];
    let ctx = Context::single();
    let mut out = vec![0.0; tokens.len() * d];
    embedding_gather(&ctx, &tokens, &table, d, &mut out);
    assert_bits(&out[2 * d..3 * d], &table[10 * d..], "row of token 10");
    let mut gradient = vec![0.0; vocab * d];
    embedding_scatter_add(&ctx, &tokens, &out, d, &mut gradient);
    for i in 0..d {
        assert_eq!(gradient[3 * d + i], 0.0 + table[3 * d + i] + table[3 * d + i]);
        assert_eq!(gradient[d + i], 0.0);
    }
}

#[test]
#[should_panic(expected = "token 11 outside a table of 11 rows")]
fn embedding_refuses_a_token_outside_the_table() {
    embedding_gather(&Context::single(), &[11], &[0.0; 11], 1, &mut [0.0]);
}

fn targets(seed: u64, rows: usize, vocab: usize) -> Vec<u32> {
    let mut random: Stream = stream(seed);
    (0..rows).map(|_| random.below(vocab as u64) as u32).collect()
}

#[test]
fn loss_is_the_same_everywhere() {
    for (rows, vocab) in sizes() {
        let (logits, targets) = (values(60, rows * vocab), targets(61, rows, vocab));
        let run = |ctx: &Context| {
            let mut logits = logits.clone();
            let loss = cross_entropy(ctx, rows, vocab, &mut logits, &targets, 1.0 / rows as f32);
            (loss, logits)
        };
        let expected = |profile| run(&Context::scalar().with_profile(profile)).0.to_bits();
        same_everywhere("loss", |ctx| {
            let (loss, gradient) = run(ctx);
            assert_eq!(loss.to_bits(), expected(ctx.profile()), "loss of {rows} x {vocab} on {ctx:?}");
            vec![gradient]
        });
    }
}

fn exact_loss(vocab: usize, logits: &[f64], targets: &[u32]) -> f64 {
    let losses = logits.chunks(vocab).zip(targets).map(|(row, target)| {
        let max = row.iter().copied().fold(f64::MIN, f64::max);
        row.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max - row[*target as usize]
    });
    losses.sum()
}

#[test]
fn loss_gradient_matches_finite_differences() {
    let (rows, vocab) = (3, 21);
    let (logits, targets) = (normal(62, rows * vocab), targets(63, rows, vocab));
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
    let mut gradient = logits.clone();
    let loss = cross_entropy(&Context::single(), rows, vocab, &mut gradient, &targets, 0.5);
    assert!((loss - exact_loss(vocab, &wide(&logits), &targets)).abs() < 1e-5);
    check_gradient(&logits, &gradient, 1e-3, |x| 0.5 * exact_loss(vocab, &wide(x), &targets));
}

#[test]
fn head_loss_does_not_depend_on_chunks_or_threads() {
    let (rows, d, vocab) = (70, 24, 90);
    let (hidden, weight, targets) = (normal(64, rows * d), normal(65, vocab * d), targets(66, rows, vocab));
    let run = |ctx: &Context, chunk: usize| {
        let (mut dhidden, mut dweight) = (vec![7.0; rows * d], normal(67, vocab * d));
        let scale = 1.0 / rows as f32;
        let sizes = (rows, d, vocab);
        let loss = head_loss(
            ctx,
            sizes.0,
            sizes.1,
            sizes.2,
            &hidden,
            &weight,
            &targets,
            scale,
            &mut dhidden,
            &mut dweight,
            chunk,
        );
        assert_eq!(loss, head_loss_forward(ctx, rows, d, vocab, &hidden, &weight, &targets, chunk));
        let mut frozen = vec![3.0; rows * d];
        let same = head_loss_frozen(ctx, rows, d, vocab, &hidden, &weight, &targets, scale, &mut frozen, chunk);
        assert_eq!(loss, same);
        assert_bits(&frozen, &dhidden, "with a frozen weight");
        vec![dhidden, dweight, vec![loss as f32]]
    };
    let expected = run(&Context::scalar(), rows);
    for chunk in [1, 7, 32, 64, 1000] {
        for (got, expected) in run(&Context::new(2), chunk).iter().zip(&expected) {
            assert_bits(got, expected, &format!("chunk {chunk}"));
        }
    }
    same_everywhere("head", |ctx| run(ctx, 33));
}

#[test]
fn head_loss_gradients_match_finite_differences() {
    let (rows, d, vocab) = (4, 5, 9);
    let (hidden, weight, targets) = (normal(68, rows * d), normal(69, vocab * d), targets(70, rows, vocab));
    let (mut dhidden, mut dweight) = (vec![0.0; rows * d], vec![0.0; vocab * d]);
    let ctx = Context::single();
    head_loss(&ctx, rows, d, vocab, &hidden, &weight, &targets, 0.25, &mut dhidden, &mut dweight, 3);
    let loss = |hidden: &[f32], weight: &[f32]| {
        let logit = |i: usize, j: usize| -> f64 {
            (0..d).map(|p| f64::from(hidden[i * d + p]) * f64::from(weight[j * d + p])).sum()
        };
        let logits: Vec<f64> = (0..rows * vocab).map(|at| logit(at / vocab, at % vocab)).collect();
        0.25 * exact_loss(vocab, &logits, &targets)
    };
    check_gradient(&hidden, &dhidden, 2e-3, |hidden| loss(hidden, &weight));
    check_gradient(&weight, &dweight, 2e-3, |weight| loss(&hidden, weight));
}

#[test]
fn elementwise_is_the_same_everywhere() {
    for len in [0, 1, 16, 1023, 16_400, 50_001] {
        let (x, y) = (values(80, len), values(81, len));
        same_everywhere("elementwise", |ctx| {
            let (mut a, mut b, mut c) = (y.clone(), y.clone(), y.clone());
            add_assign(ctx, &mut a, &x);
            axpy(ctx, 0.3, &x, &mut b);
            scale(ctx, -1.7, &mut c);
            let sums = [dot(ctx, &x, &y), sum_squares(ctx, &x)];
            let sums = sums.iter().flat_map(|x| [x.to_bits() as u32, (x.to_bits() >> 32) as u32]).map(f32::from_bits);
            vec![a, b, c, sums.collect()]
        });
        let exact: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((sum_squares(&Context::new(2), &x) - exact).abs() <= 1e-6 * exact);
    }
    assert!(is_finite(&Context::new(2), &normal(82, 40_000)));
    let mut bad = normal(82, 40_000);
    bad[39_999] = f32::NAN;
    assert!(!is_finite(&Context::new(2), &bad));
}

#[test]
fn adamw_is_the_same_everywhere_and_follows_the_formula() {
    for len in [1, 17, 16_384, 40_003] {
        let (params, grads, m) = (normal(90, len), values(91, len), normal(92, len));
        let v: Vec<f32> = normal(93, len).iter().map(|x| x * x).collect();
        let step = AdamwStep::new(3, 1e-3, 0.9, 0.95, 1e-8, 0.1);
        let run = |ctx: &Context| {
            let (mut params, mut m, mut v) = (params.clone(), m.clone(), v.clone());
            adamw_update(ctx, &mut params, &grads, &mut m, &mut v, step);
            vec![params, m, v]
        };
        same_everywhere("adamw", run);
        let got = run(&Context::single());
        for i in 0..len {
            let g = f64::from(grads[i]);
            let m = 0.9 * f64::from(m[i]) + 0.1 * g;
            let v = 0.95 * f64::from(v[i]) + 0.05 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(3)), v / (1.0 - 0.95f64.powi(3)));
            let p = f64::from(params[i]) * (1.0 - 1e-3 * 0.1) - 1e-3 * m_hat / (v_hat.sqrt() + 1e-8);
            assert!((f64::from(got[0][i]) - p).abs() < 1e-6, "parameter {i}: {} is not {p}", got[0][i]);
        }
    }
}

#[test]
fn row_reductions_follow_the_tree() {
    let x = values(95, 50);
    let mut lanes = [0.0f32; 16];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 16] += x;
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    assert_eq!(reduce::sum(&x).to_bits(), lanes[0].to_bits());
    for profile in Profile::ALL {
        assert_eq!(reduce::dot(profile, &x, &[1.0; 50]).to_bits(), lanes[0].to_bits());
    }
}

#[test]
fn contexts_check_every_thread() {
    assert_eq!(Context::new(2).check_float_environment(), Ok(()));
    assert_eq!(Context::new(2).threads().count(), 2);
    assert_eq!(Context::single().threads().count(), 1);
}

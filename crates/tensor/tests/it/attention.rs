//! Attention: the fast path, threads, decoding and gradients.

use tensor::{
    AttentionShape, CacheShape, CachedRows, Context, PAGE, Profile, attention_backward, attention_cached,
    attention_forward,
};

use crate::support::{assert_bits, check_gradient, fast_contexts, normal, profiles, scalar_threads, values};

fn shape(batch: usize, tokens: usize, heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { batch, tokens, heads, kv_heads, head_dim }
}

struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Inputs {
    fn new(shape: AttentionShape, make: fn(u64, usize) -> Vec<f32>) -> Inputs {
        let (q, kv) = (shape.q_len(), shape.kv_len());
        Inputs { q: make(1, q), k: make(2, kv), v: make(3, kv), dout: make(4, q) }
    }
}

struct Results {
    out: Vec<f32>,
    stats: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

fn run(ctx: &Context, shape: AttentionShape, x: &Inputs) -> Results {
    let mut r = Results {
        out: vec![7.0; shape.q_len()],
        stats: vec![7.0; shape.stats_len()],
        dq: vec![7.0; shape.q_len()],
        dk: vec![7.0; shape.kv_len()],
        dv: vec![7.0; shape.kv_len()],
    };
    attention_forward(ctx, shape, &x.q, &x.k, &x.v, &mut r.out, &mut r.stats);
    let (dq, dk, dv) = (&mut r.dq, &mut r.dk, &mut r.dv);
    attention_backward(ctx, shape, &x.q, &x.k, &x.v, &r.out, &r.stats, &x.dout, dq, dk, dv);
    r
}

fn shapes() -> Vec<AttentionShape> {
    vec![
        shape(1, 1, 1, 1, 1),
        shape(2, 5, 2, 1, 4),
        shape(1, 33, 4, 2, 8),
        shape(2, 64, 3, 3, 16),
        shape(1, 47, 6, 2, 18),
        shape(2, 100, 2, 2, 32),
        shape(1, 70, 2, 1, 64),
        shape(3, 31, 4, 4, 24),
        shape(1, 17, 2, 1, 80),
    ]
}

#[test]
fn every_path_equals_the_reference() {
    for shape in shapes() {
        let x = Inputs::new(shape, values);
        for (scalar, fast) in profiles() {
            let expected = run(&scalar, shape, &x);
            for ctx in fast.into_iter().chain([scalar_threads().with_profile(scalar.profile())]) {
                let got = run(&ctx, shape, &x);
                assert_bits(&got.out, &expected.out, &format!("out {shape:?} {ctx:?}"));
                assert_bits(&got.stats, &expected.stats, &format!("stats {shape:?} {ctx:?}"));
                assert_bits(&got.dq, &expected.dq, &format!("dq {shape:?} {ctx:?}"));
                assert_bits(&got.dk, &expected.dk, &format!("dk {shape:?} {ctx:?}"));
                assert_bits(&got.dv, &expected.dv, &format!("dv {shape:?} {ctx:?}"));
            }
        }
    }
}

#[test]
fn rows_over_a_cache_have_the_bits_of_the_forward_however_they_are_fed() {
    for mut shape in shapes() {
        shape.batch = 1;
        let AttentionShape { heads, kv_heads, head_dim, tokens, .. } = shape;
        let cache = CacheShape { heads, kv_heads, head_dim };
        let x = Inputs::new(shape, values);
        let expected = Profile::ALL.map(|profile| run(&Context::scalar().with_profile(profile), shape, &x).out);
        let (row, kv_row) = (heads * head_dim, kv_heads * head_dim);
        for ctx in profiles().flat_map(|(scalar, fast)| fast.into_iter().chain([scalar])) {
            let expected = &expected[usize::from(ctx.profile() != Profile::default())];
            for piece in [1, 3, 7, 40, tokens] {
                // What lies behind the sequence in its last page must not matter.
                let mut pages = vec![vec![f32::NAN; cache.page_len()]; tokens.div_ceil(PAGE)];
                let mut out = vec![7.0; tokens * row];
                for start in (0..tokens).step_by(piece) {
                    let end = tokens.min(start + piece);
                    for at in start..end {
                        let kv = at * kv_row..(at + 1) * kv_row;
                        cache.store(&mut pages[at / PAGE], at % PAGE, &x.k[kv.clone()], &x.v[kv]);
                    }
                    let rows = start * row..end * row;
                    let pages = pages.iter().map(Vec::as_slice).collect();
                    let rows = CachedRows { start, q: &x.q[rows.clone()], pages, out: &mut out[rows] };
                    attention_cached(&ctx, cache, vec![rows]);
                }
                assert_bits(&out, expected, &format!("pieces of {piece} of {shape:?} on {ctx:?}"));
            }
        }
    }
}

#[test]
fn several_sequences_at_once_do_not_disturb_each_other() {
    let cache = CacheShape { heads: 4, kv_heads: 2, head_dim: 8 };
    let page = |seed| normal(seed, cache.page_len());
    let pages: Vec<Vec<f32>> = (0..4).map(page).collect();
    let queries = [normal(10, 32), normal(11, 9 * 32), normal(12, 32)];
    // The second and the third share their first page.
    let parts = [(5, vec![0]), (14, vec![1, 2]), (20, vec![1, 3])];
    let ctx = Context::new(2);
    let attend = |wanted: &[usize]| {
        let mut outs: Vec<Vec<f32>> = wanted.iter().map(|i| vec![0.0; queries[*i].len()]).collect();
        let sequences = wanted.iter().zip(&mut outs).map(|(i, out)| {
            let pages = parts[*i].1.iter().map(|page| pages[*page].as_slice()).collect();
            CachedRows { start: parts[*i].0, q: &queries[*i], pages, out }
        });
        attention_cached(&ctx, cache, sequences.collect());
        outs
    };
    let together = attend(&[0, 1, 2]);
    for (i, together) in together.iter().enumerate() {
        assert_bits(together, &attend(&[i])[0], &format!("sequence {i}"));
    }
}

#[test]
fn huge_scores_stay_finite() {
    let shape = shape(1, 40, 1, 1, 16);
    let mut x = Inputs::new(shape, normal);
    for q in &mut x.q {
        *q *= 1e4;
    }
    let expected = run(&Context::scalar(), shape, &x);
    assert!(expected.out.iter().chain(&expected.dq).chain(&expected.dk).all(|x| x.is_finite()));
    for ctx in fast_contexts() {
        assert_bits(&run(&ctx, shape, &x).dk, &expected.dk, "dk");
    }
}

#[test]
fn gradients_match_finite_differences() {
    for shape in [shape(1, 6, 2, 1, 4), shape(2, 5, 2, 2, 6)] {
        let x = Inputs::new(shape, normal);
        let ctx = Context::single();
        let r = run(&ctx, shape, &x);
        let loss = |q: &[f32], k: &[f32], v: &[f32]| {
            let out = exact(shape, q, k, v);
            out.iter().zip(&x.dout).map(|(out, dout)| out * f64::from(*dout)).sum::<f64>()
        };
        check_gradient(&x.q, &r.dq, 2e-3, |q| loss(q, &x.k, &x.v));
        check_gradient(&x.k, &r.dk, 2e-3, |k| loss(&x.q, k, &x.v));
        check_gradient(&x.v, &r.dv, 2e-3, |v| loss(&x.q, &x.k, v));
    }
}

#[test]
fn the_forward_is_close_to_f64() {
    for shape in shapes() {
        let x = Inputs::new(shape, normal);
        let got = run(&Context::single(), shape, &x).out;
        for (got, exact) in got.iter().zip(exact(shape, &x.q, &x.k, &x.v)) {
            assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} is not {exact} in {shape:?}");
        }
    }
}

/// The textbook formula in f64.
fn exact(shape: AttentionShape, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let AttentionShape { batch, tokens, heads, kv_heads, head_dim } = shape;
    let mut out = vec![0.0; shape.q_len()];
    for row in 0..batch * tokens {
        let (sequence, t) = (row / tokens, row % tokens);
        for head in 0..heads {
            let at = (row * heads + head) * head_dim;
            let kv = |j: usize| ((sequence * tokens + j) * kv_heads + head / (heads / kv_heads)) * head_dim;
            let score = |j: usize| {
                let products = (0..head_dim).map(|d| f64::from(q[at + d]) * f64::from(k[kv(j) + d]));
                products.sum::<f64>() / (head_dim as f64).sqrt()
            };
            let weights: Vec<f64> = (0..=t).map(|j| score(j).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for d in 0..head_dim {
                out[at + d] = (0..=t).map(|j| weights[j] * f64::from(v[kv(j) + d])).sum::<f64>() / sum;
            }
        }
    }
    out
}

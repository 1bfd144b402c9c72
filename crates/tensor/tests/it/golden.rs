//! Golden roots: the bits of every kernel on fixed inputs, frozen with profile `f32-fma`.
//!
//! A change here is a new numeric profile: peers with different bits cannot verify each other.

use tensor::*;

use crate::support::{fast_contexts, normal};

fn roots(ctx: &Context) -> Vec<(&'static str, String)> {
    let mut roots = Vec::new();
    let mut add = |name, values: &[f32]| roots.push((name, hex(&slice_root(values))));
    let (m, n, k) = (50, 70, 90);
    let (a, b) = (normal(1, m * k), normal(2, n * k));
    let mut c = normal(3, m * n);
    matmul_nt(ctx, m, n, k, &a, &b, &mut c, true);
    add("product", &c);

    let shape = AttentionShape { batch: 2, tokens: 45, heads: 4, kv_heads: 2, head_dim: 16 };
    let (q, key, value) = (normal(4, shape.q_len()), normal(5, shape.kv_len()), normal(6, shape.kv_len()));
    let (mut out, mut stats) = (vec![0.0; shape.q_len()], vec![0.0; shape.stats_len()]);
    attention_forward(ctx, shape, &q, &key, &value, &mut out, &mut stats);
    add("attention", &[out.clone(), stats.clone()].concat());
    let dout = normal(7, shape.q_len());
    let [mut dq, mut dk, mut dv] = [shape.q_len(), shape.kv_len(), shape.kv_len()].map(|len| vec![0.0; len]);
    attention_backward(ctx, shape, &q, &key, &value, &out, &stats, &dout, &mut dq, &mut dk, &mut dv);
    add("attention gradients", &[dq, dk, dv].concat());

    let (rows, d) = (40, 50);
    let (x, gain, dout) = (normal(8, rows * d), normal(9, d), normal(10, rows * d));
    let (mut out, mut inv, mut dx, mut dgain) = (x.clone(), vec![0.0; rows], x.clone(), vec![0.0; d]);
    rmsnorm_forward(ctx, rows, d, &x, &gain, 1e-5, &mut out, &mut inv);
    rmsnorm_backward(ctx, rows, d, &x, &gain, &inv, &dout, &mut dx, &mut dgain);
    add("norm", &[out, inv, dx, dgain].concat());

    let mut turned = x.clone();
    let positions: Vec<u32> = (0..rows as u32).map(|i| i * 97).collect();
    rope(ctx, rows, 5, 10, &positions, &RopeTable::new(10, 4096, 10_000.0), &mut turned, false);
    add("rotation", &turned);

    let (mut out, mut dgate, mut dup) = (x.clone(), x.clone(), x.clone());
    swiglu_forward(ctx, &x, &dout, &mut out);
    swiglu_backward(ctx, &x, &dout, &turned, &mut dgate, &mut dup);
    add("swiglu", &[out, dgate, dup].concat());

    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 50).collect();
    let mut logits = x.clone();
    let loss = cross_entropy(ctx, rows, d, &mut logits, &targets, 0.025);
    logits.extend([(loss.to_bits() >> 32) as u32, loss.to_bits() as u32].map(f32::from_bits));
    add("loss", &logits);

    let (mut params, mut moment, mut square) =
        (x.clone(), dout.clone(), dout.iter().map(|x| x * x).collect::<Vec<_>>());
    let step = AdamwStep::new(5, 1e-3, 0.9, 0.95, 1e-8, 0.1);
    adamw_update(ctx, &mut params, &turned, &mut moment, &mut square, step);
    add("adamw", &[params, moment, square].concat());
    roots
}

fn hex(bytes: &[u8]) -> String {
    bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_instruction_set_has_the_frozen_bits() {
    let golden = GOLDEN.map(|(name, root)| (name, root.to_owned()));
    for ctx in fast_contexts().into_iter().chain([Context::scalar()]) {
        assert_eq!(roots(&ctx), golden, "on {ctx:?}");
    }
}

const GOLDEN: [(&str, &str); 8] = [
    ("product", "b9ace71ea16dc50d"),
    ("attention", "5c57ff67089c35e6"),
    ("attention gradients", "acf3ccb5ea017e1b"),
    ("norm", "f1daf40afa77392f"),
    ("rotation", "9e402c5e1843fe24"),
    ("swiglu", "2ef66cc2335ed5d2"),
    ("loss", "7bcf497dd3ef7f83"),
    ("adamw", "6531182ac2c40865"),
];

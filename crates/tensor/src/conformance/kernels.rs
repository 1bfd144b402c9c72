//! The cases of the kernels that models and optimisers are made of.

use super::inputs::Inputs;
use super::{Digest, Kernel};
use crate::gemm::{GemmShape, Layout, View, matmul_strided};
use crate::*;

/// The cases, lower kernels first.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel { name: "matmul_nn", built_on: &["matmul_strided"], compute: product_nn },
    Kernel { name: "matmul_nt", built_on: &["matmul_strided"], compute: product_nt },
    Kernel { name: "matmul_tn", built_on: &["matmul_strided"], compute: product_tn },
    Kernel { name: "matmul_strided", built_on: &[], compute: product_strided },
    Kernel { name: "attention_forward", built_on: &["exp", "ln", "row_sum"], compute: attention },
    Kernel { name: "attention_backward", built_on: &["exp", "row_dot"], compute: attention_gradients },
    Kernel { name: "attention_cached", built_on: &["exp", "row_sum", "row_max"], compute: decoding },
    Kernel { name: "quantise_rows", built_on: &[], compute: quantised_rows },
    Kernel { name: "matmul_quantised", built_on: &["quantise_rows"], compute: quantised_products },
    Kernel { name: "rmsnorm_forward", built_on: &["row_dot"], compute: norm },
    Kernel { name: "rmsnorm_backward", built_on: &[], compute: norm_gradients },
    Kernel { name: "rope_table", built_on: &["exp_f64", "ln", "sin", "cos"], compute: rope_tables },
    Kernel { name: "rope", built_on: &["rope_table"], compute: rotation },
    Kernel { name: "swiglu_forward", built_on: &["sigmoid"], compute: swiglu },
    Kernel { name: "swiglu_backward", built_on: &["sigmoid"], compute: swiglu_gradients },
    Kernel { name: "embedding_gather", built_on: &[], compute: embedding },
    Kernel { name: "embedding_scatter_add", built_on: &[], compute: embedding_gradient },
    Kernel { name: "bias_forward", built_on: &[], compute: bias },
    Kernel { name: "bias_backward", built_on: &[], compute: bias_gradient },
    Kernel { name: "cross_entropy", built_on: &["exp", "ln", "row_max"], compute: loss },
    Kernel { name: "head_loss", built_on: &["cross_entropy", "matmul_nn", "matmul_nt", "matmul_tn"], compute: head },
    Kernel { name: "head_loss_forward", built_on: &["cross_entropy", "matmul_nt"], compute: head_forward },
    Kernel { name: "add_assign", built_on: &[], compute: addition },
    Kernel { name: "axpy", built_on: &[], compute: multiple },
    Kernel { name: "scale", built_on: &[], compute: scaling },
    Kernel { name: "dot", built_on: &["row_dot"], compute: long_dot },
    Kernel { name: "sum_squares", built_on: &["dot"], compute: squares },
    Kernel { name: "adamw_update", built_on: &[], compute: adamw },
];

/// Sizes m, n, k of products: single values, tails, few rows (columns are split), rows split over several blocks of k, and many
/// columns.
const PRODUCTS: [(usize, usize, usize); 7] =
    [(1, 1, 1), (7, 5, 3), (5, 33, 0), (13, 131, 300), (101, 37, 259), (49, 1030, 257), (49, 2050, 17)];

/// One of the three orientations.
type Product = fn(&Context, usize, usize, usize, &[f32], &[f32], &mut [f32], bool);

fn products(name: &str, ctx: &Context, digest: &mut Digest, product: Product) {
    let mut inputs = Inputs::new(name);
    for (m, n, k) in PRODUCTS {
        let (mut a, b, mut c) = (inputs.values(m * k), inputs.values(k * n), inputs.values(m * n));
        product(ctx, m, n, k, &a, &b, &mut c, true);
        digest.values(&c);
        if m * n * k < 100_000 {
            a.iter_mut().take(1).for_each(|x| *x = f32::NAN);
            product(ctx, m, n, k, &a, &b, &mut c, false);
            digest.values(&c);
        }
    }
}

fn product_nn(ctx: &Context, digest: &mut Digest) {
    products("matmul_nn", ctx, digest, matmul_nn);
}

fn product_nt(ctx: &Context, digest: &mut Digest) {
    products("matmul_nt", ctx, digest, matmul_nt);
}

fn product_tn(ctx: &Context, digest: &mut Digest) {
    products("matmul_tn", ctx, digest, matmul_tn);
}

fn product_strided(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("matmul_strided");
    for (m, n, k) in [(3, 5, 2), (29, 40, 31), (70, 19, 290)] {
        for (a_layout, b_layout) in [(Layout::Plain, Layout::Transposed), (Layout::Transposed, Layout::Plain)] {
            let stride = m.max(n).max(k) + 3;
            let (a, b, mut c) =
                (inputs.values(stride * stride), inputs.values(stride * stride), inputs.values(m * stride));
            let a = View { data: &a, stride, layout: a_layout };
            let b = View { data: &b, stride, layout: b_layout };
            matmul_strided(ctx, GemmShape { m, n, k }, a, b, &mut c, stride, true);
            digest.values(&c);
        }
    }
}

/// Shapes of attention: one position, grouped heads, blocks with tails, heads wider than a panel.
const ATTENTION: [(usize, usize, usize, usize, usize); 5] =
    [(1, 1, 1, 1, 1), (2, 5, 2, 1, 4), (1, 71, 4, 2, 18), (2, 33, 2, 2, 32), (1, 131, 2, 1, 64)];

struct AttentionInputs {
    shape: AttentionShape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

fn attention_inputs(name: &str) -> impl Iterator<Item = AttentionInputs> {
    let mut inputs = Inputs::new(name);
    ATTENTION.into_iter().map(move |(batch, tokens, heads, kv_heads, head_dim)| {
        let shape = AttentionShape { batch, tokens, heads, kv_heads, head_dim };
        let (q, kv) = (shape.q_len(), shape.kv_len());
        AttentionInputs { shape, q: inputs.plain(q), k: inputs.plain(kv), v: inputs.values(kv), dout: inputs.values(q) }
    })
}

fn attention(ctx: &Context, digest: &mut Digest) {
    for AttentionInputs { shape, q, k, v, .. } in attention_inputs("attention_forward") {
        let (mut out, mut stats) = (vec![0.0; shape.q_len()], vec![0.0; shape.stats_len()]);
        attention_forward(ctx, shape, &q, &k, &v, &mut out, &mut stats);
        digest.values(&out);
        digest.values(&stats);
    }
}

/// The output and the statistics that the backward reads are inputs like any other here, so that only the backward is hashed. The
/// statistics are above every score: weights are at most 1.
fn attention_gradients(ctx: &Context, digest: &mut Digest) {
    for AttentionInputs { shape, q, k, v, dout } in attention_inputs("attention_backward") {
        let mut inputs = Inputs::new("attention_backward saved");
        let out = inputs.plain(shape.q_len());
        let high = 16.0 * shape.head_dim as f32 / (shape.head_dim as f32).sqrt();
        let stats: Vec<f32> = inputs.plain(shape.stats_len()).iter().map(|x| (x + 4.0) * 0.125 * high).collect();
        let [mut dq, mut dk, mut dv] = [shape.q_len(), shape.kv_len(), shape.kv_len()].map(|len| vec![0.0; len]);
        attention_backward(ctx, shape, &q, &k, &v, &out, &stats, &dout, &mut dq, &mut dk, &mut dv);
        [dq, dk, dv].iter().for_each(|gradient| digest.values(gradient));
    }
}

/// One row, a few and a block of them, each over what is before it in the cache.
fn decoding(ctx: &Context, digest: &mut Digest) {
    for AttentionInputs { shape, q, k, v, .. } in attention_inputs("attention_cached") {
        let AttentionShape { tokens, heads, kv_heads, head_dim, .. } = shape;
        let (row, kv_row) = (heads * head_dim, kv_heads * head_dim);
        let cache = CacheShape { heads, kv_heads, head_dim };
        let mut pages = vec![vec![0.0; cache.page_len()]; tokens.div_ceil(PAGE)];
        for (at, (key, value)) in k.chunks(kv_row).zip(v.chunks(kv_row)).take(tokens).enumerate() {
            cache.store(&mut pages[at / PAGE], at % PAGE, key, value);
        }
        for rows in [1, 3.min(tokens), tokens] {
            let start = tokens - rows;
            let mut out = vec![0.0; rows * row];
            let pages = pages.iter().map(Vec::as_slice).collect();
            let rows = CachedRows { start, q: &q[start * row..tokens * row], pages, out: &mut out };
            attention_cached(ctx, cache, vec![rows]);
            digest.values(&out);
        }
    }
}

/// Rows and widths of quantised activations: one block, and tails of rows.
const QUANTISED: [(usize, usize); 3] = [(1, 32), (7, 96), (13, 160)];

fn quantised_rows(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("quantise_rows");
    for (rows, cols) in QUANTISED {
        let mut quantised = QuantisedRows::default();
        quantise_rows(ctx, rows, cols, &inputs.values(rows * cols), &mut quantised);
        digest.values(&quantised.numbers().collect::<Vec<f32>>());
    }
}

/// Every format, with the integers and scales of the activations given by exact small numbers.
fn quantised_products(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("matmul_quantised");
    use QuantisedFormat::{Q4_0, Q4_1, Q4K, Q6K, Q8_0};
    for format in [Q8_0, Q4_0, Q4_1, Q4K, Q6K] {
        for (rows, cols) in QUANTISED {
            let outputs = 3 * rows + 16;
            let mut blocks = Vec::new();
            for _ in 0..outputs * cols / 32 {
                let largest = if matches!(format, Q8_0 | Q6K) { 256 } else { 16 };
                let codes = std::array::from_fn(|_| inputs.below(largest) as u8);
                // Multiples of 1/64 below 1 fit every format.
                let mut scale = || inputs.below(63) as f32 / 64.0 + 1.0 / 64.0;
                let first = scale();
                let last = if format == Q6K { scale() } else { first };
                let minimum = if format.has_minimum() { -scale() } else { 0.0 };
                blocks.push(QuantisedBlock { codes, scales: [first, last], minimum });
            }
            let block = |row: usize, at: usize| blocks[row * (cols / 32) + at];
            let w = QuantisedMatrix::new(format, outputs, cols, block).expect("scales that every format holds");
            // Each block's largest is 127, so that its codes are the values and its scale is 1.
            let x: Vec<f32> =
                (0..rows * cols).map(|i| if i % 32 == 5 { 127.0 } else { inputs.below(255) as f32 - 127.0 }).collect();
            let mut quantised = QuantisedRows::default();
            quantise_rows(&Context::scalar(), rows, cols, &x, &mut quantised);
            let mut out = inputs.plain(rows * outputs);
            matmul_quantised(ctx, &quantised, vec![(&w, &mut out)], true);
            digest.values(&out);
            // Products with this scale are rounded.
            let x: Vec<f32> = x.iter().map(|x| x * 0.013).collect();
            quantise_rows(&Context::scalar(), rows, cols, &x, &mut quantised);
            matmul_quantised(ctx, &quantised, vec![(&w, &mut out)], true);
            digest.values(&out);
        }
    }
}

/// Rows and widths of row-wise kernels: single, tails, several tasks and row chunks.
const ROWS: [(usize, usize); 5] = [(1, 1), (3, 15), (70, 16), (33, 67), (101, 130)];

fn norm(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("rmsnorm_forward");
    for (rows, d) in ROWS {
        for x in [inputs.values(rows * d), inputs.with_specials(rows * d)] {
            let (gain, mut out, mut inv_rms) = (inputs.plain(d), vec![0.0; rows * d], vec![0.0; rows]);
            rmsnorm_forward(ctx, rows, d, &x, &gain, 1e-5, &mut out, &mut inv_rms);
            digest.values(&out);
            digest.values(&inv_rms);
        }
    }
}

fn norm_gradients(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("rmsnorm_backward");
    for (rows, d) in ROWS {
        let (x, gain, dout) = (inputs.values(rows * d), inputs.plain(d), inputs.values(rows * d));
        let inv_rms: Vec<f32> = inputs.plain(rows).iter().map(|x| x * 0.25 + 1.5).collect();
        let (mut dx, mut dgain) = (inputs.plain(rows * d), inputs.plain(d));
        rmsnorm_backward_add(ctx, rows, d, &x, &gain, &inv_rms, &dout, &mut dx, &mut dgain);
        digest.values(&dx);
        rmsnorm_backward(ctx, rows, d, &x, &gain, &inv_rms, &dout, &mut dx, &mut dgain);
        digest.values(&dx);
        digest.values(&dgain);
    }
}

/// Plain tables, and one whose frequencies are scaled as those of models for long texts.
fn tables() -> [RopeTable; 4] {
    [
        RopeTable::new(2, 300, 10_000.0),
        RopeTable::new(34, 300, 500_000.0),
        RopeTable::new(64, 300, 100.0),
        RopeTable::scaled(32, 300, 10_000.0, |frequency| if frequency < 0.01 { frequency / 8.0 } else { frequency }),
    ]
}

fn rope_tables(_: &Context, digest: &mut Digest) {
    for table in tables() {
        let (cos, sin) = table.values();
        digest.values(cos);
        digest.values(sin);
    }
}

fn rotation(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("rope");
    for (table, head_dim) in tables().iter().zip([2, 34, 64, 32]) {
        for (rows, heads) in [(1, 1), (70, 3), (131, 1)] {
            for inverse in [false, true] {
                let (mut x, positions) = (inputs.values(rows * heads * head_dim), inputs.tokens(rows, 300));
                rope(ctx, rows, heads, head_dim, &positions, table, &mut x, inverse);
                digest.values(&x);
            }
        }
    }
}

/// Lengths of flat arrays: single, tails, more than one task.
const FLAT: [usize; 5] = [1, 15, 16, 1027, 33_003];

/// Gates from near zero to where the sigmoid is 0 or 1.
fn gates(inputs: &mut Inputs, len: usize) -> Vec<f32> {
    let mut gates = inputs.values(len);
    gates.iter_mut().enumerate().for_each(|(i, gate)| *gate *= [1.0, 16.0, 64.0][i % 3]);
    gates
}

fn swiglu(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("swiglu_forward");
    for len in FLAT {
        let (gate, up, mut out) = (gates(&mut inputs, len), inputs.with_specials(len), vec![0.0; len]);
        swiglu_forward(ctx, &gate, &up, &mut out);
        digest.values(&out);
    }
}

fn swiglu_gradients(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("swiglu_backward");
    for len in FLAT {
        let (gate, up, dout) = (gates(&mut inputs, len), inputs.values(len), inputs.with_specials(len));
        let (mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len]);
        swiglu_backward(ctx, &gate, &up, &dout, &mut dgate, &mut dup);
        digest.values(&dgate);
        digest.values(&dup);
    }
}

fn embedding(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("embedding_gather");
    let (vocab, d) = (53, 19);
    let (table, tokens) = (inputs.with_specials(vocab * d), inputs.tokens(90, vocab));
    let mut out = vec![0.0; tokens.len() * d];
    embedding_gather(ctx, &tokens, &table, d, &mut out);
    digest.values(&out);
}

fn embedding_gradient(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("embedding_scatter_add");
    let (vocab, d) = (11, 19);
    let tokens = inputs.tokens(90, vocab);
    let (dout, mut dtable) = (inputs.values(tokens.len() * d), inputs.values(vocab * d));
    embedding_scatter_add(ctx, &tokens, &dout, d, &mut dtable);
    digest.values(&dtable);
}

fn bias(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("bias_forward");
    for (rows, d) in ROWS {
        let (bias, mut x) = (inputs.values(d), inputs.with_specials(rows * d));
        bias_forward(ctx, rows, d, &bias, &mut x);
        digest.values(&x);
    }
}

fn bias_gradient(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("bias_backward");
    for (rows, d) in ROWS {
        let (dx, mut dbias) = (inputs.values(rows * d), inputs.values(d));
        bias_backward(ctx, rows, d, &dx, &mut dbias);
        digest.values(&dbias);
    }
}

fn loss(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("cross_entropy");
    for (rows, vocab) in ROWS {
        let (mut logits, targets) = (gates(&mut inputs, rows * vocab), inputs.tokens(rows, vocab));
        digest.wide(cross_entropy(ctx, rows, vocab, &mut logits, &targets, 0.37));
        digest.values(&logits);
    }
}

/// Rows, width, vocabulary and rows of logits held at once.
const HEADS: [(usize, usize, usize, usize); 3] = [(1, 1, 1, 1), (37, 19, 131, 16), (70, 24, 517, 1000)];

fn head(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("head_loss");
    for (rows, d, vocab, chunk) in HEADS {
        let (hidden, weight) = (inputs.plain(rows * d), inputs.plain(vocab * d));
        let targets = inputs.tokens(rows, vocab);
        let (mut dhidden, mut dweight) = (vec![0.0; rows * d], inputs.plain(vocab * d));
        let (dhidden, dweight) = (&mut dhidden, &mut dweight);
        let loss = head_loss(ctx, rows, d, vocab, &hidden, &weight, &targets, 0.013, dhidden, dweight, chunk);
        digest.wide(loss);
        digest.values(dhidden);
        digest.values(dweight);
    }
}

fn head_forward(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("head_loss_forward");
    for (rows, d, vocab, chunk) in HEADS {
        let (hidden, weight) = (inputs.plain(rows * d), inputs.plain(vocab * d));
        let targets = inputs.tokens(rows, vocab);
        digest.wide(head_loss_forward(ctx, rows, d, vocab, &hidden, &weight, &targets, chunk));
    }
}

fn addition(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("add_assign");
    for len in FLAT {
        let (mut y, x) = (inputs.with_specials(len), inputs.with_specials(len));
        add_assign(ctx, &mut y, &x);
        digest.values(&y);
    }
}

fn multiple(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("axpy");
    for len in FLAT {
        let (x, mut y) = (inputs.with_specials(len), inputs.values(len));
        axpy(ctx, -0.37, &x, &mut y);
        digest.values(&y);
    }
}

fn scaling(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("scale");
    for len in FLAT {
        for factor in [-1.7, 1e-39] {
            let mut x = inputs.with_specials(len);
            scale(ctx, factor, &mut x);
            digest.values(&x);
        }
    }
}

fn long_dot(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("dot");
    for len in FLAT {
        let (x, y) = (inputs.values(len), inputs.values(len));
        digest.wide(dot(ctx, &x, &y));
    }
}

fn squares(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("sum_squares");
    for len in FLAT {
        digest.wide(sum_squares(ctx, &inputs.values(len)));
        digest.wide(sum_squares(ctx, &inputs.with_specials(len)));
        digest.wide(sum_squares(ctx, &inputs.plain(len)));
    }
}

fn adamw(ctx: &Context, digest: &mut Digest) {
    let mut inputs = Inputs::new("adamw_update");
    for (t, len) in (1..).zip(FLAT) {
        let (mut params, grads, mut m) = (inputs.values(len), inputs.values(len), inputs.values(len));
        let mut v: Vec<f32> = inputs.plain(len).iter().map(|x| x * x).collect();
        for step in [t, 1000 * t] {
            let step = AdamwStep::new(step, 1e-3, 0.9, 0.95, 1e-8, 0.1);
            adamw_update(ctx, &mut params, &grads, &mut m, &mut v, step);
        }
        [params, m, v].iter().for_each(|values| digest.values(values));
    }
}

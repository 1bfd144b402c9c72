//! The fast path: blocks of query rows with the queries in the lanes.
//!
//! A block's scores are kept transposed, `[key][query]`. That is the panel layout of the product's second operand, so the weights
//! feed the next product where they lie, and the softmax runs over all queries of the block at once: lane = query, its 16
//! virtual lanes of the contract are 16 vectors. Masked scores of the block on the diagonal are -infinity, their weights +0. Key
//! positions after the block are never touched.

use super::{AttentionShape, Saved};
use crate::Context;
use crate::arch::{Block, LANES, Lanes, MatMut, Strips, Variant, lanes_kernel, packed_len};
use crate::math::{exp_lanes, ln_f64};
use crate::reduce::dot_lanes;
use crate::scratch::Scratch;

/// Rows of one head inside an array of rows of several heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) dim: usize,
}

impl<'a> Head<'a> {
    pub(super) fn new(data: &'a [f32], stride: usize, rows: usize, first_row: usize, head: usize, dim: usize) -> Self {
        Head { data: &data[first_row * stride + head * dim..], stride, rows, dim }
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.dim]
    }

    /// Rows `from..from + rows`.
    pub(super) fn rows(&self, from: usize, rows: usize) -> Self {
        Head { data: &self.data[from * self.stride..], rows, ..*self }
    }
}

/// The block of queries a softmax works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queries {
    /// Position of the first query.
    pub(super) first: usize,
    /// Keys that some query of the block sees.
    pub(super) keys: usize,
    /// Factor of every score.
    pub(super) scale: f32,
}

pub(super) fn forward(
    ctx: &Context,
    shape: AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    stats: &mut [f32],
) {
    let AttentionShape { batch, tokens, heads, kv_heads, head_dim } = shape;
    if shape.q_len() == 0 {
        return;
    }
    let (q_row, kv_row) = (heads * head_dim, kv_heads * head_dim);
    let outputs = MatMut::new(out, batch * tokens, q_row, q_row).tiles(tokens, head_dim);
    let work = outputs.into_iter().zip(stats.chunks_mut(tokens)).enumerate().collect();
    ctx.threads().for_each(work, |(task, (out, stats)): (usize, (MatMut<'_>, &mut [f32]))| {
        let (sequence, head) = (task / heads, task % heads);
        let kv_head = head / (heads / kv_heads);
        let q = Head::new(q, q_row, tokens, sequence * tokens, head, head_dim);
        let k = Head::new(k, kv_row, tokens, sequence * tokens, kv_head, head_dim);
        let v = Head::new(v, kv_row, tokens, sequence * tokens, kv_head, head_dim);
        forward_head(ctx.variant(), shape.scale(), q, k, v, out, stats);
    });
}

fn forward_head(
    variant: Variant,
    scale: f32,
    q: Head<'_>,
    k: Head<'_>,
    v: Head<'_>,
    mut out: MatMut<'_>,
    stats: &mut [f32],
) {
    let (tokens, dim) = (q.rows, q.dim);
    let (tile_rows, panel) = variant.tile();
    let mut packed_k = Scratch::new(tokens.div_ceil(tile_rows) * packed_len(dim, tile_rows));
    let mut panel_q = Scratch::new(dim * panel);
    let mut scores = Scratch::new(tokens * panel);
    let mut result = Scratch::new(dim * panel);
    let mut sums = [0.0f32; MAX_PANEL];
    let mut maxima = [0.0f32; MAX_PANEL];
    pack_groups(variant, k, &mut packed_k);
    for first in (0..tokens).step_by(panel) {
        let queries = panel.min(tokens - first);
        let keys = first + queries;
        pack_transposed(variant, q.rows(first, queries), panel, &mut panel_q);
        product(variant, dim, Strips::Packed(&packed_k), &panel_q, &mut scores, keys, panel);
        let block = Queries { first, keys, scale };
        softmax(variant, block, panel, &mut scores, &mut maxima[..panel], &mut sums[..panel]);
        product(variant, keys, Strips::Columns(v.data, v.stride), &scores, &mut result, dim, panel);
        let statistics = stats[first..keys].iter_mut().zip(maxima.iter().zip(&sums));
        for (stat, (max, sum)) in statistics {
            *stat = (f64::from(*max) + ln_f64(f64::from(*sum))) as f32;
        }
        for sum in &mut sums[..panel] {
            *sum = 1.0 / *sum;
        }
        store_transposed(variant, &result, &sums[..panel], first, queries, out.top(tokens));
    }
}

/// The widest panel of any instruction set.
pub(super) const MAX_PANEL: usize = 64;

/// `out` `[rows, panel]` = A · `b`.
pub(super) fn product(
    variant: Variant,
    k: usize,
    a: Strips<'_>,
    b: &[f32],
    out: &mut [f32],
    rows: usize,
    panel: usize,
) {
    let c = &mut MatMut::new(out, rows, panel, panel);
    variant.run(Block { k, a, b, c, accumulate: false });
}

pub(super) fn backward(
    ctx: &Context,
    shape: AttentionShape,
    saved: &Saved<'_>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let AttentionShape { batch, tokens, heads, kv_heads, head_dim } = shape;
    if shape.q_len() == 0 {
        return;
    }
    let group = heads / kv_heads;
    let (q_row, kv_row) = (heads * head_dim, kv_heads * head_dim);
    let rows = batch * tokens;
    let dq = MatMut::new(dq, rows, q_row, q_row).tiles(tokens, group * head_dim);
    let dk = MatMut::new(dk, rows, kv_row, kv_row).tiles(tokens, head_dim);
    let dv = MatMut::new(dv, rows, kv_row, kv_row).tiles(tokens, head_dim);
    let work = dq.into_iter().zip(dk.into_iter().zip(dv)).enumerate().collect();
    ctx.threads().for_each(
        work,
        |(task, (mut dq, (mut dk, mut dv))): (usize, (MatMut<'_>, (MatMut<'_>, MatMut<'_>)))| {
            let (sequence, kv_head) = (task / kv_heads, task % kv_heads);
            let row = sequence * tokens;
            let kv = |data| Head::new(data, kv_row, tokens, row, kv_head, head_dim);
            let mut pass = Backward::new(ctx.variant(), shape.scale(), kv(saved.k), kv(saved.v));
            fill(&mut dk, 0.0);
            fill(&mut dv, 0.0);
            for i in 0..group {
                let head = kv_head * group + i;
                let at = |data| Head::new(data, q_row, tokens, row, head, head_dim);
                let stats = &saved.stats[(sequence * heads + head) * tokens..][..tokens];
                let rows = HeadRows { q: at(saved.q), out: at(saved.out), dout: at(saved.dout), stats };
                pass.head(&rows, &mut dq.columns(i * head_dim, head_dim), &mut dk, &mut dv);
            }
            make_zeros_positive(ctx.variant(), dk);
            make_zeros_positive(ctx.variant(), dv);
        },
    );
}

/// One query head's rows of everything the backward reads.
struct HeadRows<'a> {
    q: Head<'a>,
    out: Head<'a>,
    dout: Head<'a>,
    stats: &'a [f32],
}

/// The backward of one key/value head: its packed operands and scratch.
struct Backward<'a> {
    variant: Variant,
    scale: f32,
    panel: usize,
    k: Head<'a>,
    packed_k: Scratch,
    packed_v: Scratch,
    panel_q: Scratch,
    panel_dout: Scratch,
    rows_q: Scratch,
    rows_dout: Scratch,
    weights: Scratch,
    dscores: Scratch,
    result: Scratch,
}

impl<'a> Backward<'a> {
    fn new(variant: Variant, scale: f32, k: Head<'a>, v: Head<'a>) -> Self {
        let (tile_rows, panel) = variant.tile();
        let (tokens, dim) = (k.rows, k.dim);
        let groups = tokens.div_ceil(tile_rows) * packed_len(dim, tile_rows);
        let rows = dim.div_ceil(panel) * packed_len(panel, panel);
        let mut pass = Backward {
            variant,
            scale,
            panel,
            k,
            packed_k: Scratch::new(groups),
            packed_v: Scratch::new(groups),
            panel_q: Scratch::new(dim * panel),
            panel_dout: Scratch::new(dim * panel),
            rows_q: Scratch::new(rows),
            rows_dout: Scratch::new(rows),
            weights: Scratch::new(tokens * panel),
            dscores: Scratch::new(tokens * panel),
            result: Scratch::new(dim * panel),
        };
        pack_groups(variant, k, &mut pass.packed_k);
        pack_groups(variant, v, &mut pass.packed_v);
        pass
    }

    fn head(&mut self, rows: &HeadRows<'_>, dq: &mut MatMut<'_>, dk: &mut MatMut<'_>, dv: &mut MatMut<'_>) {
        for first in (0..self.k.rows).step_by(self.panel) {
            self.block(rows, first, dq, dk, dv);
        }
    }

    fn block(
        &mut self,
        rows: &HeadRows<'_>,
        first: usize,
        dq: &mut MatMut<'_>,
        dk: &mut MatMut<'_>,
        dv: &mut MatMut<'_>,
    ) {
        let (variant, panel, dim) = (self.variant, self.panel, self.k.dim);
        let queries = panel.min(self.k.rows - first);
        let keys = first + queries;
        let (q, dout) = (rows.q.rows(first, queries), rows.dout.rows(first, queries));
        pack_transposed(variant, q, panel, &mut self.panel_q);
        pack_transposed(variant, dout, panel, &mut self.panel_dout);
        pack_rows(q, panel, &mut self.rows_q);
        pack_rows(dout, panel, &mut self.rows_dout);
        product(variant, dim, Strips::Packed(&self.packed_k), &self.panel_q, &mut self.weights, keys, panel);
        product(variant, dim, Strips::Packed(&self.packed_v), &self.panel_dout, &mut self.dscores, keys, panel);
        let (mut stats, mut pulls) = ([0.0f32; MAX_PANEL], [0.0f32; MAX_PANEL]);
        stats[..queries].copy_from_slice(&rows.stats[first..keys]);
        row_dots(variant, dout, rows.out.rows(first, queries), &mut pulls[..queries]);
        let block = Queries { first, keys, scale: self.scale };
        let (weights, dscores) = (&mut self.weights, &mut self.dscores);
        score_gradients(variant, block, panel, &stats[..panel], &pulls[..panel], weights, dscores);
        let (weights, dscores) = (Strips::Panel(weights), Strips::Panel(dscores));
        variant.run(Block { k: queries, a: weights, b: &self.rows_dout, c: &mut dv.top(keys), accumulate: true });
        variant.run(Block { k: queries, a: dscores, b: &self.rows_q, c: &mut dk.top(keys), accumulate: true });
        let k = Strips::Columns(self.k.data, self.k.stride);
        product(variant, keys, k, &self.dscores, &mut self.result, dim, panel);
        store_transposed(variant, &self.result, &ONES[..panel], first, queries, dq.top(self.k.rows));
    }
}

static ONES: [f32; MAX_PANEL] = [1.0; MAX_PANEL];

fn fill(c: &mut MatMut<'_>, x: f32) {
    for row in 0..c.rows() {
        c.row(row).fill(x);
    }
}

lanes_kernel! {
    /// Packs the rows of a head as the first operand: groups of `TILE_ROWS` rows, `[dim][TILE_ROWS]`.
    fn pack_groups<'a>(s; head: Head<'a>, packed: &'a mut [f32]) {
        let rows = tile_rows(s);
        for (group, packed) in packed.chunks_exact_mut(packed_len(head.dim, rows)).enumerate() {
            let first = group * rows;
            let count = rows.min(head.rows - first);
            for d in (0..head.dim).step_by(LANES) {
                let dims = LANES.min(head.dim - d);
                let mut vectors = [s.splat(0.0); LANES];
                for (i, vector) in vectors.iter_mut().enumerate().take(count) {
                    *vector = s.load_or(&head.row(first + i)[d..d + dims], 0.0);
                }
                for (i, vector) in s.transpose(vectors).into_iter().enumerate().take(dims) {
                    let at = (d + i) * rows;
                    let end = packed.len().min(at + LANES);
                    // What is too much is overwritten by the next step.
                    s.store_some(vector, &mut packed[at..end]);
                }
            }
        }
    }
}

#[inline(always)]
fn tile_rows<S: Lanes>(_: S) -> usize {
    S::TILE_ROWS
}

lanes_kernel! {
    /// Packs the rows of a head transposed, as one panel `[dim][panel]`; missing rows are zero.
    pub(super) fn pack_transposed<'a>(s; head: Head<'a>, panel: usize, packed: &'a mut [f32]) {
        for first in (0..panel).step_by(LANES) {
            for d in (0..head.dim).step_by(LANES) {
                let dims = LANES.min(head.dim - d);
                let mut vectors = [s.splat(0.0); LANES];
                for (i, vector) in vectors.iter_mut().enumerate().take(head.rows.saturating_sub(first)) {
                    *vector = s.load_or(&head.row(first + i)[d..d + dims], 0.0);
                }
                for (i, vector) in s.transpose(vectors).into_iter().enumerate().take(dims) {
                    s.store(vector, &mut packed[(d + i) * panel + first..]);
                }
            }
        }
    }
}

/// Packs the rows of a head as they are, in panels of columns: `[panel][row][column]`; missing columns are zero.
fn pack_rows(head: Head<'_>, panel: usize, packed: &mut [f32]) {
    let panels = packed.chunks_mut(packed_len(head.rows, panel)).enumerate();
    for (col, packed) in panels.take(head.dim.div_ceil(panel)) {
        let cols = panel.min(head.dim - col * panel);
        for (row, out) in packed.chunks_exact_mut(panel).enumerate().take(head.rows) {
            out[..cols].copy_from_slice(&head.row(row)[col * panel..][..cols]);
            out[cols..].fill(0.0);
        }
    }
}

lanes_kernel! {
    /// Turns scores `[key][query]` into weights e^(score·scale − max), with each query's largest score and sum of weights.
    pub(super) fn softmax<'a>(
        s; block: Queries, panel: usize, scores: &'a mut [f32], maxima: &'a mut [f32], sums: &'a mut [f32]
    ) {
        let scale = s.splat(block.scale);
        for lane in (0..panel).step_by(LANES) {
            let mut max = s.splat(f32::NEG_INFINITY);
            for key in 0..block.keys {
                let score = &mut scores[key * panel + lane..][..LANES];
                let mut value = s.mul(s.load(score), scale);
                if key > block.first + lane {
                    value = s.add(value, s.load(&mask(key - block.first - lane)));
                }
                max = s.max(max, value);
                s.store(value, score);
            }
            // A padding query beyond the last one may see nothing: any finite value keeps its lanes clean.
            let max = s.max(max, s.splat(f32::MIN));
            let mut lanes = [s.splat(0.0); LANES];
            for first in (0..block.keys).step_by(LANES) {
                for (i, sum) in lanes.iter_mut().enumerate().take(block.keys - first) {
                    let score = &mut scores[(first + i) * panel + lane..][..LANES];
                    let weight = exp_lanes(s, s.sub(s.load(score), max));
                    s.store(weight, score);
                    *sum = s.add(*sum, weight);
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                for i in 0..width {
                    lanes[i] = s.add(lanes[i], lanes[i + width]);
                }
                width /= 2;
            }
            s.store(max, &mut maxima[lane..]);
            s.store(lanes[0], &mut sums[lane..]);
        }
    }
}

/// -infinity in the first `masked` lanes, zero in the others.
#[inline(always)]
fn mask(masked: usize) -> [f32; LANES] {
    std::array::from_fn(|i| if i < masked { f32::NEG_INFINITY } else { 0.0 })
}

lanes_kernel! {
    /// Turns scores into weights e^(score·scale − stat) and weight gradients into score gradients
    /// (weight · (dweight − pull)) · scale.
    fn score_gradients<'a>(
        s;
        block: Queries,
        panel: usize,
        stats: &'a [f32],
        pulls: &'a [f32],
        weights: &'a mut [f32],
        dscores: &'a mut [f32],
    ) {
        let scale = s.splat(block.scale);
        for lane in (0..panel).step_by(LANES) {
            let (stat, pull) = (s.load(&stats[lane..]), s.load(&pulls[lane..]));
            for key in 0..block.keys {
                let weight = &mut weights[key * panel + lane..][..LANES];
                let dscore = &mut dscores[key * panel + lane..][..LANES];
                let mut score = s.mul(s.load(weight), scale);
                if key > block.first + lane {
                    score = s.add(score, s.load(&mask(key - block.first - lane)));
                }
                let value = exp_lanes(s, s.sub(score, stat));
                s.store(value, weight);
                s.store(s.mul(s.mul(value, s.sub(s.load(dscore), pull)), scale), dscore);
            }
        }
    }
}

lanes_kernel! {
    /// Σ x·y of each row by the row reduction.
    fn row_dots<'a>(s; x: Head<'a>, y: Head<'a>, out: &'a mut [f32]) {
        for (row, out) in out.iter_mut().enumerate() {
            *out = dot_lanes(s, x.row(row), y.row(row));
        }
    }
}

lanes_kernel! {
    /// Stores `[dim][panel]` into rows `first..first + queries` of `out`, each multiplied by its factor, plus +0.
    pub(super) fn store_transposed<'a>(
        s; result: &'a [f32], factors: &'a [f32], first: usize, queries: usize, out: MatMut<'a>
    ) {
        let panel = factors.len();
        let mut out = out;
        let dim = out.cols();
        for lane in (0..queries).step_by(LANES) {
            let factor = s.load(&factors[lane..]);
            for d in (0..dim).step_by(LANES) {
                let dims = LANES.min(dim - d);
                let mut vectors = [s.splat(0.0); LANES];
                for (i, vector) in vectors.iter_mut().enumerate().take(dims) {
                    *vector = s.add(s.mul(s.load(&result[(d + i) * panel + lane..]), factor), s.splat(0.0));
                }
                let rows = s.transpose(vectors).into_iter().enumerate().take(queries - lane);
                for (i, row) in rows {
                    s.store_some(row, &mut out.row(first + lane + i)[d..d + dims]);
                }
            }
        }
    }
}

lanes_kernel! {
    /// Adds +0, which turns negative zeros into positive ones.
    fn make_zeros_positive<'a>(s; c: MatMut<'a>) {
        let mut c = c;
        for row in 0..c.rows() {
            for x in c.row(row).chunks_mut(LANES) {
                s.store_some(s.add(s.load_or(x, 0.0), s.splat(0.0)), x);
            }
        }
    }
}

//! Attention of new rows over the keys and values of a sequence, which lie in pages of 16 positions.
//!
//! A page holds, for each key/value head, the keys transposed, `[head_dim][16]`, then the values, `[16][head_dim]`: a vector of
//! keys is 16 positions, which are the virtual lanes of the row reductions. One or a few rows go one by one with the keys in the
//! lanes; more go in blocks as in training, with the queries in the lanes. The folds are those of the training forward, so are the bits.

use super::blocked::{Head, MAX_PANEL, Queries, pack_transposed, product, softmax, store_transposed};
use super::reference;
use crate::Context;
use crate::arch::{Block, Isa, LANES, MatMut, Strips, Variant, lanes_kernel};
use crate::fault::slip;
use crate::math::exp_lanes;
use crate::profile::in_profile;
use crate::reduce::{max_lanes, sum_lanes};
use crate::scratch::Scratch;

/// Positions in a page.
pub const PAGE: usize = LANES;

/// The fewest rows that are worth a block, whose lanes are rows.
const BLOCK_ROWS: usize = 6;

/// Independent folds at a time, to hide the latency of the fused multiply-add.
const FOLDS: usize = 4;

/// The sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `h` reads `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
}

impl CacheShape {
    /// Values in a page.
    pub fn page_len(self) -> usize {
        self.kv_heads * self.head_len()
    }

    /// Values of one head in a page.
    fn head_len(self) -> usize {
        2 * self.head_dim * PAGE
    }

    pub(super) fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Writes the key and the value `[kv_heads · head_dim]` of one position to its place in a page.
    ///
    /// # Panics
    /// When the place or a size does not match.
    pub fn store(self, page: &mut [f32], place: usize, key: &[f32], value: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        assert!(place < PAGE && page.len() == self.page_len(), "place {place} in a page of {}", page.len());
        assert!(key.len() == width && value.len() == width, "a key of {}, a value of {}", key.len(), value.len());
        let heads = page.chunks_exact_mut(self.head_len());
        for (page, (key, value)) in heads.zip(key.chunks(self.head_dim).zip(value.chunks(self.head_dim))) {
            let (keys, values) = page.split_at_mut(self.head_dim * PAGE);
            for (column, key) in keys.chunks_exact_mut(PAGE).zip(key) {
                column[place] = *key;
            }
            values[place * self.head_dim..][..self.head_dim].copy_from_slice(value);
        }
    }

    /// The key or the value of one position of all heads, for the reference.
    fn load(self, page: &[f32], place: usize, is_value: bool) -> impl Iterator<Item = f32> + '_ {
        page.chunks_exact(self.head_len()).flat_map(move |page| {
            let (keys, values) = page.split_at(self.head_dim * PAGE);
            (0..self.head_dim).map(move |d| match is_value {
                false => keys[d * PAGE + place],
                true => values[place * self.head_dim + d],
            })
        })
    }
}

/// New rows of one sequence.
#[derive(Debug)]
pub struct CachedRows<'a> {
    /// Position of the first row.
    pub start: usize,
    /// Queries `[rows, heads · head_dim]`.
    pub q: &'a [f32],
    /// The pages of positions 0 to `start + rows`, keys and values of the new rows included.
    pub pages: Vec<&'a [f32]>,
    /// Where the result goes, `[rows, heads · head_dim]`.
    pub out: &'a mut [f32],
}

/// Computes the causal attention of new rows of some sequences over their caches.
///
/// Each row has the bits that it has in [`attention_forward`](super::attention_forward) over the whole sequence.
///
/// # Panics
/// When a size does not match.
pub fn attention_cached(ctx: &Context, shape: CacheShape, mut sequences: Vec<CachedRows<'_>>) {
    let CacheShape { heads, kv_heads, head_dim } = shape;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "heads must be a multiple of kv_heads");
    assert!(head_dim > 0, "an empty head");
    let (width, group) = (heads * head_dim, heads / kv_heads * head_dim);
    let mut tasks = Vec::new();
    for CachedRows { start, q, pages, out } in &mut sequences {
        let (start, q, pages, out): (usize, &[f32], &[&[f32]], &mut [f32]) = (*start, q, pages, out);
        let rows = q.len() / width;
        assert!(q.len() == rows * width && out.len() == q.len(), "attention_cached: sizes of q and out");
        let pages_needed = (start + rows).div_ceil(PAGE);
        assert!(pages.len() >= pages_needed, "attention_cached: {} pages instead of {pages_needed}", pages.len());
        assert!(pages.iter().all(|page| page.len() == shape.page_len()), "attention_cached: size of a page");
        if ctx.isa() == Isa::Scalar {
            let all = |is_value| -> Vec<f32> {
                (0..start + rows).flat_map(|at| shape.load(pages[at / PAGE], at % PAGE, is_value)).collect()
            };
            let (keys, values) = (all(false), all(true));
            in_profile!(ctx.profile(), FUSED => reference::cached::<FUSED>(shape, start, q, &keys, &values, out));
            continue;
        }
        let outputs = MatMut::new(out, rows, width, width).tiles(rows.max(1), group);
        tasks.extend(outputs.into_iter().enumerate().map(|(kv_head, out)| {
            let sequence = Sequence { shape, start, kv_head, pages };
            (sequence, Head::new(q, width, rows, 0, kv_head, group), out)
        }));
    }
    ctx.threads().for_each(tasks, |(sequence, q, out): (Sequence<'_>, Head<'_>, MatMut<'_>)| {
        sequence.attend(ctx.variant(), q, out);
    });
    for rows in &mut sequences {
        slip("attention_cached", rows.out);
    }
}

/// One key/value head of a sequence.
struct Sequence<'a> {
    shape: CacheShape,
    start: usize,
    kv_head: usize,
    pages: &'a [&'a [f32]],
}

impl<'a> Sequence<'a> {
    /// `q` and `out` are the rows of the query heads of this key/value head, side by side.
    fn attend(&self, variant: Variant, q: Head<'_>, mut out: MatMut<'_>) {
        let dim = self.shape.head_dim;
        for head in 0..q.dim / dim {
            let q = Head { data: &q.data[head * dim..], dim, ..q };
            let mut out = out.columns(head * dim, dim);
            if q.rows >= BLOCK_ROWS {
                self.block(variant, q, out);
                continue;
            }
            let mut weights = Scratch::new((self.start + q.rows).next_multiple_of(FOLDS * PAGE));
            for row in 0..q.rows {
                let seen = self.start + row + 1;
                let pages = self.pages(seen);
                decode(variant, self.shape.scale(), q.row(row), pages, seen, &mut weights, out.row(row));
            }
        }
    }

    /// The parts of the pages that belong to this head and hold the first `positions`.
    fn pages(&self, positions: usize) -> HeadPages<'_, 'a> {
        let len = self.shape.head_len();
        HeadPages { pages: &self.pages[..positions.div_ceil(PAGE)], from: self.kv_head * len, dim: self.shape.head_dim }
    }

    fn block(&self, variant: Variant, q: Head<'_>, mut out: MatMut<'_>) {
        let (rows, dim) = (q.rows, q.dim);
        let panel = variant.tile().1;
        let mut panel_q = Scratch::new(dim * panel);
        let mut scores = Scratch::new((self.start + rows).next_multiple_of(PAGE) * panel);
        let mut result = Scratch::new(dim * panel);
        let (mut sums, mut maxima) = ([0.0f32; MAX_PANEL], [0.0f32; MAX_PANEL]);
        for first in (0..rows).step_by(panel) {
            let queries = panel.min(rows - first);
            let keys = self.start + first + queries;
            let pages = self.pages(keys);
            pack_transposed(variant, q.rows(first, queries), panel, &mut panel_q);
            for page in 0..pages.pages.len() {
                let (count, scores) = (PAGE.min(keys - page * PAGE), &mut scores[page * PAGE * panel..]);
                product(variant, dim, Strips::Columns(pages.keys(page), PAGE), &panel_q, scores, count, panel);
            }
            let block = Queries { first: self.start + first, keys, scale: self.shape.scale() };
            softmax(variant, block, panel, &mut scores, &mut maxima[..panel], &mut sums[..panel]);
            for page in 0..pages.pages.len() {
                let (k, weights) = (PAGE.min(keys - page * PAGE), &scores[page * PAGE * panel..]);
                let c = &mut MatMut::new(&mut result, dim, panel, panel);
                let values = Strips::Columns(pages.values(page), dim);
                variant.run(Block { k, a: values, b: weights, c, accumulate: page > 0 });
            }
            for sum in &mut sums[..panel] {
                *sum = 1.0 / *sum;
            }
            store_transposed(variant, &result, &sums[..panel], first, queries, out.top(rows));
        }
    }
}

/// One head's part of some pages.
#[derive(Clone, Copy)]
struct HeadPages<'p, 'a> {
    pages: &'p [&'a [f32]],
    from: usize,
    dim: usize,
}

impl<'a> HeadPages<'_, 'a> {
    /// `[head_dim][PAGE]`.
    #[inline(always)]
    fn keys(&self, page: usize) -> &'a [f32] {
        &self.pages[page][self.from..][..self.dim * PAGE]
    }

    /// `[PAGE][head_dim]`.
    #[inline(always)]
    fn values(&self, page: usize) -> &'a [f32] {
        &self.pages[page][self.from + self.dim * PAGE..][..self.dim * PAGE]
    }
}

lanes_kernel! {
    /// One query over the first `seen` positions.
    fn decode<'a>(
        s; scale: f32, q: &'a [f32], pages: HeadPages<'a, 'a>, seen: usize, weights: &'a mut [f32], out: &'a mut [f32]
    ) {
        for first in (0..pages.pages.len()).step_by(FOLDS) {
            let mut keys = [pages.keys(first); FOLDS];
            for (i, keys) in keys.iter_mut().enumerate() {
                *keys = pages.keys((first + i).min(pages.pages.len() - 1));
            }
            let mut scores = [s.splat(0.0); FOLDS];
            for (d, q) in q.iter().enumerate() {
                let q = s.splat(*q);
                for (score, keys) in scores.iter_mut().zip(keys) {
                    *score = s.mul_add(q, s.load(&keys[d * PAGE..]), *score);
                }
            }
            let weights = &mut weights[first * PAGE..];
            for (weights, score) in weights.chunks_exact_mut(PAGE).zip(scores) {
                s.store(s.mul(score, s.splat(scale)), weights);
            }
        }
        let weights = &mut weights[..seen];
        let max = s.splat(max_lanes(s, weights));
        for weights in weights.chunks_mut(LANES) {
            s.store_some(exp_lanes(s, s.sub(s.load_or(weights, 0.0), max)), weights);
        }
        let inverse = s.splat(1.0 / sum_lanes(s, weights));
        for (part, out) in out.chunks_mut(FOLDS * LANES).enumerate() {
            let from = part * FOLDS * LANES;
            let mut sums = [s.splat(0.0); FOLDS];
            for (page, weights) in weights.chunks(PAGE).enumerate() {
                let values = pages.values(page);
                for (value, weight) in values.chunks_exact(pages.dim).zip(weights) {
                    let (weight, value) = (s.splat(*weight), &value[from..from + out.len()]);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let value = value.get(i * LANES..).unwrap_or(&[]);
                        *sum = s.mul_add(weight, s.load_or(&value[..value.len().min(LANES)], 0.0), *sum);
                    }
                }
            }
            for (sum, out) in sums.into_iter().zip(out.chunks_mut(LANES)) {
                s.store_some(s.add(s.mul(sum, inverse), s.splat(0.0)), out);
            }
        }
    }
}

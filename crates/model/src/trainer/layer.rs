//! One transformer layer: attention and feed-forward, each behind a norm and added to the residual stream.
//!
//! In the formulas a product `x · Wᵀ` has `W` stored `[out, in]` as in Hugging Face checkpoints.

use tensor::{AttentionShape, Context, RopeTable};

use super::linear::{Gradients, Saved, Weights};
use crate::config::Config;
use crate::lora::{LinearMap, Lora};

/// The sizes of a micro-batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) config: Config,
    pub(super) sequences: usize,
    pub(super) tokens: usize,
}

impl Shape {
    pub(super) fn rows(&self) -> usize {
        self.sequences * self.tokens
    }

    fn attention(&self) -> AttentionShape {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        AttentionShape { batch: self.sequences, tokens: self.tokens, heads, kv_heads, head_dim }
    }
}

/// What a layer computes with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) ctx: &'a Context,
    pub(super) shape: Shape,
    pub(super) weights: Weights<'a>,
    pub(super) rope: &'a RopeTable,
    /// The position of each row.
    pub(super) positions: &'a [u32],
}

/// What the backward of a layer needs from its forward.
#[derive(Debug)]
pub(super) struct Activations {
    inv_rms: [Vec<f32>; 2],
    normed: [Vec<f32>; 2],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Queries and keys in front of their heads' norms, and the inverse root mean squares; empty in models without.
    unnormed: [Vec<f32>; 2],
    head_inv_rms: [Vec<f32>; 2],
    attended: Vec<f32>,
    stats: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    active: Vec<f32>,
    /// What the adapter of each map needs; empty where there is none.
    low: [Vec<f32>; 7],
}

impl Activations {
    pub(super) fn new(config: &Config, lora: Option<&Lora>, rows: usize) -> Self {
        let zeros = |width: usize| vec![0.0; rows * width];
        let low = |map| lora.filter(|lora| lora.targets.contains(&map)).map_or(Vec::new(), |lora| zeros(lora.rank));
        let (width, q, kv, ff) = (config.width, config.q_width(), config.kv_width(), config.ff);
        let if_normed = |width: usize| if config.attention.query_key_norm { zeros(width) } else { Vec::new() };
        Self {
            inv_rms: [zeros(1), zeros(1)],
            normed: [zeros(width), zeros(width)],
            q: zeros(q),
            k: zeros(kv),
            v: zeros(kv),
            unnormed: [if_normed(q), if_normed(kv)],
            head_inv_rms: [if_normed(config.heads), if_normed(config.kv_heads)],
            attended: zeros(q),
            stats: zeros(config.heads),
            gate: zeros(ff),
            up: zeros(ff),
            active: zeros(ff),
            low: LinearMap::ALL.map(low),
        }
    }

    /// Values that [`Activations::new`] allocates for each row.
    pub(super) fn values_per_row(config: &Config, lora: Option<&Lora>) -> usize {
        let (width, q, kv, ff) = (config.width, config.q_width(), config.kv_width(), config.ff);
        let normed = if config.attention.query_key_norm { q + kv + config.heads + config.kv_heads } else { 0 };
        let low = lora.map_or(0, |lora| lora.targets.len() * lora.rank);
        2 + 2 * width + 2 * q + 2 * kv + normed + config.heads + 3 * ff + low
    }

    /// Values that are allocated.
    #[cfg(test)]
    pub(super) fn values(&self) -> usize {
        let Self { inv_rms, normed, q, k, v, unnormed, head_inv_rms, attended, stats, gate, up, active, low } = self;
        let pairs = [inv_rms, normed, unnormed, head_inv_rms].into_iter().flatten();
        pairs.chain([q, k, v, attended, stats, gate, up, active]).chain(low).map(Vec::len).sum()
    }

    /// Runs the layer: from the stream before it to the stream between attention and feed-forward, and the one after.
    pub(super) fn forward(&mut self, pass: Pass<'_>, before: &[f32], middle: &mut [f32], after: &mut [f32]) {
        self.attend(pass, before, middle);
        self.feed_forward(pass, middle);
        let Pass { ctx, shape, weights, .. } = pass;
        let (rows, c) = (shape.rows(), &shape.config);
        after.copy_from_slice(middle);
        let down = weights.map(c, LinearMap::Down);
        down.forward(ctx, rows, &self.active[..rows * c.ff], (after, true), &mut self.low[LinearMap::Down as usize]);
    }

    /// Runs as much of the layer as its backward needs: all but the last product.
    pub(super) fn recompute(&mut self, pass: Pass<'_>, before: &[f32], middle: &mut [f32]) {
        self.attend(pass, before, middle);
        self.feed_forward(pass, middle);
        let Pass { ctx, shape, weights, .. } = pass;
        let (rows, c) = (shape.rows(), &shape.config);
        let low = &mut self.low[LinearMap::Down as usize];
        weights.map(c, LinearMap::Down).reduce(ctx, rows, &self.active[..rows * c.ff], low);
    }

    fn attend(&mut self, pass: Pass<'_>, x: &[f32], out: &mut [f32]) {
        let Pass { ctx, shape, weights, rope, positions } = pass;
        let (parts, rows, c) = (weights.parts, shape.rows(), &shape.config);
        let (q_width, kv_width) = (c.q_width(), c.kv_width());
        let normed = &mut self.normed[0][..rows * c.width];
        let inv_rms = &mut self.inv_rms[0][..rows];
        tensor::rmsnorm_forward(ctx, rows, c.width, x, weights.vector(&parts.input_norm), c.norm_eps, normed, inv_rms);
        let q = &mut self.q[..rows * q_width];
        let (k, v) = (&mut self.k[..rows * kv_width], &mut self.v[..rows * kv_width]);
        for (map, y) in [(LinearMap::Query, &mut *q), (LinearMap::Key, &mut *k), (LinearMap::Value, &mut *v)] {
            weights.map(c, map).forward(ctx, rows, normed, (y, false), &mut self.low[map as usize]);
        }
        if let Some([q_bias, k_bias, v_bias]) = &parts.biases {
            tensor::bias_forward(ctx, rows, q_width, weights.vector(q_bias), q);
            tensor::bias_forward(ctx, rows, kv_width, weights.vector(k_bias), k);
            tensor::bias_forward(ctx, rows, kv_width, weights.vector(v_bias), v);
        }
        if let Some(gains) = &parts.head_norms {
            let saved = self.unnormed.iter_mut().zip(&mut self.head_inv_rms);
            for ((x, gain), (unnormed, inv_rms)) in [&mut *q, &mut *k].into_iter().zip(gains).zip(saved) {
                let heads = x.len() / c.head_dim;
                let (unnormed, inv_rms) = (&mut unnormed[..x.len()], &mut inv_rms[..heads]);
                unnormed.copy_from_slice(x);
                let gain = weights.vector(gain);
                tensor::rmsnorm_forward(ctx, heads, c.head_dim, unnormed, gain, c.norm_eps, x, inv_rms);
            }
        }
        tensor::rope(ctx, rows, c.heads, c.head_dim, positions, rope, q, false);
        tensor::rope(ctx, rows, c.kv_heads, c.head_dim, positions, rope, k, false);
        let attended = &mut self.attended[..rows * q_width];
        let stats = &mut self.stats[..rows * c.heads];
        tensor::attention_forward(ctx, shape.attention(), q, k, v, attended, stats);
        out.copy_from_slice(x);
        let low = &mut self.low[LinearMap::Output as usize];
        weights.map(c, LinearMap::Output).forward(ctx, rows, attended, (out, true), low);
    }

    /// The feed-forward half up to what goes through the last product.
    fn feed_forward(&mut self, pass: Pass<'_>, x: &[f32]) {
        let Pass { ctx, shape, weights, .. } = pass;
        let (rows, c) = (shape.rows(), &shape.config);
        let normed = &mut self.normed[1][..rows * c.width];
        let inv_rms = &mut self.inv_rms[1][..rows];
        let gain = weights.vector(&weights.parts.post_norm);
        tensor::rmsnorm_forward(ctx, rows, c.width, x, gain, c.norm_eps, normed, inv_rms);
        let (gate, up) = (&mut self.gate[..rows * c.ff], &mut self.up[..rows * c.ff]);
        for (map, y) in [(LinearMap::Gate, &mut *gate), (LinearMap::Up, &mut *up)] {
            weights.map(c, map).forward(ctx, rows, normed, (y, false), &mut self.low[map as usize]);
        }
        tensor::swiglu_forward(ctx, gate, up, &mut self.active[..rows * c.ff]);
    }

    /// Turns the gradient of the layer's output in `stream` into that of its input, and adds those of what is trained.
    /// `before` and `middle` are the stream in front of the layer and between its halves.
    pub(super) fn backward(
        &self,
        pass: Pass<'_>,
        [before, middle]: [&[f32]; 2],
        scratch: &mut Scratch,
        stream: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        self.feed_forward_backward(pass, middle, scratch, stream, grads);
        self.attend_backward(pass, before, scratch, stream, grads);
    }

    /// What the backward of a map needs from the forward.
    fn saved<'a>(&'a self, map: LinearMap, dy: &'a [f32], x: &'a [f32]) -> Saved<'a> {
        Saved { dy, x, low: &self.low[map as usize] }
    }

    fn feed_forward_backward(
        &self,
        pass: Pass<'_>,
        x: &[f32],
        scratch: &mut Scratch,
        stream: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        let Pass { ctx, shape, weights, .. } = pass;
        let (rows, c) = (shape.rows(), &shape.config);
        let (width, ff) = (c.width, c.ff);
        let (gate, up, active) = (&self.gate[..rows * ff], &self.up[..rows * ff], &self.active[..rows * ff]);
        let [dactive, dgate, dup] = scratch.wide.each_mut().map(|buffer| &mut buffer[..rows * ff]);
        let dlow = &mut scratch.low;
        let saved = self.saved(LinearMap::Down, stream, active);
        weights.map(c, LinearMap::Down).backward(ctx, rows, saved, (dactive, false), dlow, grads);
        tensor::swiglu_backward(ctx, gate, up, dactive, dgate, dup);
        let normed = &self.normed[1][..rows * width];
        let dnormed = &mut scratch.dnormed[..rows * width];
        for (map, dy, accumulate) in [(LinearMap::Gate, &*dgate, false), (LinearMap::Up, &*dup, true)] {
            let saved = self.saved(map, dy, normed);
            weights.map(c, map).backward(ctx, rows, saved, (dnormed, accumulate), dlow, grads);
        }
        let gain = &weights.parts.post_norm;
        let (dgain, gain) = (grads.of_gain(gain), weights.vector(gain));
        tensor::rmsnorm_backward_add(ctx, rows, width, x, gain, &self.inv_rms[1][..rows], dnormed, stream, dgain);
    }

    fn attend_backward(
        &self,
        pass: Pass<'_>,
        x: &[f32],
        scratch: &mut Scratch,
        stream: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        let Pass { ctx, shape, weights, rope, positions } = pass;
        let (parts, rows, c) = (weights.parts, shape.rows(), &shape.config);
        let (width, q_width, kv_width) = (c.width, c.q_width(), c.kv_width());
        let attended = &self.attended[..rows * q_width];
        let [dattended, dq] = scratch.query.each_mut().map(|buffer| &mut buffer[..rows * q_width]);
        let [dk, dv] = scratch.key.each_mut().map(|buffer| &mut buffer[..rows * kv_width]);
        let dlow = &mut scratch.low;
        let saved = self.saved(LinearMap::Output, stream, attended);
        weights.map(c, LinearMap::Output).backward(ctx, rows, saved, (dattended, false), dlow, grads);
        let (q, k, v) = (&self.q[..rows * q_width], &self.k[..rows * kv_width], &self.v[..rows * kv_width]);
        let stats = &self.stats[..rows * c.heads];
        tensor::attention_backward(ctx, shape.attention(), q, k, v, attended, stats, dattended, dq, dk, dv);
        tensor::rope(ctx, rows, c.heads, c.head_dim, positions, rope, dq, true);
        tensor::rope(ctx, rows, c.kv_heads, c.head_dim, positions, rope, dk, true);
        if let Some(gains) = &parts.head_norms {
            let saved = self.unnormed.iter().zip(&self.head_inv_rms);
            for ((dx, at), (unnormed, inv_rms)) in [&mut *dq, &mut *dk].into_iter().zip(gains).zip(saved) {
                let heads = dx.len() / c.head_dim;
                // The gradient of the attention's output is no longer needed.
                let dnormed = &mut dattended[..dx.len()];
                dnormed.copy_from_slice(dx);
                let (unnormed, inv_rms, gain) = (&unnormed[..dx.len()], &inv_rms[..heads], weights.vector(at));
                let dgain = grads.of_gain(at);
                tensor::rmsnorm_backward(ctx, heads, c.head_dim, unnormed, gain, inv_rms, dnormed, dx, dgain);
            }
        }
        for (at, dy) in parts.biases.iter().flatten().zip([&*dq, &*dk, &*dv]) {
            if let Some(dbias) = grads.of(at) {
                tensor::bias_backward(ctx, rows, at.len(), dy, dbias);
            }
        }
        let normed = &self.normed[0][..rows * width];
        let dnormed = &mut scratch.dnormed[..rows * width];
        let outputs = [(LinearMap::Query, &*dq, false), (LinearMap::Key, &*dk, true), (LinearMap::Value, &*dv, true)];
        for (map, dy, accumulate) in outputs {
            let saved = self.saved(map, dy, normed);
            weights.map(c, map).backward(ctx, rows, saved, (dnormed, accumulate), dlow, grads);
        }
        let (dgain, gain) = (grads.of_gain(&parts.input_norm), weights.vector(&parts.input_norm));
        tensor::rmsnorm_backward_add(ctx, rows, width, x, gain, &self.inv_rms[0][..rows], dnormed, stream, dgain);
    }
}

/// Gradients of activations, shared by all layers.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) dnormed: Vec<f32>,
    wide: [Vec<f32>; 3],
    query: [Vec<f32>; 2],
    key: [Vec<f32>; 2],
    low: Vec<f32>,
}

impl Scratch {
    pub(super) fn new(config: &Config, lora: Option<&Lora>, rows: usize) -> Self {
        let zeros = |width: usize| vec![0.0; rows * width];
        let (q, kv, ff) = (config.q_width(), config.kv_width(), config.ff);
        Self {
            dnormed: zeros(config.width),
            wide: [zeros(ff), zeros(ff), zeros(ff)],
            query: [zeros(q), zeros(q)],
            key: [zeros(kv), zeros(kv)],
            low: lora.map_or(Vec::new(), |lora| zeros(lora.rank)),
        }
    }

    /// Values that [`Scratch::new`] allocates for each row.
    pub(super) fn values_per_row(config: &Config, lora: Option<&Lora>) -> usize {
        let low = lora.map_or(0, |lora| lora.rank);
        config.width + 3 * config.ff + 2 * config.q_width() + 2 * config.kv_width() + low
    }

    /// Values that are allocated.
    #[cfg(test)]
    pub(super) fn values(&self) -> usize {
        let Self { dnormed, wide, query, key, low } = self;
        wide.iter().chain(query).chain(key).chain([dnormed, low]).map(Vec::len).sum()
    }
}

//! One transformer layer: attention and feed-forward, each behind a norm and added to the residual stream.
//!
//! In the formulas a product `x · Wᵀ` has `W` stored `[out, in]` as in Hugging Face checkpoints.

use tensor::{AttentionShape, Context, RopeTable, matmul_nn, matmul_nt, matmul_tn};

use crate::config::Config;
use crate::stage::LayerParts;

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

/// The parameters of a stage and where one layer's lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) params: &'a [f32],
    pub(super) parts: &'a LayerParts,
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
}

impl Activations {
    pub(super) fn new(config: &Config, rows: usize) -> Self {
        let zeros = |width: usize| vec![0.0; rows * width];
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
        }
    }

    /// Runs the layer: `residual[0]` is the stream before, `[1]` between attention and feed-forward, `[2]` after.
    pub(super) fn forward(
        &mut self,
        ctx: &Context,
        shape: &Shape,
        weights: Weights<'_>,
        rotation: (&RopeTable, &[u32]),
        residual: [&mut Vec<f32>; 3],
    ) {
        let size = shape.rows() * shape.config.width;
        let [before, middle, after] = residual.map(|stream| &mut stream[..size]);
        self.attend(ctx, shape, weights, rotation, before, middle);
        self.feed_forward(ctx, shape, weights, middle, after);
    }

    fn attend(
        &mut self,
        ctx: &Context,
        shape: &Shape,
        weights: Weights<'_>,
        (table, positions): (&RopeTable, &[u32]),
        x: &[f32],
        out: &mut [f32],
    ) {
        let Weights { params, parts } = weights;
        let (rows, c) = (shape.rows(), &shape.config);
        let (q_width, kv_width) = (c.q_width(), c.kv_width());
        let normed = &mut self.normed[0][..rows * c.width];
        let inv_rms = &mut self.inv_rms[0][..rows];
        tensor::rmsnorm_forward(ctx, rows, c.width, x, &params[parts.input_norm.clone()], c.norm_eps, normed, inv_rms);
        let q = &mut self.q[..rows * q_width];
        let (k, v) = (&mut self.k[..rows * kv_width], &mut self.v[..rows * kv_width]);
        matmul_nt(ctx, rows, q_width, c.width, normed, &params[parts.q.clone()], q, false);
        matmul_nt(ctx, rows, kv_width, c.width, normed, &params[parts.k.clone()], k, false);
        matmul_nt(ctx, rows, kv_width, c.width, normed, &params[parts.v.clone()], v, false);
        if let Some([q_bias, k_bias, v_bias]) = &parts.biases {
            tensor::bias_forward(ctx, rows, q_width, &params[q_bias.clone()], q);
            tensor::bias_forward(ctx, rows, kv_width, &params[k_bias.clone()], k);
            tensor::bias_forward(ctx, rows, kv_width, &params[v_bias.clone()], v);
        }
        if let Some(gains) = &parts.head_norms {
            let saved = self.unnormed.iter_mut().zip(&mut self.head_inv_rms);
            for ((x, gain), (unnormed, inv_rms)) in [&mut *q, &mut *k].into_iter().zip(gains).zip(saved) {
                let heads = x.len() / c.head_dim;
                let (unnormed, inv_rms) = (&mut unnormed[..x.len()], &mut inv_rms[..heads]);
                unnormed.copy_from_slice(x);
                let gain = &params[gain.clone()];
                tensor::rmsnorm_forward(ctx, heads, c.head_dim, unnormed, gain, c.norm_eps, x, inv_rms);
            }
        }
        tensor::rope(ctx, rows, c.heads, c.head_dim, positions, table, q, false);
        tensor::rope(ctx, rows, c.kv_heads, c.head_dim, positions, table, k, false);
        let attended = &mut self.attended[..rows * q_width];
        let stats = &mut self.stats[..rows * c.heads];
        tensor::attention_forward(ctx, shape.attention(), q, k, v, attended, stats);
        out.copy_from_slice(x);
        matmul_nt(ctx, rows, c.width, q_width, attended, &params[parts.o.clone()], out, true);
    }

    fn feed_forward(&mut self, ctx: &Context, shape: &Shape, weights: Weights<'_>, x: &[f32], out: &mut [f32]) {
        let Weights { params, parts } = weights;
        let (rows, c) = (shape.rows(), &shape.config);
        let normed = &mut self.normed[1][..rows * c.width];
        let inv_rms = &mut self.inv_rms[1][..rows];
        tensor::rmsnorm_forward(ctx, rows, c.width, x, &params[parts.post_norm.clone()], c.norm_eps, normed, inv_rms);
        let (gate, up) = (&mut self.gate[..rows * c.ff], &mut self.up[..rows * c.ff]);
        matmul_nt(ctx, rows, c.ff, c.width, normed, &params[parts.gate.clone()], gate, false);
        matmul_nt(ctx, rows, c.ff, c.width, normed, &params[parts.up.clone()], up, false);
        let active = &mut self.active[..rows * c.ff];
        tensor::swiglu_forward(ctx, gate, up, active);
        out.copy_from_slice(x);
        matmul_nt(ctx, rows, c.width, c.ff, active, &params[parts.down.clone()], out, true);
    }

    /// Turns the gradient of the layer's output in `stream` into that of its input, and adds those of the parameters.
    /// `residual` is the stream before the layer and between its halves.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &self,
        ctx: &Context,
        shape: &Shape,
        weights: Weights<'_>,
        rotation: (&RopeTable, &[u32]),
        residual: [&[f32]; 2],
        scratch: &mut Scratch,
        stream: &mut [f32],
        grads: &mut [f32],
    ) {
        self.feed_forward_backward(ctx, shape, weights, residual[1], scratch, stream, grads);
        self.attend_backward(ctx, shape, weights, rotation, residual[0], scratch, stream, grads);
    }

    #[allow(clippy::too_many_arguments)]
    fn feed_forward_backward(
        &self,
        ctx: &Context,
        shape: &Shape,
        weights: Weights<'_>,
        x: &[f32],
        scratch: &mut Scratch,
        stream: &mut [f32],
        grads: &mut [f32],
    ) {
        let Weights { params, parts } = weights;
        let (rows, c) = (shape.rows(), &shape.config);
        let (width, ff) = (c.width, c.ff);
        let (gate, up, active) = (&self.gate[..rows * ff], &self.up[..rows * ff], &self.active[..rows * ff]);
        let [dactive, dgate, dup] = scratch.wide.each_mut().map(|buffer| &mut buffer[..rows * ff]);
        matmul_nn(ctx, rows, ff, width, stream, &params[parts.down.clone()], dactive, false);
        matmul_tn(ctx, width, ff, rows, stream, active, &mut grads[parts.down.clone()], true);
        tensor::swiglu_backward(ctx, gate, up, dactive, dgate, dup);
        let normed = &self.normed[1][..rows * width];
        let dnormed = &mut scratch.dnormed[..rows * width];
        matmul_nn(ctx, rows, width, ff, dgate, &params[parts.gate.clone()], dnormed, false);
        matmul_nn(ctx, rows, width, ff, dup, &params[parts.up.clone()], dnormed, true);
        matmul_tn(ctx, ff, width, rows, dgate, normed, &mut grads[parts.gate.clone()], true);
        matmul_tn(ctx, ff, width, rows, dup, normed, &mut grads[parts.up.clone()], true);
        let (gain, dgain) = (&params[parts.post_norm.clone()], &mut grads[parts.post_norm.clone()]);
        tensor::rmsnorm_backward_add(ctx, rows, width, x, gain, &self.inv_rms[1][..rows], dnormed, stream, dgain);
    }

    #[allow(clippy::too_many_arguments)]
    fn attend_backward(
        &self,
        ctx: &Context,
        shape: &Shape,
        weights: Weights<'_>,
        (table, positions): (&RopeTable, &[u32]),
        x: &[f32],
        scratch: &mut Scratch,
        stream: &mut [f32],
        grads: &mut [f32],
    ) {
        let Weights { params, parts } = weights;
        let (rows, c) = (shape.rows(), &shape.config);
        let (width, q_width, kv_width) = (c.width, c.q_width(), c.kv_width());
        let attended = &self.attended[..rows * q_width];
        let [dattended, dq] = scratch.query.each_mut().map(|buffer| &mut buffer[..rows * q_width]);
        let [dk, dv] = scratch.key.each_mut().map(|buffer| &mut buffer[..rows * kv_width]);
        matmul_nn(ctx, rows, q_width, width, stream, &params[parts.o.clone()], dattended, false);
        matmul_tn(ctx, width, q_width, rows, stream, attended, &mut grads[parts.o.clone()], true);
        let (q, k, v) = (&self.q[..rows * q_width], &self.k[..rows * kv_width], &self.v[..rows * kv_width]);
        let stats = &self.stats[..rows * c.heads];
        tensor::attention_backward(ctx, shape.attention(), q, k, v, attended, stats, dattended, dq, dk, dv);
        tensor::rope(ctx, rows, c.heads, c.head_dim, positions, table, dq, true);
        tensor::rope(ctx, rows, c.kv_heads, c.head_dim, positions, table, dk, true);
        if let Some(gains) = &parts.head_norms {
            let saved = self.unnormed.iter().zip(&self.head_inv_rms);
            for ((dx, gain), (unnormed, inv_rms)) in [&mut *dq, &mut *dk].into_iter().zip(gains).zip(saved) {
                let heads = dx.len() / c.head_dim;
                // The gradient of the attention's output is no longer needed.
                let dnormed = &mut dattended[..dx.len()];
                dnormed.copy_from_slice(dx);
                let (unnormed, inv_rms, dgain) = (&unnormed[..dx.len()], &inv_rms[..heads], &mut grads[gain.clone()]);
                let gain = &params[gain.clone()];
                tensor::rmsnorm_backward(ctx, heads, c.head_dim, unnormed, gain, inv_rms, dnormed, dx, dgain);
            }
        }
        if let Some([q_bias, k_bias, v_bias]) = &parts.biases {
            tensor::bias_backward(ctx, rows, q_width, dq, &mut grads[q_bias.clone()]);
            tensor::bias_backward(ctx, rows, kv_width, dk, &mut grads[k_bias.clone()]);
            tensor::bias_backward(ctx, rows, kv_width, dv, &mut grads[v_bias.clone()]);
        }
        let normed = &self.normed[0][..rows * width];
        let dnormed = &mut scratch.dnormed[..rows * width];
        matmul_nn(ctx, rows, width, q_width, dq, &params[parts.q.clone()], dnormed, false);
        matmul_nn(ctx, rows, width, kv_width, dk, &params[parts.k.clone()], dnormed, true);
        matmul_nn(ctx, rows, width, kv_width, dv, &params[parts.v.clone()], dnormed, true);
        matmul_tn(ctx, q_width, width, rows, dq, normed, &mut grads[parts.q.clone()], true);
        matmul_tn(ctx, kv_width, width, rows, dk, normed, &mut grads[parts.k.clone()], true);
        matmul_tn(ctx, kv_width, width, rows, dv, normed, &mut grads[parts.v.clone()], true);
        let (gain, dgain) = (&params[parts.input_norm.clone()], &mut grads[parts.input_norm.clone()]);
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
}

impl Scratch {
    pub(super) fn new(config: &Config, rows: usize) -> Self {
        let zeros = |width: usize| vec![0.0; rows * width];
        let (q, kv, ff) = (config.q_width(), config.kv_width(), config.ff);
        Self {
            dnormed: zeros(config.width),
            wide: [zeros(ff), zeros(ff), zeros(ff)],
            query: [zeros(q), zeros(q)],
            key: [zeros(kv), zeros(kv)],
        }
    }
}

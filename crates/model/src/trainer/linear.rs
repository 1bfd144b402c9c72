//! A linear map `y = x · Wᵀ` with its adapter, if it has one: `y += scale · (x · Aᵀ) · Bᵀ`.
//!
//! The adapter's products continue the folds of the map's own: an output is the fold over the input's entries, then over the
//! rank; an entry of the input's gradient is the fold over the outputs, then over the rank.

use std::ops::Range;

use tensor::{Context, matmul_nn, matmul_nt, matmul_tn};

use crate::config::Config;
use crate::lora::{AdapterParts, LinearMap};
use crate::stage::LayerParts;

/// The parameters of a stage, where one layer's lie, and that layer's adapters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) params: &'a [f32],
    pub(super) parts: &'a LayerParts,
    pub(super) adapters: Option<LayerAdapters<'a>>,
}

/// The adapters of a stage and where one layer's lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerAdapters<'a> {
    pub(super) values: &'a [f32],
    pub(super) parts: &'a [Option<AdapterParts>; 7],
    pub(super) rank: usize,
    pub(super) scale: f32,
}

impl<'a> Weights<'a> {
    /// One map of the layer.
    pub(super) fn map(&self, config: &Config, map: LinearMap) -> Map<'a> {
        let [outs, ins] = map.sizes(config);
        let at = map.weight(self.parts);
        let adapter = self.adapters.and_then(|adapters| {
            let LayerAdapters { values, parts, rank, scale } = adapters;
            let at = parts[map as usize].as_ref()?;
            Some(Adapter { a: &values[at.a.clone()], b: &values[at.b.clone()], at, rank, scale })
        });
        Map { outs, ins, weight: &self.params[at.clone()], at, adapter }
    }

    /// The values of a vector, such as a gain.
    pub(super) fn vector(&self, at: &Range<usize>) -> &'a [f32] {
        &self.params[at.clone()]
    }
}

/// Where gradients of parameters go.
#[derive(Debug)]
pub(super) enum Gradients<'a> {
    /// Every parameter is trained; the vector has the layout of the stage.
    Parameters(&'a mut [f32]),
    /// Only the adapters are trained; the vector has their layout.
    Adapters {
        values: &'a mut [f32],
        /// Takes the gradients of frozen gains, which come out of the gradient of a norm anyway.
        unused: &'a mut [f32],
    },
}

impl Gradients<'_> {
    /// The gradient of a part of the parameters, unless it is frozen.
    pub(super) fn of(&mut self, at: &Range<usize>) -> Option<&mut [f32]> {
        match self {
            Self::Parameters(values) => Some(&mut values[at.clone()]),
            Self::Adapters { .. } => None,
        }
    }

    /// The gradient of a gain, or a place for it that nobody reads.
    pub(super) fn of_gain(&mut self, at: &Range<usize>) -> &mut [f32] {
        match self {
            Self::Parameters(values) => &mut values[at.clone()],
            Self::Adapters { unused, .. } => &mut unused[..at.len()],
        }
    }
}

/// One linear map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map<'a> {
    outs: usize,
    ins: usize,
    weight: &'a [f32],
    at: &'a Range<usize>,
    adapter: Option<Adapter<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Adapter<'a> {
    a: &'a [f32],
    b: &'a [f32],
    at: &'a AdapterParts,
    rank: usize,
    scale: f32,
}

impl Map<'_> {
    /// Computes `y` `[rows, outs]` (+)= the map of `x` `[rows, ins]`; `low` keeps `scale · x · Aᵀ` for the backward.
    pub(super) fn forward(
        &self,
        ctx: &Context,
        rows: usize,
        x: &[f32],
        (y, accumulate): (&mut [f32], bool),
        low: &mut [f32],
    ) {
        matmul_nt(ctx, rows, self.outs, self.ins, x, self.weight, y, accumulate);
        self.reduce(ctx, rows, x, low);
        if let Some(Adapter { b, rank, .. }) = self.adapter {
            matmul_nt(ctx, rows, self.outs, rank, &low[..rows * rank], b, y, true);
        }
    }

    /// Computes what the backward needs for the adapter alone: `low = scale · x · Aᵀ`.
    pub(super) fn reduce(&self, ctx: &Context, rows: usize, x: &[f32], low: &mut [f32]) {
        let Some(Adapter { a, rank, scale, .. }) = self.adapter else { return };
        let low = &mut low[..rows * rank];
        matmul_nt(ctx, rows, rank, self.ins, x, a, low, false);
        tensor::scale(ctx, scale, low);
    }

    /// Computes `dx` (+)= the gradient of the map's input from that of its output, and adds that of the weight, or of the
    /// adapter when the weight is frozen.
    pub(super) fn backward(
        &self,
        ctx: &Context,
        rows: usize,
        saved: Saved<'_>,
        (dx, accumulate): (&mut [f32], bool),
        dlow: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        let Saved { dy, x, low } = saved;
        matmul_nn(ctx, rows, self.ins, self.outs, dy, self.weight, dx, accumulate);
        if let Some(dweight) = grads.of(self.at) {
            matmul_tn(ctx, self.outs, self.ins, rows, dy, x, dweight, true);
        }
        let Some(Adapter { a, b, at, rank, scale }) = self.adapter else { return };
        let dlow = &mut dlow[..rows * rank];
        matmul_nn(ctx, rows, rank, self.outs, dy, b, dlow, false);
        tensor::scale(ctx, scale, dlow);
        matmul_nn(ctx, rows, self.ins, rank, dlow, a, dx, true);
        if let Gradients::Adapters { values, .. } = grads {
            matmul_tn(ctx, rank, self.ins, rows, dlow, x, &mut values[at.a.clone()], true);
            matmul_tn(ctx, self.outs, rank, rows, dy, &low[..rows * rank], &mut values[at.b.clone()], true);
        }
    }
}

/// What the backward of a map works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saved<'a> {
    /// The gradient of the output.
    pub(super) dy: &'a [f32],
    /// The input of the forward.
    pub(super) x: &'a [f32],
    /// What the forward kept for the adapter.
    pub(super) low: &'a [f32],
}

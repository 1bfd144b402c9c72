//! The optimisers inside a unit: gradient clipping, AdamW, and Muon for matrices.
//!
//! Sources: AdamW, Loshchilov and Hutter, arXiv:1711.05101; Muon, Jordan et al., 2024 (<https://kellerjordan.github.io/posts/muon/>).
//! Everything runs on the bit-exact kernels of `tensor`, so a step is the same on every machine.

use model::{Kind, Layout, TensorInfo};
use tensor::{AdamwStep, Context};

use crate::recipe::{Inner, Muon};

mod muon;
mod stiefel;

use muon::{Job, Workspace};

/// The state of the inner optimiser: moments for every parameter, and the number of steps taken.
#[derive(Debug)]
pub struct Optimiser {
    settings: Inner,
    tensors: Vec<TensorInfo>,
    /// First moments, or Muon's momentum.
    first: Vec<f32>,
    /// Second moments; unused where Muon is.
    second: Vec<f32>,
    steps: u64,
    clipping: Clipping,
    /// The rate of bases, as a fraction of the matrices'.
    basis_rate: f32,
    workspace: Workspace,
}

/// What the norm is taken over that a gradient is clipped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clipping {
    /// All tensors.
    Together,
    /// Each tensor.
    Each,
}

impl Optimiser {
    /// Starts with zero moments.
    pub fn new(layout: &Layout, settings: Inner) -> Self {
        Self::of_tensors(layout.tensors(), settings)
    }

    /// Starts with zero moments for these tensors, which lie in one vector without gaps.
    pub(crate) fn of_tensors(tensors: &[TensorInfo], settings: Inner) -> Self {
        let len = tensors.last().map_or(0, |last| last.range().end);
        let zeros = || vec![0.0; len];
        Self {
            settings,
            tensors: tensors.to_vec(),
            first: zeros(),
            second: zeros(),
            steps: 0,
            clipping: Clipping::Together,
            basis_rate: 0.0,
            workspace: Workspace::default(),
        }
    }

    /// Clips each tensor by its own norm, so that a model in stages takes the steps of the whole one, and moves bases with `basis_rate`
    /// times the rate of the matrices.
    pub(crate) fn for_stages(self, basis_rate: f32) -> Self {
        Self { clipping: Clipping::Each, basis_rate, ..self }
    }

    /// The first and the second moments.
    pub(crate) fn moments(&self) -> [&[f32]; 2] {
        [&self.first, &self.second]
    }

    /// Goes to the state after `steps` steps, whose moments the caller puts into the slices.
    pub(crate) fn restore(&mut self, steps: u64) -> [&mut [f32]; 2] {
        self.steps = steps;
        [&mut self.first, &mut self.second]
    }

    /// Takes one step with the learning rates times `rate`. Uses up the gradients. Returns their norm before clipping.
    ///
    /// # Panics
    /// When a slice has another length than the layout.
    pub fn step(&mut self, ctx: &Context, params: &mut [f32], grads: &mut [f32], rate: f32) -> f64 {
        assert_eq!((params.len(), grads.len()), (self.first.len(), self.first.len()), "parameters and gradients");
        self.steps += 1;
        let norm = match self.clipping {
            Clipping::Together => clip(ctx, grads, self.settings.clip_norm),
            Clipping::Each => tensor::sum_squares(ctx, grads).sqrt(),
        };
        for place in 0..self.tensors.len() {
            let range = self.tensors[place].range();
            let (params, grads) = (&mut params[range.clone()], &mut grads[range]);
            if self.clipping == Clipping::Each {
                clip(ctx, grads, self.settings.clip_norm);
            }
            if self.tensors[place].kind == Kind::Basis {
                self.turn_basis(ctx, place, params, grads, rate);
                continue;
            }
            match muon_for(self.settings.muon, self.tensors[place].kind) {
                Some((muon, lr)) => {
                    let tensor = &self.tensors[place];
                    let momentum = &mut self.first[tensor.range()];
                    let job = Job { settings: muon, lr: lr * rate, shape: &tensor.shape };
                    muon::update(ctx, job, params, grads, momentum, &mut self.workspace);
                }
                None => self.adamw(ctx, place, params, grads, rate),
            }
        }
        norm
    }

    fn turn_basis(&mut self, ctx: &Context, place: usize, params: &mut [f32], grads: &mut [f32], rate: f32) {
        let tensor = &self.tensors[place];
        let lr = self.settings.muon.map_or(self.settings.adamw.lr, |muon| muon.lr) * self.basis_rate * rate;
        if lr > 0.0 {
            let (shape, momentum) = ([tensor.shape[0], tensor.shape[1]], &mut self.first[tensor.range()]);
            stiefel::update(ctx, lr, shape, params, grads, momentum, &mut self.workspace);
        }
    }

    fn adamw(&mut self, ctx: &Context, place: usize, params: &mut [f32], grads: &[f32], rate: f32) {
        let settings = self.settings.adamw;
        let tensor = &self.tensors[place];
        let decay = if tensor.shape.len() == 2 { settings.weight_decay } else { 0.0 };
        let step = AdamwStep::new(self.steps, settings.lr * rate, settings.beta1, settings.beta2, settings.eps, decay);
        let range = tensor.range();
        let (first, second) = (&mut self.first[range.clone()], &mut self.second[range]);
        tensor::adamw_update(ctx, params, grads, first, second, step);
    }
}

/// Muon's settings and its peak rate for this kind of tensor, unless AdamW takes it.
fn muon_for(muon: Option<Muon>, kind: Kind) -> Option<(Muon, f32)> {
    let muon = muon?;
    match kind {
        Kind::Matrix => Some((muon, muon.lr)),
        Kind::Embedding | Kind::Head if muon.table_lr > 0.0 => Some((muon, muon.table_lr)),
        _ => None,
    }
}

/// Scales the gradients down to `max` when their norm is larger; returns the norm before.
fn clip(ctx: &Context, grads: &mut [f32], max: f32) -> f64 {
    let norm = tensor::sum_squares(ctx, grads).sqrt();
    if norm > f64::from(max) {
        tensor::scale(ctx, (f64::from(max) / norm) as f32, grads);
    }
    norm
}

#[cfg(test)]
mod tests;

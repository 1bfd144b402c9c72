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

/// The state of the inner optimiser: the moments, and the number of steps taken.
#[derive(Debug)]
pub struct Optimiser {
    settings: Inner,
    tensors: Vec<TensorInfo>,
    /// First moments, or Muon's momentum.
    first: Vec<f32>,
    /// Second moments of the tensors that AdamW takes, in their order.
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
        let moments = [vec![0.0; first_len(tensors)], vec![0.0; second_len(tensors, settings)]];
        Self::after(tensors, settings, 0, moments)
    }

    /// The optimiser after `steps` steps, with its first and second moments.
    ///
    /// # Panics
    /// When the moments are not as many as these tensors have.
    pub(crate) fn after(tensors: &[TensorInfo], settings: Inner, steps: u64, [first, second]: [Vec<f32>; 2]) -> Self {
        let expected = (first_len(tensors), second_len(tensors, settings));
        assert_eq!((first.len(), second.len()), expected, "moments of these tensors");
        Self {
            settings,
            tensors: tensors.to_vec(),
            first,
            second,
            steps,
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

    /// Ends it and gives its moments back.
    pub(crate) fn into_moments(self) -> [Vec<f32>; 2] {
        [self.first, self.second]
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
        let mut second = 0;
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
                None => {
                    self.adamw(ctx, place, second, params, grads, rate);
                    second += params.len();
                }
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

    /// `second` is where the tensor's second moments begin.
    fn adamw(&mut self, ctx: &Context, place: usize, second: usize, params: &mut [f32], grads: &[f32], rate: f32) {
        let settings = self.settings.adamw;
        let tensor = &self.tensors[place];
        let decay = if tensor.shape.len() == 2 { settings.weight_decay } else { 0.0 };
        let step = AdamwStep::new(self.steps, settings.lr * rate, settings.beta1, settings.beta2, settings.eps, decay);
        let (first, second) = (&mut self.first[tensor.range()], &mut self.second[second..second + params.len()]);
        tensor::adamw_update(ctx, params, grads, first, second, step);
    }
}

/// The number of first moments: one for each parameter.
fn first_len(tensors: &[TensorInfo]) -> usize {
    tensors.last().map_or(0, |last| last.range().end)
}

/// The number of second moments: one for each parameter that AdamW takes.
pub(crate) fn second_len(tensors: &[TensorInfo], settings: Inner) -> usize {
    let adamw = |tensor: &&TensorInfo| tensor.kind != Kind::Basis && muon_for(settings.muon, tensor.kind).is_none();
    tensors.iter().filter(adamw).map(TensorInfo::len).sum()
}

/// FLOPs of one step over these tensors, where they count: the products of Muon (see `muon.rs`).
pub fn step_flops(tensors: &[TensorInfo], settings: Inner) -> f64 {
    let of = |tensor: &TensorInfo| {
        let Some((muon, _)) = muon_for(settings.muon, tensor.kind) else { return 0.0 };
        let (rows, columns) = (tensor.shape[0] as f64, tensor.shape[1] as f64);
        let side = rows.min(columns);
        4.0 * rows * columns * side + f64::from(muon.iterations.saturating_sub(1)) * 8.0 * side.powi(3)
    };
    tensors.iter().map(of).sum()
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

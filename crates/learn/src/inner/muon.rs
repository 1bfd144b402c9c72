//! Muon: Nesterov momentum whose update is replaced by the nearest matrix with equal singular values.

use tensor::Context;

use crate::recipe::Muon;

/// The quintic of Jordan et al.: it drives every singular value into about 0.7 to 1.2 within five iterations.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Buffers that are reused from one matrix to the next.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    gram: Vec<f32>,
    factor: Vec<f32>,
    product: Vec<f32>,
    spare: Vec<f32>,
    next: Vec<f32>,
}

/// How to update one matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) settings: Muon,
    /// The learning rate of this step.
    pub(super) lr: f32,
    /// Rows and columns.
    pub(super) shape: &'a [usize],
}

/// Updates one matrix in place. The gradients are used up.
pub(super) fn update(
    ctx: &Context,
    job: Job<'_>,
    params: &mut [f32],
    grads: &mut [f32],
    momentum: &mut [f32],
    workspace: &mut Workspace,
) {
    let Job { settings, lr, shape } = job;
    let (rows, columns) = (shape[0], shape[1]);
    tensor::scale(ctx, settings.momentum, momentum);
    tensor::add_assign(ctx, momentum, grads);
    tensor::axpy(ctx, settings.momentum, momentum, grads);
    let norm = tensor::sum_squares(ctx, grads).sqrt();
    if norm == 0.0 {
        return;
    }
    tensor::scale(ctx, (1.0 / norm) as f32, grads);
    orthogonalise(ctx, rows, columns, settings.iterations, grads, workspace);
    let gain = tensor::math::sqrt((rows as f32 / columns as f32).max(1.0));
    tensor::scale(ctx, 1.0 - lr * settings.weight_decay, params);
    tensor::axpy(ctx, -lr * gain, grads, params);
}

/// Drives the singular values of `x` towards 1 by the iterations `x = x·q(g)`, `q(g) = a + b·g + c·g²`, with the smaller Gram
/// matrix `g` of `x`.
///
/// All iterations run on `g` itself, which becomes `q·g·q`, and their factors are multiplied up: with `s` the smaller side the
/// cost is `4·rows·columns·s + 8·s³` FLOPs for each iteration but the first, instead of `4·rows·columns·s + 2·s³` for each.
/// What f32 loses in a Gram matrix are singular values below about 3·10⁻⁴ of the largest, which are noise in a gradient.
pub(super) fn orthogonalise(
    ctx: &Context,
    rows: usize,
    columns: usize,
    iterations: u32,
    x: &mut [f32],
    w: &mut Workspace,
) {
    let side = rows.min(columns);
    for square in [&mut w.gram, &mut w.factor, &mut w.product, &mut w.spare] {
        square.resize(side * side, 0.0);
    }
    w.next.resize(x.len(), 0.0);
    let times = |a: &[f32], b: &[f32], out: &mut [f32]| tensor::matmul_nn(ctx, side, side, side, a, b, out, false);
    match rows <= columns {
        true => tensor::matmul_nt(ctx, side, side, columns, x, x, &mut w.gram, false),
        false => tensor::matmul_tn(ctx, side, side, rows, x, x, &mut w.gram, false),
    }
    for iteration in 0..iterations {
        polynomial(ctx, side, &w.gram, &mut w.factor);
        if iteration == 0 {
            w.product.copy_from_slice(&w.factor);
        } else {
            times(&w.product, &w.factor, &mut w.spare);
            std::mem::swap(&mut w.product, &mut w.spare);
        }
        if iteration + 1 < iterations {
            times(&w.factor, &w.gram, &mut w.spare);
            times(&w.spare, &w.factor, &mut w.gram);
        }
    }
    match rows <= columns {
        true => tensor::matmul_nn(ctx, rows, columns, side, &w.product, x, &mut w.next, false),
        false => tensor::matmul_nn(ctx, rows, columns, side, x, &w.product, &mut w.next, false),
    }
    x.copy_from_slice(&w.next);
}

/// `out = a + b·g + c·g²`.
fn polynomial(ctx: &Context, side: usize, g: &[f32], out: &mut [f32]) {
    let [a, b, c] = COEFFICIENTS;
    tensor::matmul_nn(ctx, side, side, side, g, g, out, false);
    tensor::scale(ctx, c, out);
    tensor::axpy(ctx, b, g, out);
    out.iter_mut().step_by(side + 1).for_each(|diagonal| *diagonal += a);
}

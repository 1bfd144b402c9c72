//! Steps on orthonormal bases: the columns stay orthonormal.
//!
//! Source: Riemannian descent on the Stiefel manifold with a polar retraction (Absil, Mahony and Sepulchre, 2008, chapter 4), in the form
//! that the training design, section 3, asks of a learned projector. The direction is Muon's: momentum, made orthogonal.

use tensor::Context;

use super::muon::{Workspace, orthogonalise};

/// Newton–Schulz iterations of the retraction. A step of at most 0.3 leaves singular values between 0.7 and 1.3, and the cubic squares the
/// distance from 1 each time.
const RETRACTIONS: usize = 6;

/// Largest step, so that the retraction converges.
const STEP_MAX: f32 = 0.3;

/// Decay of the momentum.
const MOMENTUM: f32 = 0.95;

/// Orthogonalising iterations of the direction.
const ITERATIONS: u32 = 4;

/// Moves the basis `[rows, columns]` against its gradient by up to `lr` in each direction, and back onto the manifold.
pub(super) fn update(
    ctx: &Context,
    lr: f32,
    shape: [usize; 2],
    basis: &mut [f32],
    gradient: &mut [f32],
    momentum: &mut [f32],
    workspace: &mut Workspace,
) {
    let [rows, columns] = shape;
    tensor::scale(ctx, MOMENTUM, momentum);
    tensor::add_assign(ctx, momentum, gradient);
    tensor::axpy(ctx, MOMENTUM, momentum, gradient);
    make_tangent(ctx, rows, columns, basis, gradient);
    let norm = tensor::sum_squares(ctx, gradient).sqrt();
    if norm == 0.0 {
        return;
    }
    tensor::scale(ctx, (1.0 / norm) as f32, gradient);
    orthogonalise(ctx, rows, columns, ITERATIONS, gradient, workspace);
    tensor::axpy(ctx, -lr.min(STEP_MAX), gradient, basis);
    retract(ctx, rows, columns, basis);
}

/// `g − A·(Aᵀg + gᵀA)/2`: what changes the basis without stretching it.
fn make_tangent(ctx: &Context, rows: usize, columns: usize, basis: &[f32], gradient: &mut [f32]) {
    let mut product = vec![0.0; columns * columns];
    tensor::matmul_tn(ctx, columns, columns, rows, basis, gradient, &mut product, false);
    let symmetric: Vec<f32> = (0..columns * columns)
        .map(|at| -0.5 * (product[at] + product[at % columns * columns + at / columns]))
        .collect();
    tensor::matmul_nn(ctx, rows, columns, columns, basis, &symmetric, gradient, true);
}

/// The nearest matrix with orthonormal columns, by `x = x·(3 − xᵀx)/2`.
fn retract(ctx: &Context, rows: usize, columns: usize, basis: &mut [f32]) {
    let mut gram = vec![0.0; columns * columns];
    let mut next = vec![0.0; basis.len()];
    for _ in 0..RETRACTIONS {
        tensor::matmul_tn(ctx, columns, columns, rows, basis, basis, &mut gram, false);
        tensor::scale(ctx, -0.5, &mut gram);
        gram.iter_mut().step_by(columns + 1).for_each(|diagonal| *diagonal += 1.5);
        tensor::matmul_nn(ctx, rows, columns, columns, basis, &gram, &mut next, false);
        basis.copy_from_slice(&next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::initial_basis;

    /// Descends on `−‖Aᵀx‖²` for data with a dominant plane: the basis must turn towards it and stay orthonormal.
    #[test]
    fn the_basis_turns_towards_what_is_asked_and_stays_orthonormal() {
        let ctx = Context::single();
        let (rows, columns) = (10, 2);
        let mut basis = initial_basis([1; 32], "test", rows, columns);
        let (mut momentum, mut workspace) = (vec![0.0; basis.len()], Workspace::default());
        let energy = |basis: &[f32]| basis[..2 * columns].iter().map(|b| b * b).sum::<f32>();
        let before = energy(&basis);
        for _ in 0..400 {
            let mut gradient: Vec<f32> =
                basis.iter().enumerate().map(|(at, b)| if at < 2 * columns { -2.0 * b } else { 0.0 }).collect();
            update(&ctx, 0.02, [rows, columns], &mut basis, &mut gradient, &mut momentum, &mut workspace);
        }
        assert!(before < 1.5 && energy(&basis) > 1.98, "from {before} to {}", energy(&basis));
        for i in 0..columns {
            for j in 0..columns {
                let product: f32 = (0..rows).map(|row| basis[row * columns + i] * basis[row * columns + j]).sum();
                assert!((product - f32::from(u8::from(i == j))).abs() < 1e-5, "columns {i} and {j}: {product}");
            }
        }
    }
}

use tensor::random::Stream;

use super::*;
use crate::Recipe;

fn matrix(rows: usize, columns: usize) -> Vec<f32> {
    let mut values = vec![0.0; rows * columns];
    Stream::new([5; 32], "muon test").fill_normal(1.0, &mut values);
    values
}

/// Singular values of the update lie near 1: the Gram matrix of the smaller side is near the identity's scale.
#[test]
fn muon_makes_the_singular_values_equal() {
    for (rows, columns) in [(8, 32), (32, 8), (16, 16)] {
        let settings = Recipe::tiny().inner.muon.unwrap();
        let (mut params, mut grads) = (vec![0.0; rows * columns], matrix(rows, columns));
        let mut momentum = vec![0.0; rows * columns];
        let ctx = Context::single();
        let shape = [rows, columns];
        let job = Job { settings, lr: 1.0, shape: &shape };
        muon::update(&ctx, job, &mut params, &mut grads, &mut momentum, &mut Workspace::default());
        let side = rows.min(columns);
        let energy: f64 = grads.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / side as f64;
        assert!((0.5..1.4).contains(&energy), "{rows} x {columns}: mean squared singular value {energy}");
        let largest = power_iteration(rows, columns, &grads);
        assert!(largest < 1.3, "{rows} x {columns}: largest singular value {largest}");
    }
}

fn power_iteration(rows: usize, columns: usize, x: &[f32]) -> f64 {
    let mut v = vec![1.0f64; columns];
    let mut norm = 0.0;
    for _ in 0..200 {
        let u: Vec<f64> = (0..rows).map(|r| (0..columns).map(|c| f64::from(x[r * columns + c]) * v[c]).sum()).collect();
        let w: Vec<f64> = (0..columns).map(|c| (0..rows).map(|r| f64::from(x[r * columns + c]) * u[r]).sum()).collect();
        norm = w.iter().map(|x| x * x).sum::<f64>().sqrt();
        v = w.into_iter().map(|x| x / norm).collect();
    }
    norm.sqrt()
}

#[test]
fn a_zero_gradient_leaves_a_matrix_as_it_is() {
    let settings = Recipe::tiny().inner.muon.unwrap();
    let (mut params, mut grads, mut momentum) = (matrix(4, 8), vec![0.0; 32], vec![0.0; 32]);
    let before = params.clone();
    let workspace = &mut Workspace::default();
    let job = Job { settings, lr: 1.0, shape: &[4, 8] };
    muon::update(&Context::single(), job, &mut params, &mut grads, &mut momentum, workspace);
    assert_eq!(params, before);
}

#[test]
fn gradients_are_clipped_to_the_norm() {
    let ctx = Context::single();
    let mut grads = vec![3.0, 4.0];
    assert_eq!(clip(&ctx, &mut grads, 1.0), 5.0);
    assert!((grads[0] - 0.6).abs() < 1e-6 && (grads[1] - 0.8).abs() < 1e-6);
    let mut small = vec![0.3, 0.4];
    clip(&ctx, &mut small, 1.0);
    assert_eq!(small, [0.3, 0.4]);
}

#[test]
fn a_step_has_the_same_bits_with_two_threads_and_with_portable_code() {
    let recipe = Recipe::tiny();
    let layout = recipe.layout();
    let run = |ctx: &Context| {
        let mut params = model::init(&recipe.stage(), recipe.init_seed());
        let mut optimiser = Optimiser::new(&layout, recipe.inner);
        for step in 0..3u8 {
            let mut grads = vec![0.0; layout.len()];
            Stream::new([step; 32], "gradients").fill_normal(0.1, &mut grads);
            optimiser.step(ctx, &mut params, &mut grads, 0.5);
        }
        tensor::slice_root(&params)
    };
    let expected = run(&Context::single());
    assert_eq!(run(&Context::new(2)), expected);
    assert_eq!(run(&Context::scalar()), expected);
}

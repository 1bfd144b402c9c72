//! Inputs, contexts and comparisons shared by the tests.

use tensor::random::Stream;
use tensor::{Context, Isa, Profile};

/// Every instruction set of this machine but the reference, with one and with two threads.
pub(crate) fn fast_contexts() -> Vec<Context> {
    let fast = Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar);
    fast.flat_map(|isa| [1, 2].map(|threads| Context::new(threads).with_isa(isa))).collect()
}

/// The same in every profile, each with its reference.
pub(crate) fn profiles() -> impl Iterator<Item = (Context, Vec<Context>)> {
    let fast = |profile| fast_contexts().into_iter().map(|ctx| ctx.with_profile(profile)).collect();
    Profile::ALL.into_iter().map(move |profile| (Context::scalar().with_profile(profile), fast(profile)))
}

/// The reference with two threads.
pub(crate) fn scalar_threads() -> Context {
    Context::new(2).with_isa(Isa::Scalar)
}

/// Normal numbers, named by `seed`; a few are zero, negative zero, tiny or subnormal.
pub(crate) fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut values = normal(seed, len);
    let mut stream = stream(seed ^ 0x5eed);
    for x in &mut values {
        match stream.below(64) {
            0 => *x = 0.0,
            1 => *x = -0.0,
            2 => *x *= 1e-20,
            3 => *x *= 1e-41,
            _ => {}
        }
    }
    values
}

/// Plain normal numbers, named by `seed`.
pub(crate) fn normal(seed: u64, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    stream(seed).fill_normal(1.0, &mut values);
    values
}

/// A stream named by `seed`.
pub(crate) fn stream(seed: u64) -> Stream {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    Stream::new(key, "tests")
}

/// Fails at the first value whose bits differ.
#[track_caller]
pub(crate) fn assert_bits(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(got.to_bits() == expected.to_bits(), "{what}: value {i} is {got:?}, not {expected:?}");
    }
}

/// Checks `gradient` against central differences of `loss`, an f64 function of f32 inputs; errors are relative to the largest entry.
#[track_caller]
pub(crate) fn check_gradient(x: &[f32], gradient: &[f32], tolerance: f64, loss: impl Fn(&[f32]) -> f64) {
    let largest = gradient.iter().fold(1e-3, |max: f64, g| max.max(f64::from(g.abs())));
    let mut moved = x.to_vec();
    for (i, gradient) in gradient.iter().enumerate() {
        let step = 1e-2 * x[i].abs().max(1.0);
        moved[i] = x[i] + step;
        let (up, high) = (loss(&moved), moved[i]);
        moved[i] = x[i] - step;
        let (down, low) = (loss(&moved), moved[i]);
        moved[i] = x[i];
        let difference = (up - down) / (f64::from(high) - f64::from(low));
        let error = (difference - f64::from(*gradient)).abs() / largest;
        assert!(error < tolerance, "entry {i}: gradient {gradient}, finite difference {difference}, error {error:e}");
    }
}

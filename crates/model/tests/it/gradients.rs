//! The gradient of the whole model against finite differences of its loss.

use model::{Stage, Trainer};
use tensor::Context;
use tensor::random::Stream;

use crate::support::{batch, configs, params};

const STEP: f32 = 4e-3;
const SEQUENCES: usize = 3;
const TOKENS: usize = 10;

/// Every tensor, along its own gradient (which no wrong gradient survives) and along a random direction.
#[test]
fn every_tensor_agrees_with_finite_differences() {
    let ctx = Context::new(1);
    for config in configs() {
        let stage = Stage::whole(config).unwrap();
        let params = params(&stage);
        let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
        let mut trainer = Trainer::new(stage.clone(), SEQUENCES, TOKENS).unwrap();
        let mut grads = vec![0.0; params.len()];
        let loss = trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut grads);
        assert!((2.0..8.0).contains(&loss), "an odd loss: {loss}");
        let mut noise = Stream::new([8; 32], "directions");
        for tensor in stage.layout().tensors() {
            let gradient = &grads[tensor.range()];
            let random: Vec<f32> = gradient.iter().map(|_| noise.normal()).collect();
            for direction in [gradient.to_vec(), random] {
                let length = norm(&direction);
                assert!(length > 0.0, "{} has no gradient", tensor.name);
                let expected: f64 =
                    gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d) / length).sum();
                let mut at = |step: f32| {
                    let mut moved = params.clone();
                    for (value, d) in moved[tensor.range()].iter_mut().zip(&direction) {
                        *value += step * (f64::from(*d) / length) as f32;
                    }
                    trainer.loss(&ctx, &moved, &tokens, &targets)
                };
                // Five points: the error is of fourth order in the step.
                let slope =
                    (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * f64::from(STEP));
                let allowed = 1e-3 * norm(gradient) + 1e-4;
                assert!(
                    (slope - expected).abs() < allowed,
                    "{} of {config:?}: {slope} by differences, {expected} by the backward",
                    tensor.name
                );
            }
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_whole_batch() {
    let ctx = Context::new(1);
    let config = configs()[0];
    let stage = Stage::whole(config).unwrap();
    let params = params(&stage);
    let (tokens, targets) = batch(&config, 4, TOKENS);
    let mut whole = vec![0.0; params.len()];
    let mut trainer = Trainer::new(stage.clone(), 4, TOKENS).unwrap();
    let loss = trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut whole);
    let mut summed = vec![0.0; params.len()];
    let mut mean = 0.0;
    trainer.set_micro_batches(4);
    for (tokens, targets) in tokens.chunks(TOKENS).zip(targets.chunks(TOKENS)) {
        mean += trainer.loss_and_grads(&ctx, &params, tokens, targets, &mut summed) / 4.0;
    }
    assert!((mean - loss).abs() < 1e-6, "{mean} and {loss}");
    for (a, b) in whole.iter().zip(&summed) {
        assert!((a - b).abs() < 1e-6 + 1e-4 * a.abs(), "{a} and {b}");
    }
}

#[test]
fn gradients_accumulate() {
    let ctx = Context::new(1);
    let config = configs()[1];
    let stage = Stage::whole(config).unwrap();
    let params = params(&stage);
    let (tokens, targets) = batch(&config, 1, TOKENS);
    let mut trainer = Trainer::new(stage, 1, TOKENS).unwrap();
    let mut once = vec![0.0; params.len()];
    trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut once);
    let mut more = vec![1.0; params.len()];
    trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut more);
    for (a, b) in once.iter().zip(&more) {
        assert!((a + 1.0 - b).abs() < 1e-5, "{a} and {b}");
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

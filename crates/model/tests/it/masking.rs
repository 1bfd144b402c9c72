//! Targets that do not count.

use model::{IGNORED, Stage, Trainer};
use tensor::Context;
use tensor::random::Stream;

use crate::support::{batch, bits, configs, params};

const SEQUENCES: usize = 2;
const TOKENS: usize = 11;

/// About half of the targets ignored.
fn masked(targets: &[u32]) -> Vec<u32> {
    let mut stream = Stream::new([4; 32], "mask");
    targets.iter().map(|&target| if stream.below(2) == 0 { IGNORED } else { target }).collect()
}

#[test]
fn the_loss_is_the_mean_over_the_rows_that_count_in_their_order() {
    let ctx = Context::new(2);
    for config in configs() {
        let stage = Stage::whole(config).unwrap();
        let params = params(&stage);
        let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
        let targets = masked(&targets);
        let mut trainer = Trainer::new(stage, SEQUENCES, TOKENS).unwrap();
        let logits = trainer.logits(&ctx, &params, &tokens);
        let counted = logits.chunks(config.vocab).zip(&targets).filter(|(_, target)| **target != IGNORED);
        let (mut rows, counted): (Vec<f32>, Vec<u32>) =
            counted.fold((Vec::new(), Vec::new()), |(mut rows, mut kept), (row, target)| {
                rows.extend(row);
                kept.push(*target);
                (rows, kept)
            });
        let expected = tensor::cross_entropy(&ctx, counted.len(), config.vocab, &mut rows, &counted, 1.0);
        let expected = expected / counted.len() as f64;
        let mut grads = vec![0.0; params.len()];
        let loss = trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut grads);
        assert_eq!(loss.to_bits(), expected.to_bits());
        assert_eq!(trainer.loss(&ctx, &params, &tokens, &targets).to_bits(), expected.to_bits());
    }
}

#[test]
fn the_gradient_agrees_with_differences_of_the_masked_loss() {
    const STEP: f32 = 4e-3;
    let ctx = Context::new(1);
    let config = configs()[2];
    let stage = Stage::whole(config).unwrap();
    let params = params(&stage);
    let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
    let targets = masked(&targets);
    let mut trainer = Trainer::new(stage.clone(), SEQUENCES, TOKENS).unwrap();
    let mut grads = vec![0.0; params.len()];
    trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut grads);
    for tensor in stage.layout().tensors() {
        let gradient = &grads[tensor.range()];
        let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let mut at = |step: f32| {
            let mut moved = params.clone();
            for (value, g) in moved[tensor.range()].iter_mut().zip(gradient) {
                *value += step * (f64::from(*g) / length) as f32;
            }
            trainer.loss(&ctx, &moved, &tokens, &targets)
        };
        let slope = (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * f64::from(STEP));
        assert!((slope - length).abs() < 1e-3 * length + 1e-4, "{}: {slope}, {length}", tensor.name);
    }
}

#[test]
fn a_mask_that_hides_nothing_or_everything() {
    let ctx = Context::new(1);
    let config = configs()[0];
    let stage = Stage::whole(config).unwrap();
    let params = params(&stage);
    let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
    let mut trainer = Trainer::new(stage, SEQUENCES, TOKENS).unwrap();
    let mut grads = vec![0.0; params.len()];
    let none = vec![IGNORED; targets.len()];
    assert_eq!(trainer.loss_and_grads(&ctx, &params, &tokens, &none, &mut grads), 0.0);
    assert!(grads.iter().all(|gradient| *gradient == 0.0));
    assert_eq!(trainer.loss(&ctx, &params, &tokens, &none), 0.0);
}

/// What stands after the last row that counts cannot reach it: a sequence may be padded with anything.
#[test]
fn padding_changes_no_bit() {
    let ctx = Context::new(1);
    for config in configs() {
        let stage = Stage::whole(config).unwrap();
        let params = params(&stage);
        let (tokens, mut targets) = batch(&config, SEQUENCES, TOKENS);
        let results = [3, 5].map(|padding| {
            let mut tokens = tokens.clone();
            for row in 0..SEQUENCES {
                tokens[(row + 1) * TOKENS - 4..(row + 1) * TOKENS].fill(padding);
                targets[(row + 1) * TOKENS - 4..(row + 1) * TOKENS].fill(IGNORED);
            }
            let mut trainer = Trainer::new(stage.clone(), SEQUENCES, TOKENS).unwrap();
            let mut grads = vec![0.0; params.len()];
            let loss = trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut grads);
            (loss.to_bits(), bits(&grads))
        });
        assert!(results[0] == results[1], "{config:?}");
    }
}

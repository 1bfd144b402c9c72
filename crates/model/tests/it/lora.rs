//! Adapters: their gradients, what they add up to, and that they change nothing at first.

use model::{AdapterLayout, Config, LinearMap, Lora, Stage, Trainer, TrainerOptions};
use tensor::random::Stream;
use tensor::{Context, Isa};

use crate::support::{batch, bits, config, configs, params};

const SEQUENCES: usize = 2;
const TOKENS: usize = 11;

fn lora(rank: usize) -> Lora {
    Lora { alpha: 3.0, ..Lora::all(rank) }
}

/// Adapters whose `B` is not zero.
fn trained(layout: &AdapterLayout) -> Vec<f32> {
    let mut adapters = layout.init([3; 32]);
    let mut noise = Stream::new([6; 32], "adapters");
    adapters.iter_mut().for_each(|value| *value += 0.15 * noise.normal());
    adapters
}

fn trainer(config: Config, lora: Lora, recompute: bool) -> Trainer {
    let options = TrainerOptions { recompute, lora: Some(lora) };
    Trainer::with_options(Stage::whole(config).unwrap(), SEQUENCES, TOKENS, options).unwrap()
}

#[test]
fn every_adapter_agrees_with_finite_differences() {
    const STEP: f32 = 4e-3;
    let ctx = Context::new(1);
    for config in configs() {
        let params = params(&Stage::whole(config).unwrap());
        let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
        let mut trainer = trainer(config, lora(3), false);
        let layout = trainer.adapters().unwrap().clone();
        let adapters = trained(&layout);
        let mut grads = vec![0.0; adapters.len()];
        trainer.adapted_loss_and_grads(&ctx, &params, &adapters, &tokens, &targets, &mut grads);
        for tensor in layout.tensors() {
            let gradient = &grads[tensor.range()];
            let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!(length > 1e-4, "{} has no gradient", tensor.name);
            let mut at = |step: f32| {
                let mut moved = adapters.clone();
                for (value, g) in moved[tensor.range()].iter_mut().zip(gradient) {
                    *value += step * (f64::from(*g) / length) as f32;
                }
                trainer.adapted_loss(&ctx, &params, &moved, &tokens, &targets)
            };
            let slope = (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * f64::from(STEP));
            let allowed = 1e-3 * length + 1e-4;
            assert!((slope - length).abs() < allowed, "{} of {config:?}: {slope}, {length}", tensor.name);
        }
    }
}

#[test]
fn adapters_that_were_not_trained_change_no_bit() {
    let ctx = Context::new(2);
    for config in configs() {
        let stage = Stage::whole(config).unwrap();
        let params = params(&stage);
        let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
        let mut plain = Trainer::new(stage.clone(), SEQUENCES, TOKENS).unwrap();
        let mut adapted = trainer(config, lora(4), false);
        let adapters = adapted.adapters().unwrap().init([1; 32]);
        let logits = adapted.adapted_logits(&ctx, &params, &adapters, &tokens);
        assert!(bits(&logits) == bits(&plain.logits(&ctx, &params, &tokens)), "{config:?}");
        let mut merged = params.clone();
        adapted.adapters().unwrap().merge(&ctx, &stage, &mut merged, &adapters);
        assert!(bits(&merged) == bits(&params), "{config:?}");
        let losses = [
            plain.loss(&ctx, &params, &tokens, &targets),
            adapted.adapted_loss(&ctx, &params, &adapters, &tokens, &targets),
        ];
        assert_eq!(losses[0].to_bits(), losses[1].to_bits());
    }
}

#[test]
fn merged_parameters_compute_what_the_adapters_did() {
    let ctx = Context::new(1);
    for (config, targets) in configs().into_iter().zip([
        LinearMap::ALL.to_vec(),
        vec![LinearMap::Query, LinearMap::Value],
        vec![LinearMap::Output],
        vec![LinearMap::Gate, LinearMap::Up, LinearMap::Down],
        vec![LinearMap::Key],
        LinearMap::ALL.to_vec(),
        LinearMap::ALL.to_vec(),
    ]) {
        let stage = Stage::whole(config).unwrap();
        let mut params = params(&stage);
        let tokens = batch(&config, SEQUENCES, TOKENS).0;
        let mut adapted = trainer(config, Lora { targets, ..lora(4) }, true);
        let layout = adapted.adapters().unwrap().clone();
        let adapters = trained(&layout);
        let logits = adapted.adapted_logits(&ctx, &params, &adapters, &tokens);
        let mut plain = Trainer::new(stage.clone(), SEQUENCES, TOKENS).unwrap();
        let before = plain.logits(&ctx, &params, &tokens);
        layout.merge(&ctx, &stage, &mut params, &adapters);
        let merged = plain.logits(&ctx, &params, &tokens);
        let largest = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        let size = logits.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(largest(&logits, &before) > 0.02 * size, "the adapters do nothing");
        assert!(largest(&logits, &merged) < 1e-5 * size, "{} of {size}", largest(&logits, &merged));
    }
}

#[test]
fn threads_instruction_sets_and_recomputation_change_no_bit() {
    let large = Config { width: 72, ff: 200, vocab: 130, ..config() };
    for config in configs().into_iter().chain([large]) {
        let params = params(&Stage::whole(config).unwrap());
        let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
        let run = |ctx: &Context, recompute: bool| {
            let mut trainer = trainer(config, lora(5), recompute);
            let adapters = trained(trainer.adapters().unwrap());
            let mut grads = vec![0.0; adapters.len()];
            let loss = trainer.adapted_loss_and_grads(ctx, &params, &adapters, &tokens, &targets, &mut grads);
            assert_eq!(
                loss.to_bits(),
                trainer.adapted_loss(ctx, &params, &adapters, &tokens, &targets).to_bits(),
                "with and without gradients"
            );
            (loss.to_bits(), bits(&grads))
        };
        let reference = run(&Context::scalar(), false);
        for isa in Isa::available() {
            for (threads, recompute) in [(1, false), (1, true), (2, false), (2, true)] {
                let ctx = Context::new(threads).with_isa(isa);
                assert!(run(&ctx, recompute) == reference, "{} {threads} {recompute} {config:?}", isa.name());
            }
        }
    }
}

#[test]
#[should_panic(expected = "adapters of another stage")]
fn a_trainer_of_adapters_wants_them() {
    let config = config();
    let params = params(&Stage::whole(config).unwrap());
    let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
    trainer(config, lora(2), false).loss(&Context::new(1), &params, &tokens, &targets);
}

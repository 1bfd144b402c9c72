//! The same bits whatever the threads, the instruction set and the split into stages.

use model::{Config, Stage, StageGradient, StageInput, Trainer, TrainerOptions};
use tensor::Context;

use crate::support::{batch, bits, config, configs, params};

const SEQUENCES: usize = 3;
const TOKENS: usize = 13;

/// Loss and gradients of one micro-batch.
fn run(ctx: &Context, config: Config) -> (u64, Vec<u32>) {
    let stage = Stage::whole(config).unwrap();
    let params = params(&stage);
    let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
    let mut grads = vec![0.0; params.len()];
    let mut trainer = Trainer::new(stage, SEQUENCES, TOKENS).unwrap();
    let loss = trainer.loss_and_grads(ctx, &params, &tokens, &targets, &mut grads);
    assert_eq!(loss.to_bits(), trainer.loss(ctx, &params, &tokens, &targets).to_bits(), "with and without gradients");
    (loss.to_bits(), bits(&grads))
}

#[test]
fn threads_and_instruction_sets_change_no_bit() {
    let large = Config { width: 72, ff: 200, vocab: 130, ..config() };
    for config in configs().into_iter().chain([large]) {
        let reference = run(&Context::scalar(), config);
        for threads in [1, 2, 3] {
            assert!(run(&Context::new(threads), config) == reference, "{threads} threads, {config:?}");
        }
    }
}

#[test]
fn a_split_into_stages_changes_no_bit() {
    let ctx = Context::new(1);
    let whole = run(&ctx, config());
    for cuts in [vec![0, 1, 3], vec![0, 2, 3], vec![0, 1, 2, 3]] {
        assert!(run_split(&ctx, config(), &cuts) == whole, "cuts at {cuts:?}");
    }
}

/// The same micro-batch through several stages, which share nothing but what goes over the boundaries.
fn run_split(ctx: &Context, config: Config, cuts: &[usize]) -> (u64, Vec<u32>) {
    run_split_with(ctx, config, cuts, false)
}

fn run_split_with(ctx: &Context, config: Config, cuts: &[usize], recompute: bool) -> (u64, Vec<u32>) {
    let all = params(&Stage::whole(config).unwrap());
    let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
    let mut start = 0;
    let mut stages: Vec<(Trainer, Vec<f32>, Vec<f32>)> = cuts
        .windows(2)
        .map(|cut| {
            let stage = Stage::new(config, cut[0]..cut[1]).unwrap();
            let options = TrainerOptions { recompute, lora: None };
            let trainer = Trainer::with_options(stage, SEQUENCES, TOKENS, options).unwrap();
            let params = all[start..start + trainer.layout().len()].to_vec();
            start += params.len();
            let grads = vec![0.0; params.len()];
            (trainer, params, grads)
        })
        .collect();
    assert_eq!(start, all.len());
    let mut hidden = Vec::new();
    for (index, (trainer, params, _)) in stages.iter_mut().enumerate() {
        let input = if index == 0 { StageInput::Tokens(&tokens) } else { StageInput::Hidden(&hidden) };
        hidden = trainer.forward(ctx, params, input).to_vec();
    }
    let mut loss = None;
    let mut gradient = Vec::new();
    for (trainer, params, grads) in stages.iter_mut().rev() {
        let last = trainer.stage().is_last();
        let from = if last { StageGradient::Targets(&targets) } else { StageGradient::Hidden(&gradient) };
        let output = trainer.backward(ctx, params, grads, from);
        loss = loss.or(output.loss);
        gradient = output.input.map(<[f32]>::to_vec).unwrap_or_default();
    }
    let grads: Vec<f32> = stages.into_iter().flat_map(|(_, _, grads)| grads).collect();
    (loss.unwrap().to_bits(), bits(&grads))
}

#[test]
fn a_smaller_batch_in_a_larger_trainer_changes_no_bit() {
    let ctx = Context::new(1);
    let stage = Stage::whole(config()).unwrap();
    let params = params(&stage);
    let (tokens, targets) = batch(&config(), 2, TOKENS);
    let results = [2, 5].map(|batch| {
        let mut grads = vec![0.0; params.len()];
        let mut trainer = Trainer::new(stage.clone(), batch, TOKENS).unwrap();
        let loss = trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut grads);
        (loss.to_bits(), bits(&grads))
    });
    assert!(results[0] == results[1]);
}

#[test]
fn recomputation_changes_no_bit() {
    for config in configs() {
        let stage = Stage::whole(config).unwrap();
        let params = params(&stage);
        let (tokens, targets) = batch(&config, SEQUENCES, TOKENS);
        let results = [false, true].map(|recompute| {
            let options = TrainerOptions { recompute, lora: None };
            let mut trainer = Trainer::with_options(stage.clone(), SEQUENCES, TOKENS, options).unwrap();
            let mut grads = vec![0.0; params.len()];
            // Twice: nothing may be left over from the step before.
            [0, 1].map(|_| {
                let loss = trainer.loss_and_grads(&Context::new(2), &params, &tokens, &targets, &mut grads);
                (loss.to_bits(), bits(&grads))
            })
        });
        assert!(results[0] == results[1], "{config:?}");
    }
}

#[test]
fn recomputation_in_a_split_changes_no_bit() {
    let (config, ctx) = (config(), Context::new(1));
    let whole = run(&ctx, config);
    assert!(run_split_with(&ctx, config, &[0, 2, 3], true) == whole);
}

//! Training in a pipeline of stages behind [`StageCompute`].

use model::{CpuStage, Stage, StageCompute, StageGradient, StageInput, Trainer};
use tensor::Context;

use crate::support::{batch, bits, config, params};

const SEQUENCES: usize = 2;
const TOKENS: usize = 9;
const MICRO_BATCHES: usize = 3;
const STEPS: usize = 4;

fn descend(params: &mut [f32], grads: &[f32]) {
    for (param, grad) in params.iter_mut().zip(grads) {
        *param -= 0.5 * grad;
    }
}

/// One micro-batch forward through all stages and back; returns its loss.
fn transit(stages: &mut [Box<dyn StageCompute>], tokens: &[u32], targets: &[u32]) -> f64 {
    let mut hidden = Vec::new();
    for stage in stages.iter_mut() {
        let first = stage.stage().is_first();
        let input = if first { StageInput::Tokens(tokens) } else { StageInput::Hidden(&hidden) };
        hidden = stage.forward(input).to_vec();
    }
    let mut loss = None;
    let mut gradient = Vec::new();
    for stage in stages.iter_mut().rev() {
        let last = stage.stage().is_last();
        let from = if last { StageGradient::Targets(targets) } else { StageGradient::Hidden(&gradient) };
        let output = stage.backward(from);
        loss = loss.or(output.loss);
        gradient = output.input.map(<[f32]>::to_vec).unwrap_or_default();
    }
    loss.unwrap()
}

#[test]
fn several_steps_in_a_pipeline_have_the_bits_of_one_stage() {
    let ctx = Context::new(1);
    let config = config();
    let whole = Stage::whole(config).unwrap();
    let initial = params(&whole);
    let size = SEQUENCES * TOKENS;
    let (tokens, targets) = batch(&config, SEQUENCES * MICRO_BATCHES, TOKENS);

    let mut expected = initial.clone();
    let mut trainer = Trainer::new(whole, SEQUENCES, TOKENS).unwrap();
    trainer.set_micro_batches(MICRO_BATCHES);
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let mut grads = vec![0.0; expected.len()];
        for (tokens, targets) in tokens.chunks(size).zip(targets.chunks(size)) {
            losses.push(trainer.loss_and_grads(&ctx, &expected, tokens, targets, &mut grads));
        }
        descend(&mut expected, &grads);
    }
    assert!(losses[losses.len() - 1] < losses[MICRO_BATCHES - 1] - 0.3, "it does not learn: {losses:?}");

    let mut stages: Vec<Box<dyn StageCompute>> = Vec::new();
    let mut start = 0;
    for layers in [0..1, 1..3] {
        let stage = Stage::new(config, layers).unwrap();
        let mut stage = CpuStage::new(ctx.clone(), stage, MICRO_BATCHES, SEQUENCES, TOKENS).unwrap();
        let end = start + stage.layout().len();
        assert!(stage.import(&initial).is_err(), "parameters of the whole model went into a stage");
        stage.import(&initial[start..end]).unwrap();
        start = end;
        stages.push(Box::new(stage));
    }
    let mut split = Vec::new();
    for _ in 0..STEPS {
        for (tokens, targets) in tokens.chunks(size).zip(targets.chunks(size)) {
            split.push(transit(&mut stages, tokens, targets));
        }
        stages.iter_mut().for_each(|stage| stage.step(&mut descend));
    }
    let mut exported = Vec::new();
    stages.iter().for_each(|stage| stage.export(&mut exported));
    assert_eq!(split, losses);
    assert!(bits(&exported) == bits(&expected));
}

//! Whole runs of the smallest recipe: what a swarm promises, checked end to end.

use learn::data::Corpus;
use learn::local::{Exchange, Swarm, Variant};
use learn::recipe::Recipe;
use learn::solo::Solo;
use learn::unit::{self, UnitError, local_seed};
use learn::{Progress, evaluate, evaluation, outer::State};
use tensor::Context;

fn corpus() -> Corpus {
    Corpus::bundled().expect("the bundled corpus is sound")
}

fn losses(run: impl Iterator<Item = Result<Progress, UnitError>>) -> Vec<f64> {
    run.filter_map(|progress| progress.expect("the recipe does not diverge").heldout_loss).collect()
}

#[test]
fn a_unit_is_a_pure_function() {
    let (recipe, corpus) = (Recipe::tiny(), corpus());
    let theta = State::genesis(&recipe).theta;
    let train = |ctx: &Context, seed: u32, first_step: u64| {
        unit::train(ctx, &recipe, &corpus, &theta, local_seed(&recipe, 0, seed), first_step, &|| false)
            .expect("the recipe does not diverge")
    };
    let unit = train(&Context::single(), 0, 0);
    assert_eq!(train(&Context::new(2), 0, 0), unit);
    assert_eq!(unit.tokens, recipe.unit_tokens());
    let other_data = train(&Context::single(), 1, 0);
    assert!(other_data.data_root != unit.data_root && other_data.output_root != unit.output_root);
    let other_step = train(&Context::single(), 0, 8);
    assert_eq!(other_step.data_root, unit.data_root);
    assert!(other_step.trace_root != unit.trace_root && other_step.output_root != unit.output_root);
}

#[test]
fn a_unit_stops_when_asked() {
    let (recipe, corpus) = (Recipe::tiny(), corpus());
    let theta = State::genesis(&recipe).theta;
    let asked = std::cell::Cell::new(0);
    let cancel = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    let result = unit::train(&Context::single(), &recipe, &corpus, &theta, [0; 32], 0, &cancel);
    assert_eq!((result, asked.get()), (Err(UnitError::Cancelled), 3));
}

#[test]
fn a_model_that_is_not_finite_ends_the_unit_with_its_step() {
    let (recipe, corpus) = (Recipe::tiny(), corpus());
    let mut theta = State::genesis(&recipe).theta;
    theta[7] = f32::NAN;
    let result = unit::train(&Context::single(), &recipe, &corpus, &theta, [0; 32], 12, &|| false);
    assert_eq!(result, Err(UnitError::Diverged { step: 12 }));
}

#[test]
fn a_swarm_learns_as_its_baseline_does() {
    let (recipe, corpus) = (Recipe::tiny(), corpus());
    let before =
        evaluate(&Context::single(), &recipe, &corpus, &State::genesis(&recipe).theta, recipe.evaluation.windows);
    // Logits of an untrained tied head have unit variance, which adds half a nat to a uniform guess.
    assert!((before - (recipe.model.vocab as f64).ln() - 0.5).abs() < 0.25, "untrained: {before}");
    let swarm = losses(Swarm::new(&recipe, &corpus, 2));
    let solo = losses(Solo::new(Context::new(2), &recipe, &corpus));
    assert_eq!(swarm.len(), 4);
    let (swarm, solo) = (swarm[3], solo[3]);
    assert!(swarm < before - 0.5 && solo < before - 0.5, "from {before}: swarm {swarm}, solo {solo}");
    assert!((swarm / solo - 1.0).abs() < 0.2, "swarm {swarm}, solo {solo}");
}

#[test]
fn a_run_has_the_same_bits_however_its_units_are_spread() {
    let (recipe, corpus) = (Recipe { rounds: 4, ..Recipe::tiny() }, corpus());
    let recipe = Recipe { compression: learn::recipe::Compression { keep: 4096, ..recipe.compression }, ..recipe };
    let root = |jobs: usize| {
        let mut swarm = Swarm::new(&recipe, &corpus, jobs);
        losses(swarm.by_ref());
        swarm.state().root(&recipe)
    };
    let expected = root(1);
    assert_eq!(root(2), expected);
    assert_eq!(root(3), expected);
}

/// The result of a whole run, bit for bit, on every machine and for every instruction set.
#[test]
fn golden_root_of_a_run() {
    let (recipe, corpus) = (Recipe::tiny(), corpus());
    let mut swarm = Swarm::new(&recipe, &corpus, 2);
    losses(swarm.by_ref());
    let root: String = swarm.state().root(&recipe).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(root, GOLDEN_ROOT);
}

const GOLDEN_ROOT: &str = "285b3edfefe8969d1ada15111e0a1df7c069a25cfb53786c17bc8ac4026f6170";

#[test]
fn variants_differ_from_the_recipe_and_from_each_other() {
    let corpus = corpus();
    let recipe = Recipe::tiny();
    let run = |variant: Variant| {
        let mut swarm = Swarm::new(&recipe, &corpus, 2).with_variant(variant);
        let bytes = swarm.by_ref().map(|progress| progress.expect("no divergence").payload_bytes).sum::<u64>();
        (bytes, swarm.state().root(&recipe))
    };
    let plain = run(Variant::default());
    let dense = run(Variant { exchange: Exchange::Dense, ..Variant::default() });
    let kept = run(Variant { kept_inner_state: true, ..Variant::default() });
    assert_eq!(dense.0, recipe.model.parameters() * 4 * u64::from(recipe.units_per_round) * recipe.rounds);
    assert!(plain.0 < dense.0 / 5);
    assert!(plain.1 != dense.1 && plain.1 != kept.1);
}

#[test]
fn a_sample_follows_from_its_seed() {
    let (recipe, corpus) = (Recipe::tiny(), corpus());
    let theta = State::genesis(&recipe).theta;
    let write = |seed: u64| evaluation::sample(&Context::single(), &recipe, &corpus, &theta, "She was", 30, seed);
    let text = write(1);
    assert_eq!(write(1), text);
    assert_ne!(write(2), text);
    let long = "a long prompt ".repeat(200);
    assert!(!evaluation::sample(&Context::single(), &recipe, &corpus, &theta, &long, 5, 1).is_empty());
}

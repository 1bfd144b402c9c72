use tensor::Context;

use super::*;
use crate::boundary::{BoundaryError, HIDDEN_MAX, Precision, Rounding, Space, encode};
use crate::data::Corpus;
use crate::recipe::{Outer, Pipeline, Recipe};
use crate::unit::local_seed;

fn recipe(stages: usize, space: Space) -> Recipe {
    let tiny = Recipe::tiny();
    let recipe = Recipe {
        inner_steps: 1,
        units_per_round: 4,
        model: model::Config { layers: 4, tied_head: false, ..tiny.model },
        outer: Outer { lr: 1.0, momentum: 0.0, nesterov: false },
        pipeline: Some(Pipeline { stages, space, precision: Precision::F32, coarsest: None }),
        ..tiny
    };
    recipe.validate().unwrap();
    recipe
}

fn corpus() -> Corpus {
    Corpus::bundled().unwrap()
}

/// Trains all rounds and returns the whole model's parameters and the last training loss.
fn trained(recipe: &Recipe, setting: Setting) -> (Vec<f32>, f64) {
    let corpus = corpus();
    let mut pipeline = LocalPipeline::new(Context::single(), recipe, &corpus, setting);
    let losses: Vec<f64> = pipeline.by_ref().map(|progress| progress.unwrap().training_loss).collect();
    assert!(losses[losses.len() - 1] < losses[0] - 0.1, "it does not learn: {losses:?}");
    (pipeline.parameters(), losses[losses.len() - 1])
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn four_stages_have_the_bits_of_the_whole_model() {
    let compressed = Setting { replicas: 2, compressed: true, ..Setting::EXACT };
    for setting in [Setting::EXACT, compressed] {
        let (whole, loss) = trained(&recipe(1, Space::Full), setting);
        let (split, split_loss) = trained(&recipe(4, Space::Full), setting);
        assert!(bits(&whole) == bits(&split), "{setting:?}");
        assert_eq!(loss, split_loss);
    }
}

/// The subspace's own monolithic form: one model on the expanded parameters, without any boundary.
#[test]
fn the_subspace_says_all_there_is_to_say() {
    let recipe = recipe(4, Space::Subspace { rank: 8 });
    let corpus = corpus();
    let mut pipeline = LocalPipeline::new(Context::single(), &recipe, &corpus, Setting::EXACT);
    assert!(pipeline.by_ref().take(4).all(|progress| progress.is_ok()));
    let (with, without) = (pipeline.evaluate(8).unwrap(), pipeline.evaluate_plain(8));
    assert!((with / without - 1.0).abs() < 1e-6, "{with} through boundaries and {without} without");
}

#[test]
fn a_learned_basis_moves_and_is_the_same_on_both_sides() {
    let recipe = recipe(4, Space::Projector { rank: 8, rate: 0.5 });
    let corpus = corpus();
    let setting = Setting { replicas: 2, compressed: true, forward: Precision::Int4, backward: Precision::Int4 };
    let mut pipeline = LocalPipeline::new(Context::single(), &recipe, &corpus, setting);
    let shapes: Vec<StageShape> = pipeline.shapes().cloned().collect();
    let basis = |states: &[StageState], place: usize, boundary: usize| {
        states[place].theta[shapes[place].basis(boundary).unwrap()].to_vec()
    };
    let start = basis(pipeline.states(), 0, 0);
    assert!(pipeline.by_ref().all(|progress| progress.is_ok()));
    for boundary in 0..3 {
        let one = basis(pipeline.states(), boundary, boundary);
        assert!(bits(&one) == bits(&basis(pipeline.states(), boundary + 1, boundary)), "boundary {boundary}");
    }
    let moved: f32 = start.iter().zip(basis(pipeline.states(), 0, 0)).map(|(a, b)| (a - b).abs()).sum();
    assert!(moved > 0.1, "{moved}");
}

#[test]
fn a_state_comes_back_from_its_bytes_and_others_are_refused() {
    let recipe = recipe(2, Space::Projector { rank: 8, rate: 0.1 });
    let ctx = Context::single();
    let shapes = StageShape::all(&recipe);
    let state = StageState::genesis(&ctx, &recipe, &shapes[1]);
    let bytes = state.to_bytes(&recipe, &shapes[1]);
    assert_eq!(StageState::from_bytes(&bytes, &recipe, &shapes[1]).unwrap(), state);
    assert_eq!(state.root(&recipe, &shapes[1]), *blake3::hash(&bytes).as_bytes());
    let refused = |edit: &dyn Fn(&mut Vec<u8>), recipe: &Recipe, shape: &StageShape| {
        let mut bytes = bytes.clone();
        edit(&mut bytes);
        StageState::from_bytes(&bytes, recipe, shape).unwrap_err()
    };
    let keep = |_: &mut Vec<u8>| {};
    assert_eq!(refused(&|bytes| bytes[0] = 0, &recipe, &shapes[1]), StageStateError::Foreign);
    assert_eq!(refused(&keep, &recipe, &shapes[0]), StageStateError::WrongStage { expected: 0, got: 1 });
    let other = Recipe { seed: 9, ..recipe.clone() };
    assert_eq!(refused(&keep, &other, &shapes[1]), StageStateError::WrongRecipe);
    assert!(matches!(refused(&|b| b.truncate(100), &recipe, &shapes[1]), StageStateError::WrongLength { .. }));
    assert!(matches!(refused(&|b| b[48] = 200, &recipe, &shapes[1]), StageStateError::WrongRound { round: 200, .. }));
    let infinite = |b: &mut Vec<u8>| b[60..64].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert_eq!(refused(&infinite, &recipe, &shapes[1]), StageStateError::NotFinite { index: 1 });
}

/// A micro-batch's work is a function of state and message: another replica, with other micro-batches in between and its activations
/// gone, gives the same bytes.
#[test]
fn replicas_are_interchangeable_bit_for_bit() {
    for space in [Space::Full, Space::Subspace { rank: 8 }, Space::Projector { rank: 8, rate: 0.1 }] {
        let recipe = recipe(3, space);
        let (ctx, corpus) = (Context::single(), corpus());
        let shapes = StageShape::all(&recipe);
        let parts = shapes[0].token_parts();
        let worker_with = |place: usize, slots: usize| {
            let state = StageState::genesis(&ctx, &recipe, &shapes[place]);
            StageWorker::new(ctx.clone(), &recipe, shapes[place].clone(), parts.clone(), &state, slots)
        };
        let worker = |place| worker_with(place, 1);
        let batches = [0, 1].map(|index| MicroBatch::derive(&recipe, &corpus, local_seed(&recipe, 0, index)));
        let (mut first, mut middle, mut last) = (worker(0), worker(1), worker(2));
        let sent = batches.each_ref().map(|batch| first.forward(batch, None, Precision::Int8).unwrap());
        let onward = middle.forward(&batches[0], Some(&sent[0]), Precision::Int8).unwrap();
        let turn = last.turn(&batches[0], Some(&onward), Precision::Int4, true).unwrap();
        let gradient = turn.gradient.clone().unwrap();
        let back = middle.backward(&batches[0], Some(&sent[0]), &gradient, Precision::Int4, true).unwrap();

        let mut other = worker(1);
        other.forward(&batches[1], Some(&sent[1]), Precision::Int8).unwrap();
        assert!(
            back == other.backward(&batches[0], Some(&sent[0]), &gradient, Precision::Int4, true).unwrap(),
            "{space:?}"
        );
        assert!(onward == other.forward(&batches[0], Some(&sent[0]), Precision::Int8).unwrap(), "{space:?}");
        let mut roomy = worker_with(1, 2);
        let forwards = [0, 1].map(|i| roomy.forward(&batches[i], Some(&sent[i]), Precision::Int8).unwrap());
        assert!(forwards[0] == onward, "{space:?}");
        assert!(
            back == roomy.backward(&batches[0], Some(&sent[0]), &gradient, Precision::Int4, true).unwrap(),
            "{space:?}"
        );
        assert!(turn == worker(2).turn(&batches[0], Some(&onward), Precision::Int4, true).unwrap(), "{space:?}");
        let both = [&middle, &other].map(|worker| worker.contribution().unwrap());
        assert!(bits(&both[0].gradient) == bits(&both[1].gradient), "{space:?}");
        assert_eq!(first.contribution(), None);
        other.clear();
        let again = other.backward(&batches[0], Some(&sent[0]), &gradient, Precision::Int4, false).unwrap();
        assert!(back == again && other.contribution().is_none(), "{space:?}: what is not counted is not added up");
    }
}

#[test]
fn a_message_of_another_shape_is_refused() {
    let recipe = recipe(2, Space::Projector { rank: 8, rate: 0.1 });
    let (ctx, corpus) = (Context::single(), corpus());
    let shapes = StageShape::all(&recipe);
    let state = StageState::genesis(&ctx, &recipe, &shapes[1]);
    let mut worker = StageWorker::new(ctx, &recipe, shapes[1].clone(), shapes[1].token_parts(), &state, 1);
    let batch = MicroBatch::derive(&recipe, &corpus, local_seed(&recipe, 0, 0));
    let rows = batch.tokens.len();
    let message = |rows: usize, columns: usize| {
        encode(Precision::F32, &vec![0.5; rows * columns], columns, Rounding::Nearest, HIDDEN_MAX)
    };
    for (rows, columns) in [(rows, 9), (rows - 1, 8)] {
        let error = worker.turn(&batch, Some(&message(rows, columns).unwrap()), Precision::F32, true).unwrap_err();
        assert!(matches!(error, BoundaryError::WrongShape { .. }), "{error}");
    }
    assert_eq!(worker.contribution(), None, "nothing of it is left");
    assert!(worker.turn(&batch, Some(&message(rows, 8).unwrap()), Precision::F32, true).is_ok());
}

use proptest::prelude::*;
use tensor::random::Stream;

use super::*;
use crate::recipe::Compression;
use crate::sparseloco::{decode, encode};

fn recipe(momentum: f32, nesterov: bool) -> Recipe {
    let mut recipe = Recipe::tiny();
    recipe.outer = Outer { lr: 0.5, momentum, nesterov };
    recipe
}

fn payload(recipe: &Recipe, seed: u8, size: f32) -> SparsePayload {
    let layout = recipe.layout();
    let mut residual = vec![0.0; layout.len()];
    Stream::new([seed; 32], "outer test").fill_normal(size, &mut residual);
    let bytes = encode(&layout, recipe.compression, &mut residual).unwrap();
    decode(&layout, recipe.compression, &bytes).unwrap()
}

fn dense(recipe: &Recipe, payload: &SparsePayload) -> Vec<f32> {
    let mut all = vec![0.0; recipe.layout().len()];
    for tensor in 0..payload.tensors() {
        let (indices, values) = payload.tensor(tensor);
        indices.iter().zip(values).for_each(|(&index, &value)| all[index as usize] = value);
    }
    all
}

#[test]
fn one_payload_moves_its_entries_and_no_others() {
    let recipe = recipe(0.0, false);
    let before = State::genesis(&recipe);
    let mut state = before.clone();
    let payload = payload(&recipe, 1, 1e-2);
    step(&Context::single(), &recipe, &mut state, &[(7, &payload)]);
    assert_eq!((state.round, state.momentum.len()), (1, 0));
    let sent = dense(&recipe, &payload);
    for (i, ((after, before), sent)) in state.theta.iter().zip(&before.theta).zip(&sent).enumerate() {
        assert_eq!(*after, (-0.5f32).mul_add(*sent, *before), "entry {i}");
    }
}

#[test]
fn weights_of_all_payloads_divide_and_a_lone_sender_counts_little() {
    let recipe = recipe(0.0, false);
    let (a, b) = (payload(&recipe, 1, 1e-2), payload(&recipe, 2, 1e-2));
    let sum = aggregate(&recipe.layout(), &[(1, &a), (3, &b)]);
    let (a, b) = (dense(&recipe, &a), dense(&recipe, &b));
    let lone = (0..sum.len()).find(|&i| a[i] != 0.0 && b[i] == 0.0).unwrap();
    assert!(sum[lone].abs() <= a[lone].abs() * 0.2501);
    assert!((0..sum.len()).all(|i| sum[i].abs() <= a[i].abs().max(b[i].abs())));
}

#[test]
fn a_huge_payload_is_cut_to_the_median() {
    let recipe = recipe(0.0, false);
    let honest: Vec<SparsePayload> = (0..3).map(|seed| payload(&recipe, seed, 1e-2)).collect();
    let attack = payload(&recipe, 9, 1e3);
    let total = |payloads: &[&SparsePayload]| {
        let weighted: Vec<(u64, &SparsePayload)> = payloads.iter().map(|&payload| (1, payload)).collect();
        norm(&aggregate(&recipe.layout(), &weighted))
    };
    let calm = total(&[&honest[0], &honest[1], &honest[2]]);
    let attacked = total(&[&honest[0], &honest[1], &honest[2], &attack]);
    assert!(attacked < 1.5 * calm, "{attacked} against {calm}");
}

#[test]
fn momentum_goes_on_without_payloads() {
    for (nesterov, first, second) in [(true, 1.5, 0.25), (false, 1.0, 0.5)] {
        let recipe = recipe(0.5, nesterov);
        let mut state = State::genesis(&recipe);
        let payload = payload(&recipe, 4, 1e-2);
        let sent = dense(&recipe, &payload);
        let at = sent.iter().position(|&x| x != 0.0).unwrap();
        let mut moves = Vec::new();
        for payloads in [&[(1, &payload)][..], &[]] {
            let before = state.theta[at];
            step(&Context::single(), &recipe, &mut state, payloads);
            moves.push((before - state.theta[at]) / sent[at] / 0.5);
        }
        assert!((moves[0] - first).abs() < 1e-3 && (moves[1] - second).abs() < 1e-3, "{nesterov}: {moves:?}");
    }
}

#[test]
fn the_step_has_the_same_bits_with_two_threads_and_portable_code() {
    let recipe = recipe(0.6, true);
    let payloads: Vec<SparsePayload> = (0..4).map(|seed| payload(&recipe, seed, 1e-2)).collect();
    let weighted: Vec<(u64, &SparsePayload)> = payloads.iter().map(|payload| (10, payload)).collect();
    let run = |ctx: &Context| {
        let mut state = State::genesis(&recipe);
        (0..3).for_each(|_| step(ctx, &recipe, &mut state, &weighted));
        state.root(&recipe)
    };
    let expected = run(&Context::single());
    assert_eq!(run(&Context::new(2)), expected);
    assert_eq!(run(&Context::scalar()), expected);
}

#[test]
fn a_state_survives_its_bytes_and_its_root_is_their_hash() {
    for momentum in [0.0, 0.5] {
        let recipe = recipe(momentum, true);
        let mut state = State::genesis(&recipe);
        step(&Context::single(), &recipe, &mut state, &[(1, &payload(&recipe, 1, 1e-2))]);
        let bytes = state.to_bytes(&recipe);
        assert_eq!(bytes.len(), state_bytes(&recipe));
        assert_eq!(State::from_bytes(&bytes, &recipe).as_ref(), Ok(&state));
        assert_eq!(state.root(&recipe), *blake3::hash(&bytes).as_bytes());
    }
}

#[test]
fn damaged_states_are_refused_with_their_reason() {
    let recipe = recipe(0.5, true);
    let good = State::genesis(&recipe).to_bytes(&recipe);
    let read = |bytes: &[u8]| State::from_bytes(bytes, &recipe).unwrap_err();
    let edit = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        read(&bytes)
    };
    assert_eq!(read(b""), StateError::Foreign);
    assert_eq!(edit(0, b"PK"), StateError::Foreign);
    assert_eq!(edit(8, &[0; 32]), StateError::WrongRecipe);
    assert_eq!(edit(40, &[0xff; 8]), StateError::WrongRound { round: u64::MAX, rounds: 8 });
    assert!(matches!(edit(48, &[0xff; 8]), StateError::WrongLength { .. }));
    assert!(matches!(read(&good[..good.len() - 1]), StateError::WrongLength { .. }));
    assert!(matches!(read(&[&good[..], &[0]].concat()), StateError::WrongLength { .. }));
    assert_eq!(edit(HEADER_BYTES + 12, &f32::NAN.to_le_bytes()), StateError::NotFinite { index: 3 });
    let mut other = recipe.clone();
    other.inner.clip_norm = 2.0;
    assert_eq!(State::from_bytes(&good, &other), Err(StateError::WrongRecipe));
}

#[test]
fn the_median_is_the_middle_or_the_mean_of_both() {
    assert_eq!([median(&[]), median(&[3.0]), median(&[4.0, 1.0]), median(&[9.0, 1.0, 2.0])], [0.0, 3.0, 2.5, 2.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_no_state(bytes in proptest::collection::vec(any::<u8>(), 0..300), headed in any::<bool>()) {
        let recipe = recipe(0.5, true);
        let mut all = if headed { State::genesis(&recipe).to_bytes(&recipe)[..40].to_vec() } else { Vec::new() };
        all.extend(bytes);
        prop_assert!(State::from_bytes(&all, &recipe).is_err());
    }
}

#[test]
fn the_largest_payload_values_keep_the_state_finite() {
    let mut recipe = recipe(0.5, true);
    recipe.compression = Compression { keep: 4096, ..recipe.compression };
    let payload = payload(&recipe, 1, 1e30);
    let mut state = State::genesis(&recipe);
    (0..8).for_each(|_| step(&Context::single(), &recipe, &mut state, &[(u64::MAX, &payload), (u64::MAX, &payload)]));
    assert!(state.theta.iter().all(|value| value.is_finite()));
}

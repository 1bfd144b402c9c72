//! The training run of the suite: 200 inner steps through the code that peers run.
//!
//! Four rounds of two units of 25 steps on an excerpt of the bundled novels: tokenizer, batches, forward and backward of a small
//! model with every option of its attention, clipping, Muon and AdamW, compression with its residual, the outer step and the
//! held-out loss. Sizes have tails in every kernel and are small enough for an emulated processor.

use model::{Attention, Config, RopeScaling};
use tensor::{Context, Profile};

use crate::data::Corpus;
use crate::evaluation::evaluate;
use crate::outer::{self, State};
use crate::recipe::{BatchShape, Evaluation, Inner, Recipe, VOCAB};
use crate::schedule::{Decay, Schedule};
use crate::sparseloco;
use crate::unit::{self, local_seed};

/// Bytes of each bundled text that are read.
const EXCERPT_BYTES: usize = 24 * 1024;

fn recipe(profile: Profile) -> Recipe {
    let tiny = Recipe::tiny();
    let Inner { mut adamw, muon, .. } = tiny.inner;
    adamw.weight_decay = 0.01;
    // A table rate of 0 leaves the embedding and the head to AdamW.
    let muon = muon.map(|muon| crate::recipe::Muon { table_lr: 0.0, weight_decay: 0.01, ..muon });
    let attention = Attention {
        bias: true,
        query_key_norm: true,
        rope_scaling: Some(RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 64,
        }),
    };
    Recipe {
        name: "conformance".to_owned(),
        seed: 200,
        rounds: 4,
        inner_steps: 25,
        units_per_round: 2,
        model: Config {
            vocab: VOCAB,
            width: 24,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 6,
            ff: 40,
            context: 64,
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
            tied_head: false,
            attention,
        },
        batch: BatchShape { sequences: 2, tokens: 21 },
        inner: Inner { clip_norm: 0.5, adamw, muon },
        schedule: Schedule { warmup_steps: 8, decay_fraction: 0.5, final_fraction: 0.1, decay: Decay::Cosine },
        compression: crate::recipe::Compression { chunk: 4096, keep: 4096, ..tiny.compression },
        evaluation: Evaluation { windows: 4, every_rounds: 4 },
        profile,
        ..tiny
    }
}

/// Trains 200 steps and hashes every batch, loss, gradient norm, parameter, payload and state on the way.
///
/// # Panics
/// When the training diverges, which only a wrong kernel can make it do.
pub fn training_hash(ctx: &Context) -> [u8; 32] {
    let recipe = recipe(ctx.profile());
    recipe.validate().expect("the suite's recipe is sound");
    let corpus = Corpus::excerpt(EXCERPT_BYTES).expect("the bundled corpus is sound");
    let layout = recipe.layout();
    let mut state = State::genesis(&recipe);
    let mut residuals = vec![vec![0.0; layout.len()]; recipe.units_per_round as usize];
    let mut hasher = blake3::Hasher::new_derive_key("cairn v1 conformance training");
    for round in 0..recipe.rounds {
        let mut payloads = Vec::new();
        for (index, residual) in (0..recipe.units_per_round).zip(&mut residuals) {
            let (seed, first) = (local_seed(&recipe, round, index), round * recipe.inner_steps);
            let unit = unit::train(ctx, &recipe, &corpus, &state.theta, seed, first, &|| false)
                .expect("the suite's training does not diverge");
            [unit.data_root, unit.trace_root, unit.output_root].iter().for_each(|root| {
                hasher.update(root);
            });
            sparseloco::fold_residual(residual, &unit.delta, recipe.compression.beta);
            let payload = sparseloco::encode(&layout, recipe.compression, residual).expect("finite residuals");
            hasher.update(blake3::hash(&payload).as_bytes());
            let decoded = sparseloco::decode(&layout, recipe.compression, &payload);
            payloads.push((unit.tokens, decoded.expect("what was encoded is decoded")));
        }
        let weighted: Vec<_> = payloads.iter().map(|(tokens, payload)| (*tokens, payload)).collect();
        outer::step(ctx, &recipe, &mut state, &weighted);
        hasher.update(blake3::hash(&state.to_bytes(&recipe)).as_bytes());
    }
    let heldout = evaluate(ctx, &recipe, &corpus, &state.theta, recipe.evaluation.windows);
    hasher.update(&heldout.to_bits().to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_has_200_steps_and_learns() {
        let recipe = recipe(Profile::default());
        assert_eq!(recipe.total_steps() * u64::from(recipe.units_per_round), 200);
        let corpus = Corpus::excerpt(EXCERPT_BYTES).unwrap();
        let start = State::genesis(&recipe).theta;
        let ctx = Context::single();
        let before = evaluate(&ctx, &recipe, &corpus, &start, 8);
        let unit = unit::train(&ctx, &recipe, &corpus, &start, [1; 32], 0, &|| false).unwrap();
        let trained: Vec<f32> = start.iter().zip(&unit.delta).map(|(start, delta)| start - delta).collect();
        let after = evaluate(&ctx, &recipe, &corpus, &trained, 8);
        assert!(after < before - 0.5, "held-out loss {before} before, {after} after one unit");
    }
}

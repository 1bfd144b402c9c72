//! How good a model is: its loss on fixed windows of held-out text, and text that it writes.

use std::ops::ControlFlow;

use model::{Decoder, END_ID, Request, Sampler, Sampling, Trainer, generate};
use tensor::Context;

use crate::data::{Corpus, evaluation_windows};
use crate::recipe::{BatchShape, Recipe};

/// Sequences that are measured at once.
const SEQUENCES: usize = 8;

/// Mean loss in nats per token on `windows` evenly spaced windows of the held-out text, each as long as a training sequence.
///
/// # Panics
/// When `theta` does not belong to the recipe's model, or the corpus is too small for the recipe
/// ([`Corpus::check_recipe`]).
pub fn evaluate(ctx: &Context, recipe: &Recipe, corpus: &Corpus, theta: &[f32], windows: usize) -> f64 {
    let tokens = recipe.batch.tokens;
    let batches = evaluation_windows(corpus, windows, BatchShape { sequences: SEQUENCES, tokens });
    let mut trainer = Trainer::new(recipe.stage(), SEQUENCES, tokens).expect("the recipe's batch was checked");
    let sum: f64 = batches
        .iter()
        .map(|batch| trainer.loss(ctx, theta, &batch.tokens, &batch.targets) * batch.tokens.len() as f64)
        .sum();
    sum / (windows * tokens) as f64
}

/// Continues `prompt` by up to `tokens` tokens, ending where the model ends the text or its context is full. Returns the
/// continuation. The same arguments give the same text.
///
/// # Panics
/// When `theta` does not belong to the recipe's model.
pub fn sample(
    ctx: &Context,
    recipe: &Recipe,
    corpus: &Corpus,
    theta: &[f32],
    prompt: &str,
    tokens: usize,
    seed: u64,
) -> String {
    let mut decoder = Decoder::new(recipe.model, theta).expect("parameters of the recipe's model");
    let sampling = Sampling { temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0.0, repetition_penalty: 1.0, seed };
    let mut sampler = Sampler::new(sampling).expect("constants within their ranges");
    let mut ids = vec![END_ID];
    ids.extend(corpus.tokenizer().encode(prompt));
    let room = recipe.model.context / 2;
    let ids = &ids[ids.len().saturating_sub(room)..];
    let mut written = Vec::with_capacity(tokens);
    let request = Request { prompt: ids, tokens_max: tokens, ends: &[END_ID] };
    let mut cache = decoder.cache();
    let collect = |token| {
        written.push(token);
        ControlFlow::Continue(())
    };
    generate(ctx, &mut decoder, &mut cache, request, &mut sampler, collect).expect("the prompt fits the context");
    corpus.tokenizer().decode(&written)
}

//! Decoding: the bits of the training forward, however the tokens are fed.

use std::ops::ControlFlow;

use model::{
    Cache, Config, DecodeError, Decoder, Feed, Finish, Request, Sampler, Sampling, Stage, StageDecoder, StageFeed,
    Trainer, generate,
};
use tensor::Context;

use crate::support::{batch, bits, config, configs, params};

fn decoder(config: Config) -> Decoder {
    Decoder::new(config, &params(&Stage::whole(config).unwrap())).unwrap()
}

/// The logits after each token, fed one by one.
fn one_by_one(ctx: &Context, decoder: &mut Decoder, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut cache = decoder.cache();
    tokens.iter().map(|&token| bits(decoder.feed(ctx, &mut cache, &[token]).unwrap())).collect()
}

#[test]
fn decoding_has_the_bits_of_the_training_forward() {
    for config in configs() {
        let stage = Stage::whole(config).unwrap();
        let (tokens, _) = batch(&config, 1, config.context);
        let mut trainer = Trainer::new(stage.clone(), 1, config.context).unwrap();
        let logits = trainer.logits(&Context::new(2), &params(&stage), &tokens);
        for ctx in [Context::new(1), Context::new(2), Context::scalar()] {
            let decoded = one_by_one(&ctx, &mut decoder(config), &tokens);
            for (position, (row, decoded)) in logits.chunks(config.vocab).zip(&decoded).enumerate() {
                assert!(bits(row) == *decoded, "position {position} of {config:?}");
            }
        }
    }
}

#[test]
fn a_prompt_in_any_pieces_has_the_bits_of_single_tokens() {
    let ctx = Context::new(1);
    // Longer than the pieces that the decoder itself makes.
    let config = Config { context: 300, ..config() };
    let mut decoder = decoder(config);
    let (tokens, _) = batch(&config, 1, 300);
    let single = one_by_one(&ctx, &mut decoder, &tokens);
    for piece in [2, 7, 128, 129, 300] {
        let mut cache = decoder.cache();
        let mut at = 0;
        for tokens in tokens.chunks(piece) {
            at += tokens.len();
            let logits = bits(decoder.feed(&ctx, &mut cache, tokens).unwrap());
            assert!(logits == single[at - 1], "pieces of {piece}, after {at} tokens");
        }
        assert_eq!(cache.len(), 300);
    }
}

/// Feeds two sequences through all stages and gives the logits of both.
fn through_stages(
    ctx: &Context,
    stages: &mut [StageDecoder],
    caches: &mut [[Cache; 2]],
    tokens: [&[u32]; 2],
) -> Vec<f32> {
    let mut hidden: [Vec<f32>; 2] = Default::default();
    for (stage, caches) in stages.iter_mut().zip(caches) {
        let mut caches = caches.iter_mut();
        let mut feeds =
            [0, 1].map(|i| StageFeed { cache: caches.next().unwrap(), tokens: tokens[i], hidden: &hidden[i] });
        let out = stage.feed(ctx, &mut feeds).unwrap().to_vec();
        if stage.stage().is_last() {
            return out;
        }
        let (first, second) = out.split_at(tokens[0].len() * stage.stage().config().width);
        hidden = [first.to_vec(), second.to_vec()];
    }
    unreachable!("the last stage gives logits")
}

#[test]
fn a_model_in_stages_has_the_bits_of_the_whole() {
    let ctx = Context::new(2);
    for config in configs().into_iter().filter(|config| !config.tied_head) {
        let config = Config { context: 160, ..config };
        let params = params(&Stage::whole(config).unwrap());
        let mut at = 0;
        let mut stages: Vec<StageDecoder> = (0..config.layers)
            .map(|layer| {
                let stage = Stage::new(config, layer..layer + 1).unwrap();
                let from = at;
                at += stage.layout().len();
                StageDecoder::new(stage, &params[from..at]).unwrap()
            })
            .collect();
        let mut caches: Vec<[Cache; 2]> = stages.iter().map(|stage| [stage.cache(), stage.cache()]).collect();
        let mut whole = Decoder::new(config, &params).unwrap();
        let mut expected = [whole.cache(), whole.cache()];
        let (tokens, _) = batch(&config, 2, 150);
        let (one, two) = tokens.split_at(150);
        // A prompt longer than a piece beside a short one, then token by token.
        for range in [(0..140, 0..9), (140..141, 9..10), (141..142, 10..11)] {
            let got = through_stages(&ctx, &mut stages, &mut caches, [&one[range.0.clone()], &two[range.1.clone()]]);
            let [first, second] = &mut expected;
            let mut feeds =
                [Feed { cache: first, tokens: &one[range.0] }, Feed { cache: second, tokens: &two[range.1] }];
            assert!(bits(&got) == bits(whole.feed_batch(&ctx, &mut feeds).unwrap()), "{config:?}");
        }
    }
}

#[test]
fn sequences_fed_together_have_the_bits_that_they_have_alone() {
    let ctx = Context::new(2);
    let config = config();
    let mut decoder = decoder(config);
    let (tokens, _) = batch(&config, 3, 12);
    let sequences: Vec<&[u32]> = tokens.chunks(12).collect();
    let alone: Vec<_> = sequences.iter().map(|tokens| one_by_one(&ctx, &mut decoder, tokens)).collect();
    let mut caches: Vec<Cache> = (0..3).map(|_| decoder.cache()).collect();
    // A prompt of another length for each, then token by token.
    let mut held = [0; 3];
    for step in 0..5 {
        let counts = if step == 0 { [7, 1, 4] } else { [1, 1, 1] };
        let mut feeds: Vec<Feed<'_>> = caches
            .iter_mut()
            .enumerate()
            .map(|(i, cache)| Feed { cache, tokens: &sequences[i][held[i]..held[i] + counts[i]] })
            .collect();
        let logits = decoder.feed_batch(&ctx, &mut feeds).unwrap();
        for (i, row) in logits.chunks(config.vocab).enumerate() {
            held[i] += counts[i];
            assert!(bits(row) == alone[i][held[i] - 1], "sequence {i} after {} tokens", held[i]);
        }
    }
}

#[test]
fn a_truncated_cache_goes_on_from_there() {
    let ctx = Context::new(1);
    let mut decoder = decoder(config());
    let (tokens, _) = batch(&config(), 1, 10);
    let expected = one_by_one(&ctx, &mut decoder, &tokens);
    let mut cache = decoder.cache();
    decoder.feed(&ctx, &mut cache, &[1, 2, 3, 4, 5]).unwrap();
    cache.truncate(0);
    assert!(cache.is_empty() && cache.bytes() == 0);
    decoder.feed(&ctx, &mut cache, &tokens[..6]).unwrap();
    decoder.feed(&ctx, &mut cache, &[3, 3]).unwrap();
    cache.truncate(6);
    assert!(bits(decoder.feed(&ctx, &mut cache, &tokens[6..]).unwrap()) == expected[9]);
    // A page of 16 positions: keys and values of 3 layers with 2 heads of 6 values.
    assert_eq!(cache.bytes(), 16 * 2 * 3 * 2 * 6 * 4);
}

#[test]
fn what_cannot_be_fed_is_refused_and_changes_nothing() {
    let ctx = Context::new(1);
    let config = config();
    let mut decoder = decoder(config);
    let mut cache = decoder.cache();
    decoder.feed(&ctx, &mut cache, &[1; 20]).unwrap();
    let full = DecodeError::ContextFull { held: 20, more: 5, context: 24 };
    assert_eq!(decoder.feed(&ctx, &mut cache, &[1; 5]).unwrap_err(), full);
    let unknown = DecodeError::UnknownToken { token: 29, vocab: 29 };
    assert_eq!(decoder.feed(&ctx, &mut cache, &[1, 29]).unwrap_err(), unknown);
    assert_eq!(decoder.feed(&ctx, &mut cache, &[]).unwrap_err(), DecodeError::NoTokens);
    assert_eq!(decoder.feed_batch(&ctx, &mut []).unwrap_err(), DecodeError::NoTokens);
    let mut other = Cache::new(&Config { layers: 2, ..config });
    assert_eq!(decoder.feed(&ctx, &mut other, &[1]).unwrap_err(), DecodeError::WrongCache);
    let mut fresh = decoder.cache();
    let mut feeds = [Feed { cache: &mut fresh, tokens: &[1] }, Feed { cache: &mut cache, tokens: &[1; 5] }];
    assert_eq!(decoder.feed_batch(&ctx, &mut feeds).unwrap_err(), full);
    assert_eq!((fresh.len(), cache.len()), (0, 20));
    assert!(Decoder::new(config, &[0.0; 3]).is_err());
}

/// Generates up to `tokens_max` tokens and stops when `stop` of them came.
fn run(ends: &[u32], tokens_max: usize, stop: usize) -> (Finish, Vec<u32>) {
    let ctx = Context::new(1);
    let mut decoder = decoder(config());
    let mut cache = decoder.cache();
    let mut sampler = Sampler::new(Sampling { seed: 3, ..Sampling::default() }).unwrap();
    let mut tokens = Vec::new();
    let request = Request { prompt: &[4, 5, 6], tokens_max, ends };
    let finish = generate(&ctx, &mut decoder, &mut cache, request, &mut sampler, |token| {
        tokens.push(token);
        if tokens.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (finish.unwrap(), tokens)
}

#[test]
fn generation_ends_for_each_of_its_reasons() {
    let (finish, tokens) = run(&[], 8, 99);
    assert_eq!((finish, tokens.len()), (Finish::Length, 8));
    assert_eq!(run(&[], 8, 99).1, tokens, "the same seed gave other tokens");
    assert_eq!(run(&[], 8, 5), (Finish::Stopped, tokens[..5].to_vec()));
    assert_eq!(run(&[], 0, 99), (Finish::Length, vec![]));
    let end = tokens[6];
    let first = tokens.iter().position(|&token| token == end).unwrap();
    let other = (0..29).find(|token| !tokens.contains(token)).unwrap();
    assert_eq!(run(&[other, end], 8, 99), (Finish::End, tokens[..first].to_vec()));
    // Three of the prompt, and the last one needs no room because nothing follows it.
    let (finish, tokens) = run(&[], 99, 99);
    assert_eq!((finish, tokens.len()), (Finish::Context, 24 - 3 + 1));
}

#[test]
fn greedy_generation_follows_the_training_forward() {
    let ctx = Context::new(1);
    let config = config();
    let stage = Stage::whole(config).unwrap();
    let params = params(&stage);
    let mut decoder = Decoder::new(config, &params).unwrap().share();
    let mut cache = decoder.cache();
    let mut text = vec![7, 1];
    let request = Request { prompt: &text.clone(), tokens_max: 10, ends: &[] };
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    generate(&ctx, &mut decoder, &mut cache, request, &mut sampler, |token| {
        text.push(token);
        ControlFlow::Continue(())
    })
    .unwrap();
    let mut trainer = Trainer::new(stage, 1, text.len()).unwrap();
    let logits = trainer.logits(&ctx, &params, &text);
    for (row, next) in logits.chunks(config.vocab).zip(&text[1..]).skip(1) {
        let best = row.iter().fold(f32::NEG_INFINITY, |best, x| best.max(*x));
        assert_eq!(row[*next as usize], best);
    }
}

//! Decoding by stages: each holds the keys and values of its own layers.
//!
//! A stage takes tokens (the first) or the hidden states of the stage before, and gives hidden states or (the last) logits. All stages
//! together have the bits of [`Decoder`](super::Decoder).

use tensor::Context;

use super::cache::PoolFull;
use super::weights::Weights;
use super::{Cache, CachePool, DecodeError, Feed, ROWS_MAX, Scratch, Weight, check, for_little_work};
use crate::config::{Config, ConfigError};
use crate::stage::Stage;

/// Tokens for one of the sequences of [`StageDecoder::feed`].
#[derive(Debug)]
pub struct StageFeed<'a> {
    /// The sequence.
    pub cache: &'a mut Cache,
    /// What follows what it holds. Stages after the first do not read the tokens, only how many they are.
    pub tokens: &'a [u32],
    /// Their hidden states `[tokens, width]` from the stage before; empty for the first stage.
    pub hidden: &'a [f32],
}

/// A stage that is ready to decode. Sequences live in [`Cache`]s.
#[derive(Debug)]
pub struct StageDecoder {
    stage: Stage,
    /// The model's shape with the layers of this stage.
    config: Config,
    weights: Weights,
    parameters: u64,
    scratch: Scratch,
    out: Vec<f32>,
}

impl StageDecoder {
    /// Takes the parameters of a stage.
    ///
    /// # Errors
    /// The parameters are not as many as the stage has.
    pub fn new(stage: Stage, params: &[f32]) -> Result<Self, ConfigError> {
        let expected = stage.layout().len();
        if params.len() != expected {
            return Err(ConfigError::WrongParameters { expected, got: params.len() });
        }
        let values = |tensor: &crate::TensorInfo| Ok::<_, ConfigError>(Weight::Values(params[tensor.range()].to_vec()));
        let weights = Weights::load(&stage, values)?;
        let config = Config { layers: stage.layers().len(), ..*stage.config() };
        Ok(Self { stage, config, weights, parameters: expected as u64, scratch: Scratch::default(), out: Vec::new() })
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// An empty sequence for this stage.
    pub fn cache(&self) -> Cache {
        Cache::new(&self.config)
    }

    /// Memory for sequences of this stage, with pages for at least `tokens` tokens.
    pub fn pool(&self, tokens: usize) -> CachePool {
        CachePool::new(&self.config, tokens)
    }

    /// Appends tokens to several sequences. Returns the hidden states `[all tokens, width]` after this stage, or in the last stage the
    /// logits `[feeds, vocab]` of what follows the last token of each.
    ///
    /// # Errors
    /// As [`Decoder::feed`](super::Decoder::feed) for any of them; all caches are then unchanged.
    ///
    /// # Panics
    /// When hidden states are not as many as the tokens ask for.
    pub fn feed(&mut self, ctx: &Context, feeds: &mut [StageFeed<'_>]) -> Result<&[f32], DecodeError> {
        if feeds.is_empty() {
            return Err(DecodeError::NoTokens);
        }
        for feed in feeds.iter() {
            check(&self.config, feed.cache, feed.tokens)?;
            let hidden = if self.stage.is_first() { 0 } else { feed.tokens.len() * self.config.width };
            assert_eq!(feed.hidden.len(), hidden, "hidden states of {} tokens", feed.tokens.len());
        }
        for feed in feeds.iter_mut() {
            let more = feed.tokens.len();
            feed.cache.reserve(more).map_err(|PoolFull| DecodeError::PoolFull { more })?;
        }
        let rows: usize = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let single = for_little_work(ctx, rows, self.parameters, self.config.layers);
        let ctx = single.as_ref().unwrap_or(ctx);
        self.out.clear();
        ctx.run(|| self.feed_reserved(ctx, feeds));
        Ok(if self.stage.is_last() { &self.scratch.logits } else { &self.out })
    }

    /// All that follows once every sequence has its memory.
    fn feed_reserved(&mut self, ctx: &Context, feeds: &mut [StageFeed<'_>]) {
        // A long prompt goes ahead in pieces. Those that fit one go together, which is what most calls are.
        if feeds.iter().map(|feed| feed.tokens.len()).sum::<usize>() <= ROWS_MAX {
            return self.advance(ctx, feeds);
        }
        let width = if self.stage.is_first() { 0 } else { self.config.width };
        let mut logits = Vec::new();
        for feed in feeds {
            let mut rest = feed.hidden;
            for tokens in feed.tokens.chunks(ROWS_MAX) {
                let (hidden, after) = rest.split_at(tokens.len() * width);
                rest = after;
                self.advance(ctx, &mut [StageFeed { cache: feed.cache, tokens, hidden }]);
            }
            logits.extend_from_slice(&self.scratch.logits);
        }
        self.scratch.logits = logits;
    }

    fn advance(&mut self, ctx: &Context, feeds: &mut [StageFeed<'_>]) {
        let Self { config, weights, scratch, .. } = self;
        let hidden: Vec<&[f32]> = feeds.iter().map(|feed| feed.hidden).collect();
        let mut rows: Vec<Feed<'_>> =
            feeds.iter_mut().map(|feed| Feed { cache: feed.cache, tokens: feed.tokens }).collect();
        scratch.take_rows(config, &rows);
        match &weights.embedding {
            Some(table) => table.gather(ctx, &scratch.ids, config.width, &mut scratch.stream),
            None => {
                scratch.stream.clear();
                hidden.iter().for_each(|hidden| scratch.stream.extend_from_slice(hidden));
            }
        }
        weights.run_layers(ctx, config, scratch, &mut rows);
        match weights.output {
            Some(_) => weights.logits(ctx, config, scratch, &rows),
            None => self.out.extend_from_slice(&scratch.stream),
        }
    }
}

//! Decoding with a key/value cache, one sequence or many at a time.
//!
//! Purpose: the logits of the next token, from the tokens that a sequence got since the last call. Feeding a prompt at
//! once, in pieces or token by token, alone or beside other sequences, and the training forward over the same tokens: all
//! give the same bits, because every kernel's row is independent of the other rows.
//!
//! Layout: a cache holds keys (already rotated) and values in pages. Weights of f32 are kept transposed, `[in, out]`, so that the
//! product of a single row reads them in the order in which they lie; quantised ones stay quantised ([`tensor::QuantisedMatrix`]).

mod cache;
mod stage;
mod weights;

use std::sync::Arc;

use tensor::{CacheShape, CachedRows, Context, QuantisedRows, RopeTable};

use self::cache::PoolFull;
pub use self::cache::{Cache, CachePool};
pub use self::stage::{StageDecoder, StageFeed};
pub use self::weights::Weight;
use self::weights::{Input, Layer, Output, Weights};
use crate::config::{Config, ConfigError};
use crate::stage::{Stage, TensorInfo};

/// Most tokens of one sequence that go through the layers together.
const ROWS_MAX: usize = 128;

/// Least rows × parameters of a layer that are worth more than one thread: below, waking a thread for each of the layer's products
/// costs more than the other thread saves. How many layers there are does not matter, since each has products of its own.
const THREADS_WORK: u64 = 1 << 20;

/// Why tokens could not be fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The sequence would be longer than the model's context.
    #[error("context is full: {held} tokens and {more} more, where the model has room for {context}")]
    ContextFull {
        /// Tokens in the cache.
        held: usize,
        /// Tokens to feed.
        more: usize,
        /// Longest sequence of the model.
        context: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Number of token ids.
        vocab: usize,
    },
    /// There is no token to feed, hence no logits.
    #[error("no token to feed")]
    NoTokens,
    /// The cache was made for a model of another shape.
    #[error("the cache belongs to a model of another shape")]
    WrongCache,
    /// The sequences share a memory that has no room for more.
    #[error("the memory for sequences has no room for {more} more tokens")]
    PoolFull {
        /// Tokens to feed.
        more: usize,
    },
}

/// Tokens for one of the sequences of [`Decoder::feed_batch`].
#[derive(Debug)]
pub struct Feed<'a> {
    /// The sequence.
    pub cache: &'a mut Cache,
    /// What follows what it holds.
    pub tokens: &'a [u32],
}

/// A model that is ready to decode. Sequences live in [`Cache`]s.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    weights: Arc<Weights>,
    scratch: Scratch,
}

impl Decoder {
    /// Takes the parameters of a whole model.
    ///
    /// # Errors
    /// The config is unsound or the parameters are not as many as the model has.
    pub fn new(config: Config, params: &[f32]) -> Result<Self, ConfigError> {
        let expected = Stage::whole(config)?.layout().len();
        if params.len() != expected {
            return Err(ConfigError::WrongParameters { expected, got: params.len() });
        }
        Self::load(config, |tensor| Ok(Weight::Values(params[tensor.range()].to_vec())))
    }

    /// Takes the tensors of a whole model one after the other, in the order of its layout.
    ///
    /// # Errors
    /// The config is unsound, a tensor has another size than the model's, a vector is quantised, or what `load` says.
    pub fn load<E: From<ConfigError>>(
        config: Config,
        load: impl FnMut(&TensorInfo) -> Result<Weight, E>,
    ) -> Result<Self, E> {
        let weights = Weights::load(&Stage::whole(config)?, load)?;
        Ok(Self { config, weights: Arc::new(weights), scratch: Scratch::default() })
    }

    /// A second decoder over the same weights, for another thread.
    pub fn share(&self) -> Self {
        Self { config: self.config, weights: Arc::clone(&self.weights), scratch: Scratch::default() }
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty sequence for this model.
    pub fn cache(&self) -> Cache {
        Cache::new(&self.config)
    }

    /// Appends tokens to a sequence and returns the logits `[vocab]` of what follows the last one.
    ///
    /// # Errors
    /// No tokens, a token outside of the vocabulary, or more than the context has room for; the cache is then unchanged.
    pub fn feed(&mut self, ctx: &Context, cache: &mut Cache, tokens: &[u32]) -> Result<&[f32], DecodeError> {
        self.feed_batch(ctx, &mut [Feed { cache, tokens }])
    }

    /// Appends tokens to several sequences and returns the logits `[feeds, vocab]` of what follows the last token of each.
    /// It may shorten `tokens` of a feed to those that went through last.
    ///
    /// # Errors
    /// As [`Decoder::feed`] for any of them; all caches are then unchanged.
    pub fn feed_batch(&mut self, ctx: &Context, feeds: &mut [Feed<'_>]) -> Result<&[f32], DecodeError> {
        if feeds.is_empty() {
            return Err(DecodeError::NoTokens);
        }
        for feed in feeds.iter() {
            check(&self.config, feed.cache, feed.tokens)?;
        }
        for feed in feeds.iter_mut() {
            let more = feed.tokens.len();
            feed.cache.reserve(more).map_err(|PoolFull| DecodeError::PoolFull { more })?;
        }
        let rows: usize = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let single = for_little_work(ctx, rows, self.config.parameters(), self.config.layers);
        let ctx = single.as_ref().unwrap_or(ctx);
        ctx.run(|| self.feed_reserved(ctx, feeds));
        Ok(&self.scratch.logits)
    }

    /// All that follows once every sequence has its memory.
    fn feed_reserved(&mut self, ctx: &Context, feeds: &mut [Feed<'_>]) {
        // Long prompts go ahead in pieces, so that the buffers stay small; the last piece of each sequence goes together.
        for feed in feeds.iter_mut() {
            while let Some((piece, rest)) = feed.tokens.split_at_checked(ROWS_MAX).filter(|(_, rest)| !rest.is_empty())
            {
                feed.tokens = rest;
                self.advance(ctx, &mut [Feed { cache: feed.cache, tokens: piece }]);
            }
        }
        self.advance(ctx, feeds);
        self.logits(ctx, feeds);
    }

    /// Runs the layers over all rows; the residual stream is left in the scratch.
    fn advance(&mut self, ctx: &Context, feeds: &mut [Feed<'_>]) {
        let Self { config, weights, scratch } = self;
        scratch.take_rows(config, feeds);
        let table = weights.embedding.as_ref().expect("a whole model has a table");
        table.gather(ctx, &scratch.ids, config.width, &mut scratch.stream);
        weights.run_layers(ctx, config, scratch, feeds);
    }

    /// The final norm and the head, for the last row of each feed.
    fn logits(&mut self, ctx: &Context, feeds: &[Feed<'_>]) {
        self.weights.logits(ctx, &self.config, &mut self.scratch, feeds);
    }
}

/// One thread for work that is not worth waking another.
fn for_little_work(ctx: &Context, rows: usize, parameters: u64, layers: usize) -> Option<Context> {
    let little = (rows as u64).saturating_mul(parameters / layers.max(1) as u64) < THREADS_WORK;
    little.then(|| Context::single().with_isa(ctx.isa()).with_profile(ctx.profile()))
}

/// Checks what is to be appended to a sequence.
fn check(config: &Config, cache: &Cache, tokens: &[u32]) -> Result<(), DecodeError> {
    let Config { vocab, context, .. } = *config;
    let (held, more) = (cache.len(), tokens.len());
    if !cache.fits(config) {
        return Err(DecodeError::WrongCache);
    }
    if more == 0 {
        return Err(DecodeError::NoTokens);
    }
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
        return Err(DecodeError::UnknownToken { token, vocab });
    }
    match held + more > context {
        true => Err(DecodeError::ContextFull { held, more, context }),
        false => Ok(()),
    }
}

impl Weights {
    /// Runs the layers over all rows of the stream.
    fn run_layers(&self, ctx: &Context, config: &Config, scratch: &mut Scratch, feeds: &mut [Feed<'_>]) {
        for (index, layer) in self.layers.iter().enumerate() {
            layer.attend(ctx, config, &self.rope, scratch, feeds, index);
            layer.feed_forward(ctx, config, scratch);
        }
        for feed in feeds.iter_mut() {
            feed.cache.grow(feed.tokens.len());
        }
    }

    /// The final norm and the head, for the last row of each feed.
    fn logits(&self, ctx: &Context, config: &Config, scratch: &mut Scratch, feeds: &[Feed<'_>]) {
        let Output { norm, head } = self.output.as_ref().expect("the last stage has a head");
        let (width, count) = (config.width, feeds.len());
        let Scratch { stream, normed, inv_rms, last, logits, quantised, .. } = scratch;
        last.clear();
        let mut row = 0;
        for feed in feeds {
            row += feed.tokens.len();
            last.extend_from_slice(&stream[(row - 1) * width..row * width]);
        }
        let normed = &mut normed[..count * width];
        tensor::rmsnorm_forward(ctx, count, width, last, norm, config.norm_eps, normed, &mut inv_rms[..count]);
        logits.resize(count * config.vocab, 0.0);
        Input { rows: count, values: normed, quantised }.times(ctx, vec![(head, logits)], false);
    }
}

impl Layer {
    /// Adds attention to the stream, and the new keys and values to the caches without counting them yet.
    fn attend(
        &self,
        ctx: &Context,
        c: &Config,
        table: &RopeTable,
        scratch: &mut Scratch,
        feeds: &mut [Feed<'_>],
        index: usize,
    ) {
        let (rows, width, q_width, kv_width) = (scratch.ids.len(), c.width, c.q_width(), c.kv_width());
        let Scratch {
            positions, stream, normed, inv_rms, q, k, v, attended, unnormed, head_inv_rms, quantised, ..
        } = scratch;
        tensor::rmsnorm_forward(ctx, rows, width, stream, &self.input_norm, c.norm_eps, normed, inv_rms);
        let products: Vec<(_, &mut [f32])> = vec![(&self.q, q), (&self.k, k), (&self.v, v)];
        Input { rows, values: normed, quantised }.times(ctx, products, false);
        if let Some([q_bias, k_bias, v_bias]) = &self.biases {
            tensor::bias_forward(ctx, rows, q_width, q_bias, q);
            tensor::bias_forward(ctx, rows, kv_width, k_bias, k);
            tensor::bias_forward(ctx, rows, kv_width, v_bias, v);
        }
        if let Some(gains) = &self.head_norms {
            for (x, gain) in [&mut *q, &mut *k].into_iter().zip(gains) {
                let heads = x.len() / c.head_dim;
                unnormed.clear();
                unnormed.extend_from_slice(x);
                head_inv_rms.resize(heads, 0.0);
                tensor::rmsnorm_forward(ctx, heads, c.head_dim, unnormed, gain, c.norm_eps, x, head_inv_rms);
            }
        }
        tensor::rope(ctx, rows, c.heads, c.head_dim, positions, table, q, false);
        tensor::rope(ctx, rows, c.kv_heads, c.head_dim, positions, table, k, false);
        let (mut rest_k, mut rest_v) = (k.as_slice(), v.as_slice());
        for feed in feeds.iter_mut() {
            let ((keys, values), size) = ((rest_k, rest_v), feed.tokens.len() * kv_width);
            feed.cache.store(index, &keys[..size], &values[..size]);
            (rest_k, rest_v) = (&keys[size..], &values[size..]);
        }
        let (mut rest_q, mut rest_out) = (q.as_slice(), attended.as_mut_slice());
        let sequences = feeds.iter().map(|feed| {
            let (q, after_q) = rest_q.split_at(feed.tokens.len() * q_width);
            let (out, after_out) = std::mem::take(&mut rest_out).split_at_mut(q.len());
            (rest_q, rest_out) = (after_q, after_out);
            CachedRows { start: feed.cache.len(), q, pages: feed.cache.layer(index), out }
        });
        let shape = CacheShape { heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim };
        tensor::attention_cached(ctx, shape, sequences.collect());
        Input { rows, values: attended, quantised }.times(ctx, vec![(&self.o, stream)], true);
    }

    fn feed_forward(&self, ctx: &Context, c: &Config, scratch: &mut Scratch) {
        let (rows, width) = (scratch.ids.len(), c.width);
        let Scratch { stream, normed, inv_rms, gate, up, active, quantised, .. } = scratch;
        tensor::rmsnorm_forward(ctx, rows, width, stream, &self.post_norm, c.norm_eps, normed, inv_rms);
        let products: Vec<(_, &mut [f32])> = vec![(&self.gate, gate), (&self.up, up)];
        Input { rows, values: normed, quantised }.times(ctx, products, false);
        tensor::swiglu_forward(ctx, gate, up, active);
        Input { rows, values: active, quantised }.times(ctx, vec![(&self.down, stream)], true);
    }
}

/// Buffers for the rows of one call; they keep their memory between calls.
#[derive(Debug, Default)]
struct Scratch {
    ids: Vec<u32>,
    positions: Vec<u32>,
    stream: Vec<f32>,
    normed: Vec<f32>,
    inv_rms: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Queries or keys in front of their heads' norms.
    unnormed: Vec<f32>,
    head_inv_rms: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    active: Vec<f32>,
    last: Vec<f32>,
    logits: Vec<f32>,
    quantised: QuantisedRows,
}

impl Scratch {
    /// Makes room for the rows of some feeds, and notes their tokens and positions.
    fn take_rows(&mut self, config: &Config, feeds: &[Feed<'_>]) {
        self.resize(config, feeds.iter().map(|feed| feed.tokens.len()).sum());
        self.ids.clear();
        self.positions.clear();
        for feed in feeds {
            let start = feed.cache.len();
            self.ids.extend_from_slice(feed.tokens);
            self.positions.extend((start..start + feed.tokens.len()).map(|position| position as u32));
        }
    }

    fn resize(&mut self, config: &Config, rows: usize) {
        let sizes = [
            (&mut self.stream, config.width),
            (&mut self.normed, config.width),
            (&mut self.inv_rms, 1),
            (&mut self.q, config.q_width()),
            (&mut self.k, config.kv_width()),
            (&mut self.v, config.kv_width()),
            (&mut self.attended, config.q_width()),
            (&mut self.gate, config.ff),
            (&mut self.up, config.ff),
            (&mut self.active, config.ff),
        ];
        for (buffer, width) in sizes {
            buffer.resize(rows * width, 0.0);
        }
    }
}

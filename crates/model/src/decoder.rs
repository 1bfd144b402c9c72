//! Decoding with a key/value cache, one sequence or many at a time.
//!
//! Purpose: the logits of the next token, from the tokens that a sequence got since the last call. Feeding a prompt at
//! once, in pieces or token by token, alone or beside other sequences, and the training forward over the same tokens: all
//! give the same bits, because every kernel's row is independent of the other rows.
//!
//! Layout: a cache holds, per layer, keys (already rotated) and values as `[length, kv_width]`. Weights are kept transposed,
//! `[in, out]`, so that the product of a single row reads them in the order in which they lie.

mod cache;

use std::sync::Arc;

use tensor::{Context, DecodeShape, RopeTable, matmul_nn};

pub use self::cache::Cache;
use crate::config::{Config, ConfigError};
use crate::stage::{LayerParts, Stage};

/// Most tokens of one sequence that go through the layers together.
const ROWS_MAX: usize = 128;

/// Least rows × parameters that are worth more than one thread: below, waking a thread for each of the layers' products
/// costs more than the other thread saves.
const THREADS_WORK: u64 = 1 << 23;

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
        let stage = Stage::whole(config)?;
        let layout = stage.layout();
        if params.len() != layout.len() {
            return Err(ConfigError::WrongParameters { expected: layout.len(), got: params.len() });
        }
        let parts = layout.parts();
        let whole = "a whole model has both ends";
        let table = &params[parts.embedding.clone().expect(whole)];
        let weights = Weights {
            embedding: table.to_vec(),
            layers: parts.layers.iter().map(|parts| Layer::new(&config, params, parts)).collect(),
            norm: params[parts.norm.clone().expect(whole)].to_vec(),
            head: transposed(&params[parts.head.clone().expect(whole)], config.width),
            rope: config.rope_table(config.context),
        };
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
            self.check(feed)?;
        }
        let rows: usize = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let little = (rows as u64).saturating_mul(self.config.parameters()) < THREADS_WORK;
        let single = little.then(|| Context::single().with_isa(ctx.isa()));
        let ctx = single.as_ref().unwrap_or(ctx);
        // Long prompts go ahead in pieces, so that the buffers stay small; the last piece of each sequence goes together.
        for feed in feeds.iter_mut() {
            while let Some((piece, rest)) = feed.tokens.split_at_checked(ROWS_MAX).filter(|(_, rest)| !rest.is_empty())
            {
                feed.tokens = rest;
                self.advance(ctx, &mut [Feed { cache: feed.cache, tokens: piece }]);
            }
        }
        self.advance(ctx, feeds);
        Ok(self.logits(ctx, feeds))
    }

    fn check(&self, feed: &Feed<'_>) -> Result<(), DecodeError> {
        let Config { vocab, context, .. } = self.config;
        let (held, more) = (feed.cache.len(), feed.tokens.len());
        if !feed.cache.fits(&self.config) {
            return Err(DecodeError::WrongCache);
        }
        if more == 0 {
            return Err(DecodeError::NoTokens);
        }
        if let Some(&token) = feed.tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(DecodeError::UnknownToken { token, vocab });
        }
        match held + more > context {
            true => Err(DecodeError::ContextFull { held, more, context }),
            false => Ok(()),
        }
    }

    /// Runs the layers over all rows; the residual stream is left in the scratch.
    fn advance(&mut self, ctx: &Context, feeds: &mut [Feed<'_>]) {
        let rows = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let Self { config, weights, scratch } = self;
        scratch.resize(config, rows);
        scratch.ids.clear();
        scratch.positions.clear();
        for feed in feeds.iter() {
            let start = feed.cache.len();
            scratch.ids.extend_from_slice(feed.tokens);
            scratch.positions.extend((start..start + feed.tokens.len()).map(|position| position as u32));
        }
        tensor::embedding_gather(ctx, &scratch.ids, &weights.embedding, config.width, &mut scratch.stream);
        for (index, layer) in weights.layers.iter().enumerate() {
            layer.attend(ctx, config, &weights.rope, scratch, feeds, index);
            layer.feed_forward(ctx, config, scratch);
        }
        for feed in feeds.iter_mut() {
            feed.cache.grow(feed.tokens.len());
        }
    }

    /// The final norm and the head, for the last row of each feed.
    fn logits(&mut self, ctx: &Context, feeds: &[Feed<'_>]) -> &[f32] {
        let Self { config, weights, scratch } = self;
        let (width, count) = (config.width, feeds.len());
        let Scratch { stream, normed, inv_rms, last, logits, .. } = scratch;
        last.clear();
        let mut row = 0;
        for feed in feeds {
            row += feed.tokens.len();
            last.extend_from_slice(&stream[(row - 1) * width..row * width]);
        }
        let normed = &mut normed[..count * width];
        tensor::rmsnorm_forward(ctx, count, width, last, &weights.norm, config.norm_eps, normed, &mut inv_rms[..count]);
        logits.resize(count * config.vocab, 0.0);
        matmul_nn(ctx, count, config.vocab, width, normed, &weights.head, logits, false);
        logits
    }
}

#[derive(Debug)]
struct Weights {
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Vec<f32>,
    rope: RopeTable,
}

/// The weights of one layer, matrices as `[in, out]`.
#[derive(Debug)]
struct Layer {
    input_norm: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
    post_norm: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
    biases: Option<[Vec<f32>; 3]>,
    head_norms: Option<[Vec<f32>; 2]>,
}

impl Layer {
    fn new(config: &Config, params: &[f32], parts: &LayerParts) -> Self {
        let (width, q_width, ff) = (config.width, config.q_width(), config.ff);
        Self {
            input_norm: params[parts.input_norm.clone()].to_vec(),
            q: transposed(&params[parts.q.clone()], width),
            k: transposed(&params[parts.k.clone()], width),
            v: transposed(&params[parts.v.clone()], width),
            o: transposed(&params[parts.o.clone()], q_width),
            post_norm: params[parts.post_norm.clone()].to_vec(),
            gate: transposed(&params[parts.gate.clone()], width),
            up: transposed(&params[parts.up.clone()], width),
            down: transposed(&params[parts.down.clone()], ff),
            biases: parts.biases.clone().map(|biases| biases.map(|range| params[range].to_vec())),
            head_norms: parts.head_norms.clone().map(|gains| gains.map(|range| params[range].to_vec())),
        }
    }

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
        let Scratch { positions, stream, normed, inv_rms, q, k, v, attended, unnormed, head_inv_rms, .. } = scratch;
        tensor::rmsnorm_forward(ctx, rows, width, stream, &self.input_norm, c.norm_eps, normed, inv_rms);
        matmul_nn(ctx, rows, q_width, width, normed, &self.q, q, false);
        matmul_nn(ctx, rows, kv_width, width, normed, &self.k, k, false);
        matmul_nn(ctx, rows, kv_width, width, normed, &self.v, v, false);
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
        let mut row = 0;
        for feed in feeds {
            let (start, count) = (feed.cache.len(), feed.tokens.len());
            let new = row * kv_width..(row + count) * kv_width;
            let (keys, values) = feed.cache.append(index, &k[new.clone()], &v[new]);
            for length in start + 1..=start + count {
                let shape = DecodeShape { heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim, length };
                let at = row * q_width..(row + 1) * q_width;
                tensor::attention_decode(ctx, shape, &q[at.clone()], keys, values, &mut attended[at]);
                row += 1;
            }
        }
        matmul_nn(ctx, rows, width, q_width, attended, &self.o, stream, true);
    }

    fn feed_forward(&self, ctx: &Context, c: &Config, scratch: &mut Scratch) {
        let (rows, width) = (scratch.ids.len(), c.width);
        let Scratch { stream, normed, inv_rms, gate, up, active, .. } = scratch;
        tensor::rmsnorm_forward(ctx, rows, width, stream, &self.post_norm, c.norm_eps, normed, inv_rms);
        matmul_nn(ctx, rows, c.ff, width, normed, &self.gate, gate, false);
        matmul_nn(ctx, rows, c.ff, width, normed, &self.up, up, false);
        tensor::swiglu_forward(ctx, gate, up, active);
        matmul_nn(ctx, rows, width, c.ff, active, &self.down, stream, true);
    }
}

/// `[out, in]` as `[in, out]`.
fn transposed(matrix: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = matrix.len() / inputs;
    (0..inputs).flat_map(|column| (0..outputs).map(move |row| matrix[row * inputs + column])).collect()
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
}

impl Scratch {
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

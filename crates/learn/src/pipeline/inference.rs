//! Decoding in one stage: tokens and bytes of the stage before in, bytes for the stage after out.
//!
//! At a boundary all numbers of a token travel in f32, so that the stages together have the bits of the whole model; with learned bases
//! they are coordinates, without which the model is another one. The last stage gives the logits.

use model::{Cache, CachePool, ConfigError, DecodeError, StageDecoder, StageFeed};
use tensor::Context;

use super::shape::{StageShape, TokenParts};
use super::state::StageState;
use crate::boundary::{BoundaryError, HIDDEN_MAX, Precision, Rounding, Space, decode, encode};

/// Why a stage cannot feed what it got.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferenceError {
    /// The bytes are not what the stage before sends.
    #[error(transparent)]
    Boundary(#[from] BoundaryError),
    /// The tokens do not fit the model, the sequence or the memory.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The next tokens of a sequence in a stage.
#[derive(Debug)]
pub struct InferenceFeed<'a> {
    /// The keys and values of the stage's layers.
    pub cache: &'a mut Cache,
    /// What follows what it holds.
    pub tokens: &'a [u32],
}

/// A stage that is ready to decode between its boundaries. Sequences live in [`Cache`]s of its pools.
#[derive(Debug)]
pub struct StageInference {
    ctx: Context,
    shape: StageShape,
    parts: TokenParts,
    decoder: StageDecoder,
    /// The learned bases before and after it.
    before: Option<Vec<f32>>,
    after: Option<Vec<f32>>,
}

impl StageInference {
    /// Takes the weights of a state. `parts` are the run's token parts, which only learned bases need.
    ///
    /// # Errors
    /// The state is another stage's.
    pub fn new(ctx: Context, shape: &StageShape, parts: TokenParts, state: &StageState) -> Result<Self, ConfigError> {
        let (expected, got) = (shape.layout().len(), state.theta.len());
        if got != expected {
            return Err(ConfigError::WrongParameters { expected, got });
        }
        let decoder = StageDecoder::new(shape.stage().clone(), &shape.whole_parameters(&ctx, state))?;
        let basis = |boundary: Option<usize>| shape.basis(boundary?).map(|range| state.theta[range].to_vec());
        let (before, after) = (basis(shape.boundary_before()), basis(shape.boundary_after()));
        Ok(Self { ctx, shape: shape.clone(), parts, decoder, before, after })
    }

    /// Memory for the keys and values of at least `tokens` tokens in this stage.
    pub fn pool(&self, tokens: usize) -> CachePool {
        self.decoder.pool(tokens)
    }

    /// Whether the tokens themselves matter here, and not only how many they are.
    pub fn reads_tokens(&self) -> bool {
        reads_tokens(&self.shape)
    }

    /// Appends tokens to several sequences. `input` is what the stage before gave for the same feeds, empty for the first stage. Returns
    /// what the stage after needs for them, `[all tokens, columns]`, or in the last stage the logits `[feeds, vocab]`.
    ///
    /// # Errors
    /// [`InferenceError`]; all sequences are then unchanged.
    pub fn feed(&mut self, feeds: &mut [InferenceFeed<'_>], input: &[u8]) -> Result<Vec<u8>, InferenceError> {
        let ids: Vec<u32> = feeds.iter().flat_map(|feed| feed.tokens.iter().copied()).collect();
        let config = *self.shape.stage().config();
        if self.reads_tokens()
            && let Some(&token) = ids.iter().find(|&&id| id as usize >= config.vocab)
        {
            return Err(DecodeError::UnknownToken { token, vocab: config.vocab }.into());
        }
        let hidden = self.receive(&ids, input)?;
        let per_token = if self.shape.is_first() { 0 } else { config.width };
        let mut rest = hidden.as_slice();
        let mut rows: Vec<StageFeed<'_>> = Vec::with_capacity(feeds.len());
        for InferenceFeed { cache, tokens } in feeds.iter_mut() {
            let (hidden, after) = rest.split_at(tokens.len() * per_token);
            rest = after;
            rows.push(StageFeed { cache, tokens, hidden });
        }
        let lengths: Vec<usize> = rows.iter().map(|row| row.cache.len()).collect();
        let out = self.decoder.feed(&self.ctx, &mut rows)?;
        let encoded = match &self.after {
            _ if self.shape.is_last() => encode(Precision::F32, out, config.vocab, Rounding::Nearest, HIDDEN_MAX),
            None => encode(Precision::F32, out, config.width, Rounding::Nearest, HIDDEN_MAX),
            Some(basis) => {
                let projection = self.shape.projection(&self.parts, basis);
                let coordinates = projection.coordinates(&self.ctx, out, &ids);
                encode(Precision::F32, &coordinates, self.shape.columns(), Rounding::Nearest, HIDDEN_MAX)
            }
        };
        if encoded.is_err() {
            rows.iter_mut().zip(lengths).for_each(|(row, length)| row.cache.truncate(length));
        }
        Ok(encoded?)
    }

    /// The hidden states that came; empty for the first stage.
    fn receive(&self, ids: &[u32], input: &[u8]) -> Result<Vec<f32>, BoundaryError> {
        if self.shape.is_first() {
            return match input.len() {
                0 => Ok(Vec::new()),
                got => Err(BoundaryError::WrongLength { expected: 0, got }),
            };
        }
        match &self.before {
            None => decode(input, ids.len(), self.shape.stage().config().width, HIDDEN_MAX),
            Some(basis) => {
                let coordinates = decode(input, ids.len(), self.shape.columns(), HIDDEN_MAX)?;
                Ok(self.shape.projection(&self.parts, basis).hidden(&self.ctx, &coordinates, ids))
            }
        }
    }
}

/// Whether the tokens themselves matter in a stage: in the first, and where learned bases leave out what follows from them.
pub fn reads_tokens(shape: &StageShape) -> bool {
    shape.is_first() || matches!(shape.space(), Space::Projector { .. })
}

/// The logits `[feeds, vocab]` that a last stage gave.
///
/// # Errors
/// [`BoundaryError`] when they are not.
pub fn read_logits(bytes: &[u8], feeds: usize, vocab: usize) -> Result<Vec<f32>, BoundaryError> {
    decode(bytes, feeds, vocab, HIDDEN_MAX)
}

//! Decoding and sampling in a loop.

use std::ops::ControlFlow;

use tensor::Context;

use crate::decoder::{Cache, DecodeError, Decoder};
use crate::sampler::Sampler;

/// Why [`generate`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model chose an end token.
    End,
    /// As many tokens as were asked for.
    Length,
    /// The model's context is full.
    Context,
    /// The callback said so.
    Stopped,
}

/// What to generate.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Tokens that the model continues; at least one.
    pub prompt: &'a [u32],
    /// Most tokens to generate.
    pub tokens_max: usize,
    /// Tokens that end a text; they are not passed on. Where there is none, only `tokens_max` ends it.
    pub ends: &'a [u32],
}

/// Feeds a prompt to a sequence, then generates tokens and hands each to `on_token`, which may stop it.
///
/// The cache holds the sequence so far; on return it holds the prompt and every generated token but the last, so that a
/// conversation can go on from it.
///
/// # Errors
/// As [`Decoder::feed`] for the prompt.
pub fn generate(
    ctx: &Context,
    decoder: &mut Decoder,
    cache: &mut Cache,
    request: Request<'_>,
    sampler: &mut Sampler,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<Finish, DecodeError> {
    let context = decoder.config().context;
    let mut history = request.prompt.to_vec();
    let mut logits = decoder.feed(ctx, cache, request.prompt)?;
    for left in (0..request.tokens_max).rev() {
        let token = sampler.sample(logits, &history);
        if request.ends.contains(&token) {
            return Ok(Finish::End);
        }
        history.push(token);
        if on_token(token).is_break() {
            return Ok(Finish::Stopped);
        }
        if left == 0 {
            break;
        }
        if cache.len() == context {
            return Ok(Finish::Context);
        }
        logits = decoder.feed(ctx, cache, &[token])?;
    }
    Ok(Finish::Length)
}

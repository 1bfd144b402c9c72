//! A request while it is decoded: which answer it is at, what is fed next, and what each token does.

use std::sync::Arc;

use model::{CachePool, Sampler, Sampling};
use node::Checkpoint;
use tokio::sync::mpsc;

use super::engine::{Engine, EngineError, Next, Sequence, Sequences};
use super::logprob::Logprob;
use super::prompt::Prompt;
use super::text::Outlet;
use super::{Ask, Finish, Job, Piece};
use crate::error::ApiError;

/// Prompt tokens per turn: long enough to be efficient, short enough that others hardly notice.
const PREFILL_TOKENS: usize = 64;

/// A request that is being decoded.
pub(super) struct Request {
    ask: Ask,
    pieces: mpsc::Sender<Piece>,
    checkpoint: Arc<Checkpoint>,
    prompts: Vec<Vec<u32>>,
    choice: usize,
    current: Choice,
    /// The prompt of the answers that follow, once it was fed: they share its memory.
    prefix: Option<Sequence>,
    sequences: Sequences,
    over: bool,
}

/// The answer that is being decoded.
struct Choice {
    sequence: Sequence,
    sampler: Sampler,
    /// The prompt and what was chosen so far.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    tokens_max: usize,
    outlet: Outlet,
}

impl Request {
    /// Tokenises the prompts and tells the client that decoding begins.
    ///
    /// # Errors
    /// A prompt is too long.
    pub(super) fn start(job: Job, checkpoint: Arc<Checkpoint>, sequences: Sequences) -> Result<Self, ApiError> {
        let Job { ask, pieces, .. } = job;
        let context = checkpoint.config.context;
        // An answer without a limit of its own shares the context with its prompt.
        let reserve = ask.tokens_max.unwrap_or(context).min(context / 2);
        let tokens = |prompt: &Prompt| prompt.tokens(&checkpoint.tokenizer, &checkpoint.format, context, reserve);
        let prompts = ask.prompts.iter().map(tokens).collect::<Result<Vec<_>, _>>()?;
        let prompt_tokens = prompts.iter().map(Vec::len).sum();
        let current = Choice::new(&ask, &checkpoint, &prompts, 0, sequences.empty())?;
        send(&pieces, Piece::Started { checkpoint: Arc::clone(&checkpoint), prompt_tokens });
        Ok(Self { ask, pieces, checkpoint, prompts, choice: 0, current, prefix: None, sequences, over: false })
    }

    /// The pages of the cache that it may need at once: those of its longest answer, and the one that this does not share with the prompt
    /// that is kept for the next.
    pub(super) fn pages(&self) -> usize {
        let context = self.checkpoint.config.context;
        let longest = self.prompts.iter().map(|prompt| match self.ask.tokens_max {
            Some(tokens_max) => prompt.len().saturating_add(tokens_max).min(context),
            None => context,
        });
        CachePool::pages_for(longest.max().unwrap_or(0)) + 1
    }

    /// The weights that this request is decoded from.
    pub(super) fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// Whether all is answered, or nobody listens any more.
    pub(super) fn is_over(&self) -> bool {
        self.over || self.pieces.is_closed()
    }

    /// What goes through the model next: a chunk of the prompt, or the token that was chosen last.
    pub(super) fn next(&mut self) -> Next<'_> {
        let Choice { sequence, tokens, .. } = &mut self.current;
        let start = sequence.len();
        let end = tokens.len().min(start + PREFILL_TOKENS);
        Next { sequence, tokens: &tokens[start..end] }
    }

    /// Takes the logits of what follows the tokens that were fed, and chooses a token once the prompt is fed.
    pub(super) fn take(&mut self, logits: &[f32]) {
        let current = &mut self.current;
        if current.sequence.len() < current.tokens.len() {
            return;
        }
        let is_prompt = current.tokens.len() == current.prompt_tokens;
        if is_prompt && self.ask.answers > 1 && self.prefix.is_none() {
            self.prefix = current.sequence.share();
        }
        let token = current.sampler.sample(logits, &current.tokens);
        let ended = self.checkpoint.format.ends.contains(&token);
        let (text, finish) = if ended { current.end() } else { current.push(token, &self.checkpoint) };
        let wanted = self.ask.logprobs.filter(|_| !ended);
        let logprob = wanted.map(|top| Logprob::new(logits, token, top, &self.checkpoint.tokenizer));
        if !text.is_empty() || logprob.is_some() {
            send(&self.pieces, Piece::Text { choice: self.choice, text: text.into(), logprob });
        }
        if let Some(reason) = finish {
            self.finish(reason);
        }
    }

    fn finish(&mut self, reason: Finish) {
        let tokens = self.current.generated();
        send(&self.pieces, Piece::Finished { choice: self.choice, reason, tokens });
        self.choice += 1;
        if self.choice == self.ask.choices() {
            self.over = true;
            return;
        }
        // The last token of a prompt is fed again, for the logits of what follows it.
        let sequence = match self.prefix.take().filter(|_| !self.choice.is_multiple_of(self.ask.answers)) {
            Some(mut sequence) => {
                sequence.step_back();
                sequence
            }
            None => self.sequences.empty(),
        };
        match Choice::new(&self.ask, &self.checkpoint, &self.prompts, self.choice, sequence) {
            Ok(next) => self.current = next,
            Err(error) => self.fail(error),
        }
    }

    /// Ends the request with an error.
    pub(super) fn fail(&mut self, error: ApiError) {
        self.over = true;
        // A request fails in the place of pieces that it has not sent, so there is room.
        send(&self.pieces, Piece::Failed(error));
    }
}

/// Sends without waiting; the channel has room for all pieces of its request.
pub(super) fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) {
    match pieces.try_send(piece) {
        // A client that is gone is noticed at the request's next turn.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        Err(mpsc::error::TrySendError::Full(_)) => {
            panic!("a request sent more than the {} pieces that it may have", pieces.max_capacity())
        }
    }
}

impl Choice {
    fn new(
        ask: &Ask,
        checkpoint: &Checkpoint,
        prompts: &[Vec<u32>],
        choice: usize,
        sequence: Sequence,
    ) -> Result<Self, ApiError> {
        let tokens = prompts[choice / ask.answers].clone();
        // Answers to one prompt differ by their seeds; answers to several prompts have the same ones.
        let seed = ask.sampling.seed.wrapping_add((choice % ask.answers) as u64);
        let sampler = Sampler::new(Sampling { seed, ..ask.sampling })
            .map_err(|error| ApiError::parameter(error.field, error.to_string()))?;
        let room = checkpoint.config.context - tokens.len();
        Ok(Self {
            sequence,
            sampler,
            prompt_tokens: tokens.len(),
            tokens,
            tokens_max: ask.tokens_max.unwrap_or(room).min(room),
            outlet: Outlet::new(Arc::clone(&ask.stops)),
        })
    }

    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// The model ended the document.
    fn end(&mut self) -> (String, Option<Finish>) {
        (self.outlet.finish(), Some(Finish::Stop))
    }

    fn push(&mut self, token: u32, checkpoint: &Checkpoint) -> (String, Option<Finish>) {
        self.tokens.push(token);
        let (mut text, stopped) = self.outlet.push(checkpoint.tokenizer.bytes_of(token));
        if stopped {
            return (text, Some(Finish::Stop));
        }
        if self.generated() < self.tokens_max {
            return (text, None);
        }
        text += &self.outlet.finish();
        (text, Some(Finish::Length))
    }
}

/// Decodes one turn of all requests in `batch`, which are of one model.
///
/// # Errors
/// [`EngineError`].
pub(super) fn turn(
    context: &tensor::Context,
    engine: &mut Engine,
    batch: &mut [&mut Request],
) -> Result<(), EngineError> {
    let mut next: Vec<Next<'_>> = batch.iter_mut().map(|request| request.next()).collect();
    let Some(logits) = engine.feed(context, &mut next)? else { return Ok(()) };
    let vocab = logits.len() / batch.len().max(1);
    for (request, logits) in batch.iter_mut().zip(logits.chunks_exact(vocab.max(1))) {
        request.take(logits);
    }
    Ok(())
}

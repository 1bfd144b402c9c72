//! Decodes requests together on one thread, from the newest checkpoint, while training goes on on the others.
//!
//! A request waits in a bounded queue and is tokenised when its turn comes. From then on every turn takes each request a
//! step further, a chunk of its prompt or one token, and the requests of one checkpoint go through the model as one batch;
//! the kernels give each of them the same bits as if it were alone. A request that asks for several answers gets one after
//! the other and so has no more of the thread than the others. A client that goes away ends its request at the next turn.
//!
//! All text of a request is bounded by the model's context, so its channel is made large enough for all of it: a slow
//! reader never holds up the thread. Requests hold a place from submission until their answer is read or dropped.

mod engine;
mod logprob;
mod prompt;
mod request;
mod text;
mod worker;

use std::io;
use std::sync::Arc;

use model::Sampling;
use node::Checkpoint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::error::ApiError;
use crate::private::Private;
pub(crate) use logprob::Logprob;
pub(crate) use prompt::{Prompt, Role, Turn};
pub(crate) use text::Outlet;
use worker::Worker;

/// Requests that are decoded, wait, or are still being read by their clients.
const REQUESTS_MAX: usize = 64;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// What to continue.
    pub(crate) prompts: Vec<Prompt>,
    /// Answers to each prompt.
    pub(crate) answers: usize,
    /// How to choose tokens; the seed is that of the first answer to a prompt, the next ones count up from it.
    pub(crate) sampling: Sampling,
    /// Tokens per answer; the context ends it anyway.
    pub(crate) tokens_max: Option<usize>,
    /// Texts that end an answer.
    pub(crate) stops: Arc<[String]>,
    /// How many of the most probable tokens to report beside each; none reports nothing.
    pub(crate) logprobs: Option<usize>,
}

impl Ask {
    /// Answers in all.
    pub(crate) fn choices(&self) -> usize {
        self.prompts.len() * self.answers
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finish {
    /// A stop string, or the end of a document.
    Stop,
    /// The limit of the request, or the context.
    Length,
}

/// What is decoded, in order; the answers of the first prompt come first.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Decoding begins.
    Started {
        /// From this checkpoint.
        checkpoint: Arc<Checkpoint>,
        /// Tokens of all prompts.
        prompt_tokens: usize,
    },
    /// More of an answer.
    Text {
        /// Which answer.
        choice: usize,
        /// What is added; empty while a stop string or a character may be under way.
        text: Private,
        /// Of the token that was chosen.
        logprob: Option<Logprob>,
    },
    /// An answer is complete.
    Finished {
        /// Which answer.
        choice: usize,
        /// Why.
        reason: Finish,
        /// Its tokens.
        tokens: usize,
    },
    /// The request cannot be answered, or no further.
    Failed(ApiError),
}

/// Takes requests. The thread ends when this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    queue: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    /// The model that decodes; none takes the newest checkpoint when the request's turn comes.
    model: Option<Arc<Checkpoint>>,
    pieces: mpsc::Sender<Piece>,
}

/// An answer under way; dropping it cancels it.
#[derive(Debug)]
pub(crate) struct Answer {
    pieces: mpsc::Receiver<Piece>,
    _place: OwnedSemaphorePermit,
}

impl Answer {
    /// The next piece; none after the last answer, or when the server stops.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().await
    }
}

impl Scheduler {
    /// Starts the thread. It decodes from the newest of `checkpoints` and ends at once when the sender of `running` is
    /// gone.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(
        checkpoints: watch::Receiver<Option<Arc<Checkpoint>>>,
        running: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(REQUESTS_MAX);
        let worker = Worker::new(jobs, checkpoints, running);
        std::thread::Builder::new().name("gateway-decode".to_owned()).spawn(move || worker.run())?;
        Ok(Self { queue, places: Arc::new(Semaphore::new(REQUESTS_MAX)) })
    }

    /// Requests that wait, are decoded, or are still being read.
    pub(crate) fn requests(&self) -> usize {
        REQUESTS_MAX - self.places.available_permits()
    }

    /// Queues a request for a model with this context: the newest checkpoint, unless a model is given.
    ///
    /// # Errors
    /// Too many requests wait.
    pub(crate) fn submit(&self, ask: Ask, context: usize, model: Option<Arc<Checkpoint>>) -> Result<Answer, ApiError> {
        let overloaded = || ApiError::overloaded("requests");
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| overloaded())?;
        // A piece for each token, one for the end of each answer and one for the text that was held back; a start.
        let tokens = ask.tokens_max.unwrap_or(context).min(context);
        let (sender, pieces) = mpsc::channel(ask.choices() * (tokens + 2) + 1);
        self.queue.try_send(Job { ask, model, pieces: sender }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => ApiError::internal(),
        })?;
        Ok(Answer { pieces, _place: place })
    }
}

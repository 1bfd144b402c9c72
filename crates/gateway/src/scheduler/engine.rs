//! What decodes: a whole model on this machine, or a model in stages on others.

use model::{Cache, CachePool, ConfigError, DecodeError, Decoder, Feed};
use node::inference::{INTERRUPTIONS_MAX, PAUSE, StagedError, StagedFeed, StagedModel, StagedSequence};
use node::{Checkpoint, Weights};
use tensor::Context;

/// Memory for the keys and values of one model's requests in bytes; more when a single sequence of the model may need it.
const CACHE_BYTES: usize = 1 << 30;

/// A model that is ready to decode.
pub(super) enum Engine {
    /// On this machine.
    Whole {
        /// The weights.
        decoder: Box<Decoder>,
        /// Where its requests keep their keys and values.
        pool: CachePool,
        /// Pages of the pool.
        pages: usize,
    },
    /// Through peers that hold its stages, and the keys and values.
    Stages {
        /// The peers.
        model: StagedModel,
        /// How often the stages failed without a token in between.
        failures: usize,
    },
}

/// The tokens of a request that were fed so far.
pub(super) enum Sequence {
    /// Their keys and values.
    Whole(Cache),
    /// Their name with the stages.
    Stages(StagedSequence),
}

/// What is fed for a request in one turn.
pub(super) struct Next<'a> {
    pub(super) sequence: &'a mut Sequence,
    pub(super) tokens: &'a [u32],
}

/// Why a turn did not go through a model.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// The tokens do not fit the model, which means that tokenizer and model do not belong together.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The stages failed too often.
    #[error(transparent)]
    Stages(#[from] StagedError),
}

impl Engine {
    /// Makes a checkpoint ready.
    ///
    /// # Errors
    /// The parameters are not as many as the config says.
    pub(super) fn new(checkpoint: &Checkpoint) -> Result<Self, ConfigError> {
        let decoder = match &checkpoint.weights {
            Weights::Values(values) => Decoder::new(checkpoint.config, values)?,
            Weights::Decoder(decoder) => decoder.share(),
            Weights::Stages(model) => return Ok(Self::Stages { model: model.clone(), failures: 0 }),
        };
        let page_bytes = CachePool::new(&checkpoint.config, 0).page_bytes();
        // One page more than the longest sequence, as a request may ask for.
        let pages = (CACHE_BYTES / page_bytes).max(CachePool::pages_for(checkpoint.config.context) + 1);
        let pool = CachePool::new(&checkpoint.config, pages.saturating_mul(tensor::PAGE));
        Ok(Self::Whole { decoder: Box::new(decoder), pool, pages })
    }

    /// A maker of empty sequences.
    pub(super) fn sequences(&self) -> Sequences {
        match self {
            Self::Whole { pool, .. } => Sequences::Whole(pool.clone()),
            Self::Stages { model, .. } => Sequences::Stages(model.clone()),
        }
    }

    /// Pages of memory for all requests of this model; none when others keep them.
    pub(super) fn pages(&self) -> Option<usize> {
        match self {
            Self::Whole { pages, .. } => Some(*pages),
            Self::Stages { .. } => None,
        }
    }

    /// Feeds what comes next of several requests, and gives the logits `[requests, vocab]` of what follows. None when the sequences have
    /// to be fed again, because a stage failed.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(super) fn feed(&mut self, ctx: &Context, batch: &mut [Next<'_>]) -> Result<Option<Vec<f32>>, EngineError> {
        match self {
            Self::Whole { decoder, .. } => {
                let rows = batch.iter_mut().filter_map(|next| match next.sequence {
                    Sequence::Whole(cache) => Some(Feed { cache, tokens: next.tokens }),
                    Sequence::Stages(_) => None,
                });
                let mut rows: Vec<Feed<'_>> = rows.collect();
                Ok(Some(decoder.feed_batch(ctx, &mut rows)?.to_vec()))
            }
            Self::Stages { model, failures } => {
                let rows = batch.iter_mut().filter_map(|next| match next.sequence {
                    Sequence::Stages(sequence) => Some(StagedFeed { sequence, tokens: next.tokens }),
                    Sequence::Whole(_) => None,
                });
                let mut rows: Vec<StagedFeed<'_>> = rows.collect();
                match model.feed(&mut rows) {
                    Ok(logits) => {
                        *failures = 0;
                        Ok(Some(logits))
                    }
                    Err(error @ StagedError::Refused { .. }) => Err(error.into()),
                    Err(error) if *failures == INTERRUPTIONS_MAX => {
                        *failures = 0;
                        Err(error.into())
                    }
                    Err(error) => {
                        *failures += 1;
                        tracing::debug!(%error, "requests are fed again");
                        std::thread::sleep(PAUSE);
                        Ok(None)
                    }
                }
            }
        }
    }
}

/// Makes empty sequences of one model. Cheap to clone.
#[derive(Clone)]
pub(super) enum Sequences {
    /// In this memory.
    Whole(CachePool),
    /// With these peers.
    Stages(StagedModel),
}

impl Sequences {
    /// An empty sequence.
    pub(super) fn empty(&self) -> Sequence {
        match self {
            Self::Whole(pool) => Sequence::Whole(pool.cache()),
            Self::Stages(model) => Sequence::Stages(model.sequence()),
        }
    }
}

impl Sequence {
    /// Tokens that were fed.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole(cache) => cache.len(),
            Self::Stages(sequence) => sequence.len(),
        }
    }

    /// A second sequence with the same tokens; none where it would have to be fed.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Whole(cache) => Some(Self::Whole(cache.clone())),
            Self::Stages(_) => None,
        }
    }

    /// Forgets the last token.
    pub(super) fn step_back(&mut self) {
        if let Self::Whole(cache) = self {
            cache.truncate(cache.len().saturating_sub(1));
        }
    }
}

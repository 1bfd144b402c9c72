//! What a consumer asks of the replicas of a model's stages: to feed tokens of some sequences through their layers.
//!
//! A stage keeps the keys and values of a sequence that it was fed; the consumer calls one replica of every stage in turn and
//! carries the hidden states between them. A call is a pure function of the stage's state, what was fed before, and its input: another
//! replica that is fed the same tokens from the beginning answers with the same bytes.
//!
//! Nothing here is private: every stage sees enough to reconstruct what is asked and answered.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::charter::RunId;
use crate::encoding::Wire;
use crate::hash::Hash;

/// Most sequences in one call.
pub const SEQUENCES_PER_CALL_MAX: usize = 64;
/// Most tokens in one call, over all sequences.
pub const TOKENS_PER_CALL_MAX: usize = 4096;
/// Most sequences that one call ends.
pub const ENDED_PER_CALL_MAX: usize = 256;
/// Most bytes of the hidden states of a call, or of what comes back.
pub const INFERENCE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Please feed these tokens through your stage.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InferenceCall {
    /// The run whose model it is.
    pub run: RunId,
    /// The stage of the peer that is called.
    pub stage: u16,
    /// The state of that stage: the root that the run's ledger agreed on.
    pub state: Hash,
    /// What to feed: at most [`SEQUENCES_PER_CALL_MAX`], each once, with [`TOKENS_PER_CALL_MAX`] tokens in all. A call without any
    /// only ends sequences.
    pub feeds: Vec<SequenceFeed>,
    /// What the stage before answered to the same feeds; empty for the first stage.
    pub input: Vec<u8>,
    /// Sequences of this consumer that are no longer needed: at most [`ENDED_PER_CALL_MAX`].
    pub ended: Vec<u64>,
}

/// The next tokens of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SequenceFeed {
    /// Its name, chosen by the consumer; every consumer has names of its own.
    pub sequence: u64,
    /// How many of its tokens the stage was fed before. Tokens after them are forgotten; 0 begins anew.
    pub start: u32,
    /// What follows them: at least one. Stages that do not read tokens still need to know how many they are.
    pub tokens: Vec<u32>,
}

/// What comes of an [`InferenceCall`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum InferenceAnswer {
    /// The hidden states of all tokens, in the order of the call; of the last stage the logits after the last token of each feed. Empty
    /// when nothing was fed.
    Fed(Vec<u8>),
    /// Nothing was fed.
    Refused(InferenceRefusal),
}

/// Why nothing was fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum InferenceRefusal {
    /// Too many calls wait, or there is no memory for more tokens: try again later, or elsewhere.
    Busy,
    /// The peer takes part in another run, or is in another stage.
    WrongStage,
    /// The peer does not hold the state, not any more or not yet.
    UnknownState,
    /// The peer was not fed the beginning of a sequence, or has forgotten it: feed it from the beginning.
    UnknownSequence,
    /// The feeds or the input are not what they should be.
    BadInput,
    /// The computation failed here.
    Failed,
}

impl Wire for InferenceCall {
    const NAME: &'static str = "inference call";
    const BYTES_MAX: usize = INFERENCE_BYTES_MAX + (1 << 16);

    fn validate(&self) -> Result<(), &'static str> {
        if self.feeds.len() > SEQUENCES_PER_CALL_MAX {
            return Err("at most 64 feeds in a call");
        }
        if self.feeds.iter().any(|feed| feed.tokens.is_empty()) {
            return Err("a feed must have a token");
        }
        if self.feeds.iter().map(|feed| feed.tokens.len()).sum::<usize>() > TOKENS_PER_CALL_MAX {
            return Err("at most 4096 tokens in a call");
        }
        if (1..self.feeds.len())
            .any(|at| self.feeds[..at].iter().any(|other| other.sequence == self.feeds[at].sequence))
        {
            return Err("a sequence must be fed once in a call");
        }
        if self.input.len() > INFERENCE_BYTES_MAX {
            return Err("an input must have at most 24 MiB");
        }
        if self.ended.len() > ENDED_PER_CALL_MAX {
            return Err("at most 256 ended sequences in a call");
        }
        Ok(())
    }
}

impl Wire for InferenceAnswer {
    const NAME: &'static str = "inference answer";
    const BYTES_MAX: usize = INFERENCE_BYTES_MAX + (1 << 10);

    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::Fed(output) if output.len() > INFERENCE_BYTES_MAX => Err("an output must have at most 24 MiB"),
            Self::Fed(_) | Self::Refused(_) => Ok(()),
        }
    }
}

//! What a unit trains on: windows of the training text, drawn from the unit's seed.

use tensor::random::Stream;

use super::Corpus;
use crate::recipe::BatchShape;

/// The inputs and targets of one step, `[sequences, tokens]` each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The token that follows each of them, or [`model::IGNORED`] where it does not count.
    pub targets: Vec<u32>,
}

impl Batch {
    /// Cuts the windows that start at `starts`.
    pub(crate) fn cut(text: &[u32], starts: impl Iterator<Item = usize>, tokens: usize) -> Self {
        let mut batch = Self { tokens: Vec::new(), targets: Vec::new() };
        for start in starts {
            batch.tokens.extend_from_slice(&text[start..start + tokens]);
            batch.targets.extend_from_slice(&text[start + 1..start + tokens + 1]);
        }
        batch
    }

    /// How many targets count.
    pub fn counted(&self) -> usize {
        self.targets.iter().filter(|target| **target != model::IGNORED).count()
    }

    /// Appends the sequences of another batch.
    pub fn append(&mut self, other: &Self) {
        self.tokens.extend_from_slice(&other.tokens);
        self.targets.extend_from_slice(&other.targets);
    }
}

/// The batches of a unit: an endless iterator that follows from the unit's seed.
///
/// Windows start at uniformly random tokens of the training part and may cross from one document into the next.
#[derive(Debug)]
pub struct Batches<'a> {
    text: &'a [u32],
    shape: BatchShape,
    stream: Stream,
    hasher: blake3::Hasher,
}

impl<'a> Batches<'a> {
    /// Starts at the unit's first batch.
    ///
    /// # Panics
    /// When the corpus is shorter than a sequence, which [`Corpus::check_recipe`] rules out.
    pub fn new(corpus: &'a Corpus, shape: BatchShape, unit_seed: [u8; 32]) -> Self {
        assert!(corpus.train.len() > shape.tokens, "{} tokens of text", corpus.train.len());
        let hasher = blake3::Hasher::new_derive_key("cairn v1 unit data");
        Self { text: &corpus.train, shape, stream: Stream::new(unit_seed, "batches"), hasher }
    }

    /// Draws the next batch.
    pub fn draw(&mut self) -> Batch {
        let BatchShape { sequences, tokens } = self.shape;
        let places = (self.text.len() - tokens) as u64;
        let starts: Vec<usize> = (0..sequences).map(|_| self.stream.below(places) as usize).collect();
        let batch = Batch::cut(self.text, starts.into_iter(), tokens);
        for id in batch.tokens.iter().chain(&batch.targets) {
            self.hasher.update(&id.to_le_bytes());
        }
        batch
    }

    /// The root of the data drawn so far: a BLAKE3 hash of all inputs and targets in order.
    pub fn root(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// The `windows` evenly spaced windows of the held-out part on which a model is measured, `sequences` at a time.
pub fn evaluation_windows(corpus: &Corpus, windows: usize, shape: BatchShape) -> Vec<Batch> {
    let last = corpus.heldout.len() - shape.tokens - 1;
    let starts: Vec<usize> = (0..windows).map(|i| last * i / windows.saturating_sub(1).max(1)).collect();
    starts
        .chunks(shape.sequences)
        .map(|starts| Batch::cut(&corpus.heldout, starts.iter().copied(), shape.tokens))
        .collect()
}

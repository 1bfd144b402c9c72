//! What all peers of a run compute with: the recipe, the corpus, and the cores that peers of one process share.

use std::sync::Arc;

use learn::Recipe;
use learn::data::{Corpus, CorpusError};
use learn::outer::{State, state_bytes};
use model::Layout;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::{Charter, Hash, NumericProfile, PeerId, StageTerms};

/// A recipe with the corpus that it is trained on. Shared by the peers of a process.
#[derive(Debug)]
pub struct Workload {
    /// The recipe.
    pub recipe: Recipe,
    /// The corpus.
    pub corpus: Corpus,
    layout: Layout,
}

impl Workload {
    /// Puts a recipe and a corpus together. The recipe takes the vocabulary of the corpus' tokenizer.
    ///
    /// # Errors
    /// [`CorpusError`] when the corpus is too small for the recipe.
    pub fn new(mut recipe: Recipe, corpus: Corpus) -> Result<Self, CorpusError> {
        recipe.model.vocab = corpus.tokenizer().vocab();
        corpus.check_recipe(&recipe)?;
        let layout = recipe.layout();
        Ok(Self { recipe, corpus, layout })
    }

    /// Where each tensor lies in the parameters.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Trained parameters.
    pub fn parameters(&self) -> u64 {
        self.layout.len() as u64
    }

    /// The terms of a run of this workload by `members` peers, ordered by `validator`.
    pub fn charter(&self, validator: PeerId, members: u32, round_us_max: u64, shares_per_round: u64) -> Charter {
        let recipe = &self.recipe;
        Charter {
            name: recipe.name.clone(),
            validators: vec![validator],
            recipe: Hash(recipe.hash()),
            data: Hash(self.corpus.manifest_hash()),
            tokenizer: Hash(self.corpus.tokenizer().hash()),
            stages: vec![StageTerms {
                genesis_state: Hash(State::genesis(recipe).root(recipe)),
                state_bytes: state_bytes(recipe) as u64,
                weight: 1,
            }],
            profile: NumericProfile::F32Fma,
            rounds: recipe.rounds,
            units_per_round: recipe.units_per_round,
            unit_tokens: recipe.unit_tokens(),
            start_members: members,
            quorum: members.div_ceil(2),
            round_us_max,
            shares_per_round,
        }
    }

    /// Whether a charter is about this workload.
    pub fn matches(&self, charter: &Charter) -> bool {
        charter.recipe.0 == self.recipe.hash()
            && charter.data.0 == self.corpus.manifest_hash()
            && charter.tokenizer.0 == self.corpus.tokenizer().hash()
    }
}

/// The cores that may compute. Every job runs on one of them with one thread, so that peers of one process together never
/// use more than there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cores {
    free: Arc<Semaphore>,
    count: usize,
}

impl Cores {
    /// So many cores, at least one.
    pub fn new(count: usize) -> Self {
        let count = count.max(1);
        Self { free: Arc::new(Semaphore::new(count)), count }
    }

    /// All cores of the machine.
    pub fn all() -> Self {
        Self::new(crate::probe::cores())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Waits for a core; it is free again when the permit is dropped.
    pub async fn take(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

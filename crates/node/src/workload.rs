//! What all peers of a run compute with: the recipe, the corpus, and the cores that peers of one process share.

use std::ops::RangeInclusive;
use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{Precision, encoded_bytes};
use learn::data::{Corpus, CorpusError};
use learn::pipeline::StageShape;
use model::{Kind, Layout};
use swarm::pipeline::PipelineConfig;
use tensor::Profile;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::{Charter, Hash, NumericProfile, PeerId, Release, StageTerms};

use crate::limits::{CpuShare, Governor, Worker};
use crate::state::{ModelState, Parts};

/// A recipe with the corpus that it is trained on. Shared by the peers of a process.
#[derive(Debug)]
pub struct Workload {
    /// The recipe.
    pub recipe: Recipe,
    /// The corpus.
    pub corpus: Corpus,
    parts: Parts,
}

impl Workload {
    /// Puts a recipe and a corpus together. The recipe takes the vocabulary of the corpus' tokenizer.
    ///
    /// # Errors
    /// [`CorpusError`] when the corpus is too small for the recipe.
    pub fn new(mut recipe: Recipe, corpus: Corpus) -> Result<Self, CorpusError> {
        recipe.model.vocab = corpus.tokenizer().vocab();
        corpus.check_recipe(&recipe)?;
        let parts = Parts::of(&recipe);
        Ok(Self { recipe, corpus, parts })
    }

    /// The parts of its model.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Number of stages: 1 when every peer holds the whole model.
    pub fn stages_len(&self) -> u16 {
        self.parts.stages_len()
    }

    /// A stage of the run; none when every peer holds the whole model.
    pub fn shape(&self, stage: u16) -> Option<&StageShape> {
        self.parts.shape(stage)
    }

    /// Where each tensor lies in the parameters that a member of a stage holds.
    pub fn layout(&self, stage: u16) -> &Layout {
        self.parts.layout(stage)
    }

    /// Trained parameters of the whole model.
    pub fn parameters(&self) -> u64 {
        self.recipe.layout().len() as u64
    }

    /// The terms of a run of this workload by `members` peers, ordered by `validator`, whose rounds have
    /// a time in microseconds within `round_us`, and whose weights are open.
    pub fn charter(
        &self,
        validator: PeerId,
        members: u32,
        round_us: RangeInclusive<u64>,
        shares_per_round: u64,
    ) -> Charter {
        let recipe = &self.recipe;
        Charter {
            name: recipe.name.clone(),
            validators: vec![validator],
            recipe: Hash(recipe.hash()),
            data: Hash(self.corpus.manifest_hash()),
            tokenizer: Hash(self.corpus.tokenizer().hash()),
            stages: (0..self.stages_len()).map(|stage| self.stage_terms(stage)).collect(),
            profile: match recipe.profile {
                Profile::F32Fma => NumericProfile::F32Fma,
                Profile::F32Muladd => NumericProfile::F32Muladd,
            },
            rounds: recipe.rounds,
            units_per_round: recipe.units_per_round,
            unit_tokens: recipe.unit_tokens(),
            start_members: members,
            quorum: members.div_ceil(2),
            round_us_first: *round_us.start(),
            round_us_max: *round_us.end(),
            shares_per_round,
            release: Release::OpenNow,
            parent: None,
        }
    }

    /// How the numbers between each stage and the next are written in a round, from the ledger's steps.
    pub fn precisions(&self, coarser: &[u8]) -> Vec<Precision> {
        let Some(pipeline) = self.recipe.pipeline else { return Vec::new() };
        let steps = |boundary: usize| coarser.get(boundary).copied().unwrap_or(0);
        (0..pipeline.stages - 1).map(|boundary| pipeline.precision.coarser(steps(boundary))).collect()
    }

    /// The settings of a member's pipeline: messages are not larger than this recipe's.
    pub fn pipeline(&self) -> PipelineConfig {
        let (Some(pipeline), Some(shape)) = (self.recipe.pipeline, self.shape(0)) else {
            return PipelineConfig::default();
        };
        let rows = self.recipe.batch.sequences * self.recipe.batch.tokens;
        let bytes = encoded_bytes(pipeline.precision, rows, shape.columns()) as u64;
        PipelineConfig { message_bytes_max: bytes, ..PipelineConfig::default() }
    }

    fn stage_terms(&self, stage: u16) -> StageTerms {
        let bytes = ModelState::genesis(&self.parts, stage).to_bytes(&self.parts, stage);
        let last = stage + 1 == self.stages_len();
        StageTerms {
            genesis_state: Hash::of(&bytes),
            state_bytes: bytes.len() as u64,
            weight: self.weight(stage),
            coarser_max: self.recipe.pipeline.filter(|_| !last).map_or(0, |pipeline| pipeline.coarser_max()),
        }
    }

    /// A stage's part of a round's shares: its work, in thousands of multiplied parameters.
    fn weight(&self, stage: u16) -> u32 {
        let Some(shape) = self.shape(stage) else { return 1 };
        let multiplied = |tensor: &&model::TensorInfo| matches!(tensor.kind, Kind::Matrix | Kind::Head);
        let tensors = shape.stage().layout();
        let work: usize = tensors.tensors().iter().filter(multiplied).map(model::TensorInfo::len).sum();
        u32::try_from(work / 1000).unwrap_or(u32::MAX).max(1)
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
    governor: Governor,
}

impl Cores {
    /// So many cores, at least one.
    pub fn new(count: usize) -> Self {
        let count = count.max(1);
        Self { free: Arc::new(Semaphore::new(count)), count, governor: Governor::default() }
    }

    /// All cores of the machine.
    pub fn all() -> Self {
        Self::new(crate::probe::cores())
    }

    /// As many of these cores as a share of the machine's processor time needs, which the jobs on them keep to together.
    pub fn limited(&self, share: Option<CpuShare>) -> Self {
        let Some(cpu) = share else { return self.clone() };
        let machine = crate::probe::cores();
        let threads = (cpu.cores(machine).ceil() as usize).clamp(1, self.count);
        Self { governor: Governor::new(share, machine), ..Self::new(threads) }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Waits for a core; it is free again when the permit is dropped.
    pub async fn take(&self) -> OwnedSemaphorePermit {
        let permit = self.free.clone().acquire_owned().await.expect("the semaphore is never closed");
        self.governor.ready().await;
        permit
    }

    /// Waits until there is processor time, without taking a core.
    pub async fn ready(&self) {
        self.governor.ready().await;
    }

    /// Begins a piece of work on a core that was taken.
    pub fn worker(&self) -> Worker {
        self.governor.worker()
    }
}

/// The stage of a local peer, by its number from 1: they take turns.
pub(crate) fn stage_of(number: usize, stages: u16) -> u16 {
    u16::try_from((number - 1) % usize::from(stages)).expect("less than the stages")
}

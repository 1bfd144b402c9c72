//! The state that jobs work on, and the jobs themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use learn::sparseloco::{self, NotFinite, PayloadError, SparsePayload};
use learn::unit::{self, UnitError, UnitOutput};
use ledger::CommittedSet;
use swarm::{Job, JobResult, ModelPoint, UnitAssignment, UnitResult};
use wire::Hash;

use super::stage::StageJobs;
use super::{Effort, Means};
use crate::blobs::BlobError;
use crate::member::{Failure, FailureKind};
use crate::peer::NodeError;
use crate::state::{ModelState, ModelStateError, Weighted, needed_stages, state_in};
use crate::store::{Pending, PendingUnit, Point, ResidualFile, StoreError};

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error("the job was cancelled")]
    Cancelled,
    #[error("the stored state is `{held}`, not `{wanted:?}`")]
    WrongState { held: String, wanted: Hash },
    #[error("what was added up in round {round} is lost")]
    LostSum { round: u64 },
    #[error("payload blob `{hash:?}` is not here")]
    NoPayload { hash: Hash },
    #[error("the recipe gives the initial state `{got:?}`, the charter names `{expected:?}`")]
    ForeignRecipe { expected: Hash, got: Hash },
    #[error(transparent)]
    State(#[from] ModelStateError),
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    #[error(transparent)]
    Diverged(UnitError),
    #[error(transparent)]
    Payload(PayloadError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl JobError {
    /// Whether trying again is pointless.
    fn is_fatal(&self) -> bool {
        match self {
            Self::Cancelled | Self::WrongState { .. } | Self::LostSum { .. } | Self::NoPayload { .. } => false,
            Self::Blob(BlobError::Missing { .. } | BlobError::Store(StoreError::Corrupt { .. })) => false,
            Self::ForeignRecipe { .. } | Self::State(_) | Self::NotFinite(_) | Self::Diverged(_) => true,
            Self::Payload(_) => true,
            Self::Blob(_) | Self::Store(_) => true,
        }
    }

    /// What people are told of it.
    fn failure(&self) -> Failure {
        let of = |error: NodeError| Failure::from(&error);
        let message = self.to_string();
        let plain = |kind, hint: &str| Failure { kind, message, hint: hint.to_owned() };
        match self {
            Self::Store(error) | Self::Blob(BlobError::Store(error)) => {
                Failure { kind: error.kind(), message: error.to_string(), hint: error.hint() }
            }
            Self::Blob(BlobError::Index { path, detail }) => {
                of(NodeError::Blob(BlobError::Index { path: path.clone(), detail: detail.clone() }))
            }
            Self::ForeignRecipe { .. } => of(NodeError::ForeignCharter),
            Self::NotFinite(_) | Self::Diverged(_) => {
                plain(FailureKind::BadInput, "lower the recipe's learning rates and start with `cairn up --fresh`")
            }
            _ => plain(FailureKind::Unexpected, "start again: it goes on from the last committed round"),
        }
    }
}

/// What came of a job.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) result: JobResult,
    pub(super) effort: Effort,
    pub(super) failure: Option<Failure>,
}

/// The model in memory.
#[derive(Debug)]
struct Held {
    root: Hash,
    state: Arc<ModelState>,
}

/// A peer's model and what it computes with.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) means: Means,
    held: Option<Held>,
    point: Option<Point>,
    pending: Option<Pending>,
    /// What a member of one of several stages computes with.
    pub(super) stage: StageJobs,
}

impl Machine {
    pub(super) fn new(means: Means) -> Self {
        Self { means, held: None, point: None, pending: None, stage: StageJobs::default() }
    }

    /// Reads the stored point; one whose state is not whole counts as none, and its residual is kept.
    pub(super) fn restore(&mut self) -> Result<Option<ModelPoint>, StoreError> {
        self.means.store.sweep_residuals()?;
        self.point = self.means.store.point()?;
        self.pending = self.means.store.pending()?;
        let Some(point) = &self.point else { return Ok(None) };
        match self.read_state(point.state_root) {
            Ok(state) if state.round() == point.round => {
                let model = ModelPoint { round: point.round, state_root: point.state_root };
                self.held = Some(Held { root: point.state_root, state: Arc::new(state) });
                Ok(Some(model))
            }
            Ok(state) => {
                tracing::warn!(round = state.round(), stored = point.round, "the stored state is of another round");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "the stored state cannot be used; it will be fetched from others");
                Ok(None)
            }
        }
    }

    /// Runs one job to its end. A failure comes with what people are told of it.
    pub(super) async fn run(&mut self, job: Job, cancelled: Arc<AtomicBool>) -> Ran {
        let mut effort = Effort::default();
        let result = match job {
            Job::Work { round, state_root, units } => {
                self.work(round, state_root, &units, &cancelled, &mut effort).await
            }
            Job::Stage(task) => self.stage_task(task, &mut effort).await,
            Job::Contribute { round, state_root, units } => self.contribute(round, state_root, &units).await,
            Job::OuterStep { round: _, committed, own_committed } => self.step(committed, own_committed).await,
            Job::LoadState { round, state_root, own_committed_round } => {
                self.load(round, state_root, own_committed_round).await
            }
        };
        match result {
            Ok(result) => Ran { result, effort, failure: None },
            Err(error) => {
                let result = JobResult::Failed { reason: error.to_string(), fatal: error.is_fatal() };
                Ran { result, effort, failure: Some(error.failure()) }
            }
        }
    }

    async fn work(
        &mut self,
        round: u64,
        state_root: Hash,
        units: &[UnitAssignment],
        cancelled: &Arc<AtomicBool>,
        effort: &mut Effort,
    ) -> Result<JobResult, JobError> {
        if let Some(result) = self.stored_work(|pending| answers(pending, round, state_root, units)) {
            return Ok(result);
        }
        let state = self.state(state_root)?;
        let outputs = self.train(state, units, cancelled, effort).await?;
        let results = unit_results(units, &outputs);
        let mean = move || {
            let deltas: Vec<&[f32]> = outputs.iter().map(|output| output.delta.as_slice()).collect();
            unit::mean_delta(&deltas)
        };
        self.pay_in(round, state_root, results, mean).await
    }

    /// Adds what was trained to the residual, and stores its largest part as a payload.
    pub(super) async fn pay_in(
        &mut self,
        round: u64,
        state_root: Hash,
        units: Vec<PendingUnit>,
        trained: impl FnOnce() -> Vec<f32> + Send + 'static,
    ) -> Result<JobResult, JobError> {
        let residual = self.point.as_ref().and_then(|point| point.residual.clone());
        let means = self.means.clone();
        let (payload, payload_bytes, residual) = self
            .on_core(move || -> Result<_, JobError> {
                let mut error = means.residual(residual.as_ref())?;
                let compression = means.workload.recipe.compression;
                sparseloco::fold_residual(&mut error, &trained(), compression.beta);
                let payload = sparseloco::encode(means.workload.layout(means.stage), compression, &mut error)?;
                let left = means.store.write_residual(&format!("{round}-pending"), &to_bytes(&error))?;
                let bytes = payload.len() as u64;
                Ok((payload, bytes, left))
            })
            .await?;
        let payload = self.means.blobs.put(payload).await?;
        let pending = Pending { round, state_root, payload, payload_bytes, residual, units };
        let result = worked(&pending);
        self.save(self.point.clone(), Some(pending))?;
        Ok(result)
    }

    /// What came of work that is stored already.
    pub(super) fn stored_work(&self, fits: impl FnOnce(&Pending) -> bool) -> Option<JobResult> {
        let pending = self.pending.as_ref().filter(|pending| fits(pending))?;
        self.means.blobs.size(pending.payload).is_some().then(|| worked(pending))
    }

    /// Trains units, as many at a time as there are free cores.
    async fn train(
        &self,
        state: Arc<ModelState>,
        units: &[UnitAssignment],
        cancelled: &Arc<AtomicBool>,
        effort: &mut Effort,
    ) -> Result<Vec<UnitOutput>, JobError> {
        let mut running = Vec::new();
        for unit in units {
            let core = self.means.cores.take().await;
            if cancelled.load(Ordering::Relaxed) {
                break;
            }
            let (workload, state, flag) = (self.means.workload.clone(), state.clone(), cancelled.clone());
            let (seed, computing) = (unit.unit.0.0, self.means.time.compute());
            let cores = self.means.cores.clone();
            running.push(tokio::task::spawn_blocking(move || {
                let (_core, _computing, start) = (core, computing, Instant::now());
                let ModelState::Whole(state) = state.as_ref() else {
                    unreachable!("a stage has tasks instead of work")
                };
                let first_step = state.round * workload.recipe.inner_steps;
                let worker = cores.worker();
                // Asked before every inner step: the place to rest.
                let stop = || {
                    let stop = || flag.load(Ordering::Relaxed);
                    worker.rest(&stop);
                    stop()
                };
                let (recipe, corpus, theta) = (&workload.recipe, &workload.corpus, &state.theta);
                let output = unit::train(&recipe.context(1), recipe, corpus, theta, seed, first_step, &stop);
                (output, start.elapsed().as_secs_f64())
            }));
        }
        let mut outputs = Vec::new();
        for task in running {
            let (output, seconds) = task.await.expect("training does not panic");
            let output = output.map_err(|error| match error {
                UnitError::Cancelled => JobError::Cancelled,
                diverged => JobError::Diverged(diverged),
            })?;
            effort.tokens += output.tokens;
            effort.seconds += seconds;
            outputs.push(output);
        }
        if outputs.len() < units.len() {
            return Err(JobError::Cancelled);
        }
        Ok(outputs)
    }

    async fn step(&mut self, committed: Arc<CommittedSet>, own_committed: bool) -> Result<JobResult, JobError> {
        let round = committed.round;
        if let Some(point) =
            self.point.as_ref().filter(|point| point.round == round + 1 && self.holds(point.state_root))
        {
            return Ok(JobResult::Stepped { round: point.round, state_root: point.state_root });
        }
        let mut state = self.state(state_in(&committed, self.means.stage))?;
        self.held = None;
        self.stage.forget();
        let means = self.means.clone();
        let stepped = self
            .on_core(move || -> Result<_, JobError> {
                let stages = needed_stages(means.workload.parts(), means.stage).into_iter();
                let payloads = stages.map(|stage| Ok((stage, means.payloads(&committed, stage)?)));
                let payloads: Vec<(u16, Weighted)> = payloads.collect::<Result<_, JobError>>()?;
                Arc::make_mut(&mut state).step(means.workload.parts(), means.stage, &payloads);
                let bytes = state.to_bytes(means.workload.parts(), means.stage);
                Ok((state, bytes))
            })
            .await;
        let (state, bytes) = match stepped {
            Ok(stepped) => stepped,
            Err(error) => {
                self.reload();
                return Err(error);
            }
        };
        let state_root = self.means.blobs.put(bytes).await?;
        let residual = self.residual_after(round, own_committed).await?;
        let point = Point { round: round + 1, state_root, residual };
        self.held = Some(Held { root: state_root, state });
        let pending = self.pending.take().filter(|pending| pending.round > round);
        self.save(Some(point), pending)?;
        Ok(JobResult::Stepped { round: round + 1, state_root })
    }

    async fn load(
        &mut self,
        round: u64,
        state_root: Hash,
        own_committed_round: Option<u64>,
    ) -> Result<JobResult, JobError> {
        let means = self.means.clone();
        let (state, bytes) = self
            .on_core(move || -> Result<_, JobError> {
                if round > 0 {
                    let bytes = means.blobs.get(state_root)?;
                    return Ok((ModelState::from_bytes(&bytes, means.workload.parts(), means.stage)?, None));
                }
                let state = ModelState::genesis(means.workload.parts(), means.stage);
                let bytes = state.to_bytes(means.workload.parts(), means.stage);
                let got = Hash::of(&bytes);
                if got != state_root {
                    return Err(JobError::ForeignRecipe { expected: state_root, got });
                }
                Ok((state, Some(bytes)))
            })
            .await?;
        if state.round() != round {
            return Err(JobError::WrongState { held: format!("of round {}", state.round()), wanted: state_root });
        }
        self.stage.forget();
        if let Some(bytes) = bytes {
            self.means.blobs.put(bytes).await?;
        }
        // Work on a round that is still to be reached stays pending; that of an earlier one is settled.
        let pending = self.pending.clone().filter(|pending| pending.round >= round);
        let residual = match (&pending, &self.pending) {
            (None, Some(old)) => self.residual_after(old.round, own_committed_round == Some(old.round)).await?,
            _ => self.point.as_ref().and_then(|point| point.residual.clone()),
        };
        self.held = Some(Held { root: state_root, state: Arc::new(state) });
        self.save(Some(Point { round, state_root, residual }), pending)?;
        Ok(JobResult::Loaded { round, state_root })
    }

    /// The residual once a round is closed: what the own payload left, or all that was trained when it is not in the set.
    async fn residual_after(&self, round: u64, own_committed: bool) -> Result<Option<ResidualFile>, JobError> {
        let kept = self.point.as_ref().and_then(|point| point.residual.clone());
        let Some(pending) = self.pending.clone().filter(|pending| pending.round == round) else { return Ok(kept) };
        if own_committed {
            return Ok(Some(pending.residual));
        }
        // Units of a stage that one member did not pay in were another's, or are given up: their mass is not this one's to keep. So the
        // residual, too, follows from what is public.
        if self.means.workload.stages_len() > 1 {
            return Ok(kept);
        }
        let means = self.means.clone();
        self.on_core(move || -> Result<_, JobError> {
            let mut residual = means.residual(Some(&pending.residual))?;
            match means.unsent(pending.payload) {
                Ok(payload) => {
                    for tensor in 0..payload.tensors() {
                        let (indices, values) = payload.tensor(tensor);
                        indices.iter().zip(values).for_each(|(&index, value)| residual[index as usize] += value);
                    }
                }
                Err(error) => tracing::warn!(round, %error, "what an unsent payload held is lost"),
            }
            Ok(Some(means.store.write_residual(&round.to_string(), &to_bytes(&residual))?))
        })
        .await
    }

    /// Makes a point the stored one. Files that only the old one named are removed.
    fn save(&mut self, point: Option<Point>, pending: Option<Pending>) -> Result<(), JobError> {
        let Some(point) = point else {
            return Err(JobError::WrongState { held: "none".to_owned(), wanted: Hash::default() });
        };
        self.means.store.put_model(&point, pending.as_ref())?;
        (self.point, self.pending) = (Some(point), pending);
        self.means.store.sweep_residuals()?;
        Ok(())
    }

    /// The root of the state in memory.
    pub(super) fn state_root(&self) -> Option<Hash> {
        self.held.as_ref().map(|held| held.root)
    }

    fn holds(&self, root: Hash) -> bool {
        self.held.as_ref().is_some_and(|held| held.root == root)
    }

    pub(super) fn state(&self, root: Hash) -> Result<Arc<ModelState>, JobError> {
        match &self.held {
            Some(held) if held.root == root => Ok(held.state.clone()),
            Some(held) => Err(JobError::WrongState { held: held.root.short(), wanted: root }),
            None => Err(JobError::WrongState { held: "none".to_owned(), wanted: root }),
        }
    }

    /// Takes the stored state up again after a step failed.
    fn reload(&mut self) {
        let Some(root) = self.point.as_ref().map(|point| point.state_root) else { return };
        match self.read_state(root) {
            Ok(state) => self.held = Some(Held { root, state: Arc::new(state) }),
            Err(error) => tracing::warn!(%error, "the stored state cannot be read again"),
        }
    }

    fn read_state(&self, root: Hash) -> Result<ModelState, JobError> {
        let bytes = self.means.blobs.get(root)?;
        Ok(ModelState::from_bytes(&bytes, self.means.workload.parts(), self.means.stage)?)
    }

    /// Runs something that computes on a core of its own.
    pub(super) async fn on_core<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        let core = self.means.cores.take().await;
        let computing = self.means.time.compute();
        let cores = self.means.cores.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = (core, computing, cores.worker());
            run()
        });
        task.await.expect("a job does not panic")
    }
}

impl Means {
    /// A stored residual, or zeros when there is none yet.
    fn residual(&self, file: Option<&ResidualFile>) -> Result<Vec<f32>, JobError> {
        let Some(file) = file else { return Ok(vec![0.0; self.workload.layout(self.stage).len()]) };
        let bytes = self.store.read_residual(file)?;
        let expected = 4 * self.workload.layout(self.stage).len();
        if bytes.len() != expected {
            let path = self.store.directory().join(&file.name);
            return Err(StoreError::corrupt(&path, format!("{} bytes where {expected} are needed", bytes.len())).into());
        }
        Ok(bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect())
    }

    /// An own payload that nobody applied.
    fn unsent(&self, payload: Hash) -> Result<SparsePayload, JobError> {
        let bytes = self.blobs.get(payload)?;
        let compression = self.workload.recipe.compression;
        sparseloco::decode(self.workload.layout(self.stage), compression, &bytes).map_err(JobError::Payload)
    }

    /// The payloads of a stage in a set, with their weights, in order. One that does not decode is left out, on every peer alike.
    fn payloads(&self, committed: &CommittedSet, stage: u16) -> Result<Weighted, JobError> {
        let entries = committed.entries_of(stage);
        let mut payloads = Vec::with_capacity(entries.len());
        for entry in entries {
            let bytes = match self.blobs.get(entry.payload) {
                Err(BlobError::Missing { hash }) => return Err(JobError::NoPayload { hash }),
                other => other?,
            };
            match sparseloco::decode(self.workload.layout(stage), self.workload.recipe.compression, &bytes) {
                Ok(payload) => payloads.push((entry.tokens, payload)),
                Err(error) => tracing::warn!(peer = ?entry.peer, %error, "a committed payload does not decode"),
            }
        }
        Ok(payloads)
    }
}

fn answers(pending: &Pending, round: u64, state_root: Hash, units: &[UnitAssignment]) -> bool {
    let same = |(kept, unit): (&PendingUnit, &UnitAssignment)| kept.index == unit.index && kept.unit == unit.unit.0;
    pending.round == round
        && pending.state_root == state_root
        && pending.units.len() == units.len()
        && pending.units.iter().zip(units).all(same)
}

fn unit_results(units: &[UnitAssignment], outputs: &[UnitOutput]) -> Vec<PendingUnit> {
    let result = |(unit, output): (&UnitAssignment, &UnitOutput)| PendingUnit {
        index: unit.index,
        unit: unit.unit.0,
        data_root: Hash(output.data_root),
        trace_root: Hash(output.trace_root),
        output_root: Hash(output.output_root),
        tokens: output.tokens,
        loss_micronats: (output.mean_loss * 1e6).round() as u64,
    };
    units.iter().zip(outputs).map(result).collect()
}

fn worked(pending: &Pending) -> JobResult {
    let result = |unit: &PendingUnit| UnitResult {
        index: unit.index,
        data_root: unit.data_root,
        trace_root: unit.trace_root,
        output_root: unit.output_root,
        tokens: unit.tokens,
        loss_micronats: unit.loss_micronats,
    };
    JobResult::Worked {
        round: pending.round,
        units: pending.units.iter().map(result).collect(),
        payload: pending.payload,
        payload_bytes: pending.payload_bytes,
        residual_root: pending.residual.root,
    }
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

//! A simulated machine: a peer, its disk, its trainer and its transfers.

use std::collections::{BTreeMap, VecDeque};

use swarm::pipeline::{PipelineCounts, StageResult, StageTask, UnitDone};
use swarm::{Entry, Job, JobId, JobResult, ModelPoint, Peer, PeerConfig, Time, TimeoutReason, UnitAssignment};
use wire::{Hash, Identity, Message, PeerId};

use crate::adversary::Adversary;
use crate::checks::Violation;
use crate::disk::Disk;
use crate::trainer::stage::Sum;
use crate::trainer::{self, Pending, Residual};

/// Ticks of one host within [`TICKS_WINDOW_US`] after which the peer is found to spin.
const TICKS_PER_WINDOW_MAX: u32 = 1_000;
/// The time over which ticks are counted, in microseconds.
const TICKS_WINDOW_US: u64 = 100_000;

/// The round whose step a broken machine computes wrongly.
const BROKEN_ROUND: u64 = 2;

/// A blob on its way to a host.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) bytes: u64,
    pub(crate) providers: VecDeque<PeerId>,
    pub(crate) busy: bool,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) identity: Identity,
    pub(crate) adversary: Option<Adversary>,
    pub(crate) config: PeerConfig,
    pub(crate) disk: Disk,
    /// The peer while the machine is up.
    pub(crate) peer: Option<Peer>,
    /// Starts and crashes so far.
    pub(crate) life: u32,
    /// Time to train one unit, in microseconds.
    pub(crate) unit_us: u64,
    /// Whether its machine computes one step wrongly.
    pub(crate) broken: bool,
    /// How far the clock is ahead of true time, in microseconds.
    pub(crate) skew_us: u64,
    pub(crate) job: Option<(JobId, Job)>,
    pub(crate) cancelled: BTreeMap<JobId, Job>,
    pub(crate) transfers: BTreeMap<Hash, Transfer>,
    pub(crate) tick_at: Option<Time>,
    /// Until when it does nothing.
    pub(crate) asleep_until: Time,
    /// What it added up in its stage.
    sum: Sum,
    /// What an adversary remembers to say again.
    pub(crate) memory: Vec<Message>,
    /// What the pipelines of its lives before counted.
    past: PipelineCounts,
    ticks: (Time, u32),
}

impl Host {
    /// A machine that is off.
    pub(crate) fn new(identity: Identity, adversary: Option<Adversary>, config: PeerConfig) -> Self {
        Self {
            identity,
            adversary,
            config,
            disk: Disk::default(),
            peer: None,
            life: 0,
            unit_us: 0,
            broken: false,
            skew_us: 0,
            job: None,
            cancelled: BTreeMap::new(),
            transfers: BTreeMap::new(),
            tick_at: None,
            asleep_until: Time::default(),
            sum: Sum::default(),
            memory: Vec::new(),
            past: PipelineCounts::default(),
            ticks: (Time::default(), 0),
        }
    }

    /// Whether the host follows the protocol.
    pub(crate) fn is_honest(&self) -> bool {
        self.adversary.is_none()
    }

    /// The stage in which it takes part.
    pub(crate) fn stage(&self) -> u16 {
        self.config.stage
    }

    /// Becomes a member of another stage: what it stored of the old one is of no use there.
    pub(crate) fn move_to(&mut self, stage: u16) {
        self.config.stage = stage;
        self.disk.model = None;
        self.disk.residual = Residual::default();
    }

    /// Whether it is up and not asleep.
    pub(crate) fn is_awake(&self, now: Time) -> bool {
        self.peer.is_some() && self.asleep_until <= now
    }

    /// What the pipelines of all its lives counted.
    pub(crate) fn pipeline_counts(&self) -> PipelineCounts {
        let pipeline = self.peer.as_ref().and_then(Peer::pipeline);
        pipeline.map_or(self.past, |pipeline| add(self.past, pipeline.counts()))
    }

    /// The host's clock.
    pub(crate) fn clock(&self, now: Time) -> Time {
        now.after(self.skew_us)
    }

    /// True time when the host's clock shows `at`.
    pub(crate) fn true_time(&self, at: Time) -> Time {
        Time::from_micros(at.as_micros().saturating_sub(self.skew_us))
    }

    /// Makes the peer from what the disk holds.
    pub(crate) fn boot(&mut self, now: Time) {
        self.life += 1;
        self.job = None;
        self.cancelled.clear();
        self.transfers.clear();
        self.tick_at = None;
        self.asleep_until = Time::default();
        let (config, identity, restored) = (self.config.clone(), self.identity.clone(), self.disk.restored());
        self.peer = Some(Peer::new(config, identity, restored, self.clock(now)));
    }

    /// Drops everything but the disk.
    pub(crate) fn crash(&mut self) {
        self.past = self.pipeline_counts();
        self.life += 1;
        self.peer = None;
        self.sum = Sum::default();
    }

    /// Counts a tick, to find a peer that asks to be called again and again without need.
    pub(crate) fn count_tick(&mut self, now: Time, reason: Option<TimeoutReason>) -> Result<(), Violation> {
        let (since, count) = self.ticks;
        self.ticks = if now <= since.after(TICKS_WINDOW_US) { (since, count + 1) } else { (now, 0) };
        if self.ticks.1 > TICKS_PER_WINDOW_MAX {
            return Err(Violation::Spinning { peer: self.identity.id(), reason });
        }
        Ok(())
    }

    /// How long a job takes, in microseconds.
    pub(crate) fn job_us(&self, job: &Job) -> u64 {
        match job {
            Job::Work { units, .. } => self.unit_us.saturating_mul(units.len() as u64),
            Job::Stage(task) => self.unit_us.saturating_mul(trainer::stage::thirds(task)) / 3,
            Job::Contribute { .. } | Job::OuterStep { .. } => 50_000,
            Job::LoadState { .. } => 100_000,
        }
    }

    /// Starts a job: only one at a time.
    pub(crate) fn start_job(&mut self, id: JobId, job: Job) -> Result<(), Violation> {
        if let Some((running, _)) = &self.job {
            return Err(Violation::TwoJobs { peer: self.identity.id(), running: *running, second: id });
        }
        self.job = Some((id, job));
        Ok(())
    }

    /// Does a job, as the shell does: everything is stored before the result is given. `sent` tells of a payload whether it
    /// really is in its round's committed set.
    pub(crate) fn do_job(
        &mut self,
        job: &Job,
        payload_bytes: u64,
        sent: impl Fn(&Pending) -> bool,
    ) -> Result<JobResult, Violation> {
        let terms = &self.config.charter.body;
        let (unit_tokens, genesis) = (terms.unit_tokens, terms.stages[usize::from(self.stage())].genesis_state);
        let result = match job {
            Job::Work { round, state_root, units } => {
                self.expect_model(ModelPoint { round: *round, state_root: *state_root })?;
                let pending = self.disk.residual.work(*round, *state_root, units, unit_tokens);
                self.disk.blobs.insert(pending.payload, payload_bytes);
                let units = units.iter().map(|unit| trainer::unit_result(unit, *state_root, unit_tokens)).collect();
                let (payload, residual_root) = (pending.payload, pending.residual_root);
                JobResult::Worked { round: *round, units, payload, payload_bytes, residual_root }
            }
            Job::Stage(task) => self.stage_task(task)?,
            Job::Contribute { round, state_root, units } => {
                self.expect_model(ModelPoint { round: *round, state_root: *state_root })?;
                self.contribute(*round, *state_root, units, payload_bytes)
            }
            Job::OuterStep { round, committed, own_committed } => {
                let model = self.disk.model.ok_or_else(|| self.bad_job("a step without a state"))?;
                let state_in = committed.state_in.get(usize::from(self.stage()));
                if model.round != *round || committed.round != *round || state_in != Some(&model.state_root) {
                    return Err(self.bad_job("a step from another state"));
                }
                let reach = u16::from(self.config.neighbour_payloads);
                let stage = self.stage();
                let needed = || committed.entries.iter().filter(|entry| entry.stage.abs_diff(stage) <= reach);
                if !needed().all(|entry: &Entry| self.disk.blobs.contains_key(&entry.payload)) {
                    return Err(self.bad_job("a step before its payloads were here"));
                }
                self.settle(sent, |pending| (pending == *round).then_some(*own_committed))?;
                let mut state_root = trainer::step(model.state_root, needed());
                if self.broken && *round == BROKEN_ROUND {
                    state_root.0[0] ^= 1;
                }
                self.store_state(ModelPoint { round: round + 1, state_root })
            }
            Job::LoadState { round, state_root, own_committed_round } => {
                let here = if *round == 0 { *state_root == genesis } else { self.disk.blobs.contains_key(state_root) };
                if !here {
                    return Err(self.bad_job("a state that is not here"));
                }
                self.settle(sent, |pending| Some(Some(pending) == *own_committed_round))?;
                let point = ModelPoint { round: *round, state_root: *state_root };
                self.store_state(point);
                JobResult::Loaded { round: *round, state_root: *state_root }
            }
        };
        Ok(result)
    }

    /// Runs one task of the own stage.
    fn stage_task(&mut self, task: &StageTask) -> Result<JobResult, Violation> {
        let root = match self.disk.model {
            Some(model) if model.round == task.round => model.state_root,
            _ => return Err(self.bad_job("a task from a state that is not stored")),
        };
        let result = trainer::stage::compute(self.stage(), root, task);
        let adds = matches!(result, StageResult::Turn { .. } | StageResult::Backward { .. }) && task.counted;
        if adds && !self.sum.add(root, task.index, task.unit) {
            return Err(self.bad_job("a unit that is added up already"));
        }
        Ok(JobResult::Stage(match self.adversary {
            Some(adversary) => adversary.falsify(result),
            None => result,
        }))
    }

    /// Makes the payload of what was added up, or gives the one that was made before.
    fn contribute(&mut self, round: u64, state_root: Hash, units: &[UnitDone], payload_bytes: u64) -> JobResult {
        let assigned = |done: &UnitDone| UnitAssignment { index: done.index, unit: done.unit };
        let assigned: Vec<UnitAssignment> = units.iter().map(assigned).collect();
        let pending = self.disk.residual.pending.as_ref();
        let stored = pending.is_some_and(|pending| {
            pending.round == round && pending.state_root == state_root && pending.units == assigned
        });
        if !stored && !self.sum.is_of(state_root, units) {
            return JobResult::Failed { reason: format!("the sum of round {round} is lost"), fatal: false };
        }
        let unit_tokens = self.config.charter.body.unit_tokens;
        let outputs: Vec<Hash> = units.iter().map(UnitDone::output_root).collect();
        let pending = self.disk.residual.pay_in(round, state_root, &assigned, &outputs, unit_tokens);
        self.disk.blobs.insert(pending.payload, payload_bytes);
        JobResult::Worked {
            round,
            units: units.iter().map(|done| trainer::stage_unit_result(done, unit_tokens)).collect(),
            payload: pending.payload,
            payload_bytes,
            residual_root: pending.residual_root,
        }
    }

    fn store_state(&mut self, point: ModelPoint) -> JobResult {
        self.disk.model = Some(point);
        let bytes = self.config.charter.body.stages[usize::from(self.stage())].state_bytes;
        self.disk.blobs.insert(point.state_root, bytes);
        JobResult::Stepped { round: point.round, state_root: point.state_root }
    }

    /// Settles the pending payload; `fate` is what the job says of a payload of its round, `None` when it does not say.
    fn settle(&mut self, sent: impl Fn(&Pending) -> bool, fate: impl Fn(u64) -> Option<bool>) -> Result<(), Violation> {
        let Some(pending) = &self.disk.residual.pending else { return Ok(()) };
        let Some(committed) = fate(pending.round) else {
            return Err(self.bad_job("a payload of another round is still pending"));
        };
        if committed != sent(pending) {
            return Err(self.bad_job("a residual that forgets or repeats what was committed"));
        }
        self.disk.residual.settle(committed);
        Ok(())
    }

    fn expect_model(&self, point: ModelPoint) -> Result<(), Violation> {
        if self.disk.model == Some(point) { Ok(()) } else { Err(self.bad_job("work from a state that is not stored")) }
    }

    fn bad_job(&self, what: &'static str) -> Violation {
        Violation::BadJob { peer: self.identity.id(), what }
    }
}

/// The sum of two counts.
pub(crate) fn add(one: PipelineCounts, other: PipelineCounts) -> PipelineCounts {
    PipelineCounts {
        calls: one.calls + other.calls,
        questions: one.questions + other.questions,
        replies: one.replies + other.replies,
        refused: one.refused + other.refused,
        timeouts: one.timeouts + other.timeouts,
        redone: one.redone + other.redone,
        duplicates: one.duplicates + other.duplicates,
        taken_over: one.taken_over + other.taken_over,
        lost: one.lost + other.lost,
    }
}

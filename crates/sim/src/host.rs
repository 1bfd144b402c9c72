//! A simulated machine: a peer, its disk, its trainer and its transfers.

use std::collections::{BTreeMap, VecDeque};

use swarm::{Job, JobId, JobResult, ModelPoint, Peer, PeerConfig, Time, TimeoutReason};
use wire::{Hash, Identity, PeerId};

use crate::adversary::Adversary;
use crate::checks::Violation;
use crate::disk::Disk;
use crate::trainer::{self, Pending};

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
            ticks: (Time::default(), 0),
        }
    }

    /// Whether the host follows the protocol.
    pub(crate) fn is_honest(&self) -> bool {
        self.adversary.is_none()
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
        let (config, identity, restored) = (self.config.clone(), self.identity.clone(), self.disk.restored());
        self.peer = Some(Peer::new(config, identity, restored, self.clock(now)));
    }

    /// Drops everything but the disk.
    pub(crate) fn crash(&mut self) {
        self.life += 1;
        self.peer = None;
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
            Job::Stage(_) => self.unit_us,
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
        genesis: Hash,
        payload_bytes: u64,
        sent: impl Fn(&Pending) -> bool,
    ) -> Result<JobResult, Violation> {
        let unit_tokens = self.config.charter.body.unit_tokens;
        let result = match job {
            Job::Work { round, state_root, units } => {
                self.expect_model(ModelPoint { round: *round, state_root: *state_root })?;
                let pending = self.disk.residual.work(*round, *state_root, units, unit_tokens);
                self.disk.blobs.insert(pending.payload, payload_bytes);
                let units = units.iter().map(|unit| trainer::unit_result(unit, *state_root, unit_tokens)).collect();
                let (payload, residual_root) = (pending.payload, pending.residual_root);
                JobResult::Worked { round: *round, units, payload, payload_bytes, residual_root }
            }
            Job::Stage(_) | Job::Contribute { .. } => return Err(self.bad_job("a stage's job in a run of one stage")),
            Job::OuterStep { round, committed, own_committed } => {
                let model = self.disk.model.ok_or_else(|| self.bad_job("a step without a state"))?;
                if model.round != *round
                    || committed.round != *round
                    || wire::run_root(&committed.state_in) != model.state_root
                {
                    return Err(self.bad_job("a step from another state"));
                }
                if !committed.entries.iter().all(|entry| self.disk.blobs.contains_key(&entry.payload)) {
                    return Err(self.bad_job("a step before its payloads were here"));
                }
                self.settle(sent, |pending| (pending == *round).then_some(*own_committed))?;
                let mut state_root = trainer::step(model.state_root, committed);
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

    fn store_state(&mut self, point: ModelPoint) -> JobResult {
        self.disk.model = Some(point);
        let bytes = self.config.charter.body.stages[0].state_bytes;
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

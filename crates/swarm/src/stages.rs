//! A peer's part in a run of several stages: from the ledger's rounds to its pipeline, and from what that did to a commitment.
//!
//! Purpose: the pipeline knows calls and units, the ledger knows rounds and claims; this joins them, and gives the pipeline's tasks the
//! one place in which jobs run.
//!
//! Source: training design, section 3.
//!
//! Message sequence of a round: every stage's starting root is canonical → the pipeline opens with its members and units → units pass
//! through the stages ([`crate::pipeline`]) → members of stage 0 commit once their units are done, and say so to everybody (`StageSealed`) →
//! when stage 0 has claimed every unit, or said so, all is done everywhere, and the other stages commit → the round closes.
//!
//! A member that commits counts nothing more. So before it does, it asks the others that have still to claim units of its stage for
//! a sign of life (any block, which every peer answers). One that is gone takes its sum with it: then its units come here anew, and are
//! waited for. A member of a later stage that began anew within the round trusts no such sign, since all of its stage may have begun anew
//! and lost units that the first stage claimed before: it waits until no unit has come for a while.
//!
//! Deviations: none of the design's; near the deadline a member commits what it has, so that a round without a stage's last replica loses
//! only what passed through that.
//!
//! Safety: one commitment a round, of exactly the units whose gradients are in the payload, in the order in which they were added up.
//! Liveness: a member that has counted a unit seals at the latest when most of the round's time has passed.
//!
//! What it does not do: it does not decide who calls whom.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Action, Block, LinkWishes, Message, PeerId, RoundTime, StageSealed};

use crate::backoff::Backoff;
use crate::pipeline::{Pipeline, PipelineInput, PipelineOutput, RoundView, StageResult, StageTask, UnitDone};
use crate::{FaultKind, Job, JobResult, Output, Peer, Time};

/// Parts of a round's time after which members of stage 0 commit what they have, in percent.
const FIRST_STAGE_SEALS_PERCENT: u64 = 70;
/// As [`FIRST_STAGE_SEALS_PERCENT`], for the other stages, which have to wait for the first.
const OTHER_STAGES_SEAL_PERCENT: u64 = 85;

/// How long a member that could commit waits for those who give no sign of life, or for their units, in microseconds.
const SIGNS_US_MAX: u64 = 15_000_000;

/// How long a member that began anew waits for further units, as a part of the round's time, and its bounds in microseconds.
const QUIET_PART: u64 = 16;
const QUIET_US: (u64, u64) = (2_000_000, SIGNS_US_MAX);

/// Who was asked for a sign of life, and who gave one.
#[derive(Debug)]
struct Signs {
    round: u64,
    missing: BTreeSet<PeerId>,
    /// Units that were counted here then.
    counted: usize,
    /// Until when; none once that time has come.
    until: Option<Time>,
}

/// What a member of one of several stages works with.
#[derive(Debug)]
pub(crate) struct Stages {
    pub(crate) pipeline: Pipeline,
    /// A task that waits until no job runs.
    waiting: Option<StageTask>,
    /// The round whose sum was asked for.
    sealing: Option<u64>,
    /// What is to be paid in.
    sealed: Option<(u64, Vec<UnitDone>)>,
    /// When that is tried again after it failed.
    retry_at: Option<Time>,
    backoff: Backoff,
    /// Signs of life that are waited for.
    signs: Option<Signs>,
    /// What others said that they will commit to, in which round.
    sealed_by: (u64, BTreeMap<PeerId, Vec<u32>>),
    /// The round that was open when this life began.
    resumed_in: Option<u64>,
    /// How long the validator keeps a round open, as it said last.
    round_time: Option<RoundTime>,
    /// When the round opened that the pipeline works in: another time for one that opened again with other members.
    opened_us: u64,
}

impl Stages {
    pub(crate) fn new(pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            waiting: None,
            sealing: None,
            sealed: None,
            retry_at: None,
            backoff: Backoff::default(),
            signs: None,
            sealed_by: (0, BTreeMap::new()),
            resumed_in: None,
            round_time: None,
            opened_us: 0,
        }
    }

    /// Notes the round in which this life begins: what was added up in it before is lost.
    pub(crate) fn resume(&mut self, round: Option<u64>) {
        self.resumed_in = round;
    }

    /// Notes how long the validator keeps a round open.
    pub(crate) fn note_round_time(&mut self, time: RoundTime) {
        self.round_time = Some(time);
    }

    /// What the open round showed about the links to the neighbouring stages.
    pub(crate) fn wishes(&self) -> LinkWishes {
        self.pipeline.wishes()
    }

    /// How large a part of the open round's work was computation, in percent.
    pub(crate) fn busy_percent(&self) -> u8 {
        self.pipeline.busy_percent()
    }

    /// Whether the sum of a round was asked for.
    pub(crate) fn is_sealed(&self, round: u64) -> bool {
        self.sealing == Some(round)
    }

    /// When the pipeline, or a round's time, wants to be looked at.
    pub(crate) fn next_due(&self) -> Option<Time> {
        let open = |signs: &&Signs| self.pipeline.round() == Some(signs.round) && !self.is_sealed(signs.round);
        let signs = self.signs.as_ref().filter(open).and_then(|signs| signs.until);
        [self.pipeline.poll_timeout(), signs, self.retry_at].into_iter().flatten().min()
    }

    /// Notes that a peer is there.
    pub(crate) fn note_sign(&mut self, from: PeerId) {
        if let Some(signs) = &mut self.signs {
            signs.missing.remove(&from);
        }
    }

    /// The units that a peer said it will commit to in a round.
    fn said_sealed(&self, round: u64, peer: &PeerId) -> &[u32] {
        let said = self.sealed_by.1.get(peer).filter(|_| self.sealed_by.0 == round);
        said.map_or(&[], Vec::as_slice)
    }

    /// Ends the wait for signs when its time has come: it is due once.
    fn end_wait(&mut self, now: Time) {
        if let Some(signs) = &mut self.signs {
            signs.until = signs.until.filter(|until| *until > now);
        }
    }
}

impl Peer {
    /// Whether the run has several stages.
    pub(crate) fn has_stages(&self) -> bool {
        self.ledger.charter().stages.len() > 1
    }

    /// Whether the payloads of a stage are needed for the own state.
    pub(crate) fn needs_stage(&self, stage: u16) -> bool {
        let distance = stage.abs_diff(self.config.stage);
        distance == 0 || self.config.neighbour_payloads && distance == 1
    }

    /// The open round, when this peer may have counted units in it before it began anew: then it had attested where it starts from, except
    /// in round 0.
    pub(crate) fn round_of_earlier_life(&self) -> Option<u64> {
        let open = self.ledger.round()?;
        let waits = |action: &Action| matches!(action, Action::Attest(attested) if attested.round == open.round);
        let attested = open.attestation(&self.id).is_some() || self.outbox.any(waits);
        (open.round == 0 || attested).then_some(open.round)
    }

    /// When most of the open round's time has passed, so that what is counted has to be committed. Time in which the validator was away
    /// does not count.
    pub(crate) fn seal_deadline(&self) -> Option<Time> {
        let (open, stages) = (self.ledger.round()?, self.stages.as_ref()?);
        let counts = stages.pipeline.round() == Some(open.round) && !stages.pipeline.done().is_empty();
        if !counts || stages.is_sealed(open.round) {
            return None;
        }
        let percent = if self.config.stage == 0 { FIRST_STAGE_SEALS_PERCENT } else { OTHER_STAGES_SEAL_PERCENT };
        let whole_us = open.deadline_us.saturating_sub(open.opened_us);
        let own = self.ordering.as_ref().map(|ordering| ordering.round_time(open));
        let told = own.or(stages.round_time).filter(|told| told.round == open.round).map_or(0, |told| told.until_us);
        let opened_us = open.deadline_us.max(told).saturating_sub(whole_us);
        Some(Time::from_micros(opened_us.saturating_add(whole_us / 100 * percent)))
    }

    /// Tells the pipeline something, and does what it wants.
    pub(crate) fn feed_pipeline(&mut self, input: PipelineInput, now: Time, out: &mut Vec<Output>) {
        let Some(stages) = &mut self.stages else { return };
        let mut wanted = Vec::new();
        stages.pipeline.handle(now, input, &mut wanted);
        for output in wanted {
            self.carry_out(output, now, out);
        }
    }

    fn carry_out(&mut self, output: PipelineOutput, now: Time, out: &mut Vec<Output>) {
        let Some(stages) = &mut self.stages else { return };
        match output {
            PipelineOutput::Send { to, message } => out.push(Output::Send { to, message }),
            PipelineOutput::Compute(task) => stages.waiting = Some(task),
            PipelineOutput::Cancel(task) => {
                stages.waiting = stages.waiting.take().filter(|waiting| waiting.id != task);
                if matches!(self.jobs.running(), Some(Job::Stage(running)) if running.id == task) {
                    self.cancel(out);
                }
            }
            // The shell keeps the activations of the newest forwards, and computes others again.
            PipelineOutput::Release(_) | PipelineOutput::Done(_) => {}
            PipelineOutput::Fault { peer, kind, evidence } if kind.is_certain() => {
                self.fault(peer, FaultKind::Stage(kind), evidence, now, out);
            }
            PipelineOutput::Fault { peer, kind, evidence } => {
                let round = self.target_round();
                out.push(Output::Fault(crate::Fault { peer, kind: FaultKind::Stage(kind), round, evidence }));
            }
            PipelineOutput::Sealed { round, units } => {
                self.tell_sealed(round, &units, out);
                if let Some(stages) = &mut self.stages {
                    stages.sealed = Some((round, units));
                }
            }
        }
    }

    /// Does all that is due in the stage.
    pub(crate) fn tend_stages(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.stages.is_none() {
            return;
        }
        self.follow_rounds(now, out);
        let due = self.stages.as_ref().and_then(Stages::next_due).is_some_and(|at| at <= now);
        if due {
            self.feed_pipeline(PipelineInput::Tick, now, out);
        }
        if let Some(stages) = &mut self.stages {
            stages.end_wait(now);
            stages.retry_at = stages.retry_at.filter(|at| *at > now);
        }
        if self.is_to_seal(now, out) {
            if let Some(stages) = &mut self.stages {
                stages.sealing = stages.pipeline.round();
            }
            self.feed_pipeline(PipelineInput::Seal, now, out);
        }
        self.start_stage_job(out);
    }

    /// Opens the pipeline for the open round once everything for it is here, and closes it with its round. A round that opened again goes
    /// on in the pipeline with its new members.
    fn follow_rounds(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(stages) = &self.stages else { return };
        let (at, seen_us) = (stages.pipeline.round(), stages.opened_us);
        let open = self.ledger.round().map(|open| open.round);
        let opened_us = self.ledger.round().map_or(0, |open| open.opened_us);
        let again = at.is_some() && at == open && seen_us != opened_us;
        let is_member = || self.ledger.round().is_some_and(|open| open.stage_of(&self.id) == Some(self.config.stage));
        if at.is_some() && (at != open || !self.takes_part() || again && !is_member()) {
            self.feed_pipeline(PipelineInput::RoundOver, now, out);
            if let Some(stages) = &mut self.stages {
                stages.waiting = None;
                stages.retry_at = None;
                stages.backoff.reset();
                stages.sealed = stages.sealed.take().filter(|(round, _)| Some(*round) == open);
            }
        } else if at.is_some() && !again {
            return;
        }
        let Some(view) = self.round_view() else { return };
        let round = view.round;
        if let Some(stages) = &mut self.stages {
            stages.opened_us = opened_us;
            stages.sealing = if view.sealed { Some(round) } else { stages.sealing };
        }
        self.feed_pipeline(PipelineInput::Round(view), now, out);
        if let Some(stages) = &self.stages {
            self.links.seek(&stages.pipeline.neighbours(), now);
        }
        for (peer, stage, units) in self.claims_of(round) {
            self.feed_pipeline(PipelineInput::Claimed { peer, stage, units }, now, out);
        }
    }

    /// What the pipeline has to know of the open round; none while something for it is missing.
    fn round_view(&self) -> Option<RoundView> {
        let (open, model) = (self.ledger.round()?, self.model?);
        let charter = self.ledger.charter();
        let stage = open.stage_of(&self.id).filter(|stage| *stage == self.config.stage)?;
        if !self.takes_part() || model.round != open.round || open.round >= charter.rounds {
            return None;
        }
        let stages = u16::try_from(charter.stages.len()).ok()?;
        Some(RoundView {
            round: open.round,
            stage,
            state_root: open.run_root()?,
            units: (0..open.units).map(|index| open.unit_id(index)).collect(),
            assignment: open.assignment(),
            members: (0..stages).map(|stage| open.members_of(stage).copied().collect()).collect(),
            unit_tokens: charter.unit_tokens,
            coarser: open.coarser.to_vec(),
            sealed: open.commitment(&self.id).is_some() || self.outbox_commits(open.round),
        })
    }

    /// The commitments to a round that are in blocks: whose, in which stage, of which units.
    fn claims_of(&self, round: u64) -> Vec<(PeerId, u16, Vec<u32>)> {
        // Since the first opening of the round: it may have opened again.
        let recent = self.chain.blocks.iter().rev().take_while(|block| !has_commitment_before(block, round));
        recent.flat_map(|block| claims_in(block, round)).collect()
    }

    /// Tells the pipeline whose commitments a block has.
    pub(crate) fn note_claims(&mut self, block: &Block, now: Time, out: &mut Vec<Output>) {
        let Some(round) = self.stages.as_ref().and_then(|stages| stages.pipeline.round()) else { return };
        for (peer, stage, units) in claims_in(block, round) {
            self.feed_pipeline(PipelineInput::Claimed { peer, stage, units }, now, out);
        }
    }

    /// Tells the members of the round what will be committed to.
    fn tell_sealed(&self, round: u64, units: &[UnitDone], out: &mut Vec<Output>) {
        let Some(open) = self.ledger.round().filter(|open| open.round == round && !units.is_empty()) else { return };
        let mut units: Vec<u32> = units.iter().map(|done| done.index).collect();
        units.sort_unstable();
        let message = Message::StageSealed(StageSealed { round, units });
        let members = self.links.up().filter(|peer| open.is_member(peer));
        out.extend(members.map(|to| Output::Send { to, message: message.clone() }));
    }

    /// Notes what a member of the open round will commit to. It may say so once.
    pub(crate) fn note_sealed(&mut self, from: PeerId, sealed: StageSealed) {
        let (Some(open), Some(stages)) = (self.ledger.round(), &mut self.stages) else { return };
        if sealed.round != open.round || !open.is_member(&from) {
            return;
        }
        if stages.sealed_by.0 != open.round {
            stages.sealed_by = (open.round, BTreeMap::new());
        }
        stages.sealed_by.1.entry(from).or_insert(sealed.units);
    }

    /// Whether nothing more is to be counted in this round.
    fn is_to_seal(&mut self, now: Time, out: &mut Vec<Output>) -> bool {
        let (Some(open), Some(stages)) = (self.ledger.round(), &self.stages) else { return false };
        let pipeline = &stages.pipeline;
        let counts = pipeline.round() == Some(open.round) && !pipeline.done().is_empty();
        if !counts || stages.is_sealed(open.round) {
            return false;
        }
        if self.seal_deadline().is_some_and(|at| at <= now) {
            return true;
        }
        let first_done = || {
            // A member of stage 0 speaks for its own units only: who lies about others' must not end the round.
            let assignment = open.assignment();
            let said = |unit: u32| {
                let owner = assignment.get(unit as usize);
                owner.is_some_and(|owner| stages.said_sealed(open.round, owner).contains(&unit))
            };
            (0..open.units).all(|unit| open.is_claimed(0, unit) || said(unit))
        };
        pipeline.is_idle() && (self.config.stage == 0 || first_done()) && self.others_are_there(now, out)
    }

    /// Whether whoever has still to claim units of the own stage gave a sign of life, or was waited for long enough. Asks for the signs.
    fn others_are_there(&mut self, now: Time, out: &mut Vec<Output>) -> bool {
        let (Some(open), Some(stages)) = (self.ledger.round(), &mut self.stages) else { return false };
        let stage = self.config.stage;
        let own: BTreeSet<u32> = stages.pipeline.done().iter().map(|done| done.index).collect();
        let said: BTreeSet<u32> =
            open.members_of(stage).flat_map(|peer| stages.said_sealed(open.round, peer).iter().copied()).collect();
        let open_here = |unit: &u32| !own.contains(unit) && !said.contains(unit) && !open.is_claimed(stage, *unit);
        let mut elsewhere = (0..open.units).filter(open_here);
        if elsewhere.next().is_none() {
            return true;
        }
        let resumed = stage > 0 && stages.resumed_in == Some(open.round);
        let quiet_us = (open.deadline_us.saturating_sub(open.opened_us) / QUIET_PART).clamp(QUIET_US.0, QUIET_US.1);
        let until = Some(now.after(if resumed { quiet_us } else { SIGNS_US_MAX }));
        match &mut stages.signs {
            Some(signs) if signs.round == open.round => {
                if resumed && signs.counted != own.len() {
                    (signs.counted, signs.until) = (own.len(), until);
                }
            }
            signs => {
                let others = open.members_of(stage).filter(|peer| **peer != self.id && open.commitment(peer).is_none());
                // Of a large stage only some are connected; others of it look after the rest.
                let near = stages.pipeline.neighbours();
                let missing: BTreeSet<PeerId> =
                    others.filter(|peer| near.contains(peer) || self.links.is_up(**peer)).copied().collect();
                let message = Message::BlocksWanted { from_height: self.ledger.height().saturating_sub(1) };
                out.extend(missing.iter().map(|peer| Output::Send { to: *peer, message: message.clone() }));
                *signs = Some(Signs { round: open.round, missing, counted: own.len(), until });
            }
        }
        let Some(signs) = &stages.signs else { return false };
        let nobody = open.members_of(stage).all(|peer| *peer == self.id || open.commitment(peer).is_some());
        signs.missing.is_empty() && !nobody && !resumed || signs.until.is_none()
    }

    /// Starts the payload, or else the task that waits, when no other job runs.
    fn start_stage_job(&mut self, out: &mut Vec<Output>) {
        if self.jobs.running().is_some() {
            return;
        }
        let (Some(stages), Some(model)) = (&mut self.stages, self.model) else { return };
        if stages.retry_at.is_none()
            && let Some((round, units)) = stages.sealed.take()
            && round == model.round
            && !units.is_empty()
        {
            self.jobs.run(Job::Contribute { round, state_root: model.state_root, units }, out);
        } else if let Some(task) = stages.waiting.take() {
            self.jobs.run(Job::Stage(task), out);
        }
    }

    /// Plans to make a round's payload again: what went wrong may be over then, and no other peer has what was added up here.
    pub(crate) fn contribute_later(&mut self, round: u64, units: Vec<UnitDone>, reason: String, now: Time) {
        self.last_failure = Some(reason);
        let Some(stages) = self.stages.as_mut().filter(|stages| stages.pipeline.round() == Some(round)) else { return };
        stages.sealed = Some((round, units));
        stages.retry_at = Some(now.after(stages.backoff.next_us(&self.pace)));
    }

    /// Takes the result of a task.
    pub(crate) fn on_stage_result(&mut self, task: &StageTask, result: JobResult, now: Time, out: &mut Vec<Output>) {
        let result = match result {
            JobResult::Stage(result) => result,
            JobResult::Failed { reason, .. } => StageResult::Failed { reason },
            other => StageResult::Failed { reason: format!("the result does not belong to a task: {other:?}") },
        };
        if let StageResult::Failed { reason } = &result {
            self.last_failure = Some(reason.clone());
        }
        self.feed_pipeline(PipelineInput::Computed { task: task.id, result }, now, out);
    }
}

/// Whether a block has a commitment to a round before this one.
fn has_commitment_before(block: &Block, round: u64) -> bool {
    let mut transactions = block.transactions.iter();
    transactions.any(|transaction| matches!(&transaction.body.action, Action::Commit(made) if made.round < round))
}

/// The commitments to a round in one block.
fn claims_in(block: &Block, round: u64) -> impl Iterator<Item = (PeerId, u16, Vec<u32>)> + '_ {
    block.transactions.iter().filter_map(move |transaction| match &transaction.body.action {
        Action::Commit(commitment) if commitment.round == round => {
            let stage = commitment.receipts.first()?.body.stage;
            let units = commitment.receipts.iter().map(|receipt| receipt.body.index).collect();
            Some((transaction.signer, stage, units))
        }
        _ => None,
    })
}

//! A peer's part in the rounds: join, attest, train, commit, apply.
//!
//! Purpose: every peer ends each round with the same state, and is paid for the units it did.
//!
//! Source: section 2 of the training design ("committed set"); receipts are section 2 of the verification design.
//!
//! Message sequence, all by transactions: `Join` once the own model is at most one round behind → a round opens → the peer
//! applied the set before it: `Attest` its root → it trains its units: `Commit` payload and receipts → the round closes →
//! every peer fetches the payloads and applies the set. After the last round: `Attest` the final root, then rest.
//!
//! Deviations: training starts from the own root before a majority attested it, so that nobody waits for the slowest; the
//! commitment waits at the validator until the root is canonical. A peer whose own root turns out to differ halts.
//!
//! Safety: a commitment is made once per round and made durable before it is sent; a peer that crashed in between does the
//! same units again from the same state and signs the same receipts. Liveness: every step is derived anew from ledger and
//! model after every input, so there is no step to be lost.
//!
//! What it does not do: it does not judge others' work beyond the attested roots.

use wire::{Action, Attestation, Commitment, Hash, LinkWishes, Receipt, Signed};

use crate::backoff::Backoff;
use crate::catchup::Plan;
use crate::stages::Stages;
use crate::{Event, HaltReason, Job, JobId, JobResult, ModelPoint, Output, Peer, Time, UnitAssignment, UnitResult};

/// The job under way, and when to try a failed one again.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    running: Option<(JobId, Job)>,
    started: u64,
    backoff: Backoff,
    retry_at: Option<Time>,
    /// The payload of the own commitment that was made last, and its round.
    own_payload: Option<(u64, Hash)>,
}

impl Jobs {
    /// The job under way.
    pub(crate) fn running(&self) -> Option<&Job> {
        self.running.as_ref().map(|(_, job)| job)
    }

    /// Starts a job; none runs.
    pub(crate) fn run(&mut self, work: Job, out: &mut Vec<Output>) {
        let job = JobId(self.started);
        self.started += 1;
        self.running = Some((job, work.clone()));
        out.push(Output::Compute { job, work });
    }

    /// When a failed job is tried again.
    pub(crate) fn next_retry(&self) -> Option<Time> {
        self.retry_at
    }
}

impl Peer {
    /// Whether this peer joins, attests and trains.
    pub(crate) fn takes_part(&self) -> bool {
        self.config.trains && !self.stopping && !self.paused && !self.moves && self.halted.is_none()
    }

    /// Whether an own commitment to a round waits for a block.
    pub(crate) fn outbox_commits(&self, round: u64) -> bool {
        self.outbox.any(|action| matches!(action, Action::Commit(commitment) if commitment.round == round))
    }

    /// Does all that follows from ledger and model.
    pub(crate) fn advance(&mut self, now: Time, out: &mut Vec<Output>) {
        self.check_own_state(out);
        self.tell_finished(out);
        self.join(now, out);
        self.leave_while_paused(now, out);
        self.move_if_advised(now, out);
        self.tell_move(out);
        self.attest(now, out);
        let rests = self.halted.is_some() || self.moves || self.paused;
        let plan = if rests { Plan::Rest } else { self.plan() };
        self.cancel_unless(&plan, out);
        self.update_needs(&plan, now);
        self.start_job(&plan, now, out);
        self.tend_stages(now, out);
        // A task of a round that is over was given up just now: nothing else may happen that starts what was waiting for it.
        self.start_job(&plan, now, out);
    }

    /// Takes a job's result; one that is not of the current job is ignored.
    pub(crate) fn on_computed(&mut self, job: JobId, result: JobResult, now: Time, out: &mut Vec<Output>) {
        let Some((_, work)) = self.jobs.running.take_if(|(running, _)| *running == job) else { return };
        let round = work.round();
        match (work, result) {
            (Job::Stage(task), result) => self.on_stage_result(&task, result, now, out),
            (Job::Contribute { units, .. }, JobResult::Failed { reason, fatal: false }) => {
                self.contribute_later(round, units, reason, now);
            }
            (work, JobResult::Failed { reason, fatal: false }) => self.retry_later(&work, reason, now),
            (_, JobResult::Failed { reason, fatal: true }) => self.halt(HaltReason::JobFailed { round, reason }, out),
            (
                work @ (Job::Work { state_root, .. } | Job::Contribute { state_root, .. }),
                JobResult::Worked { round: worked, units: results, payload, payload_bytes, residual_root },
            ) if worked == round && matches_units(&work.assignments(), &results) && payload_bytes > 0 => {
                let receipts = self.receipts(round, state_root, &work.assignments(), &results);
                self.jobs.own_payload = Some((round, payload));
                self.fetches.hold(payload);
                let wishes = self.stages.as_ref().map_or_else(LinkWishes::default, Stages::wishes);
                let busy_percent = self.stages.as_ref().map_or(0, Stages::busy_percent);
                let commitment =
                    Commitment { round, payload, payload_bytes, residual_root, wishes, busy_percent, receipts };
                self.jobs.backoff.reset();
                self.act(Action::Commit(commitment.clone()), now, out);
                self.announce_payload(&commitment, out);
            }
            (Job::OuterStep { own_committed, .. }, JobResult::Stepped { round: stepped, state_root })
                if stepped == round + 1 =>
            {
                self.set_model(ModelPoint { round: stepped, state_root }, out);
                self.drop_unsent(round, own_committed, out);
            }
            (
                Job::LoadState { state_root, own_committed_round, .. },
                JobResult::Loaded { round: loaded, state_root: root },
            ) if loaded == round && root == state_root => {
                self.set_model(ModelPoint { round, state_root }, out);
                let made = self.jobs.own_payload.map(|(made, _)| made);
                self.drop_unsent(round.saturating_sub(1), own_committed_round >= made, out);
            }
            (work, result) => {
                let reason = format!("the result does not belong to the job: {work:?} gave {result:?}");
                self.halt(HaltReason::JobFailed { round, reason }, out);
            }
        }
    }

    /// Stops taking part. Blocks are still taken, given and, on a validator, made.
    pub(crate) fn halt(&mut self, reason: HaltReason, out: &mut Vec<Output>) {
        if self.halted.is_none() {
            self.cancel(out);
            self.halted = Some(reason.clone());
            out.push(Output::Halt(reason));
        }
    }

    /// Gives the current job up.
    pub(crate) fn cancel(&mut self, out: &mut Vec<Output>) {
        if let Some((job, _)) = self.jobs.running.take() {
            out.push(Output::Cancel(job));
        }
    }

    fn set_model(&mut self, model: ModelPoint, out: &mut Vec<Output>) {
        self.model = Some(model);
        self.load = self.load.filter(|load| load.round > model.round);
        self.jobs.backoff.reset();
        self.fetches.hold(model.state_root);
        self.needs_changed = true;
        out.push(Output::Event(Event::StateApplied { round: model.round, state_root: model.state_root }));
    }

    /// An own payload that missed its round is of no use to anybody.
    fn drop_unsent(&mut self, round: u64, own_committed: bool, out: &mut Vec<Output>) {
        if let Some((_, payload)) = self.jobs.own_payload.take_if(|(made, _)| *made <= round)
            && !own_committed
        {
            self.forget_unless_kept(vec![payload], out);
        }
    }

    /// Compares the own state with the canonical one of its round.
    fn check_own_state(&mut self, out: &mut Vec<Output>) {
        let Some(model) = self.model else { return };
        let expected = match model.round {
            0 => Some(self.stage_terms().genesis_state),
            round => self.ledger.state_root(self.config.stage, round),
        };
        if let Some(expected) = expected.filter(|expected| *expected != model.state_root) {
            let reason = HaltReason::StateDivergence { round: model.round, expected, got: model.state_root };
            self.halt(reason, out);
        }
    }

    fn tell_finished(&mut self, out: &mut Vec<Output>) {
        if !self.told_finished && self.is_finished() {
            self.told_finished = true;
            self.cancel(out);
            let (rounds, state_root) =
                self.model.map_or_else(Default::default, |model| (model.round, model.state_root));
            out.push(Output::Event(Event::Finished { rounds, state_root }));
        }
    }

    /// Joins, once the model is close enough to take part in the next round and the ledger is level with a validator's. Where the weights
    /// are split a newcomer joins before it has a model, since nobody gives it the state of a stage to which it is not bound.
    fn join(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.takes_part() {
            return;
        }
        let target = self.target_round();
        let is_bound = self.ledger.account(&self.id).is_some();
        let ready = self.model.is_some_and(|model| model.round + 1 >= target) || self.is_split() && !is_bound;
        let waits = self.outbox.any(|action| matches!(action, Action::Join { .. }));
        if !ready || waits || self.ledger.finished() || !self.is_level() {
            return;
        }
        let standing = self.ledger.account(&self.id).map_or_else(Default::default, |account| account.standing);
        if matches!(standing, ledger::Standing::Out | ledger::Standing::Leaving) {
            let (stage, operator) = (self.config.stage, self.config.operator.clone());
            let named = operator.as_ref().map_or(self.id, |certificate| certificate.signer);
            if let Err(rejection) = self.ledger.check_operator(named, stage) {
                return self.halt(HaltReason::MayNotJoin { stage, reason: rejection.to_string() }, out);
            }
            let sequence = self.ledger.next_sequence(&self.id);
            self.act(Action::Join { sequence, stage, operator }, now, out);
        }
    }

    /// Leaves as long as it is a member and paused: also after a join that was under way when the pause began. Both follow from the ledger
    /// alone, so that a pause and its end may come at any moment.
    fn leave_while_paused(&mut self, now: Time, out: &mut Vec<Output>) {
        let waits = self.outbox.any(|action| matches!(action, Action::Leave { .. }));
        if !self.paused || waits || self.stopping || self.ledger.finished() {
            return;
        }
        let standing = self.ledger.account(&self.id).map(|account| account.standing);
        if matches!(standing, Some(ledger::Standing::Joining | ledger::Standing::Member)) {
            self.act(Action::Leave { sequence: self.ledger.next_sequence(&self.id) }, now, out);
        }
    }

    /// Whether the own ledger has all blocks of a connected validator.
    fn is_level(&self) -> bool {
        let height = self.ledger.height();
        self.ordering.is_some() || self.links.validators_up().any(|peer| self.links.is_greeted_at_most(peer, height))
    }

    /// Attests the own state of the open round. Round 0 starts from the charter's state: there is nothing to attest.
    fn attest(&mut self, now: Time, out: &mut Vec<Output>) {
        let (Some(open), Some(model)) = (self.ledger.round(), self.model) else { return };
        let round = open.round;
        let waits = self.outbox.any(|action| matches!(action, Action::Attest(attested) if attested.round == round));
        let may = open.is_member(&self.id) && open.attestation(&self.id).is_none();
        if round == 0 || model.round != round || !may || waits || !self.takes_part() {
            return;
        }
        let attestation = Attestation { round, stage: self.config.stage, state_root: model.state_root };
        self.act(Action::Attest(attestation), now, out);
    }

    /// Cancels training that the plan no longer asks for. Steps and loads are short or cannot be had cheaper: they end.
    fn cancel_unless(&mut self, plan: &Plan, out: &mut Vec<Output>) {
        let Some(Job::Work { units: current, state_root: from, .. }) = self.jobs.running() else { return };
        let wanted = matches!(plan, Plan::Work { units, state_root, .. } if units == current && state_root == from);
        if !wanted {
            self.cancel(out);
        }
    }

    fn start_job(&mut self, plan: &Plan, now: Time, out: &mut Vec<Output>) {
        self.jobs.retry_at = self.jobs.retry_at.filter(|at| *at > now);
        if self.jobs.running.is_some() || self.jobs.retry_at.is_some() {
            return;
        }
        let Some(work) = self.job_of(plan) else { return };
        self.jobs.run(work, out);
    }

    /// Plans to try a failed job again. Blobs that it was made from are asked for anew: one may have been lost.
    fn retry_later(&mut self, work: &Job, reason: String, now: Time) {
        let blobs: Vec<Hash> = match work {
            Job::Work { .. } | Job::Stage(_) | Job::Contribute { .. } => Vec::new(),
            Job::OuterStep { committed, .. } => {
                let needed = committed.entries.iter().filter(|entry| self.needs_stage(entry.stage));
                needed.map(|entry| entry.payload).collect()
            }
            Job::LoadState { state_root, .. } => vec![*state_root],
        };
        self.fetches.forget(&blobs);
        self.needs_changed = true;
        self.jobs.retry_at = Some(now.after(self.jobs.backoff.next_us(&self.pace)));
        self.last_failure = Some(reason);
    }

    fn receipts(
        &self,
        round: u64,
        state_in: Hash,
        units: &[UnitAssignment],
        results: &[UnitResult],
    ) -> Vec<Signed<Receipt>> {
        let counters = self.ledger.next_counter(&self.id)..;
        let receipts = units.iter().zip(results).zip(counters).map(|((unit, result), counter)| Receipt {
            run: self.run,
            round,
            index: unit.index,
            stage: self.config.stage,
            unit: unit.unit,
            state_in,
            data_root: result.data_root,
            trace_root: result.trace_root,
            output_root: result.output_root,
            tokens: result.tokens,
            loss_micronats: result.loss_micronats,
            counter,
        });
        receipts.map(|receipt| self.identity.sign(receipt)).collect()
    }
}

fn matches_units(units: &[UnitAssignment], results: &[UnitResult]) -> bool {
    units.len() == results.len() && units.iter().zip(results).all(|(unit, result)| unit.index == result.index)
}

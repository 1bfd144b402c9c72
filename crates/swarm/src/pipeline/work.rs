//! The own trainer: which task runs next, and what follows from its result.
//!
//! Order: "one forward, one backward" (Narayanan et al., 2019). A backward pass goes before a forward pass, but after a
//! backward pass the next stage gets its turn, when there is room in the window: otherwise gradients that come back in a clump
//! would go out as a clump again, with the next stage idle in between. Among equals the oldest unit is first.

use wire::{Hash, RefusalReason};

use super::fault::StageFault;
use super::item::{Below, Item, Key, Step};
use super::open::{Kept, Open, fault, shared};
use super::signals::PipelineOutput;
use super::task::{StageResult, StageTask, StageTaskId, StageTaskKind, UnitDone};
use crate::Time;
use crate::limits::ERROR_TEXT_BYTES_MAX;

impl Open {
    /// Starts a task when none runs and one may.
    pub(crate) fn start_task(&mut self, kept: &mut Kept, now: Time, out: &mut Vec<PipelineOutput>) {
        if self.running.is_some() {
            return;
        }
        let key = match std::mem::take(&mut self.forward_next) {
            true => self.next_forward(kept, now, out).or_else(|| self.next_backward(now)),
            false => self.next_backward(now).or_else(|| self.next_forward(kept, now, out)),
        };
        let Some(key) = key else { return };
        let id = StageTaskId(kept.tasks);
        kept.tasks += 1;
        let (last, counts) = (self.is_last(), self.counts(key.0));
        let item = self.items.get_mut(&key).expect("the unit is here");
        let input = item.input.clone();
        let kind = match (item.step, &item.gradient) {
            (Step::Returned, Some(gradient)) => {
                let forward = item.forward.expect("forward ran before backward");
                item.step = Step::Adding;
                self.forward_next = true;
                StageTaskKind::Backward { forward, input, gradient: gradient.clone() }
            }
            _ if last => {
                item.step = Step::Adding;
                StageTaskKind::Turn { input }
            }
            _ => {
                (item.step, item.forward) = (Step::Forward, Some(id));
                StageTaskKind::Forward { input }
            }
        };
        let counted = counts && item.step == Step::Adding;
        self.running = Some((id, key, counted));
        self.gauge.begin(now);
        let unit = self.view.units[key.0 as usize];
        let coarser = |boundary: Option<usize>| boundary.and_then(|at| self.view.coarser.get(at)).copied().unwrap_or(0);
        out.push(PipelineOutput::Compute(StageTask {
            id,
            round: self.view.round,
            index: key.0,
            unit,
            counted,
            coarser_before: coarser(self.stage().checked_sub(1)),
            coarser_after: coarser(Some(self.stage())),
            kind,
        }));
    }

    /// When a failed task may be tried again.
    pub(crate) fn next_retry(&self, now: Time) -> Option<Time> {
        let waits = self.items.values().filter(|item| matches!(item.step, Step::Ready | Step::Returned));
        waits.map(|item| item.retry_at).filter(|at| *at > now).min()
    }

    /// Takes a task's result; one that is not of the current task is ignored.
    pub(crate) fn on_computed(
        &mut self,
        kept: &Kept,
        task: StageTaskId,
        result: StageResult,
        now: Time,
        out: &mut Vec<PipelineOutput>,
    ) {
        let Some((_, key, counted)) = self.running.take_if(|(id, _, _)| *id == task) else { return };
        self.gauge.end(matches!(result, StageResult::Turn { .. } | StageResult::Backward { .. }), now);
        let current = |item: &&mut Item| item.step == Step::Adding || item.forward == Some(task);
        let Some(item) = self.items.get_mut(&key).filter(current) else {
            // Given up while it ran forward, and perhaps begun anew.
            out.push(PipelineOutput::Release(task));
            return;
        };
        let max = kept.config.message_bytes_max;
        let fits = |bytes: &Vec<u8>| !bytes.is_empty() && bytes.len() as u64 <= max;
        let gradient_fits = |gradient: &Option<Vec<u8>>| match gradient {
            Some(gradient) => item.sender.is_some() && fits(gradient),
            None => item.sender.is_none(),
        };
        let turn = item.gradient.is_none();
        match (item.step, result) {
            (Step::Forward, StageResult::Forward { output }) if fits(&output) => {
                (item.output_hash, item.output) = (Hash::of(&output), Some(shared(output)));
                (item.step, item.below, item.forwarded) = (Step::Below, Below::Wanted, now);
            }
            (Step::Adding, StageResult::Turn { loss_micronats, gradient }) if turn && gradient_fits(&gradient) => {
                self.finish(kept, key, gradient, (loss_micronats, counted), out);
            }
            (Step::Adding, StageResult::Backward { gradient }) if !turn && gradient_fits(&gradient) => {
                self.finish(kept, key, gradient, (0, counted), out);
            }
            (_, StageResult::Invalid { what }) => self.invalid(kept, key, &what, now, out),
            (_, _) => self.failed(kept, key, now, out),
        }
    }

    /// The oldest unit whose gradient is here.
    fn next_backward(&self, now: Time) -> Option<Key> {
        let returned = self.items.iter().filter(|(_, item)| item.step == Step::Returned && item.retry_at <= now);
        returned.min_by_key(|(_, item)| item.sequence).map(|(key, _)| *key)
    }

    /// The oldest unit that waits for its first task, when there is room to begin one.
    fn next_forward(&mut self, kept: &mut Kept, now: Time, out: &mut Vec<PipelineOutput>) -> Option<Key> {
        if self.is_full(&kept.config) {
            self.refuse_waiting(kept, now, out);
            return None;
        }
        let ready = self.items.iter().filter(|(_, item)| item.step == Step::Ready && item.retry_at <= now);
        let room = self.counted() < kept.config.units_max;
        let able = ready.filter(|(key, item)| {
            (room || !self.counts(key.0)) && self.may_work(key.0) && self.can_go_on(kept, key.0, item.recall)
        });
        let key = able.min_by_key(|(_, item)| item.sequence).map(|(key, _)| *key)?;
        if !self.is_last() && self.under_way() >= kept.window.size() {
            if self.next_backward(now).is_none() {
                kept.window.starve();
            }
            return None;
        }
        let message = kept.config.message_bytes_max;
        let waiting = self.items[&key].bytes(message);
        let bytes = self.bytes(&kept.config).saturating_sub(waiting).saturating_add(message.saturating_mul(4));
        (bytes <= kept.config.held_bytes_max).then_some(key)
    }

    /// Units that are done left no room for another one: those that wait are better off elsewhere.
    fn refuse_waiting(&mut self, kept: &Kept, now: Time, out: &mut Vec<PipelineOutput>) {
        let waiting = self.items.iter().filter(|(_, item)| item.step == Step::Ready && item.sender.is_some());
        let waiting: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        for key in waiting {
            self.refuse_item(kept, key, RefusalReason::Full, now, out);
        }
    }

    /// A unit is done: it is listed when it is counted, and answered.
    fn finish(
        &mut self,
        kept: &Kept,
        key: Key,
        gradient: Option<Vec<u8>>,
        (loss_micronats, counted): (u64, bool),
        out: &mut Vec<PipelineOutput>,
    ) {
        let in_blocks = self.claims.has_from(self.stage() + 1, key.0);
        let unit = self.view.units[key.0 as usize];
        let item = self.items.get_mut(&key).expect("the unit is here");
        item.step = Step::Done;
        if counted {
            let gradient_in = item.gradient_in.map_or_else(Hash::default, |(hash, _)| hash);
            let gradient_out = gradient.as_ref().map_or_else(Hash::default, |gradient| Hash::of(gradient));
            let (input, output) = (key.1, item.output_hash);
            let done = UnitDone { index: key.0, unit, input, output, gradient_in, gradient_out, loss_micronats };
            self.done.push(done);
            out.push(PipelineOutput::Done(done));
        }
        (item.input, item.gradient, item.forward) = (None, None, None);
        item.reply = gradient.map(shared);
        if in_blocks {
            (item.below, item.output) = (Below::Nobody, None);
        }
        for caller in std::mem::take(&mut item.callers) {
            self.answer(kept, key, caller, out);
        }
    }

    /// The trainer found that bytes of another peer are no message of the right shape.
    fn invalid(&mut self, kept: &Kept, key: Key, what: &str, now: Time, out: &mut Vec<PipelineOutput>) {
        let unit = self.view.units[key.0 as usize];
        let item = self.items.get_mut(&key).expect("the unit is here");
        let mut end = what.len().min(ERROR_TEXT_BYTES_MAX);
        while !what.is_char_boundary(end) {
            end -= 1;
        }
        let kind = StageFault::BadBytes { unit, what: what[..end].to_owned() };
        if let Some((hash, from)) = item.gradient_in.take_if(|_| item.gradient.is_some()) {
            // The gradient is at fault: another replica is asked.
            item.avoid.insert(from);
            (item.gradient, item.step, item.below, item.recall) = (None, Step::Below, Below::Wanted, true);
            item.trail.clear();
            fault(out, from, kind, Some(hash));
        } else if let Some(sender) = item.sender {
            fault(out, sender, kind, Some(key.1));
            self.refuse_item(kept, key, RefusalReason::BadInput, now, out);
        } else {
            self.failed(kept, key, now, out);
        }
    }

    /// A task went wrong here: a caller is better off elsewhere; an own unit is tried again.
    fn failed(&mut self, kept: &Kept, key: Key, now: Time, out: &mut Vec<PipelineOutput>) {
        let item = self.items.get_mut(&key).expect("the unit is here");
        if item.sender.is_some() {
            self.refuse_item(kept, key, RefusalReason::Failed, now, out);
        } else {
            item.step = if item.gradient.is_some() { Step::Returned } else { Step::Ready };
            item.retry_at = now.after(kept.config.retry_us);
        }
    }
}

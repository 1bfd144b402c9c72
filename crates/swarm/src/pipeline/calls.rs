//! Calls from the stage before: which are taken, which are answered from what is kept, and which are refused.

use wire::{Hash, PeerId, RefusalReason, StageCall};

use super::config::{CALLS_PER_UNIT_MAX, INPUTS_PER_UNIT_MAX};
use super::fault::StageFault;
use super::item::{Item, Key, Step};
use super::open::{Counting, Kept, Open, fault, shared};
use super::signals::PipelineOutput;
use crate::Time;

impl Open {
    /// Takes a call.
    pub(crate) fn on_call(
        &mut self,
        kept: &Kept,
        from: PeerId,
        call: StageCall,
        now: Time,
        out: &mut Vec<PipelineOutput>,
    ) {
        let name = (call.round, call.stage, call.index);
        if call.round != self.view.round {
            self.refuse(kept, from, name, RefusalReason::WrongRound, now, out);
            return;
        }
        if self.is_of_another_view(from, &call) {
            self.refuse(kept, from, name, RefusalReason::WrongStage, now, out);
            return;
        }
        if let Some((kind, reason)) = self.wrong(kept, from, &call) {
            fault(out, from, kind, (!call.input.is_empty()).then(|| Hash::of(&call.input)));
            self.refuse(kept, from, name, reason, now, out);
            return;
        }
        let (since, count) = self.calls.entry((from, call.index)).or_default();
        if now.since(*since) >= kept.config.timeout_us_min {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count > CALLS_PER_UNIT_MAX {
            if *count == CALLS_PER_UNIT_MAX + 1 {
                fault(out, from, StageFault::Flood, None);
            }
            return;
        }
        match self.known(&call) {
            Some(key) => self.join(kept, key, from, out),
            None if call.input.is_empty() => self.refuse(kept, from, name, RefusalReason::Unknown, now, out),
            None => match self.admit(kept, from, &call, out) {
                Ok(()) => self.take(from, call),
                Err(reason) => {
                    // Nothing was done for this call: it does not count against the caller.
                    self.calls.entry((from, call.index)).and_modify(|(_, count)| *count -= 1);
                    self.refuse(kept, from, name, reason, now, out);
                }
            },
        }
    }

    /// Forgets how often a peer called: it has a new connection.
    pub(crate) fn forgive(&mut self, peer: PeerId) {
        self.calls.retain(|(caller, _), _| *caller != peer);
    }

    /// Takes a caller away. A unit that nobody waits for any more is given up, unless it is added up already: whoever
    /// needs it then calls again, here or elsewhere, and it must not be added up in both places.
    pub(crate) fn caller_down(&mut self, peer: PeerId, out: &mut Vec<PipelineOutput>) {
        for item in self.items.values_mut() {
            item.callers.remove(&peer);
        }
        let orphans: Vec<Key> = self.items.iter().filter(|(_, item)| item.is_orphan()).map(|(key, _)| *key).collect();
        for key in orphans {
            self.drop_item(key, out);
        }
    }

    /// Whether a call would be good if caller or callee were members of other stages: one of them may have moved when the round opened
    /// again, and the other not know it yet.
    fn is_of_another_view(&self, from: PeerId, call: &StageCall) -> bool {
        let stages = self.view.members.len();
        let moved_here = call.stage != self.view.stage && (1..stages).contains(&usize::from(call.stage));
        let of_stage = |stage: usize| self.members(stage).binary_search(&from).is_ok();
        let caller_moved = self.view.stage > 0 && !of_stage(self.stage() - 1) && (0..stages).any(of_stage);
        moved_here || caller_moved
    }

    /// What no honest neighbour's call would have.
    fn wrong(&self, kept: &Kept, from: PeerId, call: &StageCall) -> Option<(StageFault, RefusalReason)> {
        let wrong = |what, reason| Some((StageFault::WrongCall { what }, reason));
        if call.stage != self.view.stage || call.stage == 0 {
            return wrong("another stage", RefusalReason::WrongStage);
        }
        if self.members(self.stage() - 1).binary_search(&from).is_err() {
            return wrong("the caller is not in the stage before", RefusalReason::WrongStage);
        }
        if call.state_root != self.view.state_root {
            let kind = StageFault::StaleState { expected: self.view.state_root, got: call.state_root };
            return Some((kind, RefusalReason::WrongState));
        }
        if self.view.units.get(call.index as usize) != Some(&call.unit) {
            return wrong("another unit", RefusalReason::BadInput);
        }
        if call.input.len() as u64 > kept.config.message_bytes_max {
            let kind = StageFault::BadBytes { unit: call.unit, what: format!("{} bytes", call.input.len()) };
            return Some((kind, RefusalReason::BadInput));
        }
        None
    }

    /// The unit that a call is about, when it is here. A call without bytes means the one that is counted.
    fn known(&self, call: &StageCall) -> Option<Key> {
        if call.input.is_empty() {
            return self.items_of(call.index).min_by_key(|(_, item)| item.sequence).map(|(key, _)| *key);
        }
        let key = (call.index, Hash::of(&call.input));
        self.items.contains_key(&key).then_some(key)
    }

    /// Answers from what is kept, or adds the caller to those that wait.
    fn join(&mut self, kept: &Kept, key: Key, from: PeerId, out: &mut Vec<PipelineOutput>) {
        let item = self.items.get_mut(&key).expect("the unit is here");
        if item.step == Step::Done {
            self.answer(kept, key, from, out);
        } else {
            item.callers.insert(from);
        }
    }

    /// Whether there is room for a new unit.
    fn admit(
        &self,
        kept: &Kept,
        from: PeerId,
        call: &StageCall,
        out: &mut Vec<PipelineOutput>,
    ) -> Result<(), RefusalReason> {
        let config = &kept.config;
        let others: Vec<(&Key, &Item)> = self.items_of(call.index).collect();
        if let Some((key, item)) = others.first() {
            let (earlier, got) = (key.1, Hash::of(&call.input));
            let earlier_from = item.sender.unwrap_or(kept.own);
            let kind = StageFault::Mismatch { unit: call.unit, earlier, earlier_from, got };
            fault(out, from, kind, Some(got));
            if others.len() >= INPUTS_PER_UNIT_MAX || others.iter().any(|(_, item)| item.sender == Some(from)) {
                return Err(RefusalReason::BadInput);
            }
        }
        if !self.may_work(call.index) {
            return Err(RefusalReason::Full);
        }
        if !self.can_go_on(kept, call.index, call.again) {
            return Err(RefusalReason::NoRoute);
        }
        let waiting = self.items.values().filter(|item| item.step == Step::Ready);
        let waiting = u32::try_from(waiting.count()).unwrap_or(u32::MAX);
        let counts = self.counts(call.index);
        if self.is_full(config) || counts && self.counted().saturating_add(waiting) >= config.units_max {
            return Err(RefusalReason::Full);
        }
        let room = self.bytes(config).saturating_add(config.message_bytes_max.saturating_mul(5));
        if waiting >= config.calls_queued_max || room > config.held_bytes_max {
            return Err(RefusalReason::Busy);
        }
        Ok(())
    }

    /// Whether a unit that runs forward here could be handed on. One that may have been done below only needs its answer.
    pub(crate) fn can_go_on(&self, kept: &Kept, index: u32, again: bool) -> bool {
        let up = |peer| kept.up.contains(&peer);
        let somebody = || self.replicas().iter().any(|peer| up(*peer));
        self.is_last() || kept.routes.any_open(up) || (again || self.is_taken_below(index)) && somebody()
    }

    fn take(&mut self, from: PeerId, call: StageCall) {
        let key = (call.index, Hash::of(&call.input));
        let mut item = Item::new(self.next_sequence(), Some(shared(call.input)), call.again);
        item.sender = Some(from);
        item.callers.insert(from);
        item.trail = if self.is_last() { Vec::new() } else { call.hint };
        self.items.insert(key, item);
    }

    /// Counts nothing more. Units that could only be counted are given up; their callers find another replica.
    pub(crate) fn seal(&mut self, kept: &Kept, now: Time, out: &mut Vec<PipelineOutput>) {
        if self.counting != Counting::Open {
            return;
        }
        self.counting = Counting::Closing;
        let useless = |(key, item): &(&Key, &Item)| {
            !matches!(item.step, Step::Adding | Step::Done) && !self.claims.has(self.stage(), key.0)
        };
        let useless: Vec<Key> = self.items.iter().filter(useless).map(|(key, _)| *key).collect();
        for key in useless {
            self.refuse_item(kept, key, RefusalReason::Full, now, out);
        }
    }

    /// Gives the list of what is counted, once nothing can come to it.
    pub(crate) fn tell_sealed(&mut self, out: &mut Vec<PipelineOutput>) {
        let adding = self.running.is_some_and(|(_, _, counted)| counted);
        if self.counting == Counting::Closing && !adding {
            self.counting = Counting::Sealed;
            out.push(PipelineOutput::Sealed { round: self.view.round, units: self.done.clone() });
        }
    }
}

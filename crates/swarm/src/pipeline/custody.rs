//! Calls to the next stage: a caller looks after its units there until they are in blocks.
//!
//! A unit below goes through the states of [`Below`]:
//!
//! ```text
//!              ┌────────── refused, not answered, gone, useless ◄─────┐
//!              ▼                                                      │
//! Nobody ──► Wanted ──► Seeking (does somebody know it?) ──► Called ──┴──► Served ──► Nobody (all is in blocks)
//!              ▲                 └─────────── yes ─────────────────────────▲  │ gone
//!              └── gone too long, or it forgot ── Checking ◄── back ── Lapsed ◄┘
//! ```

use std::collections::BTreeSet;

use wire::{Hash, Message, PeerId, RefusalReason, StageCall, StageRefusal, StageReply};

use super::config::QUESTIONS_MAX;
use super::fault::StageFault;
use super::item::{Below, Item, Key, Step};
use super::open::{Kept, Open, fault, shared};
use super::signals::PipelineOutput;
use crate::Time;

/// How often the time to wait doubles at most.
const DOUBLINGS_MAX: u32 = 6;

impl Open {
    /// Does all that is due below, the oldest unit first.
    pub(crate) fn look_below(&mut self, kept: &mut Kept, now: Time, out: &mut Vec<PipelineOutput>) {
        self.refuse_stranded(kept, now, out);
        let redo_us = kept.config.redo_us;
        let due = |below: &Below| match below {
            Below::Wanted => true,
            Below::Seeking { asked, until } => asked.is_empty() || *until <= now,
            other => other.deadline(redo_us).is_some_and(|at| at <= now),
        };
        let due = self.items.iter().filter(|(_, item)| due(&item.below));
        let mut keys: Vec<(u64, Key)> = due.map(|(key, item)| (item.sequence, *key)).collect();
        keys.sort_unstable();
        for (_, key) in keys {
            self.give_up_waiting(kept, key, now);
            self.call(kept, key, now, out);
        }
    }

    /// When [`Open::look_below`] has something to do next, unless something happens before.
    pub(crate) fn next_below(&self, kept: &Kept, now: Time) -> Option<Time> {
        let deadlines = self.items.values().filter_map(|item| item.below.deadline(kept.config.redo_us));
        let wanted = self.items.iter().filter(|(_, item)| item.below == Below::Wanted);
        let free = wanted.filter_map(|(key, item)| {
            let usable = |peer| kept.up.contains(&peer) && !item.avoid.contains(&peer);
            kept.routes.next_free(usable, self.is_taken_below(key.0))
        });
        deadlines.chain(free).filter(|at| *at > now).min()
    }

    /// Takes a reply.
    pub(crate) fn on_reply(
        &mut self,
        kept: &mut Kept,
        from: PeerId,
        reply: StageReply,
        now: Time,
        out: &mut Vec<PipelineOutput>,
    ) {
        if reply.round < self.view.round {
            return;
        }
        let wrong = reply.round != self.view.round || usize::from(reply.stage) != self.stage() + 1;
        let got = Hash::of(&reply.gradient);
        if wrong || !self.asked.contains(&(reply.index, from)) {
            fault(out, from, StageFault::Unasked, Some(got));
            return;
        }
        kept.counts.replies += 1;
        kept.routes.answered(from);
        let with_output = |(_, item): &(&Key, &Item)| item.output.is_some();
        let asking =
            self.items_of(reply.index).find(|(_, item)| item.output.is_some() && item.output_hash == reply.input);
        let Some(key) = asking.map(|(key, _)| *key) else {
            let other = self.items_of(reply.index).find(with_output);
            if let Some((key, earlier)) = other.map(|(key, item)| (*key, item.output_hash)) {
                let unit = self.view.units[reply.index as usize];
                let kind = StageFault::Mismatch { unit, earlier, earlier_from: kept.own, got: reply.input };
                fault(out, from, kind, Some(reply.input));
                self.useless(key, from);
            }
            return;
        };
        let unit = self.view.units[reply.index as usize];
        let problem = if !self.is_path(&reply.path, from) {
            Some(StageFault::BadPath)
        } else if !self.leads_through_members(&reply.path) {
            // The round may have opened again with other members, here or there first.
            return self.useless(key, from);
        } else if reply.gradient.len() as u64 > kept.config.message_bytes_max {
            Some(StageFault::BadBytes { unit, what: format!("{} bytes", reply.gradient.len()) })
        } else {
            None
        };
        if let Some(kind) = problem {
            fault(out, from, kind, Some(got));
            self.useless(key, from);
            return;
        }
        let item = self.items.get_mut(&key).expect("the unit is here");
        if let Some((earlier, earlier_from)) = item.gradient_in.filter(|(earlier, _)| *earlier != got) {
            let kind = StageFault::Mismatch { unit, earlier, earlier_from, got };
            fault(out, from, kind, Some(got));
        }
        self.served(kept, key, from, reply, now);
    }

    /// Takes a refusal.
    pub(crate) fn on_refusal(
        &mut self,
        kept: &mut Kept,
        from: PeerId,
        refusal: &StageRefusal,
        now: Time,
        out: &mut Vec<PipelineOutput>,
    ) {
        if refusal.round != self.view.round {
            return;
        }
        if usize::from(refusal.stage) != self.stage() + 1 || !self.asked.contains(&(refusal.index, from)) {
            fault(out, from, StageFault::Unasked, None);
            return;
        }
        kept.counts.refused += 1;
        kept.routes.answered(from);
        let keys: Vec<Key> = self.items_of(refusal.index).map(|(key, _)| *key).collect();
        for key in keys {
            let item = self.items.get_mut(&key).expect("the unit is here");
            match &mut item.below {
                Below::Seeking { asked, .. } => {
                    asked.remove(&from);
                }
                Below::Checking { peer, .. } if *peer == from => {
                    (item.below, item.recall) = (Below::Wanted, true);
                    kept.counts.redone += 1;
                }
                Below::Called { peer, .. } if *peer == from => {
                    item.below = Below::Wanted;
                    match refusal.reason {
                        RefusalReason::BadInput => {
                            item.avoid.insert(from);
                        }
                        RefusalReason::NoRoute | RefusalReason::Failed => item.recall = true,
                        _ => {}
                    }
                    self.note_refusal(kept, from, refusal.reason, now);
                }
                _ => {}
            }
        }
    }

    /// Takes a disconnected replica away: units that it has are called elsewhere at once, units that it answered later,
    /// since it may come back with them.
    pub(crate) fn replica_down(&mut self, peer: PeerId, now: Time) {
        for item in self.items.values_mut() {
            match &mut item.below {
                Below::Seeking { asked, .. } => {
                    asked.remove(&peer);
                }
                Below::Called { peer: called, .. } if *called == peer => {
                    (item.below, item.recall) = (Below::Wanted, true);
                }
                Below::Served { peer: server } | Below::Checking { peer: server, .. } if *server == peer => {
                    item.below = Below::Lapsed { peer, since: now };
                }
                _ => {}
            }
        }
    }

    /// Asks a replica that is back whether it still knows the units that it answered.
    pub(crate) fn replica_up(&mut self, kept: &mut Kept, peer: PeerId, now: Time, out: &mut Vec<PipelineOutput>) {
        let lapsed = |below: &Below| matches!(below, Below::Lapsed { peer: server, .. } if *server == peer);
        let keys: Vec<Key> = self.items.iter().filter(|(_, item)| lapsed(&item.below)).map(|(key, _)| *key).collect();
        for key in keys {
            let until = now.after(self.patience_us(kept, peer, 0));
            self.ask(kept, key, peer, Vec::new(), out);
            self.items.get_mut(&key).expect("the unit is here").below = Below::Checking { peer, until };
        }
    }

    /// Lets go of units that are in blocks in all stages below, and of those of stage 0 that are in blocks everywhere.
    pub(crate) fn let_go(&mut self, out: &mut Vec<PipelineOutput>) {
        let (stage, claims) = (self.stage(), &self.claims);
        for (key, item) in &mut self.items {
            if item.step == Step::Done && claims.has_from(stage + 1, key.0) {
                (item.below, item.output) = (Below::Nobody, None);
            }
        }
        let idle = |(key, item): &(&Key, &Item)| {
            stage == 0 && !matches!(item.step, Step::Adding | Step::Done) && claims.has_from(0, key.0)
        };
        let idle: Vec<Key> = self.items.iter().filter(idle).map(|(key, _)| *key).collect();
        for key in idle {
            self.drop_item(key, out);
        }
    }

    /// Whether replicas of the next stage work on a unit that count no more: it is in a block there, or all of them have committed.
    pub(crate) fn is_taken_below(&self, index: u32) -> bool {
        let below = self.stage() + 1;
        below < self.view.members.len() && (self.claims.has(below, index) || self.all_committed(below))
    }

    /// How long to wait for an answer of a replica: long enough that it can lose a call of its own and make it again.
    fn patience_us(&self, kept: &Kept, peer: PeerId, timeouts: u32) -> u64 {
        let below = self.view.members.len().saturating_sub(self.stage() + 1) as u64;
        let least_us = kept.config.timeout_us_min.saturating_mul(below);
        let usual_us = kept.routes.reply_us(peer).saturating_mul(2 + 2 * below);
        least_us.max(usual_us).saturating_mul(1 << timeouts.min(DOUBLINGS_MAX))
    }

    /// Turns a state whose time is over into the next one.
    fn give_up_waiting(&mut self, kept: &mut Kept, key: Key, now: Time) {
        let below = self.items[&key].below.clone();
        let item = self.items.get_mut(&key).expect("the unit is here");
        match below {
            Below::Nobody | Below::Wanted | Below::Served { .. } => return,
            Below::Seeking { asked, .. } => {
                for peer in asked {
                    self.time_out(kept, peer, now);
                }
            }
            Below::Lapsed { .. } => {
                kept.counts.redone += 1;
                item.recall = true;
            }
            Below::Checking { peer, .. } => {
                kept.counts.redone += 1;
                item.recall = true;
                self.time_out(kept, peer, now);
            }
            Below::Called { peer, .. } => {
                (item.timeouts, item.recall) = (item.timeouts.saturating_add(1), true);
                self.time_out(kept, peer, now);
            }
        }
        self.items.get_mut(&key).expect("the unit is here").below = Below::Wanted;
    }

    /// A replica did not answer in time.
    fn time_out(&self, kept: &mut Kept, peer: PeerId, now: Time) {
        kept.counts.timeouts += 1;
        let spare_us = self.patience_us(kept, peer, 0);
        kept.routes.timed_out(peer, self.view.unit_tokens, spare_us, now);
        kept.window.shrink(spare_us, now);
    }

    /// Calls a replica for a unit that wants one, when one may be called.
    fn call(&mut self, kept: &mut Kept, key: Key, now: Time, out: &mut Vec<PipelineOutput>) {
        let item = &self.items[&key];
        if item.below != Below::Wanted {
            return;
        }
        // The gradient may be here already, and whoever gave it gone before the backward pass is done.
        let redo = item.step != Step::Below;
        if redo && self.redos() >= kept.window.size() {
            return;
        }
        if item.seek && self.seek(kept, key, now, out) {
            return;
        }
        let item = &self.items[&key];
        let usable = |peer| kept.up.contains(&peer) && !item.avoid.contains(&peer);
        let taken = self.is_taken_below(key.0);
        if let Some(peer) = kept.routes.pick(self.view.unit_tokens, usable, taken, now) {
            let until = now.after(self.patience_us(kept, peer, item.timeouts));
            let input = item.output.as_ref().map_or_else(Vec::new, |output| output.to_vec());
            self.ask(kept, key, peer, input, out);
            let item = self.items.get_mut(&key).expect("the unit is here");
            item.below = Below::Called { peer, since: now, until };
            kept.routes.called(peer, until);
        } else if !redo && self.stage() > 0 {
            let somebody = kept.routes.any_open(usable) || taken && self.replicas().iter().any(|peer| usable(*peer));
            if !somebody {
                self.refuse_item(kept, key, RefusalReason::NoRoute, now, out);
            }
        }
    }

    /// Asks replicas whether they know a unit: the one that is said to have served it, then all others. False when there
    /// is nobody left to ask.
    fn seek(&mut self, kept: &mut Kept, key: Key, now: Time, out: &mut Vec<PipelineOutput>) -> bool {
        let item = &self.items[&key];
        let fresh =
            |peer: &PeerId| kept.up.contains(peer) && !item.sought.contains(peer) && !kept.routes.is_suspect(*peer);
        let named = item.trail.first().copied().filter(|peer| self.replicas().binary_search(peer).is_ok());
        let room = QUESTIONS_MAX.saturating_sub(item.sought.len());
        let asked: BTreeSet<PeerId> = match named.filter(fresh) {
            Some(peer) => BTreeSet::from([peer]),
            None => self.replicas().iter().copied().filter(fresh).take(room).collect(),
        };
        let until = asked.iter().map(|peer| self.patience_us(kept, *peer, 0)).max().map(|wait_us| now.after(wait_us));
        for peer in &asked {
            self.ask(kept, key, *peer, Vec::new(), out);
        }
        let item = self.items.get_mut(&key).expect("the unit is here");
        item.sought.extend(&asked);
        item.seek = until.is_some();
        if let Some(until) = until {
            item.below = Below::Seeking { asked, until };
        }
        until.is_some()
    }

    /// Sends a call, or without input a question.
    fn ask(&mut self, kept: &mut Kept, key: Key, to: PeerId, input: Vec<u8>, out: &mut Vec<PipelineOutput>) {
        let count = if input.is_empty() { &mut kept.counts.questions } else { &mut kept.counts.calls };
        *count += 1;
        self.asked.insert((key.0, to));
        let item = &self.items[&key];
        let message = Message::StageCall(StageCall {
            round: self.view.round,
            stage: self.view.stage + 1,
            index: key.0,
            state_root: self.view.state_root,
            unit: self.view.units[key.0 as usize],
            again: item.recall,
            hint: item.trail.get(1..).unwrap_or_default().to_vec(),
            input,
        });
        out.push(PipelineOutput::Send { to, message });
    }

    /// Units whose gradient was here and that are being done anew below.
    fn redos(&self) -> u32 {
        let redos = self.items.values().filter(|item| item.step != Step::Below && item.below.is_asked());
        u32::try_from(redos.count()).unwrap_or(u32::MAX)
    }

    /// The members of the stages below.
    fn below(&self) -> &[Vec<PeerId>] {
        self.view.members.get(self.stage() + 1..).unwrap_or_default()
    }

    /// Whether a path begins with the replica that sent it and names another peer for each stage below.
    fn is_path(&self, path: &[PeerId], from: PeerId) -> bool {
        let distinct: BTreeSet<&PeerId> = path.iter().collect();
        path.len() == self.below().len() && path.first() == Some(&from) && distinct.len() == path.len()
    }

    /// Whether those on a path are members of its stages.
    fn leads_through_members(&self, path: &[PeerId]) -> bool {
        path.iter().zip(self.below()).all(|(peer, members)| members.binary_search(peer).is_ok())
    }

    /// Notes an answer of no use: the unit is called elsewhere.
    fn useless(&mut self, key: Key, from: PeerId) {
        let item = self.items.get_mut(&key).expect("the unit is here");
        match &mut item.below {
            Below::Seeking { asked, .. } => {
                asked.remove(&from);
            }
            Below::Called { peer, .. } | Below::Checking { peer, .. } if *peer == from => {
                item.avoid.insert(from);
                (item.below, item.recall) = (Below::Wanted, true);
            }
            _ => {}
        }
    }

    /// Notes a good answer.
    fn served(&mut self, kept: &mut Kept, key: Key, from: PeerId, reply: StageReply, now: Time) {
        let in_blocks = self.claims.has_from(self.stage() + 1, key.0);
        let item = self.items.get_mut(&key).expect("the unit is here");
        match item.below {
            Below::Called { peer, since, .. } if peer == from => {
                let took_us = now.since(since);
                let least_us = kept.routes.replied(from, self.view.unit_tokens, took_us);
                // Looking for who knows the unit takes its time too, but does not queue.
                let looked_us = if item.sought.is_empty() { 0 } else { since.since(item.forwarded) };
                kept.window.replied(least_us.saturating_add(looked_us), now);
            }
            Below::Seeking { .. } => kept.window.replied(now.since(item.forwarded), now),
            Below::Served { peer } if peer == from => return,
            Below::Served { .. } => {
                kept.counts.duplicates += 1;
                return;
            }
            Below::Nobody => return,
            _ => {}
        }
        (item.timeouts, item.seek, item.trail) = (0, false, reply.path);
        item.below = Below::Served { peer: from };
        if item.step == Step::Below {
            item.gradient_in = Some((Hash::of(&reply.gradient), from));
            item.gradient = Some(shared(reply.gradient));
            item.step = Step::Returned;
        } else if in_blocks && item.step == Step::Done {
            (item.below, item.output) = (Below::Nobody, None);
        }
    }

    fn note_refusal(&self, kept: &mut Kept, from: PeerId, reason: RefusalReason, now: Time) {
        match reason {
            RefusalReason::Full | RefusalReason::WrongStage | RefusalReason::WrongState => {
                kept.routes.close(from);
                // For what it works on nevertheless it is not called again at once.
                kept.routes.refused(from, kept.config.retry_us, kept.config.timeout_us_min, now);
            }
            RefusalReason::BadInput => {}
            _ => kept.routes.refused(from, kept.config.retry_us, kept.config.timeout_us_min, now),
        }
        if reason == RefusalReason::Busy {
            kept.window.shrink(self.patience_us(kept, from, 0), now);
        }
    }

    /// Refuses units that wait here but could not be handed on: their callers may know another way.
    fn refuse_stranded(&mut self, kept: &Kept, now: Time, out: &mut Vec<PipelineOutput>) {
        let stranded = |(key, item): &(&Key, &Item)| {
            item.step == Step::Ready && item.sender.is_some() && !self.can_go_on(kept, key.0, item.recall)
        };
        let stranded: Vec<Key> = self.items.iter().filter(stranded).map(|(key, _)| *key).collect();
        for key in stranded {
            self.refuse_item(kept, key, RefusalReason::NoRoute, now, out);
        }
    }
}

//! The open round of a pipeline, and what outlives a round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wire::{Hash, Message, PeerId, RefusalReason, StageRefusal, StageReply};

use super::claims::Claims;
use super::config::{PipelineConfig, REFUSALS_PER_WINDOW_MAX};
use super::fault::StageFault;
use super::gauge::Gauge;
use super::item::{Item, Key, Step};
use super::routing::Routes;
use super::signals::{PipelineCounts, PipelineOutput, RoundView};
use super::task::{StageTaskId, UnitDone};
use super::window::Window;
use crate::Time;

/// What outlives a round.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) own: PeerId,
    pub(crate) config: PipelineConfig,
    /// Peers whose connections are up.
    pub(crate) up: BTreeSet<PeerId>,
    /// Members of stage 0 whose connections are not up, and since when.
    pub(crate) down: BTreeMap<PeerId, Time>,
    pub(crate) routes: Routes,
    pub(crate) window: Window,
    pub(crate) counts: PipelineCounts,
    /// Tasks started.
    pub(crate) tasks: u64,
}

/// Whether the units of the round are still counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// They are.
    Open,
    /// No further ones, but the list was not given yet.
    Closing,
    /// The list was given.
    Sealed,
}

/// How often a caller was refused lately.
#[derive(Debug, Default)]
struct Refusals {
    since: Time,
    count: u32,
}

/// The open round.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) view: RoundView,
    pub(crate) claims: Claims,
    pub(crate) items: BTreeMap<Key, Item>,
    /// The task under way.
    pub(crate) running: Option<(StageTaskId, Key, bool)>,
    /// Whether a forward pass goes before a backward pass.
    pub(crate) forward_next: bool,
    /// Whom this peer called for which unit: only they may answer.
    pub(crate) asked: BTreeSet<(u32, PeerId)>,
    /// How often others called for a unit on their present connections lately, and since when.
    pub(crate) calls: BTreeMap<(PeerId, u32), (Time, u32)>,
    refusals: BTreeMap<PeerId, Refusals>,
    /// Units added up, in order.
    pub(crate) done: Vec<UnitDone>,
    pub(crate) counting: Counting,
    pub(crate) gauge: Gauge,
    sequence: u64,
}

impl Open {
    /// A round in which nothing happened yet.
    pub(crate) fn new(view: RoundView) -> Self {
        let claims = Claims::new(view.members.len(), view.units.len());
        let counting = if view.sealed { Counting::Sealed } else { Counting::Open };
        Self {
            view,
            claims,
            items: BTreeMap::new(),
            running: None,
            forward_next: false,
            asked: BTreeSet::new(),
            calls: BTreeMap::new(),
            refusals: BTreeMap::new(),
            done: Vec::new(),
            counting,
            gauge: Gauge::default(),
            sequence: 0,
        }
    }

    /// Goes on with the members of a view of the same round: who is no longer there counts as disconnected for good.
    pub(crate) fn change_members(&mut self, kept: &mut Kept, view: RoundView, now: Time) {
        let before = std::mem::replace(&mut self.view, view);
        self.claims.grow(self.view.units.len());
        kept.routes.change(self.replicas());
        let replicas = before.members.get(self.stage() + 1).map_or(&[][..], Vec::as_slice);
        let gone = replicas.iter().filter(|peer| self.replicas().binary_search(peer).is_err());
        for peer in gone.copied().collect::<Vec<PeerId>>() {
            self.replica_down(peer, now);
        }
        self.note_down(kept, now);
        self.add_own(kept.own, true);
    }

    /// The own stage.
    pub(crate) fn stage(&self) -> usize {
        usize::from(self.view.stage)
    }

    /// Whether there is no next stage.
    pub(crate) fn is_last(&self) -> bool {
        self.stage() + 1 == self.view.members.len()
    }

    /// The members of a stage.
    pub(crate) fn members(&self, stage: usize) -> &[PeerId] {
        self.view.members.get(stage).map_or(&[], Vec::as_slice)
    }

    /// The replicas of the next stage.
    pub(crate) fn replicas(&self) -> &[PeerId] {
        self.members(self.stage() + 1)
    }

    /// The next place in the order of arrival.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Whether it makes sense to work on a unit here: to count it, or because it is in a block and a neighbour lost it. Once all of the
    /// stage have committed, any unit is worked on without being counted: otherwise a stage that lost all of its sums later could commit
    /// nothing, and the round would never end.
    pub(crate) fn may_work(&self, index: u32) -> bool {
        self.counting == Counting::Open || self.claims.has(self.stage(), index) || self.all_committed(self.stage())
    }

    /// Whether all members of a stage have committed.
    pub(crate) fn all_committed(&self, stage: usize) -> bool {
        self.members(stage).iter().all(|peer| self.claims.committed(*peer))
    }

    /// Whether a unit that is added up now is counted.
    pub(crate) fn counts(&self, index: u32) -> bool {
        let before = || self.done.iter().any(|done| done.index == index);
        self.counting == Counting::Open && !self.claims.has(self.stage(), index) && !before()
    }

    /// Bytes held, and kept free for the units that are under way.
    pub(crate) fn bytes(&self, config: &PipelineConfig) -> u64 {
        self.items.values().map(|item| item.bytes(config.message_bytes_max)).sum()
    }

    /// Whether units that are done leave no room for another one, so that waiting does not help.
    pub(crate) fn is_full(&self, config: &PipelineConfig) -> bool {
        let done = self.items.values().filter(|item| item.step == Step::Done);
        let bytes: u64 = done.map(|item| item.bytes(config.message_bytes_max)).sum();
        bytes.saturating_add(config.message_bytes_max.saturating_mul(5)) > config.held_bytes_max
    }

    /// Units between forward and backward.
    pub(crate) fn under_way(&self) -> u32 {
        let count = self.items.values().filter(|item| item.is_under_way()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Units that are counted, or will be when all goes well.
    pub(crate) fn counted(&self) -> u32 {
        let coming = |(key, item): &(&Key, &Item)| item.is_under_way() && self.counts(key.0);
        let count = self.done.len() + self.items.iter().filter(coming).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Gives a unit up. Its activations, when there are some, are released.
    pub(crate) fn drop_item(&mut self, key: Key, out: &mut Vec<PipelineOutput>) {
        let Some(item) = self.items.remove(&key) else { return };
        if let Some(forward) = item.forward.filter(|_| item.step != Step::Forward) {
            out.push(PipelineOutput::Release(forward));
        }
    }

    /// Gives a unit up and tells those that wait for it why.
    pub(crate) fn refuse_item(
        &mut self,
        kept: &Kept,
        key: Key,
        reason: RefusalReason,
        now: Time,
        out: &mut Vec<PipelineOutput>,
    ) {
        let callers = self.items.get(&key).map(|item| item.callers.clone()).unwrap_or_default();
        self.drop_item(key, out);
        for caller in callers {
            self.refuse(kept, caller, (self.view.round, self.view.stage, key.0), reason, now, out);
        }
    }

    /// Refuses a call. A caller that needs to be refused all the time is no longer answered for a while.
    pub(crate) fn refuse(
        &mut self,
        kept: &Kept,
        to: PeerId,
        (round, stage, index): (u64, u16, u32),
        reason: RefusalReason,
        now: Time,
        out: &mut Vec<PipelineOutput>,
    ) {
        let max = kept.config.window_max.saturating_mul(REFUSALS_PER_WINDOW_MAX);
        let refusals = self.refusals.entry(to).or_default();
        if now.since(refusals.since) >= kept.config.timeout_us_min {
            *refusals = Refusals { since: now, count: 0 };
        }
        refusals.count = refusals.count.saturating_add(1);
        if refusals.count <= max {
            let message = Message::StageRefusal(StageRefusal { round, stage, index, reason });
            out.push(PipelineOutput::Send { to, message });
        } else if refusals.count == max + 1 {
            fault(out, to, StageFault::Flood, None);
        }
    }

    /// Sends the reply of a unit that is done.
    pub(crate) fn answer(&self, kept: &Kept, key: Key, to: PeerId, out: &mut Vec<PipelineOutput>) {
        let Some((item, gradient)) = self.items.get(&key).and_then(|item| Some((item, item.reply.as_ref()?))) else {
            return;
        };
        let path = std::iter::once(kept.own).chain(item.trail.iter().copied()).collect();
        let message = Message::StageReply(StageReply {
            round: self.view.round,
            stage: self.view.stage,
            index: key.0,
            input: key.1,
            path,
            gradient: gradient.to_vec(),
        });
        out.push(PipelineOutput::Send { to, message });
    }

    /// The units with this index, of which there is more than one only when somebody lies.
    pub(crate) fn items_of(&self, index: u32) -> impl Iterator<Item = (&Key, &Item)> {
        self.items.range((index, Hash([0; 32]))..=(index, Hash([0xff; 32])))
    }
}

/// Records a fault.
pub(crate) fn fault(out: &mut Vec<PipelineOutput>, peer: PeerId, kind: StageFault, evidence: Option<Hash>) {
    out.push(PipelineOutput::Fault { peer, kind, evidence });
}

/// Bytes that are shared from here on.
pub(crate) fn shared(bytes: Vec<u8>) -> Arc<[u8]> {
    Arc::from(bytes)
}

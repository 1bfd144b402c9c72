//! Units of stage 0: who starts them, and who takes them over.
//!
//! Every unit has a member that starts it by default. When that member is gone, because it is disconnected for long or
//! because it committed without the unit, the next member after it in the order of ids that is not gone starts what it left.
//! Whoever started a unit goes on with it: a member that comes back may then do it once more, and the ledger pays the first.

use wire::{Hash, PeerId};

use super::config::WATCHED_MAX;
use super::item::{Item, Key, Step};
use super::open::{Counting, Kept, Open};
use super::signals::PipelineOutput;
use crate::Time;

/// What a member may leave to do for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// To count it: it is in no block in stage 0.
    Uncounted,
    /// To look after it in the later stages, where it is not in blocks everywhere.
    Unkept,
}

impl Open {
    /// Adds the own units. In the first round of a life they may have been begun in the life before.
    pub(crate) fn add_own(&mut self, own: PeerId, seek: bool) {
        if self.stage() == 0 {
            self.add(own, None, Left::Uncounted, seek);
            self.add(own, None, Left::Unkept, seek);
        }
    }

    /// Notes which members of stage 0 are not connected.
    pub(crate) fn note_down(&self, kept: &mut Kept, now: Time) {
        if self.stage() != 0 {
            kept.down.clear();
            return;
        }
        let fellows = self.members(0);
        kept.down.retain(|peer, _| fellows.binary_search(peer).is_ok());
        for peer in fellows.iter().filter(|peer| **peer != kept.own && !kept.up.contains(*peer)) {
            kept.down.entry(*peer).or_insert(now);
        }
    }

    /// Adds the units of members that are gone, when it is this peer's turn.
    pub(crate) fn take_over(&mut self, kept: &mut Kept, now: Time) {
        if self.stage() != 0 {
            return;
        }
        for peer in self.watched(kept.own) {
            for left in [Left::Uncounted, Left::Unkept] {
                if self.is_gone(kept, peer, left, now) && self.heir(kept, peer, left, now) == Some(kept.own) {
                    kept.counts.taken_over += self.add(peer, Some(peer), left, true);
                }
            }
        }
    }

    /// When the next member of stage 0 counts as gone.
    pub(crate) fn next_takeover(&self, kept: &Kept, now: Time) -> Option<Time> {
        if self.stage() != 0 {
            return None;
        }
        kept.down.values().map(|since| since.after(kept.config.takeover_us)).filter(|at| *at > now).min()
    }

    /// Leaves units that were not started yet to their member, which is back and may still count them.
    pub(crate) fn hand_back(&mut self, peer: PeerId, out: &mut Vec<PipelineOutput>) {
        if self.claims.committed(peer) {
            return;
        }
        let waiting = self.items.iter().filter(|(_, item)| item.taken_from == Some(peer) && item.step == Step::Ready);
        let waiting: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        for key in waiting {
            self.drop_item(key, out);
        }
    }

    /// Members of stage 0 that this peer may have to take units over from, the nearest last.
    pub(crate) fn watched(&self, own: PeerId) -> Vec<PeerId> {
        let members = self.members(0);
        let Ok(place) = members.binary_search(&own) else { return Vec::new() };
        let before = members[..place].iter().rev().chain(members[place + 1..].iter().rev());
        before.take(WATCHED_MAX).copied().collect()
    }

    /// Adds the units that a member starts by default, as far as they are neither here nor in blocks. Returns how many.
    fn add(&mut self, member: PeerId, taken_from: Option<PeerId>, left: Left, seek: bool) -> u64 {
        let units = (0u32..).zip(&self.view.units).zip(&self.view.assignment);
        let theirs = units.filter(|(_, worker)| **worker == member).map(|((index, _), _)| index);
        let open = theirs.filter(|index| {
            let wanted = match left {
                Left::Uncounted => !self.claims.has(0, *index),
                Left::Unkept => self.claims.has(0, *index) && !self.claims.has_from(1, *index),
            };
            wanted && self.may_work(*index) && !self.items.contains_key(&(*index, Hash::default()))
        });
        let open: Vec<u32> = open.collect();
        for index in &open {
            let mut item = Item::new(self.next_sequence(), None, seek);
            item.taken_from = taken_from;
            self.items.insert((*index, Hash::default()), item);
        }
        open.len() as u64
    }

    /// Whether a member will not do what is left of its units.
    fn is_gone(&self, kept: &Kept, peer: PeerId, left: Left, now: Time) -> bool {
        let since = kept.down.get(&peer);
        let committed = left == Left::Uncounted && self.claims.committed(peer);
        committed || since.is_some_and(|since| since.after(kept.config.takeover_us) <= now)
    }

    /// The next member after one that is gone.
    fn heir(&self, kept: &Kept, gone: PeerId, left: Left, now: Time) -> Option<PeerId> {
        let members = self.members(0);
        let place = members.binary_search(&gone).ok()?;
        let mut after = members[place + 1..].iter().chain(&members[..place]).copied();
        after.find(|peer| match *peer == kept.own {
            true => left == Left::Unkept || self.counting == Counting::Open,
            false => !self.is_gone(kept, *peer, left, now),
        })
    }
}

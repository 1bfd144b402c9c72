//! Who folds a round's payloads for all, where there are many.
//!
//! Purpose: with R members a round has R payloads, and fetching and folding them costs each member R. Beyond [`COMMITTEE_SIZE`] members of a
//! stage so many are drawn; they fold the payloads and attest the state that follows, and the others fetch that state by its root as soon as
//! most of the committee agree. A round then costs every member what one state costs, however many take part, and nothing of any
//! payload is left out: the state is the one that everybody would have folded.
//!
//! Source: hierarchical aggregation of the training design (section 2), as one level whose sum is the state itself.
//!
//! The state spreads along a tree over the members, in an order that starts where the beacon says: each gets it from the one before it there
//! ([`GETTERS_PER_GIVER`]), as soon as that one attests that it has it. So nobody's uplink carries more than a few copies.
//!
//! Deviations: sums of groups are not made sparse again, so that no residual of a group exists which its members would have to keep and hand
//! on. A state is as many bytes as some 200 payloads of the sparsest kind; below that peers fetch payloads as before.
//!
//! Safety: the draw follows from the beacon of the round whose payloads are folded, so that nobody chooses its place; who is in it is known one
//! round ahead, to fetch early. Anybody may fold the same payloads and compare: validators always do. Liveness: when most of a committee
//! vanish, everybody folds, and from the deadline on all votes count.

use wire::{Hash, PeerId};

use super::RoundOpen;
use super::assignment::offset;
use super::votes::Votes;

/// Members of a committee: an odd number, and one more than a round exchanges payloads among all.
pub const COMMITTEE_SIZE: usize = 17;

/// Members that get a state from the same one.
pub(super) const GETTERS_PER_GIVER: usize = 4;

/// The place from which the member at `place` gets the state, when the order of `members` starts at `start`; none for the first.
pub(super) fn giver(place: usize, members: usize, start: usize) -> Option<usize> {
    let turn = (place + members - start) % members;
    (turn > 0).then(|| (turn / GETTERS_PER_GIVER + start) % members)
}

/// Whether each member is drawn to fold this round's payloads, in the members' order: nobody of a stage that has no more than a committee.
pub(super) fn draw(members: &[PeerId], stages: &[u16], stages_len: usize, beacon: Hash) -> Vec<bool> {
    let mut drawn = vec![false; members.len()];
    for stage in 0..stages_len {
        let of_stage = || (0..members.len()).filter(|rank| usize::from(stages[*rank]) == stage);
        if of_stage().count() <= COMMITTEE_SIZE {
            continue;
        }
        let mut order: Vec<usize> = of_stage().collect();
        order.sort_by_cached_key(|rank| Hash::derive("cairn v1 committee", &[&beacon.0, &members[*rank].0]));
        order.truncate(COMMITTEE_SIZE);
        order.into_iter().for_each(|rank| drawn[rank] = true);
    }
    drawn
}

impl RoundOpen {
    /// Whether a member folds this round's payloads itself once it is closed: all do where they are few, and otherwise those who were drawn
    /// ([`COMMITTEE_SIZE`]).
    pub fn folds(&self, peer: &PeerId) -> bool {
        let Some(rank) = self.rank(peer) else { return false };
        let is_drawn =
            || self.stages.iter().zip(self.folds.iter()).any(|(stage, folds)| *folds && *stage == self.stages[rank]);
        self.folds[rank] || !is_drawn()
    }

    /// The members of a stage that were drawn to fold the payloads of the round before, ascending.
    pub fn committee(&self, stage: u16) -> impl Iterator<Item = &PeerId> {
        let members = self.members.iter().zip(self.stages.iter()).zip(&self.slots);
        members.filter(move |((_, of), slot)| slot.drawn && **of == stage).map(|((peer, _), _)| peer)
    }

    /// Who gives a member the state that a committee attests; none when it is to ask the committee.
    pub fn giver(&self, peer: &PeerId) -> Option<PeerId> {
        let rank = self.rank(peer)?;
        let (stage, start) = (self.stages[rank], |members| offset(members, self.beacon));
        if self.stages_len() == 1 {
            return giver(rank, self.members.len(), start(self.members.len())).map(|place| self.members[place]);
        }
        let members: Vec<&PeerId> = self.members_of(stage).collect();
        let place = members.binary_search(&peer).ok()?;
        giver(place, members.len(), start(members.len())).map(|place| *members[place])
    }

    /// Until when a committee, and the giver of what it attests, is waited for: half of the time to the deadline.
    pub fn committee_until_us(&self) -> u64 {
        self.opened_us.midpoint(self.deadline_us)
    }

    /// Whether a member was drawn to fold the payloads of the round before, and to say where this one starts from.
    pub fn is_in_committee(&self, peer: &PeerId) -> bool {
        self.rank(peer).is_some_and(|rank| self.slots[rank].drawn && self.has_committee(self.stages[rank]))
    }

    /// Whether a committee's attestations say where this round starts from in a stage, so that others need not fold.
    pub fn has_committee(&self, stage: u16) -> bool {
        self.votes.get(usize::from(stage)).is_some_and(Votes::are_drawn)
    }

    /// Whether a peer is in the committee of a stage in round `next`: in the same round, opened again, when it was.
    pub(crate) fn draws(&self, peer: &PeerId, stage: u16, next: u64) -> bool {
        let Some(rank) = self.rank(peer).filter(|rank| self.stages[*rank] == stage) else { return false };
        if next > self.round { self.folds[rank] } else { self.slots[rank].drawn }
    }

    /// Counts the votes of all voters where a committee let the deadline pass.
    pub(crate) fn widen(&mut self) {
        self.widened = true;
        self.recount();
    }

    /// Whether a committee has not told where the round starts from, and the votes of all voters do.
    pub(crate) fn would_widen(&self) -> bool {
        let stages = 0..self.stages_len();
        let open: Vec<usize> =
            stages.filter(|stage| self.state_roots[*stage].is_none() && self.votes[*stage].are_drawn()).collect();
        if open.is_empty() {
            return false;
        }
        let all = Votes::count(&self.stages, &self.slots, self.stages_len(), true);
        open.into_iter().any(|stage| all[stage].majority().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_of_many_has_a_committee_and_one_of_few_has_none() {
        let members: Vec<PeerId> = (0..40).map(|byte| PeerId([byte; 32])).collect();
        let stages: Vec<u16> = (0..40).map(|place| u16::from(place >= COMMITTEE_SIZE)).collect();
        let drawn = draw(&members, &stages, 2, Hash([1; 32]));
        assert_eq!(drawn[..COMMITTEE_SIZE].iter().filter(|drawn| **drawn).count(), 0, "all of 17 fold");
        assert_eq!(drawn[COMMITTEE_SIZE..].iter().filter(|drawn| **drawn).count(), COMMITTEE_SIZE, "17 of 23");
        assert_ne!(draw(&members, &stages, 2, Hash([2; 32])), drawn, "the beacon draws");
    }

    #[test]
    fn everybody_gets_the_state_from_somebody_before_and_nobody_gives_many() {
        let (members, start) = (1_000, 700);
        let mut gives = vec![0; members];
        let turn = |place: usize| (place + members - start) % members;
        for place in 0..members {
            match giver(place, members, start) {
                None => assert_eq!(place, start),
                Some(from) => {
                    assert!(turn(from) < turn(place));
                    gives[from] += 1;
                }
            }
        }
        assert!(gives.into_iter().all(|times| times <= GETTERS_PER_GIVER));
    }
}

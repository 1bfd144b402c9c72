//! Rounds: who works on what, what was committed, and which starting states majorities attest.

mod assignment;
mod balance;
pub(crate) mod boundaries;
mod commitments;
mod committed;
mod committee;
mod speed;
mod votes;

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::{Commitment, Hash, PeerId, RunId, StageTerms, UnitId, run_root};

use balance::StageLoad;
use commitments::{Commitments, Committed};
use speed::Speed;

pub use assignment::{UNITS_PER_MEMBER_MAX, assignment};
pub use committed::{CommittedSet, Entry};
pub use committee::COMMITTEE_SIZE;

use assignment::{firsts, offset, units_assigned};
use votes::Votes;

/// The part of a round's time after which half of a stage's voters suffice.
const LATE_PART: u64 = 8;

/// What one member has done in the open round, in its stage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// Whether its attestation counts: it was a member of this stage in the round before.
    pub(crate) voter: bool,
    /// Whether it was drawn to fold the payloads of the round before.
    pub(crate) drawn: bool,
    /// Whether it has said that it leaves.
    pub(crate) leaving: bool,
    /// The starting root that it attested.
    pub(crate) attested: Option<Hash>,
    /// The place of its commitment.
    pub(crate) committed: Option<usize>,
    /// The place of its last commitment to this round in another stage.
    pub(crate) earlier: Option<usize>,
}

/// The open round.
#[derive(Clone, Debug)]
pub struct RoundOpen {
    /// The run.
    pub run: RunId,
    /// The round; the charter's number of rounds for the last, which takes only attestations.
    pub round: u64,
    /// What names and assigns the units.
    pub beacon: Hash,
    /// Time of the block that opened it, in microseconds.
    pub opened_us: u64,
    /// From this time on a quorum of commitments closes it, in microseconds.
    pub deadline_us: u64,
    /// The members, sorted.
    pub members: Arc<[PeerId]>,
    /// The stage of each member, in the members' order.
    pub stages: Arc<[u16]>,
    /// The canonical starting root of each stage, once it is known.
    pub state_roots: Vec<Option<Hash>>,
    /// How many steps smaller than the recipe says the numbers are between each stage and the next.
    pub coarser: Arc<[u8]>,
    /// Units of the round that are assigned; 0 in the last, and while a stage has no member.
    pub units: u32,
    /// The members of stage 0, sorted: the units are theirs.
    workers: Arc<[PeerId]>,
    /// How fast each member was so far, with one stage.
    speeds: Vec<Speed>,
    /// The first unit of each member, and the end of the last one's, by place from where the beacon says; none when units go round.
    firsts: Option<Arc<[u32]>>,
    /// Whether each member is drawn to fold this round's payloads.
    folds: Arc<[bool]>,
    /// Whether the votes of all voters count, since a committee let the deadline pass.
    widened: bool,
    pub(crate) slots: Vec<Slot>,
    commitments: Commitments,
    /// Hash chain over the transactions of the blocks since it opened.
    pub(crate) transcript: Hash,
    votes: Vec<Votes>,
    /// What those did, by stage and peer, who are no longer members of that stage because the round opened again.
    past: BTreeMap<(u16, PeerId), Slot>,
    /// Who should move to which stage from the next round on.
    advice: Option<(PeerId, u16)>,
}

/// One member of a round that opens.
pub(crate) struct Seat {
    pub(crate) peer: PeerId,
    pub(crate) stage: u16,
    pub(crate) voter: bool,
    pub(crate) drawn: bool,
}

/// What a round is opened with.
pub(crate) struct Opening {
    pub(crate) run: RunId,
    pub(crate) round: u64,
    pub(crate) beacon: Hash,
    pub(crate) opened_us: u64,
    pub(crate) deadline_us: u64,
    pub(crate) state_roots: Vec<Option<Hash>>,
    pub(crate) coarser: Vec<u8>,
    /// Units to be done; 0 in the last round.
    pub(crate) units: u32,
    /// The members, in ascending order.
    pub(crate) members: Vec<Seat>,
    /// How fast each of them was so far; 0 where that is not known.
    pub(crate) speeds: Vec<u64>,
}

impl RoundOpen {
    pub(crate) fn new(opening: Opening) -> Self {
        let Opening { run, round, beacon, opened_us, deadline_us, state_roots, coarser, units, members: seats, speeds } =
            opening;
        let slot = |seat: &Seat| Slot { voter: seat.voter, drawn: seat.drawn, ..Slot::default() };
        let slots: Vec<Slot> = seats.iter().map(slot).collect();
        let members: Arc<[PeerId]> = seats.iter().map(|seat| seat.peer).collect();
        let stages: Arc<[u16]> = seats.iter().map(|seat| seat.stage).collect();
        let mut staff = vec![0; state_roots.len()];
        for stage in stages.iter() {
            staff[usize::from(*stage)] += 1;
        }
        let units = units_assigned(staff.into_iter().min().unwrap_or(0), units);
        let workers = seats.iter().filter(|seat| seat.stage == 0).map(|seat| seat.peer).collect();
        let firsts = if state_roots.len() == 1 { firsts(&speeds, beacon, units) } else { None };
        let votes = Votes::count(&stages, &slots, state_roots.len(), false);
        let folds = committee::draw(&members, &stages, state_roots.len(), beacon).into();
        let commitments = Commitments::new(state_roots.len());
        let (transcript, past, advice) = (Hash::default(), BTreeMap::new(), None);
        Self {
            run,
            round,
            beacon,
            opened_us,
            deadline_us,
            members,
            stages,
            state_roots,
            coarser: coarser.into(),
            units,
            workers,
            speeds,
            firsts,
            folds,
            widened: false,
            slots,
            commitments,
            transcript,
            votes,
            past,
            advice,
        }
    }

    /// Advises one member to change its stage, by what the members did in the round `before`. Nobody who is in `fixed`.
    pub(crate) fn advise(&mut self, before: &Self, fixed: &[PeerId]) {
        let did = |peer: &PeerId, stage: u16| {
            let rank = before.rank(peer).filter(|rank| before.stages[*rank] == stage)?;
            before.slots[rank].committed.map(|place| before.commitments.accepted()[place].busy_percent)
        };
        let mut loads = vec![StageLoad::default(); self.stages_len()];
        for (peer, stage) in self.members.iter().zip(self.stages.iter()) {
            let load = &mut loads[usize::from(*stage)];
            match did(peer, *stage) {
                Some(busy_percent) => {
                    load.members += 1;
                    load.busy_percent += u64::from(busy_percent);
                }
                None => load.others += 1,
            }
        }
        let Some((from, to)) = balance::next(&loads) else { return };
        let (Ok(from), Ok(to)) = (u16::try_from(from), u16::try_from(to)) else { return };
        let able = self.members_of(from).filter(|peer| did(peer, from).is_some() && fixed.binary_search(peer).is_err());
        self.advice = balance::draw(able, self.beacon).map(|peer| (peer, to));
    }

    /// The stage to which a member should move from the next round on, so that fewer wait for the slowest stage.
    pub(crate) fn advised_stage(&self, peer: &PeerId) -> Option<u16> {
        self.advice.filter(|(advised, _)| advised == peer).map(|(_, stage)| stage)
    }

    /// Takes over what was done in this round before it opened again with other members.
    pub(crate) fn resume(&mut self, before: Self) {
        if !before.commitments.accepted().is_empty() {
            self.units = self.units.max(before.units);
        }
        let mut past = before.past;
        for ((peer, stage), slot) in before.members.iter().zip(before.stages.iter()).zip(before.slots) {
            if slot.attested.is_some() || slot.committed.is_some() {
                past.insert((*stage, *peer), slot);
            }
        }
        let accepted = before.commitments.accepted().iter().enumerate();
        let newest: BTreeMap<PeerId, usize> =
            accepted.map(|(place, committed)| (committed.entry.peer, place)).collect();
        for ((peer, stage), slot) in self.members.iter().zip(self.stages.iter()).zip(&mut self.slots) {
            if let Some(before) = past.remove(&(*stage, *peer)) {
                (slot.attested, slot.committed) = (before.attested, before.committed);
            }
            slot.earlier = newest.get(peer).copied().filter(|place| Some(*place) != slot.committed);
        }
        (self.commitments, self.transcript, self.past) = (before.commitments, before.transcript, past);
        self.widened = before.widened;
        self.recount();
    }

    /// The number of stages of the run.
    pub fn stages_len(&self) -> usize {
        self.state_roots.len()
    }

    /// The member of each unit, by unit index. With several stages these are members of stage 0, and only a proposal: any
    /// member may claim any unit.
    pub fn assignment(&self) -> Vec<PeerId> {
        let Some(firsts) = &self.firsts else { return assignment(&self.workers, self.beacon, self.units) };
        let served = self.workers.iter().cycle().skip(offset(self.workers.len(), self.beacon));
        let sizes = firsts.windows(2).map(|ends| (ends[1] - ends[0]) as usize);
        served.zip(sizes).flat_map(|(peer, units)| std::iter::repeat_n(*peer, units)).collect()
    }

    /// The indices of a peer's units, ascending; none when it is no member of stage 0.
    pub fn units_of(&self, peer: &PeerId) -> Vec<u32> {
        self.workers.binary_search(peer).map_or_else(|_| Vec::new(), |place| self.units_at(place).collect())
    }

    /// The name of the unit `index`.
    pub fn unit_id(&self, index: u32) -> UnitId {
        UnitId::derive(self.run, self.round, self.beacon, index)
    }

    /// Whether a peer is a member of this round.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.rank(peer).is_some()
    }

    /// The stage of a member in this round.
    pub fn stage_of(&self, peer: &PeerId) -> Option<u16> {
        self.rank(peer).map(|rank| self.stages[rank])
    }

    /// The members of a stage, sorted.
    pub fn members_of(&self, stage: u16) -> impl Iterator<Item = &PeerId> {
        self.members.iter().zip(self.stages.iter()).filter(move |(_, of)| **of == stage).map(|(peer, _)| peer)
    }

    /// The canonical starting root of a stage, once it is known.
    pub fn state_root_of(&self, stage: u16) -> Option<Hash> {
        self.state_roots.get(usize::from(stage)).copied().flatten()
    }

    /// The root of the whole state that the round starts from, once that of every stage is known.
    pub fn run_root(&self) -> Option<Hash> {
        self.state_roots.iter().copied().collect::<Option<Vec<Hash>>>().map(|roots| run_root(&roots))
    }

    /// Whether a member's attestation counts towards the majority of its stage: it attested or committed there in a round before and
    /// stayed, or nobody did.
    pub fn is_voter(&self, peer: &PeerId) -> bool {
        self.rank(peer).is_some_and(|rank| self.is_counted(rank))
    }

    /// The number of commitments accepted so far.
    pub fn commitments_len(&self) -> usize {
        self.commitments.accepted().len()
    }

    /// The commitments accepted so far, in that order.
    pub fn commitments(&self) -> impl Iterator<Item = &Entry> {
        self.commitments.accepted().iter().map(|committed| &committed.entry)
    }

    /// A member's accepted commitment, in its stage.
    pub fn commitment(&self, peer: &PeerId) -> Option<&Entry> {
        let place = self.slots[self.rank(peer)?].committed?;
        Some(&self.commitments.accepted()[place].entry)
    }

    /// Whether a member of the stage has claimed a unit.
    pub fn is_claimed(&self, stage: u16, unit: u32) -> bool {
        self.commitments.claims(usize::from(stage), unit)
    }

    /// The number of units that the members of a stage have claimed.
    pub fn claimed_len(&self, stage: u16) -> u32 {
        self.commitments.units_of(usize::from(stage))
    }

    /// The starting root that a peer attested, of its stage.
    pub fn attestation(&self, peer: &PeerId) -> Option<Hash> {
        self.slots[self.rank(peer)?].attested
    }

    /// The members whose attestation differs from the canonical root of their stage, with what they attested; none of a
    /// stage whose root is not known.
    pub fn divergent(&self) -> impl Iterator<Item = (PeerId, Hash)> {
        let members = self.members.iter().zip(self.stages.iter()).zip(&self.slots);
        members.filter_map(|((peer, stage), slot)| {
            let (attested, canonical) = (slot.attested?, self.state_root_of(*stage)?);
            (attested != canonical).then_some((*peer, attested))
        })
    }

    pub(crate) fn rank(&self, peer: &PeerId) -> Option<usize> {
        self.members.binary_search(peer).ok()
    }

    /// Whether a peer votes in a stage of round `next`: in this round, the one before, it did, or it took part. When
    /// this is the same round, it goes on voting if it did.
    pub(crate) fn makes_voter(&self, peer: &PeerId, stage: u16, next: u64) -> bool {
        let Some(rank) = self.rank(peer).filter(|rank| self.stages[*rank] == stage) else { return false };
        let slot = &self.slots[rank];
        // Everybody has the state that round 0 starts from.
        let took_part = self.round == 0 || slot.attested.is_some() || slot.committed.is_some();
        slot.voter || next > self.round && took_part
    }

    pub(crate) fn accepted(&self) -> &[Committed] {
        self.commitments.accepted()
    }

    /// Accepts a commitment of the member at `rank`, whose receipts chain is `receipts_root` so far.
    pub(crate) fn commit(&mut self, rank: usize, entry: Entry, commitment: &Commitment, receipts_root: Hash) {
        let slot = &mut self.slots[rank];
        slot.committed = Some(self.commitments.push(entry, commitment, receipts_root, slot.earlier));
    }

    /// The units of the member of stage 0 at `place`, ascending.
    fn units_at(&self, place: usize) -> impl Iterator<Item = u32> + use<> {
        let workers = self.workers.len();
        let served = (place + workers - offset(workers, self.beacon)) % workers;
        let (first, end, step) = match &self.firsts {
            Some(firsts) => (firsts[served] as usize, firsts[served + 1] as usize, 1),
            None => (served, self.units as usize, workers),
        };
        (first..end).step_by(step).map(|index| u32::try_from(index).expect("less than the units"))
    }

    /// Notes when the commitments of a block were accepted.
    pub(crate) fn note_time(&mut self, time_us: u64) {
        self.commitments.note_time(time_us);
    }

    /// How fast a member is after this round, as far as that is known; 0 when it is not.
    pub(crate) fn speed_after(&self, peer: &PeerId) -> u64 {
        let Some(rank) = self.rank(peer).filter(|_| self.stages_len() == 1) else { return 0 };
        let before = self.speeds[rank];
        match self.slots[rank].committed.map(|place| &self.commitments.accepted()[place]) {
            Some(committed) => speed::after(before, committed.units, committed.at_us.saturating_sub(self.opened_us)),
            None if self.missed(rank) => speed::after_missing(before),
            None => before,
        }
    }

    /// How fast a member was before this round.
    pub(crate) fn speed_of(&self, peer: &PeerId) -> u64 {
        self.rank(peer).map_or(0, |rank| self.speeds[rank])
    }

    /// Whether a block of `time_us` closes the round. With one stage: when everybody committed that has units and stays,
    /// or from the deadline on when a quorum did. With several: when every stage has done every unit, or from the deadline
    /// on when a quorum committed and somebody of every stage.
    pub(crate) fn may_close(&self, time_us: u64, quorum: u32) -> bool {
        let quorum_reached = self.commitments_len() as u64 >= u64::from(quorum);
        let everywhere = (0..self.stages_len()).all(|stage| self.commitments.len_of(stage) > 0);
        everywhere && ((time_us >= self.deadline_us && quorum_reached) || self.is_complete())
    }

    /// Whether nothing is waited for. With one stage: everybody committed that has units and stays. With several: every stage has done
    /// every unit.
    pub(crate) fn is_complete(&self) -> bool {
        match self.stages_len() {
            1 => self.awaits_nobody(),
            stages => (0..stages).all(|stage| self.commitments.units_of(stage) >= self.units),
        }
    }

    /// Whether, with one stage, only members let the round pass that did not even attest where it starts from: they are away, and giving the
    /// next round more time would bring nothing. In round 0 nobody attests, so that cannot be told.
    pub(crate) fn only_absent_missed(&self) -> bool {
        let missed = self.slots.iter().enumerate().filter(|(rank, slot)| self.missed(*rank) && !slot.leaving);
        self.stages_len() == 1 && self.round > 0 && missed.into_iter().all(|(_, slot)| slot.attested.is_none())
    }

    /// Whether every member that has units committed or left; for a run of one stage.
    fn awaits_nobody(&self) -> bool {
        let mut slots = self.slots.iter().enumerate();
        slots.all(|(rank, slot)| slot.committed.is_some() || slot.leaving || self.units_at(rank).next().is_none())
    }

    /// Whether the member at `rank` let the round pass. With one stage: it had units and did not commit. With several
    /// nobody owes units; it neither committed nor attested, and did not say that it leaves.
    pub(crate) fn missed(&self, rank: usize) -> bool {
        let slot = &self.slots[rank];
        match self.stages_len() {
            1 => slot.committed.is_none() && self.units_at(rank).next().is_some(),
            _ => slot.committed.or(slot.earlier).is_none() && slot.attested.is_none() && !slot.leaving,
        }
    }

    /// The stages in which nobody has committed, and nobody is left who could. Of several stages one also counts whose
    /// members let the deadline pass: the other stages cannot wait for ever. `rounds` is the charter's, after which only
    /// roots are missing.
    pub(crate) fn deserted(&self, time_us: u64, rounds: u64) -> Vec<u16> {
        let late = self.stages_len() > 1 && time_us >= self.deadline_us;
        let mut stays = vec![false; self.stages_len()];
        for (stage, slot) in self.stages.iter().zip(&self.slots).filter(|_| !late) {
            stays[usize::from(*stage)] |= !slot.leaving;
        }
        let done = |stage: usize| match self.round == rounds {
            true => self.state_roots[stage].is_some(),
            false => self.commitments.len_of(stage) > 0,
        };
        let stages = (0..self.stages_len()).filter(|stage| !stays[*stage] && !done(*stage));
        stages.map(|stage| u16::try_from(stage).expect("a run has at most 256 stages")).collect()
    }

    /// How the numbers between stages are to be written in the round after this one.
    pub(crate) fn next_coarser(&self, stages: &[StageTerms]) -> Vec<u8> {
        let committed = self.commitments.accepted().iter();
        boundaries::next(&self.coarser, stages, committed.map(|committed| (committed.entry.stage, committed.wishes)))
    }

    /// Records that a member said it leaves, or took that back.
    pub(crate) fn set_leaving(&mut self, rank: usize, leaving: bool) {
        self.slots[rank].leaving = leaving;
        self.recount();
    }

    /// Counts a member's first attestation.
    pub(crate) fn attest(&mut self, rank: usize, root: Hash) {
        let counted = self.is_counted(rank);
        let slot = &mut self.slots[rank];
        if slot.attested.replace(root).is_some() || !counted {
            return;
        }
        if slot.leaving {
            self.recount();
        } else {
            self.votes[usize::from(self.stages[rank])].add(root);
        }
    }

    /// The stages whose root is canonical now and was not before. `late` once the deadline has passed: of several stages
    /// one in which half of the voters have vanished must not stop the others.
    pub(crate) fn take_majorities(&mut self, late: bool) -> Vec<(u16, Hash)> {
        let mut taken = Vec::new();
        for ((root, votes), stage) in self.state_roots.iter_mut().zip(&self.votes).zip(0..) {
            if root.is_none() {
                *root = if late { votes.late_majority() } else { votes.majority() };
                taken.extend(root.map(|root| (stage, root)));
            }
        }
        taken
    }

    /// From this time on, in microseconds, half of a stage's voters suffice to make its root canonical: those who are there agree within
    /// moments, and the others have vanished.
    pub fn late_us(&self) -> u64 {
        self.opened_us.saturating_add(self.deadline_us.saturating_sub(self.opened_us) / LATE_PART)
    }

    /// Whether time alone makes a root canonical.
    pub(crate) fn has_late_majority(&self) -> bool {
        let open = self.state_roots.iter().zip(&self.votes).filter(|(root, _)| root.is_none());
        self.stages_len() > 1 && open.into_iter().any(|(_, votes)| votes.late_majority().is_some())
    }

    fn is_counted(&self, rank: usize) -> bool {
        self.votes[usize::from(self.stages[rank])].counts(&self.slots[rank])
    }

    fn recount(&mut self) {
        self.votes = Votes::count(&self.stages, &self.slots, self.stages_len(), self.widened);
    }
}

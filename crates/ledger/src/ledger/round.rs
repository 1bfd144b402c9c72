//! Rounds: who works on what, what was committed, and which starting state a majority attests.

use std::collections::BTreeMap;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use wire::transaction::RECEIPTS_PER_COMMITMENT_MAX;
use wire::{Hash, PeerId, RunId, UnitId};

/// Most units of one member in a round: as many as its one commitment can hold receipts for.
pub const UNITS_PER_MEMBER_MAX: usize = RECEIPTS_PER_COMMITMENT_MAX;

/// One peer's part of a committed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Entry {
    /// Whose payload it is.
    pub peer: PeerId,
    /// The payload's blob.
    pub payload: Hash,
    /// Its size in bytes.
    pub payload_bytes: u64,
    /// Tokens that it was made from: its weight.
    pub tokens: u64,
    /// Root of the peer's residual after it.
    pub residual_root: Hash,
}

/// The payloads that make the next state: fixed for ever when the round closes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct CommittedSet {
    /// The round.
    pub round: u64,
    /// The round's beacon.
    pub beacon: Hash,
    /// Root of the state that the round started from.
    pub state_in: Hash,
    /// The payloads, ordered by peer.
    pub entries: Vec<Entry>,
}

impl CommittedSet {
    /// The set's name.
    pub fn digest(&self) -> Hash {
        let bytes = borsh::to_vec(self).expect("writing to a vector cannot fail");
        Hash::derive("cairn v1 committed set", &[&bytes])
    }
}

/// Units that `members` members can take in one round.
fn units_assigned(members: usize, units: u32) -> u32 {
    let room = members.saturating_mul(UNITS_PER_MEMBER_MAX);
    u32::try_from(room).map_or(units, |room| room.min(units))
}

/// Where the rotation of a round starts.
fn offset(members: usize, beacon: Hash) -> usize {
    let mut low = [0; 8];
    low.copy_from_slice(&beacon.0[..8]);
    let members = (members as u64).max(1);
    usize::try_from(u64::from_le_bytes(low) % members).expect("less than a number of members")
}

/// The member of each unit, by unit index: units go round the sorted members, from a place that the beacon draws. Units
/// beyond [`UNITS_PER_MEMBER_MAX`] per member are not assigned.
pub fn assignment(members: &[PeerId], beacon: Hash, units: u32) -> Vec<PeerId> {
    let start = offset(members.len(), beacon);
    let turns = members.iter().cycle().skip(start);
    turns.take(units_assigned(members.len(), units) as usize).copied().collect()
}

/// What one member has done in the open round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// Whether its attestation counts: it was a member of the round before.
    pub(crate) voter: bool,
    /// Whether it has said that it leaves.
    pub(crate) leaving: bool,
    /// The starting root that it attested.
    pub(crate) attested: Option<Hash>,
    /// Its commitment.
    pub(crate) committed: Option<Committed>,
}

/// An accepted commitment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) entry: Entry,
    /// The peer's receipts chain once this commitment is paid.
    pub(crate) receipts_root: Hash,
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
    /// The canonical starting root, once it is known.
    pub state_root: Option<Hash>,
    /// Units of the round that are assigned; 0 in the last.
    pub units: u32,
    pub(crate) slots: Vec<Slot>,
    /// Commitments accepted.
    pub(crate) commitments: usize,
    /// Hash chain over the transactions of the blocks since it opened.
    pub(crate) transcript: Hash,
    votes: Votes,
}

/// The count of attestations.
#[derive(Clone, Debug, Default)]
struct Votes {
    /// Whether every member's attestation counts, because no voter is left.
    everyone: bool,
    /// Voters, less those that left without attesting.
    electorate: usize,
    /// Votes for each root.
    roots: BTreeMap<Hash, usize>,
}

impl Votes {
    fn majority(&self) -> Option<Hash> {
        self.roots.iter().find(|(_, votes)| 2 * **votes > self.electorate).map(|(root, _)| *root)
    }
}

/// What a round is opened with.
pub(crate) struct Opening {
    pub(crate) run: RunId,
    pub(crate) round: u64,
    pub(crate) beacon: Hash,
    pub(crate) opened_us: u64,
    pub(crate) deadline_us: u64,
    pub(crate) state_root: Option<Hash>,
    /// Units to be done; 0 in the last round.
    pub(crate) units: u32,
    /// The members in ascending order, and whether each is a voter.
    pub(crate) members: Vec<(PeerId, bool)>,
}

impl RoundOpen {
    pub(crate) fn new(opening: Opening) -> Self {
        let Opening { run, round, beacon, opened_us, deadline_us, state_root, units, members } = opening;
        let slots = members.iter().map(|(_, voter)| Slot { voter: *voter, ..Slot::default() }).collect();
        let members: Arc<[PeerId]> = members.into_iter().map(|(peer, _)| peer).collect();
        let units = units_assigned(members.len(), units);
        let (commitments, transcript, votes) = (0, Hash::default(), Votes::default());
        let mut round = Self {
            run,
            round,
            beacon,
            opened_us,
            deadline_us,
            members,
            state_root,
            units,
            slots,
            commitments,
            transcript,
            votes,
        };
        round.recount();
        round
    }

    /// The member of each unit, by unit index.
    pub fn assignment(&self) -> Vec<PeerId> {
        assignment(&self.members, self.beacon, self.units)
    }

    /// The indices of a peer's units, ascending; none when it is no member.
    pub fn units_of(&self, peer: &PeerId) -> Vec<u32> {
        self.rank(peer).map_or_else(Vec::new, |rank| self.units_of_rank(rank).collect())
    }

    /// The name of the unit `index`.
    pub fn unit_id(&self, index: u32) -> UnitId {
        UnitId::derive(self.run, self.round, self.beacon, index)
    }

    /// Whether a peer is a member of this round.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.rank(peer).is_some()
    }

    /// Whether a member's attestation counts towards the majority: it was a member of the round before, or nobody was.
    pub fn is_voter(&self, peer: &PeerId) -> bool {
        self.rank(peer).is_some_and(|rank| self.slots[rank].voter || self.votes.everyone)
    }

    /// The number of commitments accepted so far.
    pub fn commitments_len(&self) -> usize {
        self.commitments
    }

    /// The commitments accepted so far, ordered by peer.
    pub fn commitments(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter_map(|slot| slot.committed.as_ref()).map(|committed| &committed.entry)
    }

    /// A peer's accepted commitment.
    pub fn commitment(&self, peer: &PeerId) -> Option<&Entry> {
        self.slots[self.rank(peer)?].committed.as_ref().map(|committed| &committed.entry)
    }

    /// The starting root that a peer attested.
    pub fn attestation(&self, peer: &PeerId) -> Option<Hash> {
        self.slots[self.rank(peer)?].attested
    }

    /// The members whose attestation differs from the canonical root, with what they attested; none before it is known.
    pub fn divergent(&self) -> impl Iterator<Item = (PeerId, Hash)> {
        let pairs = self.members.iter().zip(&self.slots);
        pairs.filter_map(|(peer, slot)| {
            let (attested, canonical) = (slot.attested?, self.state_root?);
            (attested != canonical).then_some((*peer, attested))
        })
    }

    pub(crate) fn rank(&self, peer: &PeerId) -> Option<usize> {
        self.members.binary_search(peer).ok()
    }

    /// The units of the member at `rank`, ascending.
    pub(crate) fn units_of_rank(&self, rank: usize) -> impl Iterator<Item = u32> + use<> {
        let members = self.members.len();
        let first = (rank + members - offset(members, self.beacon)) % members;
        (first..self.units as usize).step_by(members).map(|index| u32::try_from(index).expect("less than the units"))
    }

    /// Whether a block of `time_us` closes the round.
    pub(crate) fn may_close(&self, time_us: u64, quorum: u32) -> bool {
        let quorum_reached = self.commitments as u64 >= u64::from(quorum);
        self.commitments > 0 && ((time_us >= self.deadline_us && quorum_reached) || self.awaits_nobody())
    }

    /// Whether every member that has units committed or left.
    fn awaits_nobody(&self) -> bool {
        let mut slots = self.slots.iter().enumerate();
        slots.all(|(rank, slot)| slot.committed.is_some() || slot.leaving || self.units_of_rank(rank).next().is_none())
    }

    /// Whether nobody is left that could ever close the round.
    pub(crate) fn is_vacant(&self) -> bool {
        self.commitments == 0 && self.slots.iter().all(|slot| slot.leaving)
    }

    /// Records that a member said it leaves, or took that back.
    pub(crate) fn set_leaving(&mut self, rank: usize, leaving: bool) {
        self.slots[rank].leaving = leaving;
        self.recount();
    }

    /// Counts a member's first attestation.
    pub(crate) fn attest(&mut self, rank: usize, root: Hash) {
        let slot = &mut self.slots[rank];
        if slot.attested.replace(root).is_some() || !(slot.voter || self.votes.everyone) {
            return;
        }
        if slot.leaving {
            self.recount();
        } else {
            *self.votes.roots.entry(root).or_insert(0) += 1;
        }
    }

    /// The root that is canonical now and was not before.
    pub(crate) fn take_majority(&mut self) -> Option<Hash> {
        if self.state_root.is_some() {
            return None;
        }
        self.state_root = self.votes.majority();
        self.state_root
    }

    /// Counts the attestations anew: of the voters that attested or stay, or of everyone when there are none.
    fn recount(&mut self) {
        let counts = |slot: &&Slot| slot.attested.is_some() || !slot.leaving;
        let everyone = !self.slots.iter().filter(|slot| slot.voter).any(|slot| counts(&slot));
        let mut votes = Votes { everyone, ..Votes::default() };
        for slot in self.slots.iter().filter(|slot| slot.voter || everyone).filter(counts) {
            votes.electorate += 1;
            if let Some(root) = slot.attested {
                *votes.roots.entry(root).or_insert(0) += 1;
            }
        }
        self.votes = votes;
    }
}

//! Whose units are whose: by turns while all members are alike, and by their speeds ([`super::speed`]) while they are not.

use std::sync::Arc;

use wire::transaction::RECEIPTS_PER_COMMITMENT_MAX;
use wire::{Hash, PeerId};

use super::speed::{self, Speed};

/// Most units of one member in a round: as many as its one commitment can hold receipts for.
pub const UNITS_PER_MEMBER_MAX: usize = RECEIPTS_PER_COMMITMENT_MAX;

/// Units that `members` members can take in one round: as many as their commitments can hold receipts for.
pub(super) fn units_assigned(members: usize, units: u32) -> u32 {
    let room = members.saturating_mul(UNITS_PER_MEMBER_MAX);
    u32::try_from(room).map_or(units, |room| room.min(units))
}

/// Where the rotation of a round starts.
pub(super) fn offset(members: usize, beacon: Hash) -> usize {
    let mut low = [0; 8];
    low.copy_from_slice(&beacon.0[..8]);
    let members = (members as u64).max(1);
    usize::try_from(u64::from_le_bytes(low) % members).expect("less than a number of members")
}

/// The member of each unit while all are alike, by unit index: units go round the sorted members, from a place that the beacon draws. Units
/// beyond [`UNITS_PER_MEMBER_MAX`] per member are not assigned.
pub fn assignment(members: &[PeerId], beacon: Hash, units: u32) -> Vec<PeerId> {
    let start = offset(members.len(), beacon);
    let turns = members.iter().cycle().skip(start);
    turns.take(units_assigned(members.len(), units) as usize).copied().collect()
}

/// Where the units of each worker begin, by place from where the beacon says, when they are sized to speeds.
pub(super) fn firsts(speeds: &[Speed], beacon: Hash, units: u32) -> Option<Arc<[u32]>> {
    let start = offset(speeds.len(), beacon);
    let served: Vec<Speed> = speeds.iter().cycle().skip(start).take(speeds.len()).copied().collect();
    let sizes = speed::sizes(&served, units, UNITS_PER_MEMBER_MAX)?;
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    Some(std::iter::once(0).chain(ends).collect())
}

//! How many units of a round each member gets: as many as its speed allows, so that all are done at about the same time.
//!
//! Purpose: with one stage a round waits for its slowest member, up to the deadline. Peers that are twice as fast get twice the units.
//!
//! Source: "a peer takes as many units as its measured speed allows" (section 2 of the training design), as a fold over facts that every
//! ledger has: how many units a member committed to, and the time from the round's opening to the block that holds the commitment. That time
//! has the way to the member in it, and what it does besides training; since shares follow units over time, all end at the same moment
//! where they come to rest, whatever the time consists of.
//!
//! Deviations: while the members' speeds differ by less than [`ALIKE_PERCENT`], units go round as without speeds, so that noise moves
//! nothing. Everybody gets one unit before anybody gets two: who is slow takes part and is measured.
//!
//! Safety: a member can look slow and get less to do, and it can look no faster than it is, since commitments count once they are in a block
//! and their payloads are replayable.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Speeds that differ by less count as equal: the fastest in percent of the slowest.
const ALIKE_PERCENT: u64 = 130;
/// Units per second are counted in so many parts.
const PARTS: u128 = 1_000_000;
const US_PER_S: u128 = 1_000_000;

/// Millionths of a unit per second; 0 of a member that was never measured.
pub(super) type Speed = u64;

/// A member's speed after a round in which it did `units` in `took_us` microseconds.
pub(super) fn after(before: Speed, units: u32, took_us: u64) -> Speed {
    let measured = u128::from(units) * PARTS * US_PER_S / u128::from(took_us.max(1));
    let measured = u64::try_from(measured).unwrap_or(u64::MAX).max(1);
    if before == 0 { measured } else { (before / 2 + measured / 2).max(1) }
}

/// A member's speed after a round whose deadline it missed.
pub(super) fn after_missing(before: Speed) -> Speed {
    if before == 0 { 0 } else { (before / 2).max(1) }
}

/// The units of each member, whose speeds are given in the order in which they are served; none when units may go round.
pub(super) fn sizes(speeds: &[Speed], units: u32, most: usize) -> Option<Vec<u32>> {
    let mut known: Vec<Speed> = speeds.iter().copied().filter(|speed| *speed > 0).collect();
    known.sort_unstable();
    let (slowest, typical, fastest) = (*known.first()?, known[known.len() / 2], *known.last()?);
    let alike = u128::from(fastest) * 100 <= u128::from(slowest) * u128::from(ALIKE_PERCENT);
    let members = u32::try_from(speeds.len()).ok()?;
    if alike || units <= members {
        return None;
    }
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let mut sizes = vec![1; speeds.len()];
    let speed = |place: usize| if speeds[place] == 0 { typical } else { speeds[place] };
    let turn = |place: usize, units: u32| Turn { units: units + 1, speed: speed(place), place };
    let mut turns: BinaryHeap<Reverse<Turn>> = (0..speeds.len()).map(|place| Reverse(turn(place, 1))).collect();
    for _ in members..units {
        let Some(Reverse(Turn { place, units, .. })) = turns.pop() else { break };
        sizes[place] = units;
        if units < most {
            turns.push(Reverse(turn(place, units)));
        }
    }
    Some(sizes)
}

/// When a member would be done with so many units: earlier ones come first, and of equal ones those who are served first.
#[derive(Clone, Copy, Debug)]
struct Turn {
    units: u32,
    speed: Speed,
    place: usize,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let (this, that) =
            (u128::from(self.units) * u128::from(other.speed), u128::from(other.units) * u128::from(self.speed));
        this.cmp(&that).then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_speeds() {
        assert_eq!(sizes(&[100, 200, 400], 14, 512), Some(vec![2, 4, 8]));
        assert_eq!(sizes(&[400, 100, 0, 200], 14, 512), Some(vec![7, 1, 3, 3]), "who is new counts as ordinary");
        assert_eq!(sizes(&[1, 1_000], 6, 512), Some(vec![1, 5]), "everybody takes part");
        assert_eq!(sizes(&[1, 1_000], 6, 4), Some(vec![2, 4]), "nobody gets more than a commitment holds");
        assert_eq!(sizes(&[1, u64::MAX], 6, 512), Some(vec![1, 5]));
    }

    #[test]
    fn like_speeds_change_nothing() {
        for (speeds, units) in [(&[100, 129, 0][..], 9), (&[0, 0], 8), (&[], 3), (&[1, 9], 2), (&[1, 9, 9], 1)] {
            assert_eq!(sizes(speeds, units, 512), None, "{speeds:?} {units}");
        }
    }

    #[test]
    fn shares_come_to_rest_where_all_end_together() {
        // 0.3 s of each round go to other things; a unit takes 0.4, 0.2 and 0.1 s.
        let takes = [400_000, 200_000, 100_000];
        let mut speeds = [0; 3];
        let mut last = Vec::new();
        for _ in 0..12 {
            last = sizes(&speeds, 28, 512).unwrap_or_else(|| vec![10, 9, 9]);
            for ((speed, units), takes) in speeds.iter_mut().zip(&last).zip(takes) {
                *speed = after(*speed, *units, 300_000 + u64::from(*units) * takes);
            }
        }
        assert_eq!(last, [4, 8, 16]);
        assert_eq!((after_missing(0), after_missing(1), after_missing(9)), (0, 1, 4));
        assert_eq!((after(0, 1, 0), after(0, 0, 5)), (1_000_000_000_000, 1));
    }
}

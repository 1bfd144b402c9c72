//! Which member of a round should move to another stage, so that fewer wait for the slowest stage.
//!
//! Source: training design, section 3 ("rebalancing moves a peer from the least to the most loaded stage"). Members say with each
//! commitment how large a part of the round they computed ([`wire::Commitment::busy_percent`]); a stage's load is the mean of that over
//! its members. One member moves at a time, and the next only when everybody of the stage that it went to has worked in a whole round.
//!
//! Deviations: a stage keeps two members, and one that is down to one gets another however little it does, since a stage that loses
//! its last member stops the run.
//!
//! What it does not do: it does not judge what members say of themselves. One that lies moves one member a round at most, and gains
//! nothing by it: shares go by stage and unit.

use wire::{Hash, PeerId};

/// Members that a stage keeps.
const MEMBERS_MIN: u32 = 2;
/// No stage gets another member whose members compute less than this part of the time: it is not they who are waited for.
const BUSY_PERCENT_MIN: u64 = 50;
/// The largest load after a move is at most this part of the one before.
const GAIN_PERCENT: u64 = 90;

/// What a stage's members did in the round before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StageLoad {
    /// Members of the new round that committed in this stage.
    pub(crate) members: u32,
    /// The sum of what they say of themselves, in percent.
    pub(crate) busy_percent: u64,
    /// Members of the new round that did not: they have just come, or are away.
    pub(crate) others: u32,
}

/// From which stage to which a member should move.
pub(crate) fn next(loads: &[StageLoad]) -> Option<(usize, usize)> {
    let stages = || loads.iter().enumerate();
    let gives = |load: &&(usize, &StageLoad)| load.1.members > MEMBERS_MIN;
    // Who stays has the work of the one who goes.
    let from = |to: usize| {
        let others = stages().filter(|(stage, _)| *stage != to);
        others
            .filter(|load| gives(&load))
            .min_by_key(|(stage, load)| (mean(load.busy_percent, load.members - 1), *stage))
    };
    let settled = || stages().filter(|(_, load)| load.others == 0 && load.members > 0);
    if let Some((alone, _)) = settled().find(|(_, load)| load.members < MEMBERS_MIN) {
        return from(alone).map(|(stage, _)| (stage, alone));
    }
    let (to, most) =
        settled().max_by_key(|(stage, load)| (mean(load.busy_percent, load.members), usize::MAX - stage))?;
    let (stage, least) = from(to)?;
    let before = mean(most.busy_percent, most.members);
    let after = mean(most.busy_percent, most.members + 1).max(mean(least.busy_percent, least.members - 1));
    let gains = before >= BUSY_PERCENT_MIN * SCALE && after.saturating_mul(100) <= before.saturating_mul(GAIN_PERCENT);
    gains.then_some((stage, to))
}

/// Parts of a percent in which means are compared.
const SCALE: u64 = 1000;

fn mean(busy_percent: u64, members: u32) -> u64 {
    busy_percent.saturating_mul(SCALE) / u64::from(members.max(1))
}

/// Who of some members moves: drawn anew in every round, so that one that cannot does not stand in the way.
pub(crate) fn draw<'a>(members: impl Iterator<Item = &'a PeerId>, beacon: Hash) -> Option<PeerId> {
    members.min_by_key(|peer| Hash::derive("cairn v1 move", &[&beacon.0, &peer.0])).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stages of so many members that are busy for so many percent each.
    fn loads<const STAGES: usize>(stages: [(u32, u64); STAGES]) -> [StageLoad; STAGES] {
        stages.map(|(members, busy)| StageLoad { members, busy_percent: busy * u64::from(members), others: 0 })
    }

    #[test]
    fn a_member_of_the_least_loaded_stage_goes_to_the_most_loaded() {
        assert_eq!(next(&loads([(3, 20), (2, 95), (3, 40)])), Some((0, 1)));
        assert_eq!(next(&loads([(4, 40), (2, 30), (4, 95)])), Some((0, 2)), "of those that can give");
        assert_eq!(next(&loads([(3, 60), (3, 60)])), None);
        assert_eq!(next(&loads([(3, 70), (3, 95)])), None, "the others would have too much to do: 70 · 3 / 2");
        assert_eq!(next(&loads([(3, 5), (3, 45)])), None, "nobody waits for them");
        assert_eq!(next(&loads([(2, 5), (2, 95)])), None, "a stage keeps two");
    }

    #[test]
    fn a_stage_with_one_member_gets_another() {
        assert_eq!(next(&loads([(3, 90), (1, 10)])), Some((0, 1)));
        assert_eq!(next(&loads([(2, 10), (1, 90)])), None);
        assert_eq!(next(&loads([(1, 90), (3, 80), (1, 10), (4, 70)])), Some((3, 0)), "one at a time");
    }

    #[test]
    fn nobody_moves_to_a_stage_in_which_somebody_is_new_or_away() {
        let mut stages = loads([(3, 20), (2, 95)]);
        stages[1].others = 1;
        assert_eq!(next(&stages), None);
        stages[1].others = 0;
        stages[0].others = 1;
        assert_eq!(next(&stages), Some((0, 1)));
        assert_eq!(next(&[StageLoad::default(), loads([(3, 9)])[0]]), None, "a stage without any has no state to give");
        assert_eq!(next(&[]), None);
    }

    proptest::proptest! {
        /// Moves end, each makes the largest load smaller or gives a lone member company, and none undoes the one before.
        #[test]
        fn moves_come_to_rest(stages in proptest::collection::vec((1u32..12, 1u64..=100), 1..8)) {
            // The work of a stage is what its members do together.
            let work: Vec<u64> = stages.iter().map(|(members, busy)| busy * u64::from(*members)).collect();
            let mut members: Vec<u32> = stages.iter().map(|(members, _)| *members).collect();
            let all: u32 = members.iter().sum();
            let mut last = None;
            for turn in 0.. {
                let load = |(members, work): (&u32, &u64)| StageLoad { members: *members, busy_percent: *work, others: 0 };
                let loads: Vec<StageLoad> = members.iter().zip(&work).map(load).collect();
                let Some((from, to)) = next(&loads) else { break };
                proptest::prop_assert!(turn < all * all, "{members:?} {work:?}");
                proptest::prop_assert_ne!(last, Some((to, from)), "{:?} {:?}", members, work);
                last = Some((from, to));
                members[from] -= 1;
                members[to] += 1;
                proptest::prop_assert!(members[from] >= MEMBERS_MIN);
            }
        }
    }
}

//! How the numbers between neighbouring stages are written: what the members of a round wish decides for the next.

use wire::{LinkWish, LinkWishes, StageTerms};

/// How many steps smaller than the recipe says the numbers between each stage and the next are in the first round.
pub(crate) fn first(stages: usize) -> Vec<u8> {
    vec![0; stages.saturating_sub(1)]
}

/// The steps of the next round: one more where more than half of those that committed on either side find the links too slow, one fewer
/// where all find that they carry more.
pub(crate) fn next(
    now: &[u8],
    stages: &[StageTerms],
    wishes: impl Iterator<Item = (u16, LinkWishes)> + Clone,
) -> Vec<u8> {
    let boundary = |(place, steps): (usize, &u8)| {
        let (mut voters, mut coarser, mut finer) = (0_u32, 0_u32, 0_u32);
        for (stage, wishes) in wishes.clone() {
            let wish = match usize::from(stage).checked_sub(place) {
                Some(0) => wishes.after,
                Some(1) => wishes.before,
                _ => continue,
            };
            voters += 1;
            coarser += u32::from(wish == LinkWish::Coarser);
            finer += u32::from(wish == LinkWish::Finer);
        }
        let most = stages.get(place).map_or(0, |terms| terms.coarser_max);
        match voters {
            0 => *steps,
            _ if 2 * coarser > voters => steps.saturating_add(1).min(most),
            _ if finer == voters => steps.saturating_sub(1),
            _ => *steps,
        }
    };
    now.iter().enumerate().map(boundary).collect()
}

#[cfg(test)]
mod tests {
    use wire::Hash;

    use super::*;

    fn stages() -> Vec<StageTerms> {
        let terms = |coarser_max| StageTerms { genesis_state: Hash([0; 32]), state_bytes: 1, weight: 1, coarser_max };
        vec![terms(1), terms(2), terms(0)]
    }

    /// Two members in each of three stages, which wish this of the boundaries before and after.
    fn round(now: &[u8], wishes: [[LinkWish; 2]; 6]) -> Vec<u8> {
        let members = wishes.iter().enumerate().map(|(member, [before, after])| {
            let stage = u16::try_from(member / 2).expect("three stages");
            (stage, LinkWishes { before: *before, after: *after })
        });
        next(now, &stages(), members)
    }

    #[test]
    fn a_majority_makes_a_boundary_coarser_up_to_what_the_charter_allows() {
        use LinkWish::{Coarser, Keep};
        let slow_middle = [[Keep, Keep], [Keep, Keep], [Keep, Coarser], [Keep, Coarser], [Coarser, Keep], [Keep, Keep]];
        assert_eq!(round(&first(3), slow_middle), [0, 1]);
        assert_eq!(round(&[0, 1], slow_middle), [0, 2]);
        assert_eq!(round(&[0, 2], slow_middle), [0, 2], "no further");
        let half = [[Keep, Keep], [Keep, Keep], [Keep, Coarser], [Keep, Coarser], [Keep, Keep], [Keep, Keep]];
        assert_eq!(round(&[0, 0], half), [0, 0], "half is no majority");
        assert_eq!(round(&[0, 0], [[Coarser, Coarser]; 6]), [1, 1]);
    }

    #[test]
    fn a_boundary_becomes_finer_when_all_agree() {
        use LinkWish::{Finer, Keep};
        assert_eq!(round(&[1, 2], [[Finer, Finer]; 6]), [0, 1]);
        assert_eq!(round(&[0, 0], [[Finer, Finer]; 6]), [0, 0], "never finer than the recipe");
        let but_one = [[Finer, Finer], [Finer, Finer], [Finer, Keep], [Finer, Finer], [Finer, Finer], [Finer, Finer]];
        assert_eq!(round(&[1, 2], but_one), [0, 2]);
        assert_eq!(next(&[1, 1], &stages(), std::iter::empty()), [1, 1], "nobody committed");
    }
}

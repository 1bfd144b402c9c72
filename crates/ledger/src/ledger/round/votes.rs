//! The count of attestations in one stage.

use std::collections::BTreeMap;

use wire::Hash;

use crate::ledger::round::Slot;
use crate::ledger::round::committee::COMMITTEE_SIZE;

/// Who votes in a stage, and for which roots.
#[derive(Clone, Debug)]
pub(crate) struct Votes {
    /// Whether every member's attestation counts, because no voter is left.
    everyone: bool,
    /// Whether only those of the voters count that were drawn ([`super::committee`]).
    drawn: bool,
    /// Voters, less those that left without attesting.
    electorate: usize,
    /// Votes for each root.
    roots: BTreeMap<Hash, usize>,
}

impl Votes {
    /// Counts the attestations of every stage: of the voters that attested or stay, of those only that were drawn where enough of them are
    /// and the round is not `widened`, or of everyone when there are no voters.
    pub(crate) fn count(members: &[u16], slots: &[Slot], stages: usize, widened: bool) -> Vec<Self> {
        let mut votes = vec![Self { everyone: true, drawn: false, electorate: 0, roots: BTreeMap::new() }; stages];
        let counted = || {
            let pairs = members.iter().map(|stage| usize::from(*stage)).zip(slots);
            pairs.filter(|(_, slot)| slot.attested.is_some() || !slot.leaving)
        };
        let mut drawn = vec![0; stages];
        for (stage, slot) in counted().filter(|(_, slot)| slot.voter) {
            votes[stage].everyone = false;
            drawn[stage] += usize::from(slot.drawn && !widened);
        }
        for (votes, drawn) in votes.iter_mut().zip(drawn) {
            votes.drawn = 2 * drawn > COMMITTEE_SIZE;
        }
        for (stage, slot) in counted() {
            let votes = &mut votes[stage];
            if votes.counts(slot) {
                votes.electorate += 1;
                if let Some(root) = slot.attested {
                    votes.add(root);
                }
            }
        }
        votes
    }

    /// Whether the attestation of a member of the stage counts.
    pub(crate) fn counts(&self, slot: &Slot) -> bool {
        self.everyone || slot.voter && (slot.drawn || !self.drawn)
    }

    /// Whether only a committee's attestations count.
    pub(crate) fn are_drawn(&self) -> bool {
        self.drawn
    }

    /// Counts one more vote of somebody in the electorate.
    pub(crate) fn add(&mut self, root: Hash) {
        *self.roots.entry(root).or_insert(0) += 1;
    }

    /// The root that more than half of the electorate attests.
    pub(crate) fn majority(&self) -> Option<Hash> {
        self.roots.iter().find(|(_, votes)| 2 * **votes > self.electorate).map(|(root, _)| *root)
    }

    /// The root that at least half of the electorate attests, and more than any other: enough once the others had the
    /// time that a round gives them for it.
    pub(crate) fn late_majority(&self) -> Option<Hash> {
        let (root, most) = self.roots.iter().max_by_key(|(_, votes)| **votes)?;
        let alone = self.roots.values().filter(|votes| *votes == most).count() == 1;
        (alone && 2 * most >= self.electorate).then_some(*root)
    }
}

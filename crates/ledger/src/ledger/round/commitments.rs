//! What was committed in a round, and which units that claims.

use std::sync::Arc;

use wire::{Commitment, Hash, LinkWishes};

use crate::accounts::chain;
use crate::ledger::round::Entry;

/// An accepted commitment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) entry: Entry,
    /// The peer's receipts chain once this commitment is paid.
    pub(crate) receipts_root: Hash,
    /// Its units.
    pub(crate) units: u32,
    /// Time of its block, in microseconds; the largest until that is known.
    pub(crate) at_us: u64,
    /// Units that nobody of the stage claimed before: those that are paid.
    pub(crate) paid: u32,
    /// The lowest of those; `u32::MAX` when there are none.
    pub(crate) lowest: u32,
    /// Whether the peer committed to this round before, in another stage.
    pub(crate) again: bool,
    /// What it wishes about the links.
    pub(crate) wishes: LinkWishes,
    /// How large a part of the round it says that it computed, in percent.
    pub(crate) busy_percent: u8,
}

/// The commitments of a round in the order of their acceptance, and what they claim.
#[derive(Clone, Debug)]
pub(crate) struct Commitments {
    accepted: Vec<Committed>,
    stages: Vec<Claims>,
}

/// What the members of one stage have committed.
#[derive(Clone, Debug, Default)]
struct Claims {
    /// One bit per unit, in words of 64.
    bits: Arc<Vec<u64>>,
    units: u32,
    commitments: u32,
}

impl Claims {
    fn contains(&self, unit: u32) -> bool {
        let (word, bit) = place(unit);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Claims a unit; false when it was claimed before.
    fn claim(&mut self, unit: u32) -> bool {
        if self.contains(unit) {
            return false;
        }
        let (word, bit) = place(unit);
        let bits = Arc::make_mut(&mut self.bits);
        bits.resize(bits.len().max(word + 1), 0);
        bits[word] |= bit;
        self.units += 1;
        true
    }
}

fn place(unit: u32) -> (usize, u64) {
    (unit as usize / 64, 1 << (unit % 64))
}

impl Commitments {
    pub(crate) fn new(stages: usize) -> Self {
        Self { accepted: Vec::new(), stages: vec![Claims::default(); stages] }
    }

    /// Accepts a commitment of a peer whose chain is `receipts_root`, or which committed before at the place `earlier`;
    /// gives its place.
    pub(crate) fn push(
        &mut self,
        entry: Entry,
        commitment: &Commitment,
        receipts_root: Hash,
        earlier: Option<usize>,
    ) -> usize {
        let receipts_root = earlier.map_or(receipts_root, |place| self.accepted[place].receipts_root);
        let (wishes, busy_percent, again) = (commitment.wishes, commitment.busy_percent, earlier.is_some());
        let units = u32::try_from(commitment.receipts.len()).unwrap_or(u32::MAX);
        let mut committed = Committed {
            entry,
            receipts_root,
            units,
            at_us: u64::MAX,
            paid: 0,
            lowest: u32::MAX,
            again,
            wishes,
            busy_percent,
        };
        let claims = &mut self.stages[usize::from(entry.stage)];
        claims.commitments += 1;
        for receipt in commitment.receipts.iter().map(|receipt| &receipt.body) {
            if claims.claim(receipt.index) {
                committed.receipts_root = chain(committed.receipts_root, receipt);
                committed.paid += 1;
                committed.lowest = committed.lowest.min(receipt.index);
            }
        }
        self.accepted.push(committed);
        self.accepted.len() - 1
    }

    /// Notes the time of the block with the newest ones.
    pub(crate) fn note_time(&mut self, time_us: u64) {
        let new = self.accepted.iter_mut().rev().take_while(|committed| committed.at_us == u64::MAX);
        new.for_each(|committed| committed.at_us = time_us);
    }

    /// All of them, in the order of their acceptance.
    pub(crate) fn accepted(&self) -> &[Committed] {
        &self.accepted
    }

    /// The number of commitments in a stage.
    pub(crate) fn len_of(&self, stage: usize) -> u32 {
        self.stages[stage].commitments
    }

    /// The number of units claimed in a stage.
    pub(crate) fn units_of(&self, stage: usize) -> u32 {
        self.stages.get(stage).map_or(0, |claims| claims.units)
    }

    /// Whether a unit is claimed in a stage.
    pub(crate) fn claims(&self, stage: usize, unit: u32) -> bool {
        self.stages.get(stage).is_some_and(|claims| claims.contains(unit))
    }
}

//! What a closed round leaves: its committed set.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use wire::{Hash, PeerId};

/// One peer's part of a committed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Entry {
    /// The stage that it is for.
    pub stage: u16,
    /// Whose payload it is.
    pub peer: PeerId,
    /// The payload's blob.
    pub payload: Hash,
    /// Its size in bytes.
    pub payload_bytes: u64,
    /// Tokens that it was made from, paid or not: its weight.
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
    /// Roots of the states that the round started from, one per stage.
    pub state_in: Vec<Hash>,
    /// How many steps smaller than the recipe says the numbers were between each stage and the next.
    pub coarser: Vec<u8>,
    /// The payloads, ordered by stage and peer.
    pub entries: Vec<Entry>,
}

impl CommittedSet {
    /// The set's name.
    pub fn digest(&self) -> Hash {
        let bytes = borsh::to_vec(self).expect("writing to a vector cannot fail");
        Hash::derive("cairn v1 committed set", &[&bytes])
    }

    /// Whether a payload of a peer is among those of a stage.
    pub fn has_entry_of(&self, stage: u16, peer: &PeerId) -> bool {
        self.entries.binary_search_by_key(&(stage, *peer), |entry| (entry.stage, entry.peer)).is_ok()
    }

    /// The payloads of one stage, ordered by peer.
    pub fn entries_of(&self, stage: u16) -> &[Entry] {
        let first = self.entries.partition_point(|entry| entry.stage < stage);
        let len = self.entries[first..].partition_point(|entry| entry.stage == stage);
        &self.entries[first..first + len]
    }
}

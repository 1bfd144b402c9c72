//! What the ledger knows of each peer.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use wire::identity::Signable;
use wire::{Hash, PeerId, Receipt};

/// Whether a peer takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Takes no part.
    #[default]
    Out,
    /// Takes part from the next round on.
    Joining,
    /// A member of the open round.
    Member,
    /// A member of the open round, but not of the next.
    Leaving,
}

/// One peer's account in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Whose it is.
    pub peer: PeerId,
    /// The key of who runs the peer: its own, unless its first join had an operator's certificate. It never changes.
    pub operator: PeerId,
    /// Whether the peer takes part.
    pub standing: Standing,
    /// The stage of its last join: the one it is in, or will be in from the next round on.
    pub stage: u16,
    /// Joins and leaves accepted so far: what the next one must name.
    pub sequence: u64,
    /// Receipts accepted so far, paid or not: what its next one must name.
    pub counter: u64,
    /// Shares, in micro-shares.
    pub shares: u64,
    /// Tokens of its paid units.
    pub tokens: u64,
    /// Receipts paid.
    pub receipts: u64,
    /// Hash chain over the paid receipts, in order; all zero before the first.
    pub receipts_root: Hash,
    /// Committed sets that it is part of.
    pub rounds: u64,
    /// Rounds in a row that it let pass: with one stage, in which it had units and committed none; with several, in which
    /// it neither committed nor attested.
    pub missed: u32,
    /// Attestations of it that differ from the canonical root of its stage.
    pub divergences: u64,
}

impl Account {
    /// An account that has done nothing yet.
    pub(crate) fn new(peer: PeerId) -> Self {
        Self {
            peer,
            operator: peer,
            standing: Standing::Out,
            stage: 0,
            sequence: 0,
            counter: 0,
            shares: 0,
            tokens: 0,
            receipts: 0,
            receipts_root: Hash::default(),
            rounds: 0,
            missed: 0,
            divergences: 0,
        }
    }
}

/// The receipts chain after one more receipt.
pub(crate) fn chain(root: Hash, receipt: &Receipt) -> Hash {
    Hash::derive("cairn v1 receipt chain", &[&root.0, &receipt.digest().0])
}

/// All accounts, in the order of their peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    sorted: Vec<Account>,
    /// Places whose account may have changed since the last call of [`Accounts::settle_changes`].
    touched: Vec<usize>,
    /// Whether accounts were added since then, so that places moved.
    reshaped: bool,
}

/// What changed in the accounts since the last root.
pub(crate) enum Changes {
    /// Accounts were added.
    Shape,
    /// These places changed.
    Places(Vec<usize>),
}

impl Accounts {
    /// All of them, sorted.
    pub(crate) fn all(&self) -> &[Account] {
        &self.sorted
    }

    /// The place of a peer's account.
    pub(crate) fn place(&self, peer: &PeerId) -> Option<usize> {
        self.sorted.binary_search_by(|account| account.peer.cmp(peer)).ok()
    }

    /// A peer's account.
    pub(crate) fn get(&self, peer: &PeerId) -> Option<&Account> {
        self.place(peer).map(|place| &self.sorted[place])
    }

    /// A peer's account, to be changed.
    pub(crate) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Account> {
        let place = self.place(peer)?;
        self.touched.push(place);
        Some(&mut self.sorted[place])
    }

    /// A peer's account, made when there is none.
    pub(crate) fn entry(&mut self, peer: PeerId) -> &mut Account {
        let place = match self.sorted.binary_search_by(|account| account.peer.cmp(&peer)) {
            Ok(place) => place,
            Err(place) => {
                self.sorted.insert(place, Account::new(peer));
                self.reshaped = true;
                place
            }
        };
        self.touched.push(place);
        &mut self.sorted[place]
    }

    /// Forgets what changed and says it.
    pub(crate) fn settle_changes(&mut self) -> Changes {
        let mut places = std::mem::take(&mut self.touched);
        if std::mem::take(&mut self.reshaped) {
            return Changes::Shape;
        }
        places.sort_unstable();
        places.dedup();
        Changes::Places(places)
    }
}

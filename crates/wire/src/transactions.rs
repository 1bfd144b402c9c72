//! The transactions of a block, of which many peers of one process can hold the same copy.
//!
//! A block is held by everybody, goes through many hands and does not change: copies share their transactions, and what is computed from all
//! of them (root, size) is computed once. Whoever changes a copy gets one of its own.

use std::fmt;
use std::io::{Read, Result, Write};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::Hash;
use crate::identity::Signed;
use crate::transaction::{Block, Transaction};

/// An ordered list of signed transactions; its bytes are those of a vector. Clones share it.
#[derive(Clone, Default)]
pub struct Transactions(Arc<Shared>);

#[derive(Clone, Default)]
struct Shared {
    list: Vec<Signed<Transaction>>,
    root: OnceLock<Hash>,
    bytes: OnceLock<u64>,
}

impl Transactions {
    /// The root that a header must name for these transactions ([`Block::transactions_root`]).
    pub fn root(&self) -> Hash {
        *self.0.root.get_or_init(|| Block::transactions_root(&self.0.list))
    }

    /// The number of bytes of their encoding.
    pub fn encoded_len(&self) -> u64 {
        let count = || borsh::object_length(&self.0.list).map_or(u64::MAX, |bytes| bytes as u64);
        *self.0.bytes.get_or_init(count)
    }
}

impl From<Vec<Signed<Transaction>>> for Transactions {
    fn from(list: Vec<Signed<Transaction>>) -> Self {
        Self(Arc::new(Shared { list, ..Shared::default() }))
    }
}

impl Deref for Transactions {
    type Target = Vec<Signed<Transaction>>;
    fn deref(&self) -> &Self::Target {
        &self.0.list
    }
}

impl DerefMut for Transactions {
    fn deref_mut(&mut self) -> &mut Self::Target {
        let shared = Arc::make_mut(&mut self.0);
        (shared.root, shared.bytes) = (OnceLock::new(), OnceLock::new());
        &mut shared.list
    }
}

impl<'a> IntoIterator for &'a Transactions {
    type Item = &'a Signed<Transaction>;
    type IntoIter = std::slice::Iter<'a, Signed<Transaction>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.list.iter()
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.list.fmt(f)
    }
}

impl PartialEq for Transactions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.list == other.0.list
    }
}

impl Eq for Transactions {}

impl BorshSerialize for Transactions {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<()> {
        BorshSerialize::serialize(&self.0.list, writer)
    }
}

impl BorshDeserialize for Transactions {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self> {
        Vec::deserialize_reader(reader).map(Self::from)
    }
}

impl Serialize for Transactions {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Serialize::serialize(&self.0.list, serializer)
    }
}

impl<'de> Deserialize<'de> for Transactions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        <Vec<_> as Deserialize>::deserialize(deserializer).map(Self::from)
    }
}

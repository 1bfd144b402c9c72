//! Binary Merkle trees over BLAKE3.
//!
//! Purpose: one hash names a list of byte strings, and a short proof shows that one of them is in it, at its place.
//! Source: the shape is that of RFC 6962 section 2.1 (a node without a sibling moves up unchanged).
//! Deviations: leaves, nodes and the root are hashed under three BLAKE3 contexts instead of one-byte prefixes, and the
//! root also covers the number of leaves, so that an index cannot be claimed in a tree of another shape.
//! It does not prove absence, and it does not prove that one tree extends another.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::encoding::Wire;
use crate::hash::Hash;

/// Most siblings in a proof: as many as a tree of 2^64 leaves needs.
pub const PROOF_SIBLINGS_MAX: usize = 64;

/// Hashes the bytes of one leaf.
pub fn leaf(bytes: &[u8]) -> Hash {
    Hash::derive("cairn v1 merkle leaf", &[bytes])
}

fn node(left: Hash, right: Hash) -> Hash {
    Hash::derive("cairn v1 merkle node", &[&left.0, &right.0])
}

fn root(leaves: u64, top: Hash) -> Hash {
    Hash::derive("cairn v1 merkle root", &[&leaves.to_le_bytes(), &top.0])
}

/// A tree that keeps all its nodes, so that changing one leaf costs one path. About 64 bytes per leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// From the leaves (first) to the top (last, one node, or none when the tree is empty).
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Builds the tree over leaves that were hashed by [`leaf`].
    pub fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            levels.push(below.chunks(2).map(join).collect());
        }
        Self { levels }
    }

    /// The number of leaves.
    pub fn len(&self) -> usize {
        self.levels[0].len()
    }

    /// Whether there are no leaves.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let top = self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default();
        root(self.len() as u64, top)
    }

    /// Replaces one leaf.
    ///
    /// # Panics
    /// When there is no leaf `index`.
    pub fn set(&mut self, index: usize, leaf: Hash) {
        assert!(index < self.len(), "leaf {index} of {}", self.len());
        self.levels[0][index] = leaf;
        let mut index = index;
        for upper in 1..self.levels.len() {
            index /= 2;
            let below = &self.levels[upper - 1];
            let joined = join(&below[2 * index..below.len().min(2 * index + 2)]);
            self.levels[upper][index] = joined;
        }
    }

    /// The proof for leaf `index`, or `None` when there is no such leaf.
    pub fn proof(&self, index: usize) -> Option<Proof> {
        if index >= self.len() {
            return None;
        }
        let mut siblings = Vec::new();
        let mut at = index;
        for level in &self.levels {
            siblings.extend(level.get(at ^ 1));
            at /= 2;
        }
        Some(Proof { index: index as u64, leaves: self.len() as u64, siblings })
    }
}

fn join(pair: &[Hash]) -> Hash {
    match *pair {
        [left, right] => node(left, right),
        [single] => single,
        _ => unreachable!("chunks of one or two"),
    }
}

/// Shows that a leaf is at a place in a tree.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Proof {
    /// The leaf's place, from 0.
    pub index: u64,
    /// The tree's number of leaves.
    pub leaves: u64,
    /// The hashes beside the path, from the leaf up.
    pub siblings: Vec<Hash>,
}

impl Proof {
    /// The root of the tree in which `leaf` has this proof, or `None` when the proof does not have the shape that its
    /// index and number of leaves ask for. Total: any values give an answer.
    pub fn root(&self, leaf: Hash) -> Option<Hash> {
        if self.index >= self.leaves || self.siblings.len() > PROOF_SIBLINGS_MAX {
            return None;
        }
        let (mut at, mut width, mut hash) = (self.index, self.leaves, leaf);
        let mut siblings = self.siblings.iter().copied();
        while width > 1 {
            if at % 2 == 1 {
                hash = node(siblings.next()?, hash);
            } else if at + 1 < width {
                hash = node(hash, siblings.next()?);
            }
            (at, width) = (at / 2, width.div_ceil(2));
        }
        siblings.next().is_none().then(|| root(self.leaves, hash))
    }

    /// Whether `leaf` is in the tree with this `root`, at the place that the proof names.
    pub fn verify(&self, root: Hash, leaf: Hash) -> bool {
        self.root(leaf) == Some(root)
    }
}

impl Wire for Proof {
    const NAME: &'static str = "merkle proof";
    const BYTES_MAX: usize = 20 + 32 * PROOF_SIBLINGS_MAX;

    fn validate(&self) -> Result<(), &'static str> {
        if self.index >= self.leaves {
            return Err("index must be below the number of leaves");
        }
        if self.siblings.len() > PROOF_SIBLINGS_MAX {
            return Err("at most 64 siblings");
        }
        Ok(())
    }
}

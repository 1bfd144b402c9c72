//! Blocks that this process has checked and applied before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ledger::{Applied, BlockError, Ledger};
use wire::{Block, Hash, Signable, SignatureError, VerifiedBlock};

use crate::limits::{APPLIED_BLOCKS_MAX, CHECKED_BLOCKS_MAX};

/// Remembers blocks whose signatures verified, and what came of applying the newest of them. Clones share their memory, so that the peers of
/// one process check and apply each block once between them. It changes how long an answer takes, never the answer: a block is
/// recognised by a hash over all its signed bytes, signers and signatures; only good ones are remembered, the newest
/// [`CHECKED_BLOCKS_MAX`]; and what a block makes of a ledger follows from the block before it, which it names.
#[derive(Clone, Debug, Default)]
pub struct CheckedBlocks {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Each block's name, and the ledger after it while it is among the newest.
    known: BTreeMap<Hash, Option<Arc<(Ledger, Applied)>>>,
    order: VecDeque<Hash>,
    /// Blocks with a ledger.
    applied: VecDeque<Hash>,
}

impl CheckedBlocks {
    /// Checks every signature of a block, unless it was found good before.
    ///
    /// # Errors
    /// [`SignatureError`] for the first signature that does not verify.
    pub fn verify(&self, block: Block) -> Result<VerifiedBlock, SignatureError> {
        let name = name(&block);
        if self.with(|memory| memory.known.contains_key(&name)) {
            return Ok(VerifiedBlock::trusted(block));
        }
        let block = block.verify()?;
        self.with(|memory| memory.remember(name));
        Ok(block)
    }

    /// Remembers a block that this process made, all of whose transactions it checked.
    pub(crate) fn remember(&self, block: &Block) {
        self.with(|memory| memory.remember(name(block)));
    }

    /// Applies a block to a ledger, as [`Ledger::apply_verified`] does.
    ///
    /// # Errors
    /// [`BlockError`], and then the ledger is what it was.
    pub fn apply(&self, ledger: &mut Ledger, block: &VerifiedBlock) -> Result<Applied, BlockError> {
        // Who is alone has nobody to remember for.
        if Arc::strong_count(&self.memory) == 1 {
            return ledger.apply_verified(block);
        }
        let (name, header) = (name(block), &block.header.body);
        let follows = header.run == ledger.run() && header.parent == ledger.head_digest();
        if let Some(after) = self.with(|memory| memory.known.get(&name).cloned().flatten()).filter(|_| follows) {
            *ledger = after.0.clone();
            return Ok(after.1.clone());
        }
        let applied = ledger.apply_verified(block)?;
        let after = Arc::new((ledger.clone(), applied.clone()));
        self.with(|memory| memory.remember_applied(name, after));
        Ok(applied)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Memory {
    fn remember(&mut self, name: Hash) {
        if let Entry::Vacant(new) = self.known.entry(name) {
            new.insert(None);
            self.order.push_back(name);
        }
        if self.order.len() > CHECKED_BLOCKS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn remember_applied(&mut self, name: Hash, after: Arc<(Ledger, Applied)>) {
        self.remember(name);
        if let Some(kept) = self.known.get_mut(&name) {
            *kept = Some(after);
            self.applied.push_back(name);
        }
        if self.applied.len() > APPLIED_BLOCKS_MAX
            && let Some(kept) = self.applied.pop_front().and_then(|oldest| self.known.get_mut(&oldest))
        {
            *kept = None;
        }
    }
}

/// Hashes everything that a block's validity as a signed object depends on. The root is computed from the transactions
/// (their signers, signatures and digests, in which receipts are included), not taken from the header.
fn name(block: &Block) -> Hash {
    let header = &block.header;
    let (digest, root) = (header.body.digest(), block.transactions.root());
    Hash::derive("cairn v1 checked block", &[&header.signer.0, &header.signature.0, &digest.0, &root.0])
}

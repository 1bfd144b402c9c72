//! Blocks whose signatures this process has checked before.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use wire::{Block, Hash, Signable, SignatureError, VerifiedBlock};

use crate::limits::CHECKED_BLOCKS_MAX;

/// Remembers blocks whose signatures verified. Clones share their memory, so that the peers of one process check each
/// block once between them. It changes how long an answer takes, never the answer: a block is recognised by a hash over all
/// its signed bytes, signers and signatures, and only good ones are remembered, the newest [`CHECKED_BLOCKS_MAX`].
#[derive(Clone, Debug, Default)]
pub struct CheckedBlocks {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    names: BTreeSet<Hash>,
    order: VecDeque<Hash>,
}

impl CheckedBlocks {
    /// Checks every signature of a block, unless it was found good before.
    ///
    /// # Errors
    /// [`SignatureError`] for the first signature that does not verify.
    pub fn verify(&self, block: Block) -> Result<VerifiedBlock, SignatureError> {
        let name = name(&block);
        if self.with(|memory| memory.names.contains(&name)) {
            return Ok(VerifiedBlock::trusted(block));
        }
        let block = block.verify()?;
        self.with(|memory| memory.remember(name));
        Ok(block)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Memory {
    fn remember(&mut self, name: Hash) {
        if self.names.insert(name) {
            self.order.push_back(name);
        }
        if self.order.len() > CHECKED_BLOCKS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

/// Hashes everything that a block's validity as a signed object depends on. The root is computed from the transactions
/// (their signers, signatures and digests, in which receipts are included), not taken from the header.
fn name(block: &Block) -> Hash {
    let header = &block.header;
    let (digest, root) = (header.body.digest(), Block::transactions_root(&block.transactions));
    Hash::derive("cairn v1 checked block", &[&header.signer.0, &header.signature.0, &digest.0, &root.0])
}

//! What a host keeps over a crash.

use std::collections::BTreeMap;

use swarm::limits::OUTBOX_MAX;
use swarm::{ModelPoint, Record, Restored};
use wire::{Block, Hash, Signed, Transaction};

use crate::trainer::Residual;

/// A host's storage. Every change is atomic and durable at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    blocks: Vec<Block>,
    outbox: Vec<Signed<Transaction>>,
    /// The stored state.
    pub(crate) model: Option<ModelPoint>,
    /// The error-feedback residual, in the fake trainer's terms.
    pub(crate) residual: Residual,
    /// Blobs and their sizes.
    pub(crate) blobs: BTreeMap<Hash, u64>,
}

impl Disk {
    /// Stores a record.
    pub(crate) fn persist(&mut self, record: Record) {
        match record {
            Record::Block(block) => {
                let height = usize::try_from(block.header.body.height).expect("a simulated height");
                self.blocks.truncate(height);
                assert_eq!(self.blocks.len(), height, "blocks are persisted in order");
                self.blocks.push(block);
            }
            Record::Outgoing(transaction) => {
                self.outbox.push(transaction);
                let excess = self.outbox.len().saturating_sub(OUTBOX_MAX);
                self.outbox.drain(..excess);
            }
        }
    }

    /// What a peer is made again from.
    pub(crate) fn restored(&self) -> Restored {
        Restored { blocks: self.blocks.clone(), model: self.model, outbox: self.outbox.clone() }
    }
}

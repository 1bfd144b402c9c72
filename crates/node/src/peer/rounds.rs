//! Follows the blocks for what people want to know of each round: its loss, its payloads and its time.
//!
//! It repeats the ledger's fold, which says when a round closed, and reads the losses from the receipts.

use std::sync::Arc;

use ledger::Ledger;
use wire::{Action, Block, Charter, Receipt, Signed, Verified, VerifiedBlock};

use crate::status::RoundReport;

/// The rounds of a run so far.
#[derive(Debug)]
pub(super) struct Rounds {
    ledger: Ledger,
    opened_us: u64,
    loss_sum: f64,
    loss_tokens: u64,
    reports: Arc<Vec<RoundReport>>,
}

impl Rounds {
    pub(super) fn new(charter: &Verified<Charter>) -> Self {
        Self { ledger: Ledger::new(charter), opened_us: 0, loss_sum: 0.0, loss_tokens: 0, reports: Arc::default() }
    }

    /// The closed rounds, oldest first.
    pub(super) fn reports(&self) -> Arc<Vec<RoundReport>> {
        self.reports.clone()
    }

    /// Takes the next block, which the protocol has checked. Any other block is ignored.
    pub(super) fn take(&mut self, block: &Block) {
        let Ok(applied) = self.ledger.apply_verified(&VerifiedBlock::trusted(block.clone())) else { return };
        let stages = self.ledger.charter().stages.len() as u64;
        for transaction in &block.transactions {
            let Action::Commit(commitment) = &transaction.body.action else { continue };
            // Of several stages only the last one has a loss.
            let with_loss = |receipt: &&Signed<Receipt>| u64::from(receipt.body.stage) + 1 == stages;
            for receipt in commitment.receipts.iter().filter(with_loss) {
                let tokens = receipt.body.tokens;
                self.loss_sum += receipt.body.loss_micronats as f64 / 1e6 * tokens as f64;
                self.loss_tokens += tokens;
            }
        }
        let time_us = block.header.body.time_us;
        if let Some(closed) = applied.closed {
            let report = RoundReport {
                round: closed.round,
                tokens: self.ledger.totals().tokens / stages,
                training_loss: (self.loss_tokens > 0).then(|| self.loss_sum / self.loss_tokens as f64),
                payload_bytes: closed.entries.iter().map(|entry| entry.payload_bytes).sum(),
                payloads: closed.entries.len() as u64,
                opened_us: self.opened_us,
                closed_us: time_us,
            };
            Arc::make_mut(&mut self.reports).push(report);
            (self.loss_sum, self.loss_tokens) = (0.0, 0);
        }
        if applied.opened.is_some() {
            self.opened_us = time_us;
        }
    }
}

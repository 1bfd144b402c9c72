//! Transactions, which peers submit, and blocks, in which a validator orders them.
//!
//! Source: section 2 of the training design (the committed set of a round) and section 2 of the verification design.
//! Deviations: one validator's signature makes a block final, because one validator orders in this version.
//! What a transaction may do when is the ledger's question; here is only what it says.

use std::ops::Deref;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::charter::RunId;
use crate::encoding::Wire;
use crate::hash::Hash;
use crate::identity::{Domain, Signable, SignatureError, Signed};
use crate::operator::OperatorCertificate;
use crate::receipt::Receipt;
use crate::transactions::Transactions;

/// Most receipts in one commitment.
pub const RECEIPTS_PER_COMMITMENT_MAX: usize = 64;
/// Most transactions in one block.
pub const TRANSACTIONS_PER_BLOCK_MAX: usize = 4096;
/// Largest payload that may be announced, in bytes.
pub const PAYLOAD_BYTES_MAX: u64 = 4 << 30;

/// What a member wishes about how the numbers are written that it exchanges with a neighbouring stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkWish {
    /// As they are, or it cannot say.
    #[default]
    Keep,
    /// One step smaller: it waits for the link.
    Coarser,
    /// One step larger: the link carries that easily.
    Finer,
}

/// The wishes of a member for the boundaries before and after its stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct LinkWishes {
    /// Between the stage before and its own.
    pub before: LinkWish,
    /// Between its own stage and the one after.
    pub after: LinkWish,
}

/// A peer's contribution to a round, announced before anybody sees its body.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Commitment {
    /// The round.
    pub round: u64,
    /// BLAKE3 hash of the payload: the name of its blob.
    pub payload: Hash,
    /// The payload's size in bytes.
    pub payload_bytes: u64,
    /// Root of the error-feedback residual after this payload.
    pub residual_root: Hash,
    /// What the round showed about the links to the neighbouring stages.
    pub wishes: LinkWishes,
    /// How large a part of the round's work on units the signer spent computing, in percent, as it says: 100 where the others wait for it.
    /// 0 in runs of one stage, and where it cannot say.
    pub busy_percent: u8,
    /// One receipt per unit, in the order in which the units' gradients were added up, 1 to
    /// [`RECEIPTS_PER_COMMITMENT_MAX`].
    pub receipts: Vec<Signed<Receipt>>,
}

impl Commitment {
    /// Tokens over all receipts: the payload's weight. Saturates.
    pub fn tokens(&self) -> u64 {
        self.receipts.iter().fold(0, |sum, receipt| sum.saturating_add(receipt.body.tokens))
    }
}

/// A peer's statement of the root that its stage's state has at the start of a round, after it applied the committed set
/// of the round before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Attestation {
    /// The round that starts from this state.
    pub round: u64,
    /// The stage whose state it is: the signer's. A member that changes its stage within a round attests both.
    pub stage: u16,
    /// The state's root.
    pub state_root: Hash,
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Take part from the next round on, or change to another stage then.
    Join {
        /// Joins and leaves of the signer that the ledger accepted before: it makes an old one worthless to a replayer.
        sequence: u64,
        /// The stage in which the signer takes part.
        stage: u16,
        /// Who runs the signer; without a certificate it is its own operator.
        operator: Option<Signed<OperatorCertificate>>,
    },
    /// Take no part from the next round on.
    Leave {
        /// As in [`Action::Join`].
        sequence: u64,
    },
    /// Contribute to the current round.
    Commit(Commitment),
    /// State a round's starting root.
    Attest(Attestation),
}

/// A signed action. Each is accepted at most once (by its sequence, or by its round), so a transaction that arrives twice
/// changes nothing the second time.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Transaction {
    /// The run.
    pub run: RunId,
    /// What it does.
    pub action: Action,
}

impl Wire for Transaction {
    const NAME: &'static str = "transaction";
    const BYTES_MAX: usize = 64 * 1024;

    fn validate(&self) -> Result<(), &'static str> {
        let Action::Commit(commitment) = &self.action else { return Ok(()) };
        let receipts = &commitment.receipts;
        if receipts.is_empty() || receipts.len() > RECEIPTS_PER_COMMITMENT_MAX {
            return Err("a commitment must have 1 to 64 receipts");
        }
        let mut indices: Vec<u32> = receipts.iter().map(|receipt| receipt.body.index).collect();
        indices.sort_unstable();
        if indices.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("receipts must have distinct unit indices");
        }
        if commitment.busy_percent > 100 {
            return Err("busy_percent must be 0 to 100");
        }
        if commitment.payload_bytes == 0 || commitment.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err("payload_bytes must be 1 to 4 GiB");
        }
        Ok(())
    }
}

impl Signable for Transaction {
    const DOMAIN: Domain = Domain::Transaction;

    fn check_nested(&self) -> Result<(), SignatureError> {
        match &self.action {
            Action::Commit(commitment) => commitment.receipts.iter().try_for_each(Signed::check),
            Action::Join { operator: Some(certificate), .. } => certificate.check(),
            Action::Join { .. } | Action::Leave { .. } | Action::Attest(_) => Ok(()),
        }
    }
}

/// What a validator signs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct BlockHeader {
    /// The run.
    pub run: RunId,
    /// Blocks before this one: 0 for the first.
    pub height: u64,
    /// Digest of the header before; the run's id for the first.
    pub parent: Hash,
    /// The validator's time, in microseconds since the Unix epoch; never less than the parent's.
    pub time_us: u64,
    /// Hash over the signed transactions, in order.
    pub transactions_root: Hash,
    /// Root of the ledger after this block.
    pub ledger_root: Hash,
}

impl Wire for BlockHeader {
    const NAME: &'static str = "block header";
    const BYTES_MAX: usize = 256;
}

impl Signable for BlockHeader {
    const DOMAIN: Domain = Domain::Block;
}

/// An ordered list of transactions with its signed header.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Block {
    /// The header, signed by a validator.
    pub header: Signed<BlockHeader>,
    /// The transactions.
    pub transactions: Transactions,
}

impl Block {
    /// The root that a header must name for these transactions.
    pub fn transactions_root(transactions: &[Signed<Transaction>]) -> Hash {
        let digests: Vec<Hash> = transactions.iter().map(|transaction| transaction.body.digest()).collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(transactions.len() * 3);
        for (transaction, digest) in transactions.iter().zip(&digests) {
            parts.extend([&transaction.signer.0[..], &transaction.signature.0[..], &digest.0[..]]);
        }
        Hash::derive("cairn v1 block transactions", &parts)
    }

    /// Checks every signature: the header's, the transactions' and their receipts'.
    ///
    /// # Errors
    /// [`SignatureError`] for the first that does not verify.
    pub fn check_signatures(&self) -> Result<(), SignatureError> {
        self.header.check()?;
        self.transactions.iter().try_for_each(Signed::check)
    }

    /// Checks every signature and keeps the result with the block.
    ///
    /// # Errors
    /// As [`Block::check_signatures`].
    pub fn verify(self) -> Result<VerifiedBlock, SignatureError> {
        self.check_signatures()?;
        Ok(VerifiedBlock(self))
    }
}

/// A block all of whose signatures were checked. Whether it fits on a ledger is the ledger's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBlock(Block);

impl VerifiedBlock {
    /// Marks a block that this process made, or verified before it stored it, without checking its signatures again.
    /// Never for a block that came from another peer.
    pub fn trusted(block: Block) -> Self {
        Self(block)
    }

    /// Gives the block back.
    pub fn into_block(self) -> Block {
        self.0
    }
}

impl Deref for VerifiedBlock {
    type Target = Block;
    fn deref(&self) -> &Block {
        &self.0
    }
}

impl Wire for Block {
    const NAME: &'static str = "block";
    const BYTES_MAX: usize = 16 * 1024 * 1024;

    fn validate(&self) -> Result<(), &'static str> {
        if self.transactions.len() > TRANSACTIONS_PER_BLOCK_MAX {
            return Err("a block must have at most 4096 transactions");
        }
        self.transactions.iter().try_for_each(Wire::validate)
    }
}

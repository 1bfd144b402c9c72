//! A piece: what a peer owns of a run, in a form that anybody can check offline.
//!
//! Purpose: a `piece.json` shows that a key holds so many shares of so many, for which receipts, as of which block.
//! Source: the ownership section of the product design, section 2 of the verification design.
//!
//! What a verifier learns: the charter has this run id; a validator that the charter names signed this block header; the
//! ledger root in that header covers these totals and this account; and the account was paid for exactly these receipts,
//! all signed by its key. What it does not learn: whether a later block changed the account, who founded the run (the run
//! id covers the terms, not the signature under them), and whether the units were computed honestly.

use serde::{Deserialize, Serialize};
use wire::merkle::Proof;
use wire::{BlockHeader, Charter, Hash, PeerId, Receipt, RunId, Signed, Wire};

use crate::accounts::{Account, chain};
use crate::ledger::state::{Leaf, Totals};

/// The version of the piece format.
pub const PIECE_VERSION: u16 = 3;
/// Largest piece that is read, in bytes of JSON: room for about 50,000 receipts.
pub const PIECE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a peer owns of a run, with everything that proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// [`PIECE_VERSION`].
    pub version: u16,
    /// The run's terms.
    pub charter: Signed<Charter>,
    /// The header of the block after which the account stood so.
    pub header: Signed<BlockHeader>,
    /// What the run amounted to after that block.
    pub totals: Totals,
    /// Shows that the totals are in the ledger.
    pub totals_proof: Proof,
    /// The peer's account.
    pub account: Account,
    /// Shows that the account is in the ledger.
    pub account_proof: Proof,
    /// The receipts that the account was paid for, in the order of their counters.
    pub receipts: Vec<Signed<Receipt>>,
}

/// What a verified piece says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceSummary {
    /// The run.
    pub run: RunId,
    /// What people call the run.
    pub name: String,
    /// Whose piece it is.
    pub peer: PeerId,
    /// Its shares, in micro-shares.
    pub shares: u64,
    /// All shares, in micro-shares.
    pub supply: u64,
    /// Tokens of its paid units.
    pub tokens: u64,
    /// Its paid receipts.
    pub receipts: u64,
    /// Committed sets that it is part of.
    pub rounds: u64,
    /// Height of the block that the piece refers to.
    pub height: u64,
    /// Time of that block, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// The validator that signed that block.
    pub validator: PeerId,
    /// Root of the ledger after that block.
    pub ledger_root: Hash,
}

/// Why a piece proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// More bytes than a piece may have.
    #[error("a piece of {bytes} bytes is larger than the limit of {max}")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not the JSON of a piece, or cut off.
    #[error("not a piece in JSON: {detail}")]
    Json {
        /// What the parser says, with line and column.
        detail: String,
    },
    /// Of another version of the format.
    #[error("the piece has version {got}, this program reads version {expected}")]
    Version {
        /// The version that is read.
        expected: u16,
        /// The version it has.
        got: u16,
    },
    /// The charter breaks its own rules.
    #[error("the charter is invalid: {field}")]
    Charter {
        /// The field and its rule.
        field: &'static str,
    },
    /// The charter's signature does not verify.
    #[error("the signature of the charter by `{signer}` does not verify")]
    CharterSignature {
        /// Who is said to have signed.
        signer: PeerId,
    },
    /// The header is of another run than the charter.
    #[error("the block header is for run `{got}`, but the charter is of run `{expected}`", got = got.0, expected = expected.0)]
    HeaderRun {
        /// The charter's run.
        expected: RunId,
        /// The header's run.
        got: RunId,
    },
    /// The header is signed by a key that the charter does not name.
    #[error("the block header is signed by `{signer}`, which is no validator of the run")]
    ForeignValidator {
        /// Who signed.
        signer: PeerId,
    },
    /// The header's signature does not verify.
    #[error("the signature of the block header by `{signer}` does not verify")]
    HeaderSignature {
        /// Who is said to have signed.
        signer: PeerId,
    },
    /// The totals are not those of the ledger root.
    #[error("the totals do not belong to the ledger root `{ledger_root}`")]
    Totals {
        /// The root in the header.
        ledger_root: Hash,
    },
    /// The account (its shares, for instance) is not that of the ledger root.
    #[error("the account of `{peer}` with {shares} micro-shares does not belong to the ledger root `{ledger_root}`")]
    Account {
        /// Whose account.
        peer: PeerId,
        /// The shares it claims.
        shares: u64,
        /// The root in the header.
        ledger_root: Hash,
    },
    /// Receipts are missing, or there are too many.
    #[error("the piece holds {got} receipts, the account was paid for {expected}")]
    ReceiptCount {
        /// Receipts of the account.
        expected: u64,
        /// Receipts in the piece.
        got: u64,
    },
    /// A receipt of another run.
    #[error("receipt {place} is for run `{got}`, not for run `{expected}`", got = got.0, expected = expected.0)]
    ReceiptRun {
        /// Its place, from 0.
        place: u64,
        /// The charter's run.
        expected: RunId,
        /// The receipt's run.
        got: RunId,
    },
    /// A receipt of another peer.
    #[error("receipt {place} is signed by `{signer}`, not by the owner of the account")]
    ReceiptSigner {
        /// Its place, from 0.
        place: u64,
        /// Who signed it.
        signer: PeerId,
    },
    /// A receipt out of its place: counters ascend, and are below the account's.
    #[error("receipt {place} has counter {got}")]
    ReceiptCounter {
        /// Its place, from 0.
        place: u64,
        /// The counter it has.
        got: u64,
    },
    /// A receipt's signature does not verify.
    #[error("the signature of receipt {place} does not verify")]
    ReceiptSignature {
        /// Its place, from 0.
        place: u64,
    },
    /// The receipts are well signed, but are not those that were paid.
    #[error("the receipts do not lead to the account's receipts root `{expected}`, but to `{got}`")]
    ReceiptChain {
        /// The account's root.
        expected: Hash,
        /// The root that follows from the receipts.
        got: Hash,
    },
}

impl Piece {
    /// Reads a piece from its JSON. It is not verified yet.
    ///
    /// # Errors
    /// [`PieceError::TooLarge`], [`PieceError::Json`], [`PieceError::Version`].
    pub fn from_json(json: &[u8]) -> Result<Self, PieceError> {
        /// Only the version, so that a later format gets a better answer than an unknown field.
        #[derive(Deserialize)]
        struct Versioned {
            version: u16,
        }
        let bytes = json.len();
        if bytes > PIECE_BYTES_MAX {
            return Err(PieceError::TooLarge { bytes, max: PIECE_BYTES_MAX });
        }
        let malformed = |error: serde_json::Error| PieceError::Json { detail: error.to_string() };
        let Versioned { version } = serde_json::from_slice(json).map_err(malformed)?;
        check_version(version)?;
        serde_json::from_slice(json).map_err(malformed)
    }

    /// The piece as JSON for people and machines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a piece has only string keys")
    }

    /// Checks everything that the piece claims. Needs nothing else: no network, no ledger.
    ///
    /// # Errors
    /// [`PieceError`] names the first part that does not hold.
    pub fn verify(&self) -> Result<PieceSummary, PieceError> {
        check_version(self.version)?;
        let run = self.verify_charter()?;
        self.verify_header(run)?;
        self.verify_leaves()?;
        self.verify_receipts(run)?;
        let (account, header) = (&self.account, &self.header.body);
        Ok(PieceSummary {
            run,
            name: self.charter.body.name.clone(),
            peer: account.peer,
            shares: account.shares,
            supply: self.totals.supply,
            tokens: account.tokens,
            receipts: account.receipts,
            rounds: account.rounds,
            height: header.height,
            time_us: header.time_us,
            validator: self.header.signer,
            ledger_root: header.ledger_root,
        })
    }

    fn verify_charter(&self) -> Result<RunId, PieceError> {
        let Signed { signer, body, .. } = &self.charter;
        body.validate().map_err(|field| PieceError::Charter { field })?;
        self.charter.check().map_err(|_| PieceError::CharterSignature { signer: *signer })?;
        Ok(body.run_id())
    }

    fn verify_header(&self, run: RunId) -> Result<(), PieceError> {
        let Signed { signer, body, .. } = &self.header;
        if body.run != run {
            return Err(PieceError::HeaderRun { expected: run, got: body.run });
        }
        if !self.charter.body.validators.contains(signer) {
            return Err(PieceError::ForeignValidator { signer: *signer });
        }
        self.header.check().map_err(|_| PieceError::HeaderSignature { signer: *signer })
    }

    fn verify_leaves(&self) -> Result<(), PieceError> {
        let ledger_root = self.header.body.ledger_root;
        if !self.totals_proof.verify(ledger_root, Leaf::Totals(self.totals).hash()) {
            return Err(PieceError::Totals { ledger_root });
        }
        let Account { peer, shares, .. } = self.account;
        if !self.account_proof.verify(ledger_root, Leaf::Account(self.account).hash()) {
            return Err(PieceError::Account { peer, shares, ledger_root });
        }
        Ok(())
    }

    fn verify_receipts(&self, run: RunId) -> Result<(), PieceError> {
        let (expected, got) = (self.account.receipts, self.receipts.len() as u64);
        if got != expected {
            return Err(PieceError::ReceiptCount { expected, got });
        }
        let mut next = 0;
        for (receipt, place) in self.receipts.iter().zip(0..) {
            self.verify_receipt(run, place, receipt)?;
            let got = receipt.body.counter;
            if !(next..self.account.counter).contains(&got) {
                return Err(PieceError::ReceiptCounter { place, got });
            }
            next = got + 1;
        }
        let root = self.receipts.iter().fold(Hash::default(), |root, receipt| chain(root, &receipt.body));
        let expected = self.account.receipts_root;
        if root == expected { Ok(()) } else { Err(PieceError::ReceiptChain { expected, got: root }) }
    }

    fn verify_receipt(&self, run: RunId, place: u64, receipt: &Signed<Receipt>) -> Result<(), PieceError> {
        let Signed { signer, body, .. } = receipt;
        if body.run != run {
            return Err(PieceError::ReceiptRun { place, expected: run, got: body.run });
        }
        if *signer != self.account.peer {
            return Err(PieceError::ReceiptSigner { place, signer: *signer });
        }
        receipt.check().map_err(|_| PieceError::ReceiptSignature { place })
    }
}

fn check_version(got: u16) -> Result<(), PieceError> {
    let expected = PIECE_VERSION;
    if got == expected { Ok(()) } else { Err(PieceError::Version { expected, got }) }
}

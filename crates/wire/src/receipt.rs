//! Receipts: a peer's signed statement that it did one unit of work.
//!
//! Source: section 2 of the verification design. Deviations: run and unit id stand for the job's hash, since the charter
//! fixes recipe, data and arithmetic; a receipt also carries its round, index and tokens, which the ledger needs to pay it.
//! A receipt proves who claims the work, not that the work was done: that takes a replay.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::charter::RunId;
use crate::encoding::Wire;
use crate::hash::Hash;
use crate::identity::{Domain, Signable};

/// A unit's name, from which its data slice and seeds follow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnitId(pub Hash);

impl UnitId {
    /// Names the unit `index` of a round: a function of public values only, never of the worker's key.
    pub fn derive(run: RunId, round: u64, beacon: Hash, index: u32) -> Self {
        let parts: [&[u8]; 4] = [&run.0.0, &round.to_le_bytes(), &beacon.0, &index.to_le_bytes()];
        Self(Hash::derive("cairn v1 unit id", &parts))
    }
}

/// What a peer states about a unit that it did. Everything in it but the counter follows from public inputs, so that a
/// replay of the unit gives the same receipt.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Receipt {
    /// The run.
    pub run: RunId,
    /// The round, from 0.
    pub round: u64,
    /// The unit's place in the round, from 0.
    pub index: u32,
    /// The stage that did its part of the unit, from 0; 0 in a run of one stage.
    pub stage: u16,
    /// The unit's name.
    pub unit: UnitId,
    /// Root of the state that the unit started from: of the stage's state.
    pub state_in: Hash,
    /// Hash of the token batches, in order; with several stages, of the unit's tokens.
    pub data_root: Hash,
    /// Hash over the inner steps (batch hash, loss bits, gradient norm bits); with several stages, over what came in (hash
    /// of the input, hash of the output's gradient).
    pub trace_root: Hash,
    /// Hash of the unit's pseudo-gradient; with several stages, over what went out (hash of the output, hash of the input's
    /// gradient).
    pub output_root: Hash,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean training loss of the unit, in millionths of a nat per token.
    pub loss_micronats: u64,
    /// The signer's receipts in this run that the ledger accepted before, from 0.
    pub counter: u64,
}

impl Wire for Receipt {
    const NAME: &'static str = "receipt";
    const BYTES_MAX: usize = 512;
}

impl Signable for Receipt {
    const DOMAIN: Domain = Domain::Receipt;
}

//! The charter: the fixed terms of a run, signed by its founder. Its digest is the run's id.
//!
//! Everything that all peers must agree on before the first round is in it, by value or by hash. The id covers the terms,
//! not the signature under them: another key can sign the same terms, and it is still the same run.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::encoding::Wire;
use crate::hash::Hash;
use crate::identity::{Domain, PeerId, Signable};

/// Most members of a run at one time.
pub const MEMBERS_MAX: u32 = 16_384;

/// A run's name: the digest of its charter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RunId(pub Hash);

/// The arithmetic that every unit of the run uses (determinism contract, section 1 of the verification design).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NumericProfile {
    /// Every fold step is one fused multiply-add.
    F32Fma,
    /// Every fold step is a multiplication and an addition, each rounded.
    F32Muladd,
}

/// The fixed terms of a run.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Charter {
    /// What people call the run: 1 to 64 bytes.
    pub name: String,
    /// The keys that may sign blocks, sorted, 1 to 100. One in this version.
    pub validators: Vec<PeerId>,
    /// Hash of the recipe's bytes (model shape, optimiser, compression).
    pub recipe: Hash,
    /// Hash of the data manifest's bytes.
    pub data: Hash,
    /// Hash of the tokenizer's bytes.
    pub tokenizer: Hash,
    /// Root of the state before round 0.
    pub genesis_state: Hash,
    /// Bytes of one encoded state, for choosing between replay and snapshot.
    pub state_bytes: u64,
    /// The arithmetic.
    pub profile: NumericProfile,
    /// Rounds until the run is complete, at least 1.
    pub rounds: u64,
    /// Units in each round, at least 1.
    pub units_per_round: u32,
    /// Tokens that one unit trains on, at least 1.
    pub unit_tokens: u64,
    /// Members that must have joined before round 0 opens, 1 to [`MEMBERS_MAX`].
    pub start_members: u32,
    /// Commitments that suffice to close a round at its deadline, at least 1.
    pub quorum: u32,
    /// Time from a round's opening to its deadline, in microseconds, at least 1.
    pub round_us_max: u64,
    /// Shares minted per round, in micro-shares, split over its accepted units by tokens.
    pub shares_per_round: u64,
}

impl Charter {
    /// The run's id.
    pub fn run_id(&self) -> RunId {
        RunId(self.digest())
    }

    /// Micro-shares when every round was minted; `None` when they exceed a `u64`.
    pub fn supply_max(&self) -> Option<u64> {
        self.rounds.checked_mul(self.shares_per_round)
    }

    /// Tokens when every unit of every round was done; `None` when they exceed a `u64`.
    pub fn tokens_max(&self) -> Option<u64> {
        self.rounds.checked_mul(u64::from(self.units_per_round))?.checked_mul(self.unit_tokens)
    }
}

impl Wire for Charter {
    const NAME: &'static str = "charter";
    const BYTES_MAX: usize = 8 * 1024;

    fn validate(&self) -> Result<(), &'static str> {
        let rules: [(bool, &'static str); 11] = [
            (!self.name.is_empty() && self.name.len() <= 64, "name must have 1 to 64 bytes"),
            (!self.validators.is_empty() && self.validators.len() <= 100, "validators must be 1 to 100 keys"),
            (self.validators.windows(2).all(|pair| pair[0] < pair[1]), "validators must be sorted and distinct"),
            (self.rounds >= 1, "rounds must be at least 1"),
            (self.units_per_round >= 1, "units_per_round must be at least 1"),
            (self.unit_tokens >= 1, "unit_tokens must be at least 1"),
            ((1..=MEMBERS_MAX).contains(&self.start_members), "start_members must be 1 to 16384"),
            (self.quorum >= 1, "quorum must be at least 1"),
            (self.round_us_max >= 1, "round_us_max must be at least 1"),
            (self.supply_max().is_some(), "rounds x shares_per_round must be below 2^64"),
            (self.tokens_max().is_some(), "rounds x units_per_round x unit_tokens must be below 2^64"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(rule),
            None => Ok(()),
        }
    }
}

impl Signable for Charter {
    const DOMAIN: Domain = Domain::Charter;
}

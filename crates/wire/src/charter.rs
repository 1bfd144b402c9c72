//! The charter: the fixed terms of a run, signed by its founder. Its digest is the run's id.
//!
//! Everything that all peers must agree on before the first round is in it, by value or by hash. The id covers the terms,
//! not the signature under them: another key can sign the same terms, and it is still the same run.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::encoding::Wire;
use crate::hash::Hash;
use crate::identity::{Domain, PeerId, Signable};

/// Most members of a run at one time.
pub const MEMBERS_MAX: u32 = 16_384;
/// Most bytes of a run's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Most stages of a run.
pub const STAGES_MAX: usize = 256;

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

/// The fixed terms of one stage: a part of the model that one peer holds as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct StageTerms {
    /// Root of the stage's state before round 0.
    pub genesis_state: Hash,
    /// Bytes of one encoded state of the stage, for choosing between replay and snapshot.
    pub state_bytes: u64,
    /// The stage's part of each round's shares, of the sum over all stages; at least 1.
    pub weight: u32,
    /// How many steps smaller than the recipe says the numbers between this stage and the next may become where links are slow; 0 of the
    /// last.
    pub coarser_max: u8,
}

/// The root of a whole state from the roots of its stages, in order: that of the only stage itself, and otherwise a hash
/// over all of them. Roots have one length, so they are hashed without length prefixes.
pub fn run_root(roots: &[Hash]) -> Hash {
    if let [root] = roots {
        return *root;
    }
    let mut hasher = blake3::Hasher::new_derive_key("cairn v1 root over stages");
    for root in roots {
        hasher.update(&root.0);
    }
    Hash(*hasher.finalize().as_bytes())
}

/// When the weights of a run may leave its stages as a whole model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// Whoever holds weights may pass them on, from the first round on.
    #[default]
    OpenNow,
    /// They open when the ledger has closed so many rounds: a fact that anybody can check, as a date is not.
    OpenAfter {
        /// Closed rounds, 1 to those of the charter.
        rounds: u64,
    },
    /// They stay split: no operator holds two stages' states or payloads, and no whole model is ever put together.
    Split,
}

impl Release {
    /// Whether the weights are open once the ledger has closed so many rounds.
    pub fn is_open(&self, rounds_closed: u64) -> bool {
        match self {
            Self::OpenNow => true,
            Self::OpenAfter { rounds } => rounds_closed >= *rounds,
            Self::Split => false,
        }
    }

    /// Whether the weights stay split for good.
    pub fn is_split(&self) -> bool {
        matches!(self, Self::Split)
    }

    /// Checks the policy against the rounds and stages of a run.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn validate(&self, rounds: u64, stages: usize) -> Result<(), &'static str> {
        match self {
            Self::OpenAfter { rounds: after } if !(1..=rounds).contains(after) => {
                Err("release open_after must name 1 round to all rounds of the run")
            }
            Self::Split if stages < 2 => Err("release split needs at least 2 stages"),
            Self::OpenNow | Self::OpenAfter { .. } | Self::Split => Ok(()),
        }
    }
}

/// As people write it: `open-now`, `open-after=ROUNDS` or `split`.
impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenNow => f.write_str("open-now"),
            Self::OpenAfter { rounds } => write!(f, "open-after={rounds}"),
            Self::Split => f.write_str("split"),
        }
    }
}

/// A text is no policy of release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no policy of release")]
pub struct ReleaseError {
    /// What was written.
    pub text: String,
}

impl FromStr for Release {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        match (text, text.strip_prefix("open-after=").map(str::parse)) {
            ("open-now", _) => Ok(Self::OpenNow),
            ("split", _) => Ok(Self::Split),
            (_, Some(Ok(rounds))) => Ok(Self::OpenAfter { rounds }),
            _ => Err(ReleaseError { text: text.to_owned() }),
        }
    }
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
    /// The stages of the model in order, 1 to [`STAGES_MAX`]. With one, every peer holds the whole model.
    pub stages: Vec<StageTerms>,
    /// The arithmetic.
    pub profile: NumericProfile,
    /// Rounds until the run is complete, at least 1.
    pub rounds: u64,
    /// Units in each round, at least 1.
    pub units_per_round: u32,
    /// Tokens that one unit trains on, at least 1.
    pub unit_tokens: u64,
    /// Members that must have joined before round 0 opens, 1 to [`MEMBERS_MAX`]; each stage needs one of them.
    pub start_members: u32,
    /// Commitments that suffice to close a round at its deadline, over all stages, at least 1.
    pub quorum: u32,
    /// Time from a round's opening to its deadline, in microseconds, of the first rounds; at least 1. Later ones get what the rounds before
    /// them suggest, at least this.
    pub round_us_first: u64,
    /// Most time from a round's opening to its deadline, in microseconds, at least `round_us_first`.
    pub round_us_max: u64,
    /// Shares minted per round, in micro-shares: split over the stages by weight, in a stage over its paid units.
    pub shares_per_round: u64,
    /// When the weights may leave their stages.
    pub release: Release,
    /// The run whose terms this one took over and changed; none when it was written anew. A statement of the founder's, which binds nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
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

    /// Tokens when every unit of every round was done in every stage; `None` when they exceed a `u64`. A token counts in
    /// each stage that it passes.
    pub fn tokens_max(&self) -> Option<u64> {
        let units = self.rounds.checked_mul(u64::from(self.units_per_round))?;
        units.checked_mul(self.stages.len() as u64)?.checked_mul(self.unit_tokens)
    }

    /// The number of stages.
    ///
    /// # Panics
    /// When there are more than a `u16` can say, which decoding ensures there are not.
    pub fn stages_len(&self) -> u16 {
        u16::try_from(self.stages.len()).expect("a charter is validated when it is decoded")
    }

    /// The terms of a stage; `None` when the run has no such stage.
    pub fn stage(&self, stage: u16) -> Option<&StageTerms> {
        self.stages.get(usize::from(stage))
    }
}

impl Wire for Charter {
    const NAME: &'static str = "charter";
    const BYTES_MAX: usize = 16 * 1024;

    fn validate(&self) -> Result<(), &'static str> {
        let rules: [(bool, &'static str); 15] = [
            (!self.name.is_empty() && self.name.len() <= NAME_BYTES_MAX, "name must have 1 to 64 bytes"),
            (!self.validators.is_empty() && self.validators.len() <= 100, "validators must be 1 to 100 keys"),
            (self.validators.windows(2).all(|pair| pair[0] < pair[1]), "validators must be sorted and distinct"),
            (!self.stages.is_empty() && self.stages.len() <= STAGES_MAX, "stages must be 1 to 256"),
            (self.stages.iter().all(|stage| stage.weight >= 1), "weight of each stage must be at least 1"),
            (self.stages.last().is_none_or(|last| last.coarser_max == 0), "coarser_max of the last stage must be 0"),
            (self.rounds >= 1, "rounds must be at least 1"),
            (self.units_per_round >= 1, "units_per_round must be at least 1"),
            (self.unit_tokens >= 1, "unit_tokens must be at least 1"),
            ((1..=MEMBERS_MAX).contains(&self.start_members), "start_members must be 1 to 16384"),
            (self.quorum >= 1, "quorum must be at least 1"),
            (self.round_us_first >= 1, "round_us_first must be at least 1"),
            (self.round_us_max >= self.round_us_first, "round_us_max must be at least round_us_first"),
            (self.supply_max().is_some(), "rounds x shares_per_round must be below 2^64"),
            (self.tokens_max().is_some(), "rounds x units_per_round x stages x unit_tokens must be below 2^64"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(rule),
            None => self.release.validate(self.rounds, self.stages.len()),
        }
    }
}

impl Signable for Charter {
    const DOMAIN: Domain = Domain::Charter;
}

//! The canonical state of a stage: its parameters and the optimiser's moments, with one encoding and one root.
//!
//! ```text
//! 8 bytes   "CairnSS2"
//! 32 bytes  the recipe's hash
//! 8 bytes   the stage's place, u64 little-endian
//! 8 bytes   rounds applied
//! then the parameters and the first moments, each as many as the layout has, and the second moments of what AdamW takes,
//! f32 little-endian
//! ```

use tensor::Context;

use super::shape::StageShape;
use crate::inner::second_len;
use crate::recipe::Recipe;

const MAGIC: &[u8; 8] = b"CairnSS2";
const HEADER_BYTES: usize = 8 + 32 + 8 + 8;

/// The canonical state of a stage between two rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct StageState {
    /// Rounds applied so far.
    pub round: u64,
    /// The canonical parameters, in the order of [`StageShape::layout`].
    pub theta: Vec<f32>,
    /// The optimiser's first moments.
    pub first: Vec<f32>,
    /// The optimiser's second moments, of the tensors that AdamW takes.
    pub second: Vec<f32>,
}

/// Why bytes are not a state of this stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageStateError {
    /// The first bytes are not those of a stage's state.
    #[error("stage state: not the state of a stage, or of an unknown version")]
    Foreign,
    /// The state belongs to another recipe.
    #[error("stage state: made with another recipe")]
    WrongRecipe,
    /// The state belongs to another stage.
    #[error("stage state: of stage {got}, where stage {expected} is needed")]
    WrongStage {
        /// The stage that is needed.
        expected: u64,
        /// The stage that it says.
        got: u64,
    },
    /// More or fewer bytes than the stage needs.
    #[error("stage state: {got} bytes, where {expected} are needed")]
    WrongLength {
        /// What is needed.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// More rounds than the recipe has.
    #[error("stage state: round {round} of a recipe with {rounds}")]
    WrongRound {
        /// Rounds applied.
        round: u64,
        /// Rounds of the recipe.
        rounds: u64,
    },
    /// A value is infinite or not a number.
    #[error("stage state: value {index} is not finite")]
    NotFinite {
        /// Its place; the parameters come first, then the moments.
        index: usize,
    },
}

impl StageState {
    /// The state before round 0.
    pub fn genesis(ctx: &Context, recipe: &Recipe, shape: &StageShape) -> Self {
        let theta = shape.genesis(ctx);
        let first = vec![0.0; theta.len()];
        Self { round: 0, theta, first, second: vec![0.0; second_len(shape.layout().tensors(), recipe.inner)] }
    }

    /// The canonical bytes.
    pub fn to_bytes(&self, recipe: &Recipe, shape: &StageShape) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(state_bytes(recipe, shape));
        bytes.extend(MAGIC);
        bytes.extend(recipe.hash());
        bytes.extend((shape.place() as u64).to_le_bytes());
        bytes.extend(self.round.to_le_bytes());
        for values in [&self.theta, &self.first, &self.second] {
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`StageStateError`] when the bytes are not a state of this stage.
    pub fn from_bytes(bytes: &[u8], recipe: &Recipe, shape: &StageShape) -> Result<Self, StageStateError> {
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(StageStateError::Foreign)?;
        let header = header.strip_prefix(MAGIC).ok_or(StageStateError::Foreign)?;
        let (recipe_hash, numbers) = header.split_at(32);
        if recipe_hash != recipe.hash() {
            return Err(StageStateError::WrongRecipe);
        }
        let number = |at: usize| numbers[at..at + 8].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        let (got, expected, round) = (number(0), shape.place() as u64, number(8));
        if got != expected {
            return Err(StageStateError::WrongStage { expected, got });
        }
        if round > recipe.rounds {
            return Err(StageStateError::WrongRound { round, rounds: recipe.rounds });
        }
        let expected = state_bytes(recipe, shape);
        if bytes.len() != expected {
            return Err(StageStateError::WrongLength { expected, got: bytes.len() });
        }
        let mut theta: Vec<f32> =
            body.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect();
        if let Some(index) = theta.iter().position(|value| !value.is_finite()) {
            return Err(StageStateError::NotFinite { index });
        }
        let len = shape.layout().len();
        let second = theta.split_off(2 * len);
        let first = theta.split_off(len);
        Ok(Self { round, theta, first, second })
    }

    /// BLAKE3 of the canonical bytes: the name of the state's blob.
    pub fn root(&self, recipe: &Recipe, shape: &StageShape) -> [u8; 32] {
        *blake3::hash(&self.to_bytes(recipe, shape)).as_bytes()
    }
}

/// The number of bytes of every state of this stage.
fn state_bytes(recipe: &Recipe, shape: &StageShape) -> usize {
    HEADER_BYTES + 4 * (2 * shape.layout().len() + second_len(shape.layout().tensors(), recipe.inner))
}

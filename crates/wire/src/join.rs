//! What a machine that wants to join a run is told about it.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::charter::{Charter, RunId};
use crate::encoding::Wire;
use crate::identity::Signed;

/// Most bytes of a recipe.
pub const RECIPE_BYTES_MAX: usize = 256 * 1024;

/// Please tell me about your run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RunQuestion {
    /// The run that is asked for.
    pub run: RunId,
}

impl Wire for RunQuestion {
    const NAME: &'static str = "run question";
    const BYTES_MAX: usize = 32;
}

/// What a run consists of, besides its text, its blocks and its states: the recipe is named by a hash in the charter, and the charter by
/// the run's id.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RunFiles {
    /// The run's terms, as the founder signed them.
    pub charter: Signed<Charter>,
    /// The recipe, in canonical bytes: at most [`RECIPE_BYTES_MAX`].
    pub recipe: Vec<u8>,
    /// The members of each stage just now, as the answering peer knows: advice on where to take part, and no more.
    pub members: Vec<u32>,
}

/// The answer to a [`RunQuestion`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum RunAnswer {
    /// Here it is.
    Files(Box<RunFiles>),
    /// This peer takes part in another run.
    UnknownRun,
}

impl Wire for RunAnswer {
    const NAME: &'static str = "run answer";
    const BYTES_MAX: usize = RECIPE_BYTES_MAX + Charter::BYTES_MAX + 4096;

    fn validate(&self) -> Result<(), &'static str> {
        let Self::Files(files) = self else { return Ok(()) };
        if files.recipe.len() > RECIPE_BYTES_MAX {
            return Err("a recipe must have at most 256 KiB");
        }
        if files.members.len() != files.charter.body.stages.len() {
            return Err("members must have a number for each stage");
        }
        files.charter.body.validate()
    }
}

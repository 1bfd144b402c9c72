//! Which part a machine can take in a run, and why.
//!
//! A machine whose memory holds the whole model, with what training it takes, is a full replica; one that holds a stage of it takes part in
//! a run in stages; one that holds neither, or that needs longer for a unit than a round may take, follows the run and serves what it has.

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::pipeline::{PROGRAM_BYTES, STAGE_SLOTS, StageBudget, StageShape, TOKENIZER_BYTES};
use model::ConfigError;
use serde::{Deserialize, Serialize};

use crate::memory::WholeMemory;

/// A unit may take so long, in seconds: half of the longest round.
pub const UNIT_SECONDS_MAX: f64 = 300.0;
/// Members of a run that is not founded yet: what `cairn up` starts.
const MEMBERS: usize = 4;
/// Stages into which a model is cut that a machine does not hold as a whole.
const STAGES: [usize; 4] = [2, 4, 8, 16];
/// Floating-point operations of a trained token for each parameter.
const FLOPS_PER_PARAMETER: f64 = 6.0;
/// The part of a large product's speed that training reaches. Measured with the default recipe.
const TRAINING_SPEED: f64 = 0.5;

/// What a machine has for a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// Bytes of memory that a peer may take; none where the system does not say and nobody else does.
    pub memory_bytes: Option<u64>,
    /// Cores that compute.
    pub cores: usize,
    /// Speed of a product on one core, in GFLOP/s.
    pub gflops: f64,
}

/// The part that a machine can take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Role {
    /// It holds the whole model.
    Replica {
        /// Bytes that it needs.
        needed_bytes: u64,
        /// Seconds that it trains a unit.
        unit_seconds: f64,
    },
    /// It holds a stage of the model.
    Stage {
        /// Of so many.
        stages: usize,
        /// Bytes that it needs at least, for the largest of them.
        needed_bytes: u64,
        /// Seconds that it passes a unit through it and back.
        unit_seconds: f64,
    },
    /// It is too small to train, and follows and serves.
    TooSmall {
        /// Bytes that the least of these needs.
        needed_bytes: u64,
    },
    /// It is too slow to train, and follows and serves.
    TooSlow {
        /// Seconds that it would train a unit.
        unit_seconds: f64,
    },
}

/// Chooses the part of a machine in a run of a recipe: in the stages that it has, or else as a replica, or else in stages that it could have.
///
/// # Errors
/// The recipe's batch does not suit its model.
pub fn choose(recipe: &Recipe, means: &Means) -> Result<Role, ConfigError> {
    let fits = |needed: u64| means.memory_bytes.is_none_or(|memory| needed <= memory);
    let seconds = |parameters: u64| {
        let flops = FLOPS_PER_PARAMETER * parameters as f64 * recipe.unit_tokens() as f64;
        flops / (means.gflops.max(1e-3) * 1e9 * TRAINING_SPEED)
    };
    let parameters = recipe.layout().len() as u64;
    if recipe.pipeline.is_none_or(|pipeline| pipeline.stages < 2) {
        let unit_seconds = seconds(parameters);
        if unit_seconds > UNIT_SECONDS_MAX {
            return Ok(Role::TooSlow { unit_seconds });
        }
        let needed_bytes = WholeMemory::of_recipe(recipe, 0, MEMBERS, means.cores)?.total();
        if fits(needed_bytes) {
            return Ok(Role::Replica { needed_bytes, unit_seconds });
        }
    }
    let cuts: Vec<Recipe> = match recipe.pipeline {
        Some(pipeline) if pipeline.stages > 1 => vec![recipe.clone()],
        _ => STAGES.iter().map(|stages| recipe.clone().in_stages(*stages, Space::Full, Precision::Int8)).collect(),
    };
    let mut least = u64::MAX;
    for cut in &cuts {
        let shapes = StageShape::all(cut);
        let needed_bytes = stage_bytes(cut, &shapes)?;
        least = least.min(needed_bytes);
        if fits(needed_bytes) {
            let stages = shapes.len();
            let unit_seconds = seconds(parameters / stages as u64);
            return Ok(Role::Stage { stages, needed_bytes, unit_seconds });
        }
    }
    Ok(Role::TooSmall { needed_bytes: least })
}

/// What the largest stage takes, without units under way and consumers.
fn stage_bytes(recipe: &Recipe, shapes: &[StageShape]) -> Result<u64, ConfigError> {
    let program = PROGRAM_BYTES + TOKENIZER_BYTES * recipe.model.vocab as u64;
    shapes
        .iter()
        .try_fold(0, |most, shape| Ok(most.max(StageBudget::of(recipe, shape, STAGE_SLOTS, 1)?.total() + program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(recipe: &Recipe, memory: Option<u64>, gflops: f64) -> Role {
        choose(recipe, &Means { memory_bytes: memory, cores: 2, gflops }).unwrap()
    }

    #[test]
    fn less_memory_means_a_smaller_part() {
        let recipe = Recipe::default_run();
        let Role::Replica { needed_bytes, unit_seconds } = chosen(&recipe, None, 50.0) else { panic!("a replica") };
        assert!((50_000_000..2_000_000_000).contains(&needed_bytes), "{needed_bytes}");
        assert!((0.05..5.0).contains(&unit_seconds), "{unit_seconds}");
        assert_eq!(chosen(&recipe, Some(needed_bytes), 50.0), Role::Replica { needed_bytes, unit_seconds });
        let Role::Stage { stages, needed_bytes: less, .. } = chosen(&recipe, Some(needed_bytes - 1), 50.0) else {
            panic!("a stage")
        };
        assert!(stages >= 2 && less < needed_bytes);
        let Role::TooSmall { needed_bytes: least } = chosen(&recipe, Some(1_000_000), 50.0) else {
            panic!("too small")
        };
        assert!(least <= less && least > 1_000_000);
    }

    #[test]
    fn a_slow_machine_follows_and_a_run_in_stages_keeps_its_own() {
        let recipe = Recipe::default_run();
        assert!(
            matches!(chosen(&recipe, None, 0.01), Role::TooSlow { unit_seconds } if unit_seconds > UNIT_SECONDS_MAX)
        );
        let cut = recipe.in_stages(3, Space::Full, Precision::Int8);
        assert!(matches!(chosen(&cut, None, 50.0), Role::Stage { stages: 3, .. }));
    }
}

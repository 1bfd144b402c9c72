//! What is refused before anything is founded or joined.

use learn::pipeline::StageShape;
use wire::Release;

use super::ClusterConfig;
use crate::limits::{LoadMeter, When};
use crate::member::{Failure, FailureKind};
use crate::memory::WholeMemory;
use crate::peer::NodeError;
use crate::workload::Workload;

/// Refuses a policy that does not fit the rounds, stages and codec of the recipe.
pub(super) fn check_release(config: &ClusterConfig) -> Result<(), Failure> {
    fitting_release(&config.workload, config.release.unwrap_or_default())
}

/// As [`check_release`].
pub(crate) fn fitting_release(workload: &Workload, release: Release) -> Result<(), Failure> {
    let bad_input = |message: String, hint: String| Failure { kind: FailureKind::BadInput, message, hint };
    let (rounds, stages) = (workload.recipe.rounds, usize::from(workload.stages_len()));
    release.validate(rounds, stages).map_err(|rule| {
        let hint = match release {
            Release::OpenAfter { .. } => {
                format!("`--release open-after={rounds}` opens with the last of the run's {rounds} rounds")
            }
            Release::OpenNow | Release::Split => {
                "`--stages 2` cuts the model, so that there is something to split".to_owned()
            }
        };
        bad_input(rule.to_owned(), hint)
    })?;
    if release.is_split() && workload.shape(0).is_some_and(StageShape::needs_neighbours) {
        return Err(Failure::from(&NodeError::LearnedBases));
    }
    Ok(())
}

/// Refuses limits that cannot be kept: a model that does not fit, and a machine that does not say how busy it is.
pub(super) fn check_limits(config: &ClusterConfig) -> Result<(), Failure> {
    let bad_input =
        |message: String, hint: &str| Failure { kind: FailureKind::BadInput, message, hint: hint.to_owned() };
    if config.limits.when == When::Idle {
        LoadMeter::check().map_err(|error| bad_input(error.to_string(), error.hint()))?;
    }
    let cores = config.cores.limited(config.limits.cpu).count();
    let members = config.joins.as_ref().map_or(config.peers, |joined| joined.charter.body.start_members as usize);
    let planned = WholeMemory::of(&config.workload, members, cores);
    let planned = planned.map_err(|error| bad_input(error.to_string(), "choose another recipe"))?;
    planned.map_or(Ok(()), |planned| planned.check(config.limits.memory)).map_err(|error| {
        let less = "allow a peer more memory, or let fewer units train at a time with `--cpu`";
        bad_input(
            error.to_string(),
            if config.joins.is_some() { less } else { "allow a peer more memory, or take `--stages`" },
        )
    })
}

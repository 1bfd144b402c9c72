//! Which run a machine takes part in, on what terms, and where its text is.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use learn::data::Texts;
use wire::Identity;

use super::{ClusterConfig, OPEN_ROUND_SECONDS, ROUND_SECONDS_MAX, SHARES_PER_ROUND, STAGED_ROUND_SECONDS};
use crate::home::{Home, RunHome};
use crate::member::{Failure, FailureKind};
use crate::store::StoreError;
use crate::texts::{self, TextError};

/// Keeps the text that the run is trained on, unless it is the bundled one or kept already; gives where it is.
pub(super) fn kept_text(config: &ClusterConfig, run: &RunHome) -> Result<Option<PathBuf>, Failure> {
    let failure = |error: TextError| Failure {
        kind: match &error {
            TextError::Store(error) => error.kind(),
            _ => FailureKind::BadInput,
        },
        message: error.to_string(),
        hint: error.hint(),
    };
    let kept = texts::path_of(&config.home, run.charter().body.data);
    match &config.data {
        _ if Texts::are_kept_in(&kept) => Ok(Some(kept)),
        Some(path) => {
            let read = Texts::read_again(path, &config.workload.corpus).map_err(|error| failure(error.into()))?;
            texts::keep(&config.home, &read).map(Some).map_err(failure)
        }
        None => Ok(None),
    }
}

/// The run to resume, or a new one.
pub(super) fn choose_run(
    home: &Home,
    config: &ClusterConfig,
    founder: &Identity,
) -> Result<(RunHome, bool), StoreError> {
    if let Some(id) = config.run {
        let missing = || StoreError::corrupt(&home.path().join("runs"), format!("it has no run `{}`", id.0));
        let run = home.go_on_with(id)?.ok_or_else(missing)?;
        let resumed = run.was_started();
        return Ok((run, resumed));
    }
    let members = u32::try_from(config.peers.max(1)).unwrap_or(u32::MAX);
    let mut charter = config.workload.charter(founder.id(), members, round_us(config), SHARES_PER_ROUND);
    charter.release = config.release.unwrap_or_default();
    if let Some(run) = home.newest_run()?.filter(|_| !config.fresh) {
        let kept = &run.charter().body;
        let same =
            config.workload.matches(kept) && kept.start_members == members && kept.validators == charter.validators;
        let same = same && config.release.is_none_or(|release| release == kept.release);
        if same {
            return Ok((run, true));
        }
    }
    Ok((home.found_run(founder, &config.workload, charter)?, false))
}

/// The least and the most time of a round, in microseconds.
fn round_us(config: &ClusterConfig) -> RangeInclusive<u64> {
    let seconds = match (config.workload.stages_len(), config.is_open()) {
        (1, false) => ROUND_SECONDS_MAX,
        (1, true) => OPEN_ROUND_SECONDS,
        _ => STAGED_ROUND_SECONDS,
    };
    seconds * 1_000_000..=ROUND_SECONDS_MAX * 1_000_000
}

//! Where Cairn keeps things on this machine.

use std::path::PathBuf;

use crate::exit::{Code, Failure, Outcome};

/// The data directory: the option or `CAIRN_HOME`, else the platform's place for a user's data.
///
/// # Errors
/// When the environment names no home at all.
pub(crate) fn resolve(option: Option<PathBuf>) -> Outcome<PathBuf> {
    let below = |variable: &str, rest: &str| {
        std::env::var_os(variable).filter(|value| !value.is_empty()).map(|value| PathBuf::from(value).join(rest))
    };
    option
        .or_else(|| below("XDG_DATA_HOME", "cairn"))
        .or_else(|| below("HOME", ".local/share/cairn"))
        .or_else(|| below("LOCALAPPDATA", "cairn"))
        .ok_or_else(|| {
            Failure::new(Code::BadInput, "no data directory: the environment names no home")
                .hint("choose one with `--home DIR`")
        })
}

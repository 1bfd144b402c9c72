//! What only the whole program can show: the shape of the workspace, and the commands as a person runs them.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod browser;
mod crash;
mod finetune;
#[cfg(target_os = "linux")]
mod internet;
mod join;
mod limits;
mod models;
mod plan;
mod program;
mod release;
mod runs;
mod stages;
mod tidy;
mod whole_run;

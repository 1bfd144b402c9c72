//! What a person can type after `cairn run`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::LsArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Describe a run, see what it would take, and sign its charter
    New(Box<NewArgs>),
    /// List the runs of the data directory
    Ls(LsArgs),
    /// Show the charter and the recipe of a run
    Show(ShowRunArgs),
    /// Watch the run that another cairn of this machine trains
    Watch(WatchArgs),
    /// Write the model of a run for other programs, when its charter opens the weights
    Export(ExportRunArgs),
    /// Found a run that differs from another in what you name, and begins anew
    Fork(ForkArgs),
    /// Pause this machine's work for the run that it trains; `cairn pause` is the same
    Pause,
    /// Go on after a pause; `cairn resume` is the same
    Resume,
    /// Stop the cairn that trains; `cairn stop` is the same
    Stop,
}

/// What is in a description.
const DESCRIPTION: &str = "\
A description (`--from run.toml`) can have, all with defaults:

  name, size, rounds, seed, peers, stages, codec, release, round_seconds, round_seconds_max, quorum,
  admission (only \"open\"), shares_per_round
  [data]    path, name, licence
  [recipe]  any field of the recipe, e.g. inner.adamw.lr = 0.003

Options replace what is in it. Without it, and on a terminal, a few questions are asked.";

#[derive(Args, Debug)]
#[command(after_help = DESCRIPTION)]
pub(crate) struct NewArgs {
    /// A description of the run, as TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// What to call it [default: made from data and size]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// About how many parameters: `350k`, `1M`, `1.5B`, or tiny, small, medium, large; all else follows from it [default: 1M]
    #[arg(long)]
    pub(crate) size: Option<String>,
    /// Your own UTF-8 text instead of the bundled novels; whoever joins gets it
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The licence of that text
    #[arg(long, requires = "data")]
    pub(crate) licence: Option<String>,
    /// Rounds instead of those that follow from the size
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: Option<u64>,
    /// Members that round 0 waits for; `cairn up` starts as many [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) peers: Option<u32>,
    /// Cut the model into this many stages, so that no peer holds all of it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) stages: Option<u16>,
    /// When the weights may leave their stages: `open-now`, `open-after=ROUNDS` or `split` [default: open-now]
    #[arg(long, value_name = "POLICY")]
    pub(crate) release: Option<String>,
    /// Change a field of the recipe, e.g. `inner.adamw.lr=0.003`
    #[arg(long, value_name = "PATH=VALUE", value_parser = parse_change)]
    pub(crate) set: Vec<(String, String)>,
    /// Ask nothing
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print id, charter and what it takes as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ShowRunArgs {
    /// The run, by its name or the beginning of its id; the newest one unless told otherwise
    pub(crate) run: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The run, by its name or the beginning of its id
    pub(crate) run: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ExportRunArgs {
    /// The run, by its name or the beginning of its id; the newest one unless told otherwise
    #[arg(conflicts_with = "run")]
    pub(crate) named: Option<String>,
    #[command(flatten)]
    pub(crate) export: RunExportArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RunExportArgs {
    /// The run, by its name or the beginning of its id; the newest one unless told otherwise
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// The new directory, in the form of Hugging Face
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Store values in 16 bits; without it nothing is lost
    #[arg(long)]
    pub(crate) half: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ForkArgs {
    /// The run, by its name or the beginning of its id
    pub(crate) run: String,
    /// Change a field of the recipe (`inner.adamw.lr=0.003`), or release, peers, quorum, round_seconds, round_seconds_max or
    /// shares_per_round
    #[arg(long, value_name = "PATH=VALUE", value_parser = parse_change)]
    pub(crate) set: Vec<(String, String)>,
    /// What to call it [default: as the parent]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The text of the parent, when it is not in the data directory
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print id and differences as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_change(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.trim().is_empty() && !value.trim().is_empty() => {
            Ok((path.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write a path and a value, such as `inner.adamw.lr=0.003`".to_owned()),
    }
}

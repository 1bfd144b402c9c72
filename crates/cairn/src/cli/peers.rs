//! What a person can type to start peers, or a relay for them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{LimitArgs, PageArgs, RecipeArgs};

#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// The run to go on with, by its name or the beginning of its id; it keeps its recipe, its text and its terms
    #[arg(long, value_name = "RUN", conflicts_with_all = ["preset", "recipe", "profile", "seed", "rounds", "stages", "codec", "release", "fresh"])]
    pub(crate) run: Option<String>,
    /// How many peers to start [default: 4, or as many as the run's first round waits for]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) peers: Option<u32>,
    /// Cut the model into this many stages, so that no peer holds all of it; peers take turns, with two or more in each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64))]
    pub(crate) stages: Option<u16>,
    /// Which numbers travel between stages, SPACE,PRECISION: `full`, `subspace:RANK` or `projector:RANK`, and `f32`, `bf16`, `int8` or
    /// `int4`; a range may become smaller where links are slow [default: full,int8..int4]
    #[arg(long, value_name = "CODEC", requires = "stages")]
    pub(crate) codec: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Run every peer in an operating-system process of its own
    #[arg(long)]
    pub(crate) processes: bool,
    /// Put every peer behind a bad link, DOWN/UP,ROUND-TRIP,LOSS, e.g. `80M/20M,50ms,1%`: rates in bit/s, the round-trip time
    /// between two peers (`50ms+-10ms` with jitter), datagrams lost on the way; any part may be left out
    #[arg(long, value_name = "LINK")]
    pub(crate) link: Option<String>,
    /// When the weights may leave their stages: `open-now`, `open-after=ROUNDS`, or `split` for never, which needs `--stages`; a run that
    /// is resumed keeps its own [default: open-now]
    #[arg(long, value_name = "POLICY")]
    pub(crate) release: Option<String>,
    /// Let other machines join through a relay (`cairn relay`), e.g. `http://192.0.2.7:3340`: they need not reach this one. May be repeated
    #[arg(long, value_name = "URL", conflicts_with = "link")]
    pub(crate) relay: Vec<String>,
    /// Let other machines join: listen at this address, e.g. `0.0.0.0:7071`, and print a ticket for `cairn join`
    #[arg(long, value_name = "ADDRESS", conflicts_with = "link")]
    pub(crate) listen: Option<SocketAddr>,
    /// Start a new run instead of going on with the newest one
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Exit when the run is complete instead of serving on
    #[arg(long)]
    pub(crate) exit_when_done: bool,
}

#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// The ticket that `cairn up --listen` or `--relay` printed
    #[arg(required_unless_present = "lan", conflicts_with = "lan")]
    pub(crate) ticket: Option<String>,
    /// Take part in the run that a machine in the local network lets others join, without a ticket
    #[arg(long)]
    pub(crate) lan: bool,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// The text that the run is trained on, if it is not to be fetched from there; the same to the byte
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The key file of who runs this machine, made when there is none: with one key on all of them, several machines are known to be one
    /// operator's
    #[arg(long, value_name = "FILE")]
    pub(crate) operator: Option<PathBuf>,
    /// Take part in this stage of a model in stages; who took part before stays where it was [default: the one with the fewest peers]
    #[arg(long, value_name = "N")]
    pub(crate) stage: Option<u16>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Listen at this address, e.g. `0.0.0.0:7071` [default: any free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Exit when the run is complete instead of serving on
    #[arg(long)]
    pub(crate) exit_when_done: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RelayArgs {
    /// Where to listen, on TCP and UDP of one port
    #[arg(long, default_value = "0.0.0.0:3340", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// What one client may send through it at most, in bit/s, e.g. `20M`
    #[arg(long, default_value = "100M", value_name = "RATE", value_parser = crate::figures::parse_count)]
    pub(crate) per_client: u64,
}

//! The command line of Cairn: what a person types, sees, and gets as an exit code. Everything else lives below.

mod cli;
mod commands;
mod exit;
mod figures;
mod home;
mod running;
mod serving;
mod terminal;
mod workload;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::exit::{Code, Failure, Outcome};

/// A training step takes a tenth less time than with the system's allocator: see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logs();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Outcome {
    let home = home::resolve(cli.home)?;
    match cli.command {
        Command::Up(args) => block_on(commands::up::run(&args, &home)),
        Command::Join(args) => block_on(commands::join::run(&args, &home)),
        Command::Run(command) => commands::run::run(&command, &home),
        Command::Pause => commands::control::pause(&home),
        Command::Resume => commands::control::resume(&home),
        Command::Stop => commands::control::stop(&home),
        Command::Train(args) => commands::train::run(&args),
        Command::Finetune(args) => commands::finetune::run(&args, &home),
        Command::Chat(args) => commands::chat::run(&args, &home),
        Command::Models(command) => block_on(commands::models::run(&command, &home)),
        Command::Export(args) => commands::export::run(&args, &home),
        Command::Serve(args) => block_on(commands::serve::run(&args, &home)),
        Command::Piece(args) => commands::piece::run(&args, &home),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Replay(args) => commands::replay::run(&args, &home),
        Command::Conformance(args) => commands::conformance::run(&args),
        Command::Relay(args) => block_on(commands::relay::run(&args)),
        Command::Doctor(args) => block_on(commands::doctor::run(&args, &home)),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Peer => block_on(commands::peer::run()),
    }
}

fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Code::Unexpected, format!("cannot start threads: {error}")))?.block_on(command)
}

/// Logs go to standard error, and only warnings unless `CAIRN_LOG` asks for more.
fn start_logs() {
    let filter = EnvFilter::try_from_env("CAIRN_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

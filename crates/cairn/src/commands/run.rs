//! `cairn run`: runs as things that are described, founded, listed, looked at and forked.

mod fork;
mod list;
mod new;
mod show;
mod watch;
mod wizard;

use std::path::Path;

use node::home::{RunHome, newest_run};
use node::runs;

use crate::cli::{ExportRunArgs, RunCommand, RunExportArgs};
use crate::commands::{control, export};
use crate::exit::{Code, Failure, Outcome};

/// Does what was asked for.
pub(crate) fn run(command: &RunCommand, home: &Path) -> Outcome {
    match command {
        RunCommand::New(args) => new::run(args, home),
        RunCommand::Ls(args) => list::run(args.json, home),
        RunCommand::Show(args) => show::run(args, home),
        RunCommand::Watch(args) => watch::run(args, home),
        RunCommand::Export(ExportRunArgs { named, export }) => {
            let RunExportArgs { run, to, half } = export;
            let run = named.clone().or_else(|| run.clone());
            export::run(&RunExportArgs { run, to: to.clone(), half: *half }, home)
        }
        RunCommand::Fork(args) => fork::run(args, home),
        RunCommand::Pause => control::pause(home),
        RunCommand::Resume => control::resume(home),
        RunCommand::Stop => control::stop(home),
    }
}

/// The run that a person names, or the newest.
///
/// # Errors
/// There is none, or a name fits several.
pub(crate) fn find(home: &Path, named: Option<&str>) -> Outcome<RunHome> {
    match named {
        None => newest_run(home)?.ok_or_else(|| {
            Failure::new(Code::BadInput, format!("no run in `{}` yet", home.display()))
                .hint("`cairn run new` describes one, `cairn up` starts one")
        }),
        Some(named) => runs::find(home, named)?.ok_or_else(|| {
            let said =
                format!("there is not exactly one run here whose id begins with `{named}`, or that is called so");
            Failure::new(Code::BadInput, said)
                .hint("`cairn run ls` lists them; a name or 4 digits of the id or more name one")
        }),
    }
}

/// How to go on with a run that was founded just now.
fn next_steps() -> &'static str {
    "\n  cairn up                         # train it on this machine\n  \
     cairn up --listen 0.0.0.0:7071   # and let others in, with the ticket that it prints\n"
}

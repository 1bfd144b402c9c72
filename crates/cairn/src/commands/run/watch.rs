//! `cairn run watch`: the terminal view of a run that another cairn of this machine trains.

use std::path::Path;
use std::time::Duration;

use node::view::{Phase, Sample};

use super::find;
use crate::cli::WatchArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::running::Running;
use crate::terminal::View;

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(500);

/// Shows the run until it is complete, or the other process stops.
pub(crate) fn run(args: &WatchArgs, home: &Path) -> Outcome {
    let wanted = args.run.as_deref().map(|run| find(home, Some(run))).transpose()?;
    let running = Running::find(home).ok_or_else(|| {
        Failure::new(Code::BadInput, format!("no cairn is running in `{}`", home.display()))
            .hint("`cairn up` starts the newest run; `cairn run ls` lists all")
    })?;
    let mut view = View::new();
    let mut last: Option<Sample> = None;
    loop {
        // Whoever stops while it is watched is no failure of the watcher.
        let Ok(state) = running.state() else {
            view.finish();
            eprintln!("the other cairn stopped");
            return Ok(());
        };
        let run = state.run.as_ref().ok_or_else(|| {
            Failure::new(Code::BadInput, "the running cairn has no run").hint("`cairn up` starts one")
        })?;
        if let Some(wanted) = wanted.as_ref().filter(|wanted| wanted.charter().body.run_id() != run.id) {
            let (wanted, name) = (&wanted.charter().body.name, &run.name);
            return Err(Failure::new(Code::BadInput, format!("the running cairn trains `{name}`, not `{wanted}`"))
                .hint("leave the run out, or stop the other cairn and start this run with `cairn up --run`"));
        }
        view.show(&state);
        if let Some(sample) = state.samples.last().filter(|sample| last.as_ref() != Some(sample)) {
            view.sample(sample);
            last = Some(sample.clone());
        }
        if matches!(run.phase, Phase::Finished | Phase::Halted) {
            view.finish();
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

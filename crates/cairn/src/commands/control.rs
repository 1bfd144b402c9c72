//! `cairn pause`, `cairn resume` and `cairn stop`: what the cairn that already runs on this machine is to do.

use std::path::Path;
use std::time::{Duration, Instant};

use node::home::Home;
use node::view::PauseView;

use crate::exit::{Code, Failure, Outcome};
use crate::running::Running;
use crate::terminal::pause_text;

/// How long the other process may take to end, and how often to look whether it has.
const STOP_MAX: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// Lets its peers rest.
pub(crate) fn pause(home: &Path) -> Outcome {
    let paused = running(home)?.ask("pause")?;
    println!("{}; `cairn resume` goes on", text(paused.as_ref()));
    Ok(())
}

/// Lets its peers go on.
pub(crate) fn resume(home: &Path) -> Outcome {
    let paused = running(home)?.ask("resume")?;
    println!("{}", text(paused.as_ref()));
    Ok(())
}

/// Ends it, and waits until it has left the data directory.
pub(crate) fn stop(home: &Path) -> Outcome {
    running(home)?.ask("stop")?;
    let began = Instant::now();
    while Home::open(home).is_err() {
        if began.elapsed() > STOP_MAX {
            let said = "the running cairn was told to stop, and has not yet";
            return Err(Failure::new(Code::Unexpected, said).hint("wait a moment, or end its process"));
        }
        std::thread::sleep(LOOK);
    }
    println!("stopped");
    Ok(())
}

fn text(paused: Option<&PauseView>) -> String {
    paused.map_or_else(|| "it works".to_owned(), pause_text)
}

fn running(home: &Path) -> Outcome<Running> {
    Running::find(home).ok_or_else(|| {
        let said = format!("no cairn runs with the data directory `{}`", home.display());
        Failure::new(Code::BadInput, said)
            .hint("`cairn up` or `cairn join` starts one; `--home DIR` names another directory")
    })
}

//! `cairn run ls`: the runs of the data directory.

use std::path::Path;

use node::runs;
use node::view::{RunLine, RunState};

use crate::exit::Outcome;
use crate::figures::count;
use crate::running::Running;

/// Prints a table, or JSON.
pub(crate) fn run(json: bool, home: &Path) -> Outcome {
    let mut lines = runs::list(home)?;
    if let Some(state) = Running::find(home).and_then(|running| running.state().ok()) {
        runs::note_running(&mut lines, &state);
    }
    match json {
        true => println!("{}", serde_json::to_string_pretty(&lines).expect("plain data is JSON")),
        false if lines.is_empty() => {
            eprintln!("no run in `{}` yet\n\nhint: `cairn run new` describes one", home.display());
        }
        false => print!("{}", table(&lines)),
    }
    Ok(())
}

fn table(lines: &[RunLine]) -> String {
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "  {:<9} {:<width$}  {:>10}  {:>13}  {:<9} {:>8} {:>8}  {}\n",
        "id", "name", "parameters", "round", "state", "held-out", "gap", "parent"
    );
    for line in lines {
        let short = |id: wire::RunId| id.0.short();
        let row = format!(
            "{} {:<9} {:<width$}  {:>10}  {:>13}  {:<9} {:>8} {:>8}  {}",
            if line.newest { '*' } else { ' ' },
            short(line.id),
            line.name,
            count(line.parameters as f64),
            format!("{}/{}", line.round, line.rounds),
            state(line.state),
            line.heldout_loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}")),
            line.gap.map_or_else(|| "–".to_owned(), |gap| format!("{:+.2} %", 100.0 * gap)),
            line.parent.map_or_else(|| "–".to_owned(), short),
        );
        text += row.trim_end();
        text.push('\n');
    }
    text
}

fn state(state: RunState) -> &'static str {
    match state {
        RunState::New => "new",
        RunState::Paused => "paused",
        RunState::Running => "running",
        RunState::Halted => "halted",
        RunState::Complete => "complete",
    }
}

//! `cairn run fork`: a run that differs from another in what is named.

use std::path::Path;

use learn::data::{Corpus, Texts};
use node::home::Home;
use node::runs::{self, Fork};
use node::texts;
use serde_json::json;

use super::{find, next_steps};
use crate::cli::ForkArgs;
use crate::exit::Outcome;

/// Founds the fork, and prints the difference.
pub(crate) fn run(args: &ForkArgs, home_path: &Path) -> Outcome {
    let parent = find(home_path, Some(&args.run))?;
    let home = Home::open(home_path)?;
    let founder = home.identity(1)?;
    let fork = runs::fork(home_path, &parent, founder.id(), args.name.as_deref(), &args.set, args.data.as_deref())?;
    let Fork { workload, charter, differences } = fork;
    keep(home_path, args.data.as_deref(), &workload.corpus)?;
    let run = home.found_run(&founder, &workload, charter)?;
    let (charter, id) = (&run.charter().body, run.charter().body.run_id());
    let parent = parent.charter().body.run_id();
    if args.json {
        let differences: Vec<_> = differences
            .iter()
            .map(|(path, before, after)| json!({"path": path, "parent": before, "fork": after}))
            .collect();
        let said = json!({"id": id, "parent": parent, "differences": differences});
        println!("{}", serde_json::to_string_pretty(&said).expect("plain data is JSON"));
        return Ok(());
    }
    println!("founded `{}`: run {}, a fork of {} that begins anew", charter.name, id.0.short(), parent.0.short());
    let absent = || "–".to_owned();
    for (path, before, after) in differences {
        println!("  {path}: {} → {}", before.unwrap_or_else(absent), after.unwrap_or_else(absent));
    }
    print!("{}", next_steps());
    Ok(())
}

/// Keeps a text that was read from elsewhere.
fn keep(home: &Path, data: Option<&Path>, corpus: &Corpus) -> Outcome {
    let kept = texts::path_of(home, wire::Hash(corpus.manifest_hash()));
    if let Some(path) = data.filter(|_| !Texts::are_kept_in(&kept)) {
        texts::keep(home, &Texts::read_again(path, corpus)?)?;
    }
    Ok(())
}

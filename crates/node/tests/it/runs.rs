//! Runs as things: described, founded, listed, forked, and gone on with by their ids.

use std::path::Path;
use std::sync::Arc;

use node::description::RunDescription;
use node::home::{Home, RunHome};
use node::runs::{self, RunCard, RunError};
use node::view::RunState;
use node::{Cluster, ClusterConfig};
use wire::{Hash, RunId};

use crate::common::{finish, wait};

const TINY: &str =
    "name = 'first'\nsize = 'tiny'\nrounds = 5\npeers = 2\n[recipe]\ninner_steps = 2\nevaluation.windows = 4";

/// Founds a run as `cairn run new` does.
fn found(home: &Path, text: &str) -> RunHome {
    let home = Home::open(home).unwrap();
    let founder = home.identity(1).unwrap();
    let draft = RunDescription::from_toml(text).unwrap().draft(founder.id()).unwrap();
    home.found_run(&founder, &draft.workload, draft.charter).unwrap()
}

async fn start(home: &Path, run: &RunHome) -> Cluster {
    let workload = Arc::new(runs::workload(home, run, None).unwrap());
    let config = ClusterConfig { run: Some(run.charter().body.run_id()), ..ClusterConfig::new(home, workload, 2) };
    Cluster::start(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_described_run_is_founded_trained_listed_and_forked() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(runs::list(home.path()).unwrap(), []);
    let first = found(home.path(), TINY);
    let id = first.charter().body.run_id();
    let line = runs::list(home.path()).unwrap().remove(0);
    assert_eq!((line.id, line.state, line.round, line.rounds), (id, RunState::New, 0, 5));
    assert!(line.newest && line.heldout_loss.is_none());

    let cluster = start(home.path(), &first).await;
    assert!(!cluster.is_resumed(), "it was never started");
    let summary = finish(&cluster).await;
    assert_eq!((summary.rounds, summary.run), (5, id));
    cluster.shutdown().await;
    let line = runs::list(home.path()).unwrap().remove(0);
    assert_eq!((line.state, line.round, line.heldout_loss), (RunState::Complete, 5, summary.heldout_loss));

    let changes = [("inner.adamw.lr", "0.5"), ("rounds", "6"), ("release", "open-after=3"), ("quorum", "2")];
    let changes = changes.map(|(path, value)| (path.to_owned(), value.to_owned()));
    let founder = Home::open(home.path()).unwrap().identity(1).unwrap();
    let fork = runs::fork(home.path(), &first, founder.id(), Some("second"), &changes, None).unwrap();
    let paths: Vec<&str> = fork.differences.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["inner.adamw.lr", "rounds", "charter.name", "charter.release", "charter.quorum"]);
    assert_eq!(fork.differences[0].1.as_deref().zip(fork.differences[0].2.as_deref()), Some(("0.004", "0.5")));
    let before = &first.charter().body;
    let after = fork.charter.clone();
    assert_eq!((after.parent, after.rounds, after.quorum), (Some(id), 6, 2));
    let named_only = wire::Charter {
        name: before.name.clone(),
        recipe: before.recipe,
        rounds: before.rounds,
        release: before.release,
        quorum: before.quorum,
        parent: None,
        // The first state names its recipe.
        stages: before.stages.clone(),
        ..after
    };
    assert_eq!(&named_only, before, "nothing else is another");

    let second = Home::open(home.path()).unwrap().found_run(&founder, &fork.workload, fork.charter).unwrap();
    let lines = runs::list(home.path()).unwrap();
    assert_eq!(lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), ["second", "first"]);
    assert_eq!((lines[0].parent, lines[1].parent), (Some(id), None));
    let cluster = start(home.path(), &second).await;
    wait(&cluster, "a round", |status| status.totals.rounds >= 1).await;
    assert_eq!(cluster.state().run.unwrap().parent, Some(id));
    cluster.shutdown().await;
    // The other one can be gone on with, too, and is the newest then.
    let cluster = start(home.path(), &first).await;
    assert!(cluster.is_resumed());
    cluster.shutdown().await;
    assert_eq!(Home::open(home.path()).unwrap().newest_run().unwrap().unwrap().charter().body.run_id(), id);
}

#[test]
fn runs_are_found_by_name_or_id_and_shown_whole() {
    let home = tempfile::tempdir().unwrap();
    let (first, second) = (found(home.path(), TINY), found(home.path(), TINY));
    let [one, two] = [&first, &second].map(|run| run.charter().body.run_id());
    assert_eq!(second.charter().body.name, "first-2", "a name for each");
    let founder = Home::open(home.path()).unwrap().identity(1).unwrap();
    let changes = [("seed".to_owned(), "7".to_owned())];
    let fork = runs::fork(home.path(), &first, founder.id(), Some(&"é".repeat(32)), &changes, None).unwrap();
    let forks = [(); 2].map(|()| {
        let fork = Home::open(home.path()).unwrap().found_run(&founder, &fork.workload, fork.charter.clone()).unwrap();
        fork.charter().body.name.clone()
    });
    assert_eq!(forks, ["é".repeat(32), format!("{}-2", "é".repeat(31))], "also where there is no room for more");
    let found = |named: &str| runs::find(home.path(), named).unwrap().map(|run| run.charter().body.run_id());
    assert_eq!(found("first"), Some(one));
    assert_eq!(found("first-2"), Some(two));
    assert_eq!(found(&two.0.to_string()[..6]), Some(two));
    assert_eq!((found("fir"), found(""), found(&two.0.to_string()[..3])), (None, None, None));

    let card = RunCard::of(&first).unwrap();
    assert_eq!((card.id, card.parent, card.peers, card.release.as_str()), (one, None, 2, "open-now"));
    assert!(card.data.licence.as_deref().is_some_and(|licence| licence.contains("public domain")), "{:?}", card.data);
    let toml = card.to_toml();
    for part in ["name = \"first\"", "admission = \"open\"", "[recipe.inner.adamw]", "inner_steps = 2", "[data]"] {
        assert!(toml.contains(part), "{toml}");
    }
}

#[test]
fn what_cannot_be_forked_says_why() {
    let home = tempfile::tempdir().unwrap();
    let first = found(home.path(), TINY);
    let founder = Home::open(home.path()).unwrap().identity(1).unwrap().id();
    let fork = |path: &str, value: &str| {
        let changes = [(path.to_owned(), value.to_owned())];
        runs::fork(home.path(), &first, founder, None, &changes, None).map(|fork| fork.charter).unwrap_err()
    };
    for (path, value, part) in [
        ("speed", "3", "speed"),
        ("inner.deep.lr", "3", "`deep`"),
        ("rounds", "1", "compression.keep"),
        ("release", "never", "`never` is no policy"),
        ("release", "split", "at least 2 stages"),
        ("quorum", "0", "quorum"),
        ("quorum", "many", "whole number"),
        ("peers", "99999999999", "whole number"),
        ("round_seconds", "700", "round_us_max"),
    ] {
        let error = fork(path, value);
        assert!(error.to_string().contains(part) && !error.hint().is_empty(), "{path}={value}: {error}");
    }
    let nothing = runs::fork(home.path(), &first, founder, None, &[], None).map(|fork| fork.charter);
    assert!(matches!(nothing, Err(RunError::NothingChanged)), "{nothing:?}");
    let same = fork("inner_steps", "2");
    assert!(matches!(same, RunError::NothingChanged), "{same}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_here_cannot_be_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    let first = found(home.path(), TINY);
    let workload = Arc::new(runs::workload(home.path(), &first, None).unwrap());
    let config = ClusterConfig { run: Some(RunId(Hash([9; 32]))), ..ClusterConfig::new(home.path(), workload, 2) };
    let failure = Cluster::start(config).await.map(|cluster| cluster.run_id()).unwrap_err();
    assert!(failure.message.contains("has no run"), "{failure:?}");
}

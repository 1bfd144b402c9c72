//! Clusters of real peers in this process.

use node::home::Home;
use node::offline::Saved;
use node::view::{NetEvent, Phase};
use node::{Cluster, ClusterConfig, FailureKind};

use crate::common::{check_complete, config, finish, wait, workload};

#[tokio::test(flavor = "multi_thread")]
async fn four_peers_train_to_equal_roots_and_everything_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 4)).await.unwrap();
    let mut events = cluster.subscribe();
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;

    let state = cluster.state();
    let run = state.run.unwrap();
    let recipe = &workload().recipe;
    assert_eq!((run.phase, run.round, run.tokens), (Phase::Finished, recipe.rounds, recipe.total_tokens()));
    assert!(run.training_loss.unwrap() < state.curve[0].training_loss.unwrap(), "the loss falls: {:?}", state.curve);
    assert_eq!(state.curve.len() as u64, recipe.rounds, "a point per round");
    assert_eq!(run.heldout_loss, summary.heldout_loss);
    assert!((run.time.compute + run.time.communication + run.time.idle - 1.0).abs() < 1e-6);
    assert!(run.bytes_per_token > run.payload_bytes_per_token && run.payload_bytes_per_token > 0.0);
    assert!(!state.samples.is_empty());
    assert!(run.tokens_per_second > 0.0);
    assert_eq!(state.peers.len(), 4);
    assert!(state.peers.iter().all(|peer| peer.bytes_sent > 0 && peer.receipts > 0), "{:?}", state.peers);
    assert!(state.faults.is_empty(), "{:?}", state.faults);
    assert_eq!(summary.shares.iter().map(|(_, shares)| shares).sum::<u64>(), state.ledger.unwrap().supply);

    let checkpoint = cluster.checkpoints().borrow().clone().unwrap();
    assert_eq!((checkpoint.round, checkpoint.state_root), (recipe.rounds, summary.state_root));
    let mut points = 0;
    while let Ok(event) = events.try_recv() {
        points += u64::from(matches!(event, NetEvent::Point(point) if point.training_loss.is_some()));
    }
    assert!(points >= recipe.rounds, "{points} points were told");
    cluster.shutdown().await;

    let home = Home::open(directory.path()).unwrap();
    let saved = Saved::newest(&home).unwrap().unwrap();
    let kept = saved.summary().unwrap().unwrap();
    assert_eq!((kept.run, kept.rounds, kept.state_root), (summary.run, summary.rounds, summary.state_root));
    assert_eq!(kept.shares, summary.shares);
    assert!((kept.heldout_loss.unwrap() - summary.heldout_loss.unwrap()).abs() < 1e-9);
    assert_eq!(saved.checkpoint().unwrap().unwrap().parameters().unwrap(), checkpoint.parameters().unwrap());
    assert_eq!(saved.state().unwrap().curve.len(), state.curve.len());
    for peer in saved.local_peers(&home).unwrap() {
        saved.piece(peer).unwrap().unwrap().verify().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_goes_on_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 3)).await.unwrap();
    let run = cluster.run_id();
    assert!(!cluster.is_resumed());
    wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    let before = cluster.members()[0].status();
    cluster.shutdown().await;
    let before = before.borrow().clone();

    let cluster = Cluster::start(config(directory.path(), 3)).await.unwrap();
    assert!(cluster.is_resumed());
    assert_eq!(cluster.run_id(), run);
    let after = cluster.members()[0].status().borrow().clone();
    assert!(after.totals.receipts >= before.totals.receipts, "no receipt is lost");
    assert!(after.totals.rounds >= before.totals.rounds);
    assert_eq!(after.accounts.len(), before.accounts.len());
    assert!(cluster.state().curve.len() as u64 >= before.totals.rounds, "the curve goes on");
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;

    let cluster = Cluster::start(config(directory.path(), 3)).await.unwrap();
    assert_eq!((cluster.run_id(), cluster.is_resumed()), (run, true), "a complete run is served on");
    assert_eq!(finish(&cluster).await.shares, summary.shares);
    cluster.shutdown().await;

    let fresh = ClusterConfig { fresh: true, ..config(directory.path(), 3) };
    let cluster = Cluster::start(fresh).await.unwrap();
    assert!(!cluster.is_resumed());
    assert_ne!(cluster.run_id(), run);
    let identity = cluster.members()[0].id();
    assert!(summary.shares.iter().any(|(peer, _)| *peer == identity), "the identity stays");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 1)).await.unwrap();
    let failure = Cluster::start(config(directory.path(), 1)).await.map(|_| ()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::InUse, "{failure}");
    assert!(failure.message.contains("in use") && failure.hint.contains("--home"), "{failure:?}");
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_fetched_from_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 3)).await.unwrap();
    wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    let run = cluster.run_path().to_owned();
    cluster.shutdown().await;
    let blobs = run.join("peer-2/blobs");
    let mut damaged = 0;
    for entry in std::fs::read_dir(blobs).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        if bytes.len() == learn::outer::state_bytes(&workload().recipe) {
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged >= 1, "there was a state to damage");
    let cluster = Cluster::start(config(directory.path(), 3)).await.unwrap();
    assert!(cluster.is_resumed());
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_foreign_files_are_errors_with_a_hint_and_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 2)).await.unwrap();
    wait(&cluster, "a round", |status| status.totals.rounds >= 1).await;
    let run = cluster.run_path().to_owned();
    cluster.shutdown().await;
    let files = ["newest", "identity.key"].map(|name| directory.path().join(name));
    let run_files = ["charter.json", "recipe.json", "peer-2/node.redb", "observed.json"].map(|name| run.join(name));
    for path in files.into_iter().chain(run_files) {
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"this is something else").unwrap();
        let failure = Cluster::start(config(directory.path(), 2)).await.map(|_| ()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::CorruptData, "{}: {failure}", path.display());
        assert!(failure.message.contains(&path.display().to_string()), "{failure}");
        assert!(!failure.hint.is_empty());
        assert_eq!(std::fs::read(&path).unwrap(), b"this is something else");
        std::fs::write(&path, good).unwrap();
    }
    let cluster = Cluster::start(config(directory.path(), 2)).await.unwrap();
    assert!(cluster.is_resumed());
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}

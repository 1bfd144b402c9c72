//! Peers in processes of their own, and what `kill -9` does to them.

use node::child::{self, ChildProgram};
use node::{Cluster, ClusterConfig, FailureKind};

use crate::common::{check_complete, config, finish, wait};

const AS_CHILD: &str = "CAIRN_TEST_AS_CHILD";

/// Runs [`entry`] of this test program as a child.
fn program() -> ChildProgram {
    let this = std::env::current_exe().unwrap().into_os_string();
    let mark = format!("{AS_CHILD}=1").into();
    let arguments = vec![mark, this, "processes::entry".into(), "--exact".into(), "--nocapture".into()];
    ChildProgram { program: "env".into(), arguments, environment: Vec::new() }
}

pub(crate) fn config_of_processes(home: &std::path::Path, peers: usize) -> ClusterConfig {
    ClusterConfig { processes: Some(program()), ..config(home, peers) }
}

/// As a child: a peer that the parent orders about. As a test: a child without a configuration says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn entry() {
    if std::env::var_os(AS_CHILD).is_some() {
        let outcome = child::run(tokio::io::stdin(), tokio::io::stdout()).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        return;
    }
    let mut output = Vec::new();
    let failure = child::run(&b"not a configuration\n"[..], &mut output).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadInput);
    assert!(String::from_utf8(output).unwrap().starts_with("{\"failed\":"), "it tells its parent");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_train_to_equal_roots() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config_of_processes(directory.path(), 3)).await.unwrap();
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_resume_without_losing_a_receipt() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config_of_processes(directory.path(), 3)).await.unwrap();
    let run = cluster.run_id();
    let before = wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    cluster.kill().await;

    let cluster = Cluster::start(config_of_processes(directory.path(), 3)).await.unwrap();
    assert!(cluster.is_resumed());
    assert_eq!(cluster.run_id(), run);
    let after = cluster.members()[0].status().borrow().clone();
    assert!(after.totals.rounds >= before.totals.rounds, "{} of {}", after.totals.rounds, before.totals.rounds);
    for account in &before.accounts {
        let now = after.accounts.iter().find(|now| now.peer == account.peer).unwrap();
        assert!(now.receipts >= account.receipts && now.shares >= account.shares, "{account:?} became {now:?}");
    }
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_whose_directory_is_in_use_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config_of_processes(directory.path(), 1)).await.unwrap();
    let peer_path = cluster.run_path().join("peer-1");
    cluster.shutdown().await;
    let lock = node::store::DirectoryLock::take(&peer_path).unwrap();
    let failure = Cluster::start(config_of_processes(directory.path(), 1)).await.map(|_| ()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::InUse, "{failure}");
    drop(lock);
}

//! Peers in processes of their own, and what `kill -9` does to them.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use node::child::{self, ChildProgram};
use node::home::Home;
use node::offline::Saved;
use node::view::PeerActivity;
use node::{Cluster, ClusterConfig, FailureKind, Workload};
use wire::{Action, PeerId};

use crate::common::{check_complete, config, finish, text_path, wait, wait_of};

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

/// A model in two stages, with rounds enough for a peer to die twice and to come back.
fn staged() -> Arc<Workload> {
    let mut recipe = Recipe::tiny().in_stages(2, Space::Full, Precision::Int8);
    (recipe.rounds, recipe.units_per_round) = (120, 8);
    recipe.evaluation.every_rounds = recipe.rounds;
    Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap())
}

/// Ends a member's process as the system would.
async fn kill_hard(cluster: &Cluster, place: usize) {
    let process = wait_of(cluster, place, "a process", |status| status.lives.process.is_some()).await.lives.process;
    assert!(Command::new("kill").args(["-KILL", &process.unwrap().to_string()]).status().unwrap().success());
    wait_of(cluster, place, "its death", |status| status.lives.process != process).await;
}

/// The rounds in which a peer's commitments are in blocks.
fn claimed(home: &std::path::Path, peer: PeerId) -> Vec<u64> {
    let saved = Saved::newest(&Home::open(home).unwrap()).unwrap().unwrap();
    let (_, blocks) = saved.records().unwrap();
    let own = blocks.iter().flat_map(|block| &block.transactions).filter(|transaction| transaction.signer == peer);
    own.filter_map(|transaction| match &transaction.body.action {
        Action::Commit(commitment) => Some(commitment.round),
        _ => None,
    })
    .collect()
}

/// Kills the last replica of a model in stages twice, the second time with its port taken, and checks that it takes part after each.
async fn dies_twice(link: Option<&str>) {
    const VICTIM: usize = 3;
    let directory = tempfile::tempdir().unwrap();
    let workload = staged();
    let link = link.map(|link| link.parse().unwrap());
    let config = ClusterConfig { workload: workload.clone(), link, ..config_of_processes(directory.path(), 4) };
    let cluster = Cluster::start(config).await.unwrap();
    let victim = cluster.members()[VICTIM].id();
    wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    let mut returned = Vec::new();
    let mut port_taken = None;
    for life in 1..=2 {
        let address = cluster.members()[VICTIM].address();
        kill_hard(&cluster, VICTIM).await;
        let shown = cluster.members()[VICTIM].status().borrow().clone();
        assert!(shown.lives.is_away && shown.activity == PeerActivity::Restarting, "{shown:?}");
        if life == 2 {
            port_taken = Some(UdpSocket::bind(address).unwrap());
        }
        let back = wait_of(&cluster, VICTIM, "its return", |status| status.lives.restarts == life).await;
        assert_eq!(back.address == address, life == 1, "it listens where it did, if it can");
        assert!(back.totals.rounds > 0 && back.model.is_some(), "it comes back from its store: {back:?}");
        let receipts = |status: &node::status::PeerStatus| status.account(victim).map_or(0, |account| account.receipts);
        let before = receipts(&cluster.members()[0].status().borrow());
        let now = wait(&cluster, "a claim of its units", |status| receipts(status) > before).await;
        returned.push(now.totals.rounds);
    }
    let summary = finish(&cluster).await;
    assert_eq!((summary.rounds, summary.tokens), (120, workload.recipe.total_tokens()), "a unit was lost");
    let state = cluster.state();
    assert_eq!((state.peers[VICTIM].restarts, &state.peers[VICTIM].lost), (2, &None));
    let last = wait_of(&cluster, VICTIM, "the last state", |status| status.finished).await;
    let roots = last.agreed.unwrap().roots;
    for member in cluster.members() {
        let status = member.status().borrow().clone();
        assert_eq!(status.model.unwrap().state_root, roots[usize::from(status.stage)]);
    }
    cluster.shutdown().await;
    drop(port_taken);
    let claimed = claimed(directory.path(), victim);
    assert!(
        returned.iter().all(|round| claimed.iter().any(|claimed| claimed >= round)),
        "{claimed:?} after {returned:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_comes_back_and_takes_part() {
    dies_twice(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_comes_back_behind_its_link() {
    dies_twice(Some("1G,1ms")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_was_ended_on_purpose_stays_away() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config_of_processes(directory.path(), 2)).await.unwrap();
    let member = &cluster.members()[1];
    member.kill();
    let ended = member.ended().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let status = member.status().borrow().clone();
    assert!(ended.killed && !status.lives.is_away && status.lives.lost.is_some(), "{ended:?} {:?}", status.lives);
    assert_eq!((status.lives.restarts, status.lives.process), (0, None));
    cluster.kill().await;
}

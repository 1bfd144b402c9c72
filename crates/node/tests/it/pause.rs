//! A machine that pauses and goes on, in real clusters.

use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use ledger::Standing;
use node::limits::{When, local_minute};
use node::status::PeerStatus;
use node::view::{PauseView, PeerActivity};
use node::{Cluster, ClusterConfig, FailureKind, Limits, Workload};
use wire::PeerId;

use crate::common::{check_complete, config, finish, text_path, wait, wait_of};
use crate::join::{found, join, loopback, receipts};
use crate::processes::config_of_processes;

fn stands(peer: PeerId, standing: Standing) -> impl FnMut(&PeerStatus) -> bool {
    move |status| status.account(peer).is_some_and(|account| account.standing == standing)
}

fn has_earned(peer: PeerId, receipts: u64) -> impl FnMut(&PeerStatus) -> bool {
    move |status| status.account(peer).is_some_and(|account| account.receipts >= receipts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_pauses_follows_and_takes_part_again() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let founder = found(first.path(), 160).await;
    let guest = join(second.path(), founder.ticket()).await;
    let id = guest.members()[0].id();
    wait(&guest, "receipts", has_earned(id, 3)).await;
    assert_eq!(guest.pauses().pause(), Some(PauseView::Person));
    let gone = wait(&founder, "the leave", stands(id, Standing::Out)).await;
    let before = receipts(&founder, id);
    let paused = wait(&guest, "the pause", |status| status.activity == PeerActivity::Paused).await;
    assert_eq!(guest.state().machine.unwrap().paused, Some(PauseView::Person));
    wait(&founder, "rounds without it", |status| status.totals.rounds >= gone.totals.rounds + 3).await;
    let following = wait(&guest, "blocks", |status| status.totals.rounds >= gone.totals.rounds + 3).await;
    assert_eq!(following.activity, PeerActivity::Paused);
    assert_eq!(following.model, paused.model, "it does not compute");
    assert_eq!(receipts(&founder, id), before, "every receipt that was finished is there, and no other");
    assert_eq!(guest.pauses().resume(), None);
    let (summary, own) = tokio::join!(finish(&founder), finish(&guest));
    assert_eq!(own.state_root, summary.state_root);
    assert!(receipts(&founder, id) > before, "it took part again");
    let piece = guest.piece(1).await.unwrap();
    assert_eq!(piece.verify().unwrap().receipts, receipts(&founder, id));
    assert!(founder.state().faults.is_empty() && guest.state().faults.is_empty(), "{:?}", founder.state().faults);
    guest.shutdown().await;
    founder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_swarm_pauses_and_goes_on_to_the_same_bits() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 3)).await.unwrap();
    wait(&cluster, "a round", |status| status.totals.rounds >= 1).await;
    cluster.pauses().pause();
    for place in 0..3 {
        let id = cluster.members()[place].id();
        wait_of(&cluster, place, "the pause", |status| status.activity == PeerActivity::Paused).await;
        wait(&cluster, "the leave", |status| {
            status.account(id).is_some_and(|account| matches!(account.standing, Standing::Out | Standing::Leaving))
        })
        .await;
    }
    cluster.pauses().resume();
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_in_processes_pause_over_the_death_of_one() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config_of_processes(directory.path(), 2)).await.unwrap();
    wait(&cluster, "a round", |status| status.totals.rounds >= 1).await;
    cluster.pauses().pause();
    let killed = wait_of(&cluster, 1, "the pause", |status| status.activity == PeerActivity::Paused).await;
    let process = killed.lives.process.unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-9", &process]).status().unwrap().success());
    // The next process pauses, too.
    wait_of(&cluster, 1, "the next process", |status| {
        status.lives.restarts == 1 && status.activity == PeerActivity::Paused
    })
    .await;
    cluster.pauses().resume();
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_a_stage_pauses_and_comes_back_into_its_stage() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut recipe = Recipe::tiny().in_stages(2, Space::Full, Precision::Int8);
    recipe.rounds = 100;
    let workload = Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap());
    let config = ClusterConfig {
        data: Some(text_path()),
        listen: Some(loopback()),
        ..ClusterConfig::new(first.path(), workload.clone(), 3)
    };
    let founder = Cluster::start(config).await.unwrap();
    wait(&founder, "a round", |status| status.totals.rounds >= 1).await;
    let guest = join(second.path(), founder.ticket()).await;
    let (id, stage) = (guest.members()[0].id(), guest.members()[0].status().borrow().stage);
    wait(&guest, "receipts", has_earned(id, 3)).await;
    guest.pauses().pause();
    let gone = wait(&founder, "the leave", stands(id, Standing::Out)).await;
    wait(&founder, "rounds without it", |status| status.totals.rounds >= gone.totals.rounds + 3).await;
    let before = receipts(&founder, id);
    guest.pauses().resume();
    wait(&founder, "more receipts", has_earned(id, before + 1)).await;
    assert_eq!(guest.members()[0].status().borrow().stage, stage);
    let (summary, own) = tokio::join!(finish(&founder), finish(&guest));
    assert_eq!(own.state_root, summary.state_root);
    assert_eq!(summary.tokens, workload.recipe.total_tokens(), "no unit was lost");
    assert!(founder.state().faults.is_empty() && guest.state().faults.is_empty(), "{:?}", founder.state().faults);
    guest.shutdown().await;
    founder.shutdown().await;
}

/// Hours that begin an hour from now, and end an hour later.
fn later() -> When {
    let at = |hours: u32| {
        let minute = (local_minute() + 60 * hours) % (24 * 60);
        format!("{:02}:{:02}", minute / 60, minute % 60)
    };
    format!("{}-{}", at(1), at(2)).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_outside_of_its_hours_waits_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let When::Hours(hours) = later() else { panic!("hours") };
    let limits = Limits { when: When::Hours(hours), ..Limits::default() };
    let cluster = Cluster::start(ClusterConfig { limits, ..config(directory.path(), 2) }).await.unwrap();
    wait(&cluster, "the pause", |status| status.activity == PeerActivity::Paused).await;
    let until = Some(PauseView::Hours { until: hours.begin() });
    let machine = cluster.state().machine.unwrap();
    assert_eq!(
        (machine.paused, machine.limits.when.as_str()),
        (until.clone(), When::Hours(hours).to_string().as_str())
    );
    assert_eq!(cluster.pauses().pause(), Some(PauseView::Person));
    assert_eq!(cluster.pauses().resume(), until, "its hours have not begun");
    let status = cluster.members()[0].status().borrow().clone();
    assert!(status.accounts.is_empty() && status.open_round.is_none(), "nobody has joined");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_is_refused_before_it_is_founded() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    let limits = Limits { memory: Some(20_000_000), ..Limits::default() };
    let failure = Cluster::start(ClusterConfig { limits, ..config(&home, 2) }).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadInput);
    assert!(failure.message.contains("may take 20 MB"), "{failure}");
    assert!(!home.exists(), "nothing was made");
}

//! Machines that join a run with a ticket: homes of their own, which know nothing of each other but that.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use ledger::Standing;
use node::cluster::Joined;
use node::join::{JoinError, ask};
use node::relay::{CLIENT_BYTES_PER_S, Relay};
use node::status::PeerStatus;
use node::{Cluster, ClusterConfig, RelayUrl, Workload};
use wire::{Hash, Identity, PeerId, RunId, Ticket};

use crate::common::{finish, text_path, wait};

/// The tiny recipe with more rounds and small units.
fn workload(rounds: u64) -> Arc<Workload> {
    let mut recipe = Recipe::tiny();
    recipe.rounds = rounds;
    Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap())
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Two peers that let others join.
pub(crate) async fn found(home: &Path, rounds: u64) -> Cluster {
    let config = ClusterConfig {
        data: Some(text_path()),
        listen: Some(loopback()),
        ..ClusterConfig::new(home, workload(rounds), 2)
    };
    Cluster::start(config).await.unwrap()
}

/// One peer of another machine, which has nothing but the ticket.
pub(crate) async fn join(home: &Path, ticket: &Ticket) -> Cluster {
    join_in(home, ticket, None).await
}

/// As [`join`], in a stage of its own choice.
async fn join_in(home: &Path, ticket: &Ticket, stage: Option<u16>) -> Cluster {
    let invitation = ask(ticket).await.unwrap();
    let stage = stage.unwrap_or_else(|| invitation.neediest_stage());
    let corpus = Corpus::from_path(&text_path()).unwrap();
    let workload = Arc::new(Workload::new(invitation.recipe, corpus).unwrap());
    assert!(workload.matches(&invitation.charter.body));
    let joins = Some(Joined {
        charter: invitation.charter,
        validator: invitation.validator,
        relays: invitation.relays,
        stage,
        operator: Some(Identity::from_secret([77; 32])),
    });
    let config = ClusterConfig { data: Some(text_path()), joins, ..ClusterConfig::new(home, workload, 1) };
    Cluster::start(config).await.unwrap()
}

pub(crate) fn receipts(cluster: &Cluster, peer: PeerId) -> u64 {
    let status = cluster.members()[0].status().borrow().clone();
    status.accounts.iter().find(|account| account.peer == peer).map_or(0, |account| account.receipts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_a_ticket_takes_part_leaves_and_comes_back() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let founder = found(first.path(), 160).await;
    let ticket: Ticket = founder.ticket().to_string().parse().unwrap();
    wait(&founder, "a round", |status| status.totals.rounds >= 1).await;
    let guest = join(second.path(), &ticket).await;
    let id = guest.members()[0].id();
    assert_eq!(*guest.ticket(), ticket, "it can be passed on");
    wait(&guest, "receipts", |status| {
        status.accounts.iter().any(|account| account.peer == id && account.receipts >= 3)
    })
    .await;
    let seen = founder.state().peers.into_iter().find(|peer| peer.id == id).expect("it is among the peers");
    assert_eq!(seen.name, id.short());
    let account = founder.members()[0].status().borrow().accounts.iter().find(|account| account.peer == id).copied();
    assert_eq!(account.unwrap().operator, Identity::from_secret([77; 32]).id(), "its operator signed for it");
    guest.shutdown().await;
    // It said that it leaves: nobody waits for it.
    let gone = wait(&founder, "the leave", |status| {
        status.accounts.iter().any(|account| account.peer == id && account.standing == Standing::Out)
    })
    .await;
    let before = receipts(&founder, id);
    wait(&founder, "two rounds without it", |status| status.totals.rounds >= gone.totals.rounds + 2).await;
    let guest = join(second.path(), &ticket).await;
    assert!(guest.is_resumed());
    assert_eq!(guest.members()[0].id(), id, "its key is kept");
    let (summary, own) = tokio::join!(finish(&founder), finish(&guest));
    assert_eq!(own.state_root, summary.state_root);
    assert!(receipts(&founder, id) > before, "it took part again");
    let piece = guest.piece(1).await.unwrap();
    assert_eq!(piece.verify().unwrap().receipts, receipts(&founder, id));
    assert_eq!((own.supply, summary.supply), (summary.supply, summary.supply));
    assert!(summary.shares.iter().map(|(_, shares)| shares).sum::<u64>() < summary.supply, "the guest has some");
    assert!(founder.state().faults.is_empty() && guest.state().faults.is_empty());
    guest.shutdown().await;
    founder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_a_model_in_stages_and_works_with_peers_that_it_did_not_know() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut recipe = Recipe::tiny().in_stages(3, Space::Full, Precision::Int8);
    recipe.rounds = 120;
    let workload = Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap());
    let config = ClusterConfig {
        data: Some(text_path()),
        listen: Some(loopback()),
        ..ClusterConfig::new(first.path(), workload.clone(), 5)
    };
    let founder = Cluster::start(config).await.unwrap();
    wait(&founder, "a round", |status| status.totals.rounds >= 1).await;
    // Two, two and one member: the guest is needed in the last stage.
    let guest = join(second.path(), founder.ticket()).await;
    let id = guest.members()[0].id();
    assert_eq!(guest.members()[0].status().borrow().stage, 2);
    let has_earned =
        |status: &PeerStatus| status.accounts.iter().any(|account| account.peer == id && account.receipts >= 3);
    wait(&guest, "receipts", has_earned).await;
    // What it stored is of its stage: it stays there, whoever is needed where when it comes back.
    guest.shutdown().await;
    let guest = join_in(second.path(), founder.ticket(), Some(0)).await;
    assert_eq!(guest.members()[0].status().borrow().stage, 2);
    let (summary, own) = tokio::join!(finish(&founder), finish(&guest));
    assert_eq!(own.state_root, summary.state_root);
    assert_eq!(summary.tokens, workload.recipe.total_tokens(), "no unit was lost");
    assert!(founder.state().faults.is_empty() && guest.state().faults.is_empty(), "{:?}", founder.state().faults);
    assert_eq!(own.heldout_loss, None, "it does not have the whole model, and knows nobody whom to ask");
    guest.shutdown().await;
    founder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_turned_off_is_waited_for_only_a_while() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let founder = found(first.path(), 120).await;
    let guest = join(second.path(), founder.ticket()).await;
    let id = guest.members()[0].id();
    wait(&guest, "receipts", |status| {
        status.accounts.iter().any(|account| account.peer == id && account.receipts >= 3)
    })
    .await;
    guest.kill().await;
    let is_out = |status: &PeerStatus| {
        status.accounts.iter().any(|account| account.peer == id && account.standing == Standing::Out)
    };
    wait(&founder, "the others to go on without it", is_out).await;
    let summary = finish(&founder).await;
    assert_eq!(summary.rounds, 120);
    founder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_leads_nowhere_says_why() {
    let home = tempfile::tempdir().unwrap();
    let founder = found(home.path(), 400).await;
    let ticket = founder.ticket().clone();
    let other = Ticket { run: RunId(Hash([7; 32])), ..ticket.clone() };
    assert!(matches!(ask(&other).await, Err(JoinError::UnknownRun)));
    let stranger = Ticket { validator: founder.members()[1].id(), ..ticket.clone() };
    assert!(matches!(ask(&stranger).await, Err(JoinError::Unreachable { .. })), "another key answers there");
    let both = Ticket { addresses: vec![SocketAddr::from(([127, 0, 0, 1], 9)), ticket.addresses[0]], ..ticket.clone() };
    assert_eq!(
        ask(&both).await.unwrap().validator,
        (ticket.validator, Some(ticket.addresses[0])),
        "the second address works"
    );
    founder.shutdown().await;
    let error = ask(&ticket).await.unwrap_err();
    assert!(error.to_string().contains("no answer from 127.0.0.1:"), "{error}");
    assert!(!error.hint().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_cannot_reach_each_other_meet_at_a_relay() {
    let relay = Relay::start(loopback(), CLIENT_BYTES_PER_S).await.unwrap();
    let url: RelayUrl = relay.urls()[0].parse().unwrap();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = ClusterConfig {
        data: Some(text_path()),
        listen: Some(loopback()),
        relays: vec![url],
        ..ClusterConfig::new(first.path(), workload(120), 2)
    };
    let founder = Cluster::start(config).await.unwrap();
    // The guest knows no address but the relay's.
    let ticket = Ticket { addresses: Vec::new(), ..founder.ticket().clone() };
    assert_eq!(ticket.relays, relay.urls());
    let ticket: Ticket = ticket.to_string().parse().unwrap();
    let guest = join(second.path(), &ticket).await;
    let summary = finish(&founder).await;
    assert_eq!(finish(&guest).await.state_root, summary.state_root, "the same bits on both sides of the relay");
    let guest_id = guest.members()[0].id();
    assert!(receipts(&founder, guest_id) > 0, "what it did through the relay is paid");
    assert!(relay.figures().bytes_sent > 0, "{:?}", relay.figures());
    let paths = guest.members()[0].status().borrow().paths.clone();
    let path = paths[&founder.members()[0].id()];
    // Both are on this machine, so a direct path is found.
    assert!(path.direct.is_some_and(|address| address.ip().is_loopback()), "{paths:?}");
    guest.shutdown().await;
    founder.shutdown().await;
    relay.shutdown().await;
    let error = ask(&ticket).await.unwrap_err();
    assert!(error.to_string().contains("no answer from http://127.0.0.1:"), "{error}");
}

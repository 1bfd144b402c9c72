//! Peers that misbehave: the fault is recorded, and the run goes on.

use std::path::Path;

use node::peer::{self, NodeConfig, NodeHandle};
use node::status::PeerStatus;
use node::transport::{Services, Transport, TransportConfig, TransportEvent};
use node::{Cores, Workload};
use wire::{Identity, Message, PROTOCOL_VERSION, PeerId, RunId};

use crate::common::workload;
use crate::transport::identity;

/// A run that peer 1 could do alone, in which it knows of another peer.
async fn lone_node(directory: &Path, other: PeerId) -> (NodeHandle, RunId) {
    let founder = identity(1);
    let workload = workload();
    let charter =
        founder.sign(Workload::charter(&workload, founder.id(), 2, 60_000_000..=60_000_000, 1000)).verify().unwrap();
    let run = charter.body.run_id();
    let config = NodeConfig {
        alone: false,
        directory: directory.to_owned(),
        identity: founder,
        charter,
        workload,
        stage: 0,
        operator: None,
        places: [(0, Default::default())].into(),
        cores: Cores::new(1),
        transport: TransportConfig::default(),
        peers: vec![other],
        texts: None,
        checked: Default::default(),
    };
    (peer::start(config).await.unwrap(), run)
}

async fn fault_of(node: &NodeHandle, peer: PeerId) -> String {
    let mut status = node.status();
    let recorded = |status: &PeerStatus| status.faults.iter().any(|fault| fault.peer == peer);
    let found = tokio::time::timeout(std::time::Duration::from_secs(60), status.wait_for(recorded)).await;
    let status = found.expect("a fault is recorded").unwrap();
    status.faults.iter().find(|fault| fault.peer == peer).unwrap().what.clone()
}

async fn connect(who: &Identity, node: &NodeHandle) -> Transport {
    let mut transport = Transport::bind(&TransportConfig::default(), who, Services::default()).await.unwrap();
    transport.dialer().set_address(node.id(), node.address());
    node.introduce(vec![]).await;
    transport.connect(node.id());
    while !matches!(transport.next().await, TransportEvent::Connected(_)) {}
    transport
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_protocol_is_recorded_when_it_is_dialled() {
    let directory = tempfile::tempdir().unwrap();
    let other = identity(2);
    let (node, _) = lone_node(directory.path(), other.id()).await;
    let config = TransportConfig { alpn: b"cairn/999".to_vec(), ..TransportConfig::default() };
    let future = Transport::bind(&config, &other, Services::default()).await.unwrap();
    node.introduce(vec![(other.id(), future.dialer().address())]).await;
    assert!(fault_of(&node, other.id()).await.contains("another version"));
    node.shutdown().await;
    future.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_states_another_version_or_run_is_recorded_and_that_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (node, run) = lone_node(directory.path(), identity(9).id()).await;
    let (future, stranger) = (identity(2), identity(3));
    let mut a = connect(&future, &node).await;
    a.send(node.id(), &Message::Hello { version: PROTOCOL_VERSION + 1, run, height: 0, open: None });
    assert!(fault_of(&node, future.id()).await.contains("version"));
    let mut b = connect(&stranger, &node).await;
    let other_run = RunId(wire::Hash::of(b"another run"));
    b.send(node.id(), &Message::Hello { version: PROTOCOL_VERSION, run: other_run, height: 0, open: None });
    assert!(fault_of(&node, stranger.id()).await.contains("another run"));
    node.shutdown().await;
    a.shutdown().await;
    b.shutdown().await;

    let (node, _) = lone_node(directory.path(), identity(9).id()).await;
    assert!(fault_of(&node, future.id()).await.contains("version"), "it is still known after a restart");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charter_of_another_recipe_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let founder = identity(1);
    let workload = workload();
    let mut charter = workload.charter(founder.id(), 1, 60_000_000..=60_000_000, 1000);
    charter.recipe = wire::Hash::of(b"another recipe");
    let config = NodeConfig {
        alone: false,
        directory: directory.path().to_owned(),
        identity: founder.clone(),
        charter: founder.sign(charter).verify().unwrap(),
        workload,
        stage: 0,
        operator: None,
        places: [(0, Default::default())].into(),
        cores: Cores::new(1),
        transport: TransportConfig::default(),
        peers: vec![],
        texts: None,
        checked: Default::default(),
    };
    let error = peer::start(config).await.unwrap_err();
    assert_eq!(error.kind(), node::FailureKind::BadInput, "{error}");
}

//! Runs whose charter splits the weights, over sockets: what peers keep, whom they serve, and how others come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use learn::pipeline;
use ledger::Ledger;
use node::blobs::{Blobs, FetchError, ProviderError};
use node::home::Home;
use node::identity::load_or_create;
use node::offline::Saved;
use node::peer::{self, NodeConfig, NodeHandle};
use node::replay::{RecordedRound, ReplayError};
use node::store::{Store, StoreError};
use node::transport::{Services, Transport, TransportConfig};
use node::{Cluster, ClusterConfig, FailureKind, Workload};
use tensor::Profile;
use wire::{Hash, Identity, OperatorCertificate, PeerId, Release};

use crate::common::{config, finish, text_path, wait};
use crate::stages::recompute;
use crate::transport::identity;

const STAGES: u16 = 3;

fn workload(space: Space, rounds: u64) -> Arc<Workload> {
    let mut recipe = Recipe::tiny().in_stages(usize::from(STAGES), space, Precision::Int8);
    (recipe.rounds, recipe.units_per_round, recipe.profile) = (rounds, 6, Profile::F32Fma);
    recipe.compression.keep = 2048;
    Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap())
}

fn split(home: &Path, peers: usize, workload: Arc<Workload>) -> ClusterConfig {
    ClusterConfig { workload, release: Some(Release::Split), ..config(home, peers) }
}

/// The stage of a peer of the cluster, by its place from 0.
fn stage_of(place: usize) -> u16 {
    u16::try_from(place).unwrap() % STAGES
}

/// The blobs in a directory.
fn blobs_in(directory: &Path) -> BTreeSet<Hash> {
    let names = std::fs::read_dir(directory.join("blobs")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// All states and payloads of a run, with their stages.
fn stages_of_blobs(ledger: &Ledger) -> BTreeMap<Hash, u16> {
    let mut stages = BTreeMap::new();
    for set in ledger.recent() {
        stages.extend((0..).zip(&set.state_in).map(|(stage, root)| (*root, stage)));
        stages.extend(set.entries.iter().map(|entry| (entry.payload, entry.stage)));
    }
    let last = ledger.round().unwrap();
    stages.extend((0..STAGES).map(|stage| (last.state_root_of(stage).unwrap(), stage)));
    stages
}

fn ledger_of(saved: &Saved) -> Ledger {
    let charter = &saved.run().charter().body;
    let store = Store::open(&saved.run().peer_path(1), charter.run_id(), charter.validators[0]).unwrap();
    let mut ledger = Ledger::new(saved.run().charter());
    store.blocks().unwrap().iter().for_each(|block| drop(ledger.apply(block).unwrap()));
    ledger
}

/// Asks a running peer for a blob, with a key of one's choice.
async fn ask(
    who: &Identity,
    of: (PeerId, std::net::SocketAddr),
    hash: Hash,
) -> (Result<u64, FetchError>, Vec<ProviderError>) {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(directory.path()).await.unwrap();
    let transport = Transport::bind(&TransportConfig::default(), who, Services::default()).await.unwrap();
    transport.dialer().set_address(of.0, of.1);
    let mut errors = Vec::new();
    let fetched = blobs.fetch(transport.dialer(), hash, 1 << 30, &[of.0], |_, error| errors.push(error.clone())).await;
    transport.shutdown().await;
    blobs.close().await;
    (fetched, errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_peer_of_a_split_run_holds_or_gives_blobs_of_two_stages() {
    let directory = tempfile::tempdir().unwrap();
    let workload = workload(Space::Full, 8);
    let cluster = Cluster::start(split(directory.path(), 6, workload.clone())).await.unwrap();
    let summary = finish(&cluster).await;
    assert_eq!(summary.tokens, workload.recipe.total_tokens());
    assert!(cluster.state().faults.is_empty(), "{:?}", cluster.state().faults);

    // Peers 1 and 4 are in stage 0, peer 2 is in stage 1. Each is asked for its newest state by all kinds of keys.
    let key = |number: usize| match number {
        1 => load_or_create(&directory.path().join("identity.key")).unwrap(),
        _ => load_or_create(&directory.path().join(format!("peers/peer-{number}.key"))).unwrap(),
    };
    let of = |place: usize| (cluster.members()[place].id(), cluster.members()[place].address());
    let root = |place: usize| cluster.members()[place].status().borrow().model.unwrap().state_root;
    assert!(ask(&key(4), of(0), root(0)).await.0.unwrap() > 0, "a replica of the stage is served");
    for (who, place) in [(key(2), 0), (key(1), 1), (key(6), 0), (identity(99), 0), (identity(99), 2)] {
        let (fetched, errors) = ask(&who, of(place), root(place)).await;
        assert!(matches!(fetched, Err(FetchError::NoProvider { .. })), "{fetched:?}");
        assert_eq!(errors, [ProviderError::Refused], "peer {} of {place}", who.id().short());
    }

    let run = cluster.run_path().to_owned();
    let served = cluster.observer().checkpoints().borrow().clone().unwrap();
    assert_eq!(served.stages(), Some(3), "it answers through its stages");
    cluster.shutdown().await;
    let saved = Saved::newest(&Home::open(directory.path()).unwrap()).unwrap().unwrap();
    let stages = stages_of_blobs(&ledger_of(&saved));
    for place in 0..6 {
        let held = blobs_in(&run.join(format!("peer-{}", place + 1)));
        let foreign: Vec<&Hash> = held.iter().filter(|blob| stages.get(blob) != Some(&stage_of(place))).collect();
        assert!(foreign.is_empty(), "peer {} of stage {} holds {foreign:?}", place + 1, stage_of(place));
        // Both replicas' payloads of eight rounds, and a state.
        assert!(held.len() > 16, "{}", held.len());
    }

    // Measured through the peers, the loss is that of the stages in one process, up to rounding.
    let mut workers = recompute(directory.path(), &workload, 8 * 6 * 3);
    let windows = workload.recipe.evaluation.windows;
    let expected = pipeline::evaluate(&mut workers, &workload.recipe, &workload.corpus, windows).unwrap();
    assert!((summary.heldout_loss.unwrap() - expected).abs() < 1e-5, "{:?} and {expected}", summary.heldout_loss);

    // Nothing puts them together afterwards.
    let closed = |error: &StoreError| matches!(error, StoreError::WeightsClosed { release: Release::Split, rounds: 8 });
    assert!(closed(&saved.checkpoint().unwrap_err()));
    assert!(closed(&saved.export().unwrap_err()));
    let replayed = RecordedRound::open(&saved, workload, None).unwrap_err();
    assert!(matches!(&replayed, ReplayError::Store(error) if closed(error)), "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_is_bound_to_its_stage_before_it_gets_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let workload = workload(Space::Full, 60);
    let cluster = Cluster::start(split(directory.path(), 6, workload.clone())).await.unwrap();
    wait(&cluster, "four rounds", |status| status.totals.rounds >= 4).await;
    let signed: wire::Signed<wire::Charter> =
        serde_json::from_slice(&std::fs::read(cluster.run_path().join("charter.json")).unwrap()).unwrap();
    let charter = signed.verify().unwrap();
    let run = charter.body.run_id();
    let others: Vec<_> = cluster.members().iter().map(|member| (member.id(), member.address())).collect();
    let newcomer = |key: u8, stage: u16, operator: &Identity| {
        let who = identity(key);
        NodeConfig {
            directory: directory.path().join(format!("newcomer-{key}")),
            charter: charter.clone(),
            workload: workload.clone(),
            stage,
            operator: Some(operator.sign(OperatorCertificate { run, peer: who.id() })),
            identity: who,
            places: [(stage, workload.pipeline())].into(),
            alone: false,
            cores: node::Cores::new(1),
            transport: TransportConfig::default(),
            peers: others.iter().map(|(peer, _)| *peer).collect(),
            texts: None,
            checked: Default::default(),
        }
    };
    let operator = identity(90);
    let first: NodeHandle = peer::start(newcomer(91, 1, &operator)).await.unwrap();
    for member in cluster.members() {
        member.introduce(vec![(first.id(), first.address())]).await;
    }
    first.introduce(others.clone()).await;
    let patience = std::time::Duration::from_secs(100);
    let mut status = first.status();
    let trained = |status: &node::status::PeerStatus| {
        status.account(status.id).is_some_and(|account| account.receipts > 0) || status.halted.is_some()
    };
    let status =
        tokio::time::timeout(patience, status.wait_for(trained)).await.expect("it takes part").unwrap().clone();
    assert_eq!(status.halted, None);
    let account = *status.account(status.id).unwrap();
    assert_eq!((account.operator, account.stage), (operator.id(), 1));

    // Another peer of the same operator may not have another stage: it stops, and nobody gives it anything.
    let second = peer::start(newcomer(92, 2, &operator)).await.unwrap();
    second.introduce(others.clone()).await;
    let mut halted = second.status();
    let halted = tokio::time::timeout(patience, halted.wait_for(|status| status.halted.is_some())).await.unwrap();
    let failure = halted.unwrap().halted.clone().unwrap();
    assert!(failure.kind == FailureKind::BadInput && failure.message.contains("stage 1"), "{failure:?}");
    second.shutdown().await;
    // What everybody can compute from the recipe it may have made itself before it heard of the run.
    let held: Vec<_> = blobs_in(&directory.path().join("newcomer-92")).into_iter().collect();
    assert!(held.iter().all(|blob| *blob == charter.body.stages[2].genesis_state), "{held:?}");

    first.shutdown().await;
    let held = blobs_in(&directory.path().join("newcomer-91"));
    cluster.shutdown().await;
    let saved = Saved::newest(&Home::open(directory.path()).unwrap()).unwrap().unwrap();
    let ledger = ledger_of(&saved);
    let mut stages = BTreeMap::new();
    for set in ledger.recent() {
        stages.extend((0..).zip(&set.state_in).map(|(stage, root)| (*root, stage)));
        stages.extend(set.entries.iter().map(|entry| (entry.payload, entry.stage)));
    }
    let open = ledger.round().unwrap();
    stages.extend(open.commitments().map(|entry| (entry.payload, entry.stage)));
    let foreign = held.iter().filter(|blob| stages.get(blob).is_some_and(|stage| *stage != 1)).count();
    assert!(foreign == 0 && held.iter().any(|blob| stages.contains_key(blob)), "{foreign} of {}", held.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_fit_founds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Space::Projector { rank: 8, rate: 0.1 };
    let cases = [
        (ClusterConfig { release: Some(Release::Split), ..config(directory.path(), 2) }, "at least 2 stages"),
        (
            ClusterConfig { release: Some(Release::OpenAfter { rounds: 0 }), ..config(directory.path(), 2) },
            "1 round to all",
        ),
        (
            ClusterConfig { release: Some(Release::OpenAfter { rounds: 999 }), ..config(directory.path(), 2) },
            "1 round to all",
        ),
        (split(directory.path(), 6, workload(learned, 8)), "learned bases"),
    ];
    for (config, said) in cases {
        let failure = Cluster::start(config).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadInput, "{failure}");
        assert!(failure.message.contains(said) && !failure.hint.is_empty(), "{failure:?}");
    }
    assert!(!directory.path().join("runs").exists());
}

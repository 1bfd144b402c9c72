//! A small corpus, the tiny recipe, and clusters of it.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use learn::Recipe;
use learn::data::Corpus;
use node::observe::Summary;
use node::status::PeerStatus;
use node::{Cluster, ClusterConfig, Outcome, Workload};

/// Longest wait for anything: a test that needs it fails anyway.
const PATIENCE: Duration = Duration::from_secs(120);

/// The text that the tests train on.
pub(crate) fn text_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/austen/northanger-abbey.txt")
}

/// The tiny recipe on one novel, made once per process.
pub(crate) fn workload() -> Arc<Workload> {
    static WORKLOAD: OnceLock<Arc<Workload>> = OnceLock::new();
    let make = || Arc::new(Workload::new(Recipe::tiny(), Corpus::from_path(&text_path()).unwrap()).unwrap());
    WORKLOAD.get_or_init(make).clone()
}

pub(crate) fn config(home: &Path, peers: usize) -> ClusterConfig {
    ClusterConfig { data: Some(text_path()), ..ClusterConfig::new(home, workload(), peers) }
}

/// Waits until peer 1 says something.
pub(crate) async fn wait(cluster: &Cluster, what: &str, said: impl FnMut(&PeerStatus) -> bool) -> PeerStatus {
    wait_of(cluster, 0, what, said).await
}

/// Waits until a peer says something.
pub(crate) async fn wait_of(
    cluster: &Cluster,
    place: usize,
    what: &str,
    said: impl FnMut(&PeerStatus) -> bool,
) -> PeerStatus {
    let mut status = cluster.members()[place].status();
    let found = tokio::time::timeout(PATIENCE, status.wait_for(said)).await;
    let found = found.map(|found| found.map(|status| status.clone()));
    match found {
        Ok(Ok(status)) => status,
        other => {
            let now: Vec<PeerStatus> =
                cluster.members().iter().map(|member| member.status().borrow().clone()).collect();
            panic!("waiting for {what}: {other:?}; now {now:#?}")
        }
    }
}

/// Waits until the run is complete.
pub(crate) async fn finish(cluster: &Cluster) -> Summary {
    match tokio::time::timeout(PATIENCE, cluster.outcome()).await {
        Ok(Outcome::Finished(summary)) => *summary,
        other => panic!("{other:?}; {:#?}", cluster.state()),
    }
}

/// All peers hold the final state, with equal roots, and everything adds up.
pub(crate) async fn check_complete(cluster: &Cluster, summary: &Summary) {
    let recipe = &workload().recipe;
    for (place, member) in cluster.members().iter().enumerate() {
        let status = member.status().borrow().clone();
        let model = status.model.unwrap();
        assert_eq!((model.round, model.state_root), (recipe.rounds, summary.state_root), "peer {}", place + 1);
        assert_eq!(status.totals.rounds, recipe.rounds);
        assert_eq!(status.totals.receipts, recipe.rounds * u64::from(recipe.units_per_round));
        assert_eq!(status.totals.tokens, recipe.total_tokens());
        let sum: u64 = status.accounts.iter().map(|account| account.shares).sum();
        assert_eq!(sum, status.totals.supply, "shares sum to the supply");
    }
    let mut receipts = 0;
    for number in 1..=cluster.members().len() {
        let piece = cluster.piece(number).await.unwrap();
        let proven = piece.verify().unwrap();
        assert_eq!(proven.receipts, piece.receipts.len() as u64);
        receipts += proven.receipts;
    }
    assert_eq!(receipts, recipe.rounds * u64::from(recipe.units_per_round));
}

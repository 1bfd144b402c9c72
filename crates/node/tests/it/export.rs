//! A run's model for other programs: what the importer reads is what the run trained, and not before the charter says so.

use std::path::Path;
use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use model::{Decoder, Pretrained};
use node::home::Home;
use node::offline::Saved;
use node::store::StoreError;
use node::{Cluster, ClusterConfig, Workload};
use tensor::Context;
use wire::Release;

use crate::common::{config, finish, text_path, wait};

const ROUNDS: u64 = 12;

fn in_stages(space: Space) -> Arc<Workload> {
    let mut recipe = Recipe::tiny().in_stages(2, space, Precision::Int8);
    (recipe.rounds, recipe.units_per_round) = (ROUNDS, 4);
    recipe.compression.keep = 2048;
    Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap())
}

fn saved(home: &Path) -> Saved {
    Saved::newest(&Home::open(home).unwrap()).unwrap().unwrap()
}

/// The logits of a whole model after each token of a text.
fn logits(config: model::Config, params: &[f32], tokens: &[u32]) -> Vec<u32> {
    let mut decoder = Decoder::new(config, params).unwrap();
    let mut cache = decoder.cache();
    let ctx = Context::single();
    let feed = |token: &u32| {
        let logits = decoder.feed(&ctx, &mut cache, &[*token]).unwrap();
        logits.iter().map(|logit| logit.to_bits()).collect::<Vec<u32>>()
    };
    tokens.iter().flat_map(feed).collect()
}

/// Exports the run at `home`, reads it as any other model, and compares: parameters, logits and tokens, bit for bit.
fn check(home: &Path, params: &[f32], recipe: &Recipe, has_bases: bool) {
    let saved = saved(home);
    let exported = saved.export().unwrap().unwrap();
    assert_eq!((exported.round, exported.has_bases), (recipe.rounds, has_bases));
    let folder = home.join("exported");
    exported.model.save_hugging_face(&folder, false).unwrap();
    let read = Pretrained::open(&folder).unwrap();
    let bits = |params: &[f32]| params.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    assert!(bits(&read.params) == bits(params), "another parameter");
    let text = "It is a truth universally acknowledged";
    let tokens = saved.run().tokenizer().unwrap().encode(text);
    assert_eq!(read.tokenizer.encode(text), tokens);
    assert!(tokens.len() > 4);
    assert!(logits(read.config, &read.params, &tokens) == logits(recipe.model, params, &tokens), "other logits");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_run_has_the_bits_of_the_runs_model() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 2)).await.unwrap();
    finish(&cluster).await;
    let served = cluster.observer().checkpoints().borrow().clone().unwrap();
    cluster.shutdown().await;
    let recipe = saved(directory.path()).run().recipe().clone();
    check(directory.path(), served.parameters().unwrap(), &recipe, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_are_put_together_once_the_rounds_of_the_charter_are_closed() {
    let learned = Space::Projector { rank: 8, rate: 0.1 };
    for space in [Space::Full, Space::Subspace { rank: 8 }, learned] {
        let directory = tempfile::tempdir().unwrap();
        let workload = in_stages(space);
        let release = Some(Release::OpenAfter { rounds: ROUNDS });
        let start = || ClusterConfig { workload: workload.clone(), release, ..config(directory.path(), 4) };
        let cluster = Cluster::start(start()).await.unwrap();
        wait(&cluster, "a round", |status| status.totals.rounds >= 1).await;
        cluster.shutdown().await;
        let early = saved(directory.path());
        let closed = |error: StoreError| match error {
            StoreError::WeightsClosed { release: Release::OpenAfter { rounds: ROUNDS }, rounds } => rounds < ROUNDS,
            other => panic!("{other}"),
        };
        assert!(closed(early.export().unwrap_err()));
        assert!(closed(early.checkpoint().unwrap_err()), "nor is it served as a whole");
        // Without a policy, the run goes on with its own.
        let cluster = Cluster::start(ClusterConfig { release: None, ..start() }).await.unwrap();
        assert!(cluster.is_resumed() && Some(cluster.release()) == release);
        finish(&cluster).await;
        cluster.shutdown().await;
        let has_bases = space == learned;
        match saved(directory.path()).checkpoint() {
            Ok(whole) => {
                let whole = whole.unwrap();
                check(directory.path(), whole.parameters().unwrap(), &workload.recipe, has_bases);
            }
            Err(StoreError::NotPlain) if has_bases => {
                let exported = saved(directory.path()).export().unwrap().unwrap();
                let params = exported.model.params.clone();
                check(directory.path(), &params, &workload.recipe, true);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_found_by_the_beginning_of_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(directory.path(), 2)).await.unwrap();
    let id = cluster.run_id().0.to_string();
    cluster.shutdown().await;
    let home = Home::open(directory.path()).unwrap();
    assert!(Saved::of_run(&home, &id[..8]).unwrap().is_some());
    for beginning in ["", &id[..3], "ffffffffff", "../..", &format!("{id}0")] {
        assert!(Saved::of_run(&home, beginning).unwrap().is_none(), "{beginning}");
    }
}

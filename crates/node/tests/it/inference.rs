//! Models in stages, used over real sockets.

use std::ops::ControlFlow;
use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use model::{Decoder, Request, Sampler, Sampling};
use node::home::Home;
use node::inference::StagedModel;
use node::offline::Saved;
use node::{Checkpoint, Cluster, ClusterConfig, Weights, Workload};
use tensor::Context;

use crate::common::{config, finish, text_path};

const TOKENS: usize = 40;

fn sampler() -> Sampler {
    Sampler::new(Sampling { temperature: 0.9, seed: 5, ..Sampling::default() }).unwrap()
}

fn workload(space: Space) -> Arc<Workload> {
    let mut recipe = Recipe::tiny().in_stages(2, space, Precision::Int8);
    (recipe.rounds, recipe.units_per_round) = (8, 8);
    recipe.compression.keep = 2048;
    Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap())
}

/// A cluster of two replicas a stage that has finished its run, with its model.
async fn finished(home: &std::path::Path, space: Space) -> (Cluster, Arc<Checkpoint>, StagedModel) {
    let cluster = Cluster::start(ClusterConfig { workload: workload(space), ..config(home, 4) }).await.unwrap();
    finish(&cluster).await;
    let checkpoint = cluster.observer().checkpoints().borrow().clone().unwrap();
    let Weights::Stages(model) = checkpoint.weights.clone() else { panic!("{checkpoint:?} is whole") };
    (cluster, checkpoint, model)
}

/// Continues a text through the stages.
async fn written(
    model: &StagedModel,
    prompt: &[u32],
    mut on_token: impl FnMut(usize) + Send + 'static,
) -> (Vec<u32>, Vec<u32>) {
    let (model, prompt) = (model.clone(), prompt.to_vec());
    let task = tokio::task::spawn_blocking(move || {
        let mut tokens = Vec::new();
        let request = Request { prompt: &prompt, tokens_max: TOKENS, ends: &[] };
        let count = model.generate(request, &mut sampler(), |token| {
            tokens.push(token);
            on_token(tokens.len());
            ControlFlow::Continue(())
        });
        assert_eq!(count.unwrap(), tokens.len());
        (prompt, tokens)
    });
    task.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_through_stages_is_the_whole_models_even_when_replicas_die() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, checkpoint, model) = finished(directory.path(), Space::Full).await;
    // Longer than what goes in one call.
    let prompt = checkpoint.tokenizer.encode(&"No one who had ever seen Catherine Morland in her infancy ".repeat(5));
    assert!(prompt.len() > 64 && prompt.len() + TOKENS < checkpoint.config.context, "{}", prompt.len());
    let (_, calm) = written(&model, &prompt, |_| {}).await;
    let route = model.route();
    let cluster = Arc::new(cluster);
    let (victims, killed) = (cluster.clone(), route.clone());
    let (_, troubled) = written(&model, &prompt, move |count| {
        if count == TOKENS / 2 {
            let used = |member: &&node::member::Member| route.contains(&Some(member.id()));
            victims.members().iter().filter(used).for_each(node::member::Member::kill);
        }
    })
    .await;
    assert_eq!((troubled.len(), &troubled), (TOKENS, &calm));
    let now = model.route();
    assert!(now.iter().all(|peer| peer.is_some() && !killed.contains(peer)), "{now:?} after {killed:?}");
    Arc::into_inner(cluster).unwrap().kill().await;

    let saved = Saved::newest(&Home::open(directory.path()).unwrap()).unwrap().unwrap();
    let whole = saved.checkpoint().unwrap().unwrap();
    assert_eq!((whole.round, whole.state_root), (checkpoint.round, checkpoint.state_root));
    let mut expected = Vec::new();
    let mut decoder = Decoder::new(whole.config, whole.parameters().unwrap()).unwrap();
    let mut cache = decoder.cache();
    let request = Request { prompt: &prompt, tokens_max: TOKENS, ends: &[] };
    model::generate(&Context::single(), &mut decoder, &mut cache, request, &mut sampler(), |token| {
        expected.push(token);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(calm, expected, "the whole model says the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_learned_bases_is_used_through_its_stages() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, checkpoint, model) = finished(directory.path(), Space::Projector { rank: 8, rate: 0.01 }).await;
    let prompt = checkpoint.tokenizer.encode("Catherine");
    let (_, once) = written(&model, &prompt, |_| {}).await;
    let (_, again) = written(&model, &prompt, |_| {}).await;
    assert_eq!((once.len(), &once), (TOKENS, &again));
    cluster.shutdown().await;
}

//! Tokens per second of a model in four stages on loopback, against the same weights in one process; and a token's time when every peer
//! sits behind a link with a delay.
//!
//! A consumer calls one replica of every stage in turn, so a token takes two hops for each stage, there and back. The consumer's own link
//! has no delay, so a hop takes a quarter of the link's round-trip time. Both decode one sequence greedily from the same prompt, and must write the same tokens.
//!
//! Run: `cargo bench -p node --bench stage_decode -- [turns=N] [tokens=N] [link=LINK]`.

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use model::{Config, Decoder, Request, Sampler, Sampling};
use node::home::Home;
use node::inference::StagedModel;
use node::offline::Saved;
use node::{Cluster, ClusterConfig, LinkSpec, Weights, Workload, probe};
use tensor::Context;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STAGES: usize = 4;
const PROMPT: &str = "It is a truth universally acknowledged, that a single man";

fn main() {
    let argument =
        |name: &str| std::env::args().find_map(|text| text.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    let number = |name: &str, default: usize| argument(name).map_or(default, |text| text.parse().unwrap());
    let (turns, tokens) = (number("turns", 5), number("tokens", 64));
    let link: LinkSpec = argument("link").as_deref().unwrap_or("80M/80M,200ms").parse().unwrap();
    let workload = workload();
    let parameters = workload.recipe.layout().len();
    println!("{:.1} M parameters, {STAGES} stages, {} cores, {tokens} tokens", parameters as f64 / 1e6, probe::cores());

    let home = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The directory has one user at a time.
    runtime.block_on(async { trained(home.path(), &workload, None).await.0.shutdown().await });
    let whole = Saved::newest(&Home::open(home.path()).unwrap()).unwrap().unwrap().checkpoint().unwrap().unwrap();
    let (cluster, staged) = runtime.block_on(trained(home.path(), &workload, None));
    let prompt = whole.tokenizer.encode(PROMPT);
    let mut ratios = Vec::new();
    for turn in 0..turns {
        let alone = [1, probe::cores()].map(|threads| {
            let context = Context::new(threads);
            let mut decoder = Decoder::new(whole.config, whole.parameters().unwrap()).unwrap();
            let mut cache = decoder.cache();
            timed(tokens, |on_token| {
                let request = Request { prompt: &prompt, tokens_max: tokens, ends: &[] };
                model::generate(&context, &mut decoder, &mut cache, request, &mut greedy(), on_token).unwrap();
            })
        });
        let through = through_stages(&staged, &prompt, tokens);
        assert!(alone.iter().all(|one| one.0 == through.0), "the same tokens");
        ratios.push(through.1 / alone[1].1);
        println!(
            "turn {}  alone {:6.1} tokens/s with one thread, {:6.1} with all; through stages {:6.1}: {:.1} %",
            turn + 1,
            alone[0].1,
            alone[1].1,
            through.1,
            100.0 * through.1 / alone[1].1
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median {:.1} % of one process with all threads", 100.0 * ratios[ratios.len() / 2]);
    runtime.block_on(cluster.kill());

    let home = tempfile::tempdir().unwrap();
    let (cluster, staged) = runtime.block_on(trained(home.path(), &workload, Some(link)));
    let tokens = tokens.min(24);
    let delayed = through_stages(&staged, &prompt, tokens).1;
    let delays = (2 * STAGES) as f64 * link.round_trip_us as f64 / 4e6;
    println!(
        "links of {link}: {:.0} ms a token, {:.0} ms of them delays: {:.3} times",
        1e3 / delayed,
        1e3 * delays,
        1.0 / delayed / delays
    );
    runtime.block_on(cluster.kill());
}

fn workload() -> Arc<Workload> {
    let mut recipe = Recipe::default_run().in_stages(STAGES, Space::Full, Precision::Int8);
    recipe.model =
        Config { width: 512, heads: 8, kv_heads: 4, head_dim: 64, ff: 1408, layers: 8, context: 256, ..recipe.model };
    (recipe.batch.sequences, recipe.batch.tokens) = (1, 64);
    (recipe.rounds, recipe.units_per_round) = (4, 4);
    recipe.compression.keep = 4096;
    recipe.validate().unwrap();
    Arc::new(Workload::new(recipe, Corpus::bundled().unwrap()).unwrap())
}

/// A cluster of one replica a stage after its only round, and its model.
async fn trained(home: &std::path::Path, workload: &Arc<Workload>, link: Option<LinkSpec>) -> (Cluster, StagedModel) {
    let config = ClusterConfig { link, ..ClusterConfig::new(home, workload.clone(), STAGES) };
    let cluster = Cluster::start(config).await.unwrap();
    cluster.outcome().await;
    let checkpoint = cluster.observer().checkpoints().borrow().clone().unwrap();
    let Weights::Stages(model) = checkpoint.weights.clone() else { panic!("{checkpoint:?} is whole") };
    (cluster, model)
}

fn greedy() -> Sampler {
    Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap()
}

fn through_stages(model: &StagedModel, prompt: &[u32], tokens: usize) -> (Vec<u32>, f64) {
    timed(tokens, |on_token| {
        let request = Request { prompt, tokens_max: tokens, ends: &[] };
        model.generate(request, &mut greedy(), on_token).unwrap();
    })
}

/// The tokens, and how many came in a second after the first of them.
fn timed(tokens: usize, run: impl FnOnce(&mut dyn FnMut(u32) -> ControlFlow<()>)) -> (Vec<u32>, f64) {
    let mut written = Vec::new();
    let mut first = None;
    run(&mut |token| {
        written.push(token);
        first.get_or_insert_with(Instant::now);
        ControlFlow::Continue(())
    });
    assert_eq!(written.len(), tokens);
    let seconds = first.unwrap().elapsed().as_secs_f64();
    (written, (tokens - 1) as f64 / seconds)
}

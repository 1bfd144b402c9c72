//! Tokens per second of a model in stages whose peers sit behind home links, against the same run without links.
//!
//! Four stages of two replicas each. The layers are thin and the stream between them is wide, so that two cores compute faster than such
//! links carry f32. Every turn runs each codec with and without the links, one after the other, with a seed of its own; rounds before the
//! first one that counts fill the pipeline's windows.
//!
//! The links are a proxy in this process, which takes time of the same cores: without links means links without limits.
//!
//! Run: `cargo bench -p node --bench stages -- [turns=N] [rounds=N] [link=LINK] [codec=CODEC ...]`.

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

#[path = "shared/arguments.rs"]
mod arguments;

use std::sync::Arc;

use arguments::{number, values};
use learn::Recipe;
use learn::boundary::Codec;
use learn::data::Corpus;
use model::Config;
use node::{Cluster, ClusterConfig, LinkSpec, Workload, probe};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STAGES: usize = 4;
const PEERS: usize = 8;
/// Rounds that do not count: they fill the windows, and in a range of precisions find the one that the links carry.
const WARM_ROUNDS: [u64; 2] = [1, 5];

fn main() {
    let (turns, rounds) = (number("turns", 3), number("rounds", 3));
    let link = values("link").first().map_or("80M/80M,50ms", String::as_str).to_owned();
    let link: LinkSpec = link.parse().unwrap();
    let codecs = values("codec");
    let codecs =
        if codecs.is_empty() { vec!["full,f32".into(), "full,int8".into(), "full,int4".into()] } else { codecs };
    println!("{STAGES} stages, {PEERS} peers, {} cores, links of {link}, {rounds} rounds", probe::cores());
    let mut ratios = vec![Vec::new(); codecs.len()];
    for turn in 0..turns {
        for (codec, ratios) in codecs.iter().zip(&mut ratios) {
            let workload = workload(codec.parse().unwrap(), turn + 1);
            let free = run(&workload, Some(LinkSpec::default()), rounds);
            let shaped = run(&workload, Some(link), rounds);
            let ratio = shaped.tokens_per_second / free.tokens_per_second;
            ratios.push(ratio);
            println!(
                "turn {}  {codec:18} {:6.0} tokens/s without links, {:6.0} with: {:5.1} %   {:5.0} bytes/token, {}, {} faults",
                turn + 1,
                free.tokens_per_second,
                shaped.tokens_per_second,
                100.0 * ratio,
                shaped.bytes_per_token,
                shaped.precisions.join(" "),
                shaped.faults
            );
        }
    }
    for (codec, ratios) in codecs.iter().zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        println!("{codec:18} median {:.1} %", 100.0 * ratios[ratios.len() / 2]);
    }
}

fn workload(codec: Codec, seed: u64) -> Arc<Workload> {
    let mut recipe = Recipe::default_run().in_stages(STAGES, codec.space, codec.precision);
    recipe.pipeline = recipe.pipeline.map(|pipeline| learn::recipe::Pipeline { coarsest: codec.coarsest, ..pipeline });
    recipe.seed = seed;
    recipe.rounds = 200;
    recipe.model = Config { width: 512, heads: 2, kv_heads: 2, head_dim: 32, ff: 64, context: 256, ..recipe.model };
    (recipe.batch.sequences, recipe.batch.tokens) = (4, 256);
    // As many as the commitments of two replicas can hold: the time between two rounds is a second, whatever they do.
    recipe.units_per_round = 128;
    recipe.evaluation.every_rounds = recipe.rounds;
    recipe.validate().unwrap();
    Arc::new(Workload::new(recipe, Corpus::bundled().unwrap()).unwrap())
}

struct Speed {
    tokens_per_second: f64,
    bytes_per_token: f64,
    precisions: Vec<String>,
    faults: usize,
}

fn run(workload: &Arc<Workload>, link: Option<LinkSpec>, rounds: u64) -> Speed {
    let home = tempfile::tempdir().unwrap();
    let config = ClusterConfig { link, ..ClusterConfig::new(home.path(), workload.clone(), PEERS) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::start(config).await.unwrap();
        let mut status = cluster.members()[0].status();
        let ranged = workload.recipe.pipeline.is_some_and(|pipeline| pipeline.coarsest.is_some());
        let warm = WARM_ROUNDS[usize::from(ranged)];
        let done = warm + rounds;
        let reports = status.wait_for(|status| status.rounds.len() as u64 >= done).await.unwrap().rounds.clone();
        let (first, last) = (reports[warm as usize - 1], reports[done as usize - 1]);
        let seconds = (last.closed_us - first.closed_us) as f64 / 1e6;
        let state = cluster.state();
        let speed = Speed {
            tokens_per_second: (last.tokens - first.tokens) as f64 / seconds,
            bytes_per_token: state.run.as_ref().map_or(0.0, |run| run.bytes_per_token),
            precisions: state.run.and_then(|run| run.pipeline).map_or_else(Vec::new, |pipeline| {
                pipeline.boundaries.into_iter().map(|boundary| boundary.precision).collect()
            }),
            faults: state.faults.len(),
        };
        cluster.kill().await;
        speed
    })
}

//! What the network costs: the same rounds by four real peers on loopback, and by the same replicas without a network.
//!
//! Prints, of one run: the time to the first round, seconds per round on both sides and their ratio, bytes on the wire
//! beside the bytes of the payloads, and the peak memory of the process.
//!
//! Run: `cargo bench -p node --bench cluster -- [ROUNDS]` (12 when not given).

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

use std::sync::Arc;
use std::time::Instant;

use learn::Recipe;
use learn::data::Corpus;
use node::view::NetState;
use node::{Cluster, ClusterConfig, Workload, probe};

const PEERS: usize = 4;

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(12);
    let mut recipe = Recipe::default_run();
    recipe.evaluation.every_rounds = recipe.rounds;
    let workload = Arc::new(Workload::new(recipe, Corpus::bundled().unwrap()).unwrap());
    println!("{} parameters, {PEERS} peers, {} cores, {rounds} rounds", workload.parameters(), probe::cores());

    let network = network(&workload, rounds);
    let local = local(&workload, rounds);
    println!("seconds per round: {network:.3} with the network, {local:.3} without, ratio {:.3}", network / local);
    if let Some(peak) = peak_memory_bytes() {
        println!("peak memory of the process: {:.0} MB", peak as f64 / 1e6);
    }
}

/// Seconds per round of real peers.
fn network(workload: &Arc<Workload>, rounds: u64) -> f64 {
    let home = tempfile::tempdir().unwrap();
    let config = ClusterConfig::new(home.path(), workload.clone(), PEERS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let cluster = Cluster::start(config).await.unwrap();
        println!("peers started after {:.2} s", start.elapsed().as_secs_f64());
        let mut status = cluster.members()[0].status();
        status.wait_for(|status| status.totals.rounds >= 1).await.unwrap();
        println!("first round done after {:.2} s", start.elapsed().as_secs_f64());
        let first = Instant::now();
        status.wait_for(|status| status.totals.rounds > rounds).await.unwrap();
        let seconds = first.elapsed().as_secs_f64() / rounds as f64;
        let mut events = cluster.subscribe();
        while cluster.state().run.is_none_or(|run| run.round <= rounds) {
            events.recv().await.unwrap();
        }
        describe(&cluster.state());
        cluster.shutdown().await;
        seconds
    })
}

fn describe(state: &NetState) {
    let run = state.run.as_ref().unwrap();
    let (wire, payload) = (run.bytes_per_token, run.payload_bytes_per_token);
    println!(
        "bytes sent per token: {wire:.2}; payload bytes per token: {payload:.3}; a payload goes to {} peers",
        PEERS - 1
    );
    println!("sent over payloads to all others: {:.3}", wire / (payload * (PEERS - 1) as f64));
    println!("payloads are {:.1} times smaller than the parameters", run.compression);
    println!(
        "time: {:.1} % computing, {:.1} % waiting for bytes, {:.1} % idle",
        100.0 * run.time.compute,
        100.0 * run.time.communication,
        100.0 * run.time.idle
    );
    println!("{:.0} tokens per second", run.tokens_per_second);
}

/// Seconds per round of the same replicas in one process without a network.
fn local(workload: &Workload, rounds: u64) -> f64 {
    let mut swarm = learn::local::Swarm::new(&workload.recipe, &workload.corpus, probe::cores());
    swarm.next().unwrap().unwrap();
    let start = Instant::now();
    for _ in 0..rounds {
        swarm.next().unwrap().unwrap();
    }
    start.elapsed().as_secs_f64() / rounds as f64
}

fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

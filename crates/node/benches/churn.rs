//! Tokens per second of a model in stages while its peers are killed one after the other, against the same run left alone.
//!
//! Four stages of two replicas each, every peer in a process of its own. Every `every` seconds one of them, in the order of their numbers
//! (the first orders the blocks), gets SIGKILL; the cluster starts it again. Both sides are measured over whole such spans: from the end of the
//! last warm round to the end of the last round within them.
//!
//! Prints the rates and their ratio for every turn, and checks from the blocks that every unit of every closed round is claimed in every
//! stage, and that all replicas of a stage came to the same roots.
//!
//! Run: `cargo bench -p node --bench churn -- [turns=N] [kills=N] [every=SECONDS]`.

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

#[path = "shared/arguments.rs"]
mod arguments;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arguments::number;
use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use node::child::{self, ChildProgram};
use node::home::Home;
use node::offline::Saved;
use node::status::RoundReport;
use node::{Cluster, ClusterConfig, Workload, probe};
use tokio::time::Instant;
use wire::{Action, Hash};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STAGES: usize = 4;
const PEERS: usize = 8;
/// Rounds that do not count.
const WARM_ROUNDS: usize = 2;
/// How long the last peer that was killed may take until its stage has equal roots again.
const PATIENCE: Duration = Duration::from_secs(90);
/// Marks a process that is to be a peer.
const AS_PEER: &str = "CAIRN_BENCH_AS_PEER";

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os(AS_PEER).is_some() {
        if let Err(failure) = runtime.block_on(child::run(tokio::io::stdin(), tokio::io::stdout())) {
            eprintln!("a peer ends: {failure}");
        }
        return;
    }
    let (turns, kills) = (number("turns", 2), number("kills", 3));
    let every = Duration::from_secs(number("every", 30));
    let mut victims = (0..PEERS).cycle();
    let mut ratios = Vec::new();
    println!("{STAGES} stages, {PEERS} peers in processes, {} cores, {kills} kills {every:?} apart", probe::cores());
    for turn in 0..turns {
        let workload = workload(turn + 1);
        let calm = runtime.block_on(run(&workload, kills, every, &mut std::iter::empty()));
        println!("turn {}  left alone  {calm}", turn + 1);
        let churned = runtime.block_on(run(&workload, kills, every, &mut victims));
        let ratio = churned.tokens_per_second / calm.tokens_per_second;
        println!("turn {}  killed      {churned}\n        ratio {:.1} %", turn + 1, 100.0 * ratio);
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("mean ratio {:.1} %", 100.0 * ratios.iter().sum::<f64>() / ratios.len() as f64);
}

fn workload(seed: u64) -> Arc<Workload> {
    let mut recipe = Recipe::default_run().in_stages(STAGES, Space::Full, Precision::Int8);
    (recipe.seed, recipe.rounds) = (seed, 1000);
    recipe.batch.sequences = 4;
    // As many as one replica's commitment can hold: a round can do without the other.
    recipe.units_per_round = 64;
    recipe.evaluation.every_rounds = recipe.rounds;
    recipe.validate().unwrap();
    Arc::new(Workload::new(recipe, Corpus::bundled().unwrap()).unwrap())
}

/// This program as a peer.
fn program() -> ChildProgram {
    let environment = vec![(AS_PEER.into(), "1".into())];
    ChildProgram { program: std::env::current_exe().unwrap(), arguments: Vec::new(), environment }
}

struct Measured {
    tokens_per_second: f64,
    rounds: usize,
    longest_seconds: f64,
    restarts: u64,
    lost_units: usize,
    equal_roots: usize,
    faults: usize,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tokens_per_second, rounds, longest_seconds, restarts, lost_units, equal_roots, faults } = self;
        write!(
            f,
            "{tokens_per_second:6.0} tokens/s in {rounds} rounds of up to {longest_seconds:.1} s, {restarts} restarts, \
             {lost_units} units lost, {equal_roots} equal pairs of roots, {faults} faults"
        )
    }
}

/// Runs for as many spans as there are to be kills, and kills as many of the peers as are named.
async fn run(
    workload: &Arc<Workload>,
    spans: u64,
    every: Duration,
    victims: &mut impl Iterator<Item = usize>,
) -> Measured {
    let home = tempfile::tempdir().unwrap();
    let config =
        ClusterConfig { processes: Some(program()), ..ClusterConfig::new(home.path(), workload.clone(), PEERS) };
    let cluster = Cluster::start(config).await.unwrap();
    let roots = Roots::watch(&cluster);
    let mut status = cluster.members()[0].status();
    status.wait_for(|status| status.rounds.len() >= WARM_ROUNDS).await.unwrap();
    let start = Instant::now();
    for span in 0..spans {
        // Early enough that what it costs is within the span.
        tokio::time::sleep_until(start + every * u32::try_from(span).unwrap() + every / 4).await;
        if let Some(victim) = victims.next() {
            kill(&cluster, victim);
        }
    }
    tokio::time::sleep_until(start + every * u32::try_from(spans).unwrap()).await;
    let reports = status.borrow().rounds.clone();
    let equal_roots = roots.settle(&cluster, workload).await;
    let restarts = cluster.members().iter().map(|member| member.status().borrow().lives.restarts).sum();
    let faults = cluster.state().faults.len();
    cluster.shutdown().await;
    let (first, last) = (&reports[WARM_ROUNDS - 1], reports.last().unwrap());
    let seconds = (last.closed_us - first.closed_us) as f64 / 1e6;
    let took = |report: &RoundReport| (report.closed_us - report.opened_us) as f64 / 1e6;
    Measured {
        tokens_per_second: (last.tokens - first.tokens) as f64 / seconds,
        rounds: reports.len() - WARM_ROUNDS,
        longest_seconds: reports[WARM_ROUNDS..].iter().map(took).fold(0.0, f64::max),
        restarts,
        lost_units: lost_units(home.path(), workload),
        equal_roots,
        faults,
    }
}

fn kill(cluster: &Cluster, victim: usize) {
    let process = cluster.members()[victim].status().borrow().lives.process;
    // One that is away already is spared.
    let Some(process) = process else { return println!("        peer {} is away already", victim + 1) };
    assert!(std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
}

/// Units of closed rounds that no block has a claim of, over all stages.
fn lost_units(home: &Path, workload: &Workload) -> usize {
    let saved = Saved::newest(&Home::open(home).unwrap()).unwrap().unwrap();
    let (ledger, blocks) = saved.records().unwrap();
    let closed = ledger.round().unwrap().round;
    let mut claimed: BTreeSet<(u64, u16, u32)> = BTreeSet::new();
    for transaction in blocks.iter().flat_map(|block| &block.transactions) {
        if let Action::Commit(commitment) = &transaction.body.action {
            let receipts = commitment.receipts.iter().map(|receipt| &receipt.body);
            claimed.extend(receipts.map(|receipt| (receipt.round, receipt.stage, receipt.index)));
        }
    }
    let claimed = claimed.iter().filter(|(round, ..)| *round < closed).count();
    closed as usize * STAGES * workload.recipe.units_per_round as usize - claimed
}

/// The roots that the peers had, as they said.
struct Roots {
    seen: tokio::sync::watch::Receiver<BTreeMap<(u64, u16), BTreeMap<usize, Hash>>>,
    _watching: tokio::task::JoinSet<()>,
}

impl Roots {
    fn watch(cluster: &Cluster) -> Self {
        let (sender, seen) = tokio::sync::watch::channel(BTreeMap::<(u64, u16), BTreeMap<usize, Hash>>::new());
        let sender = Arc::new(sender);
        let mut watching = tokio::task::JoinSet::new();
        for (place, member) in cluster.members().iter().enumerate() {
            let (mut status, sender) = (member.status(), sender.clone());
            watching.spawn(async move {
                while status.changed().await.is_ok() {
                    let (stage, model) = {
                        let status = status.borrow_and_update();
                        (status.stage, status.model)
                    };
                    let Some(model) = model else { continue };
                    let name = (model.round, stage);
                    sender.send_if_modified(|seen| {
                        seen.entry(name).or_default().insert(place, model.state_root) != Some(model.state_root)
                    });
                }
            });
        }
        Self { seen, _watching: watching }
    }

    /// Waits until all replicas of all stages have a state of one round that is still to come, and counts the equal pairs since the start.
    async fn settle(mut self, cluster: &Cluster, workload: &Workload) -> usize {
        let stages = workload.stages_len();
        let open = cluster.members()[0].status().borrow().totals.rounds + 1;
        let replicas = PEERS / STAGES;
        let settled = self.seen.wait_for(|seen| {
            let whole = |round: u64| {
                (0..stages).all(|stage| seen.get(&(round, stage)).is_some_and(|all| all.len() == replicas))
            };
            seen.keys().any(|(round, _)| *round >= open && whole(*round))
        });
        let settled = tokio::time::timeout(PATIENCE, settled).await.expect("a peer does not catch up").unwrap();
        let of_several = settled.iter().filter(|(_, roots)| roots.len() > 1);
        let pairs = of_several.map(|(name, roots)| {
            let mut roots: Vec<&Hash> = roots.values().collect();
            roots.dedup();
            assert_eq!(roots.len(), 1, "replicas of {name:?} differ");
            1
        });
        pairs.sum()
    }
}

//! Calibrates the planner: tokens per second of local clusters, against what is planned for this machine.
//!
//! First the machine: its peak, and what the trainer reaches of it in each model, with all cores at work. Then some clusters of peers on
//! its cores. Three constants are fitted on some of them (seconds of a pass, of a parameter at the end of a round, the share of a link); the
//! errors of the others are what the planner says of itself ([`sim::plan::Calibration`]).
//!
//! Run: `cargo bench -p node --bench plan -- [rounds=N] [cases=N,N,...] [again=FILE]`, where FILE has what
//! earlier runs printed, and is fitted again; of lines for one cluster, the first counts.

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use learn::boundary::Codec;
use learn::data::Corpus;
use learn::pipeline::{MicroBatch, STAGE_SLOTS, StageShape, StageState, StageWorker};
use learn::{Recipe, recipe::BatchShape};
use model::Config;
use node::{Cluster, ClusterConfig, LinkSpec, Workload, probe};
use sim::plan::{Calibration, FlowOptions, PeerGroup, PeerSpec, Plan, PlanInput, simulate};
use tensor::Context;
use tensor::gemm::multiply_add_burst;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds that do not count.
const WARM_ROUNDS: u64 = 2;
/// Seconds that the trainer of one model is timed.
const TIMED_S: f64 = 2.0;
/// What other programs may take of the processors while something is timed; it is timed again otherwise, up to so many times.
const OTHERS_MAX: f64 = 0.08;
const TRIES: u32 = 1;

/// A cluster.
struct Case {
    width: usize,
    stages: usize,
    peers: u32,
    codec: &'static str,
    link: Option<&'static str>,
    /// Whether the constants are fitted on it.
    fitted: bool,
}

const fn case(
    width: usize,
    (stages, peers): (usize, u32),
    codec: &'static str,
    link: Option<&'static str>,
    fitted: bool,
) -> Case {
    Case { width, stages, peers, codec, link, fitted }
}

const CASES: [Case; 14] = [
    case(256, (2, 2), "full,f32", None, true),
    case(256, (4, 8), "full,int8", None, true),
    case(512, (2, 4), "full,int8", None, true),
    case(512, (4, 4), "full,f32", None, true),
    case(256, (4, 8), "full,f32", Some("40M/40M,50ms"), true),
    case(512, (2, 4), "full,f32", Some("20M/20M,20ms"), true),
    case(256, (2, 4), "full,f32", None, false),
    case(256, (4, 4), "full,int8", None, false),
    case(512, (2, 2), "full,int8", None, false),
    case(512, (4, 8), "full,f32", None, false),
    case(512, (2, 8), "full,int8", None, false),
    case(256, (2, 4), "full,f32", Some("20M/20M,50ms"), false),
    case(256, (4, 8), "full,int8", Some("80M/20M,60ms"), false),
    case(512, (4, 8), "full,f32", Some("40M/40M,50ms"), false),
];

fn main() {
    let argument = |name: &str| {
        let named = |argument: String| argument.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        std::env::args().find_map(named)
    };
    let rounds = argument("rounds").map_or(3, |text| text.parse().unwrap());
    let said = argument("again").map(|path| std::fs::read_to_string(path).unwrap());
    let again = |start: &str| said.as_deref().and_then(|said| numbers_after(said, start));
    let cores = probe::cores();
    let peak = again(&format!("{cores} cores, ")).map_or_else(peak_flops, |numbers| numbers[0] * 1e9);
    println!("{cores} cores, {:.1} GFLOP/s of peak each", peak / 1e9);
    let mut machine = Vec::new();
    for width in [256, 512] {
        let start = format!("width {width}: ");
        let reached =
            again(&start).map_or_else(|| quietly(|| trainer_flops(width, cores)).0, |numbers| numbers[0] * 1e9);
        let part = 100.0 * reached / peak;
        println!("{start}{:.1} GFLOP/s of each core in training, {part:.1} % of peak", reached / 1e9);
        machine.push((width, reached / peak));
    }
    let mut runs = Vec::new();
    let chosen: Option<Vec<usize>> =
        argument("cases").map(|list| list.split(',').map(|text| text.parse().unwrap()).collect());
    for (_, case) in CASES.iter().enumerate().filter(|(at, _)| chosen.as_ref().is_none_or(|list| list.contains(at))) {
        let name = name(case);
        let measured = match (&said, again(&name)) {
            (Some(_), None) => continue,
            (_, Some(numbers)) => (numbers[0], numbers[1] / 100.0),
            (None, None) => quietly(|| run(case, rounds)),
        };
        let (measured, others) = measured;
        let efficiency = machine.iter().find(|(width, _)| *width == case.width).unwrap().1;
        println!("{name} {measured:.0} tokens/s; others took {:.0} %", 100.0 * others);
        // What other programs took was not there for the run.
        let share = 1.0 - others.clamp(0.0, 0.9);
        runs.push(Run { case, input: input(case, peak, efficiency, cores), measured, share });
    }
    let constants = fit(&runs);
    report(&runs, constants);
}

/// The numbers in the line of an earlier run's output that starts like this.
fn numbers_after(said: &str, start: &str) -> Option<Vec<f64>> {
    let line = said.lines().find_map(|line| line.strip_prefix(start))?;
    Some(line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// Times something while other programs take little of the processors, if they let it: the time with the least of them, and their part.
fn quietly(mut timed: impl FnMut() -> f64) -> (f64, f64) {
    let mut best = (0.0, f64::INFINITY);
    for _ in 0..TRIES {
        let before = processor_ticks();
        let value = timed();
        let [busy, all, own] = processor_ticks();
        let others = ((busy - before[0]) - (own - before[2])) / (all - before[1]);
        if others < best.1 {
            best = (value, others);
        }
        if others <= OTHERS_MAX {
            break;
        }
    }
    best
}

/// Ticks in which the processors were busy, all of them, and those in which this process was.
fn processor_ticks() -> [f64; 3] {
    let fields = |text: &str| -> Vec<f64> { text.split_whitespace().filter_map(|field| field.parse().ok()).collect() };
    // User, nice, system, idle, waiting, interrupts, soft interrupts, stolen.
    let all = fields(std::fs::read_to_string("/proc/stat").unwrap().lines().next().unwrap());
    let (total, idle) = (all[..8].iter().sum::<f64>(), all[3] + all[4]);
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name and the state, which are no numbers, user and system are the eleventh and twelfth.
    let own = fields(own.rsplit_once(')').unwrap().1);
    [total - idle, total, own[10] + own[11]]
}

fn name(case: &Case) -> String {
    let Case { width, stages, peers, codec, link, .. } = case;
    format!("| {width} | {stages} | {peers} | {codec} | {} |", link.unwrap_or("none"))
}

fn recipe(case: &Case) -> Recipe {
    let codec: Codec = case.codec.parse().unwrap();
    let mut recipe = Recipe::default_run().in_stages(case.stages, codec.space, codec.precision);
    let width = case.width;
    recipe.rounds = 200;
    recipe.model = Config { width, heads: width / 32, kv_heads: width / 64, ff: 3 * width, ..recipe.model };
    recipe.batch = BatchShape { sequences: 2, tokens: 256 };
    recipe.units_per_round = 32;
    recipe.evaluation.every_rounds = recipe.rounds;
    recipe.validate().unwrap();
    recipe
}

/// What the planner is told of a cluster.
fn input(case: &Case, peak: f64, efficiency: f64, cores: usize) -> PlanInput {
    let recipe = recipe(case);
    let link: LinkSpec = case.link.map_or_else(LinkSpec::default, |link| link.parse().unwrap());
    let rate = |bits: Option<u64>| bits.map_or(f64::INFINITY, |bits| bits as f64);
    let peer = PeerSpec {
        memory_bytes: 4 << 30,
        flops: peak,
        up_bits_per_s: rate(link.up_bits_per_s),
        down_bits_per_s: rate(link.down_bits_per_s),
        round_trip_s: link.round_trip_us as f64 / 1e6,
    };
    PlanInput {
        model: recipe.model,
        groups: vec![PeerGroup { count: case.peers, peer, processors: Some(cores as f64) }],
        batch: recipe.batch,
        round_tokens: recipe.round_tokens(),
        keep: recipe.compression.keep,
        tokens: recipe.total_tokens(),
        stages: Some(case.stages),
        codec: Some(case.codec.parse().unwrap()),
        slots: STAGE_SLOTS,
        all_peers: true,
        orderer_bits_per_s: rate(link.down_bits_per_s),
        calibration: Calibration { efficiency, ..Calibration::MEASURED },
    }
}

/// Multiply-adds in registers of one core, FLOP/s.
fn peak_flops() -> f64 {
    const STEPS: usize = 20_000_000;
    let ctx = Context::single();
    let timed = |_| {
        let start = Instant::now();
        let flops = multiply_add_burst(&ctx, black_box(STEPS));
        flops as f64 / start.elapsed().as_secs_f64()
    };
    (0..5).map(timed).fold(0.0, f64::max)
}

/// FLOP/s of one core in the trainer of the whole model, while all cores train.
fn trainer_flops(width: usize, cores: usize) -> f64 {
    let case = case(width, (1, 1), "full,f32", None, false);
    let (recipe, corpus) = (Arc::new(recipe(&case)), Arc::new(Corpus::bundled().unwrap()));
    let plan = Plan::of(&input(&case, 1e9, 1.0, 1)).unwrap();
    let flops = plan.stages[0].unit_flops.0 + plan.stages[0].unit_flops.1;
    let barrier = Arc::new(Barrier::new(cores));
    let train = move |recipe: Arc<Recipe>, corpus: Arc<Corpus>, barrier: Arc<Barrier>| {
        let shape = StageShape::all(&recipe).remove(0);
        let ctx = recipe.context(1);
        let state = StageState::genesis(&ctx, &recipe, &shape);
        let mut worker = StageWorker::new(ctx, &recipe, shape, Default::default(), &state, 1);
        let batch = MicroBatch::derive(&recipe, &corpus, [7; 32]);
        let mut turn = || worker.turn(&batch, None, learn::boundary::Precision::F32, true).unwrap();
        turn();
        barrier.wait();
        let (start, mut units) = (Instant::now(), 0);
        while start.elapsed().as_secs_f64() < TIMED_S {
            black_box(turn());
            units += 1;
        }
        f64::from(units) * flops / start.elapsed().as_secs_f64()
    };
    let threads: Vec<_> = (0..cores)
        .map(|_| {
            let (recipe, corpus, barrier) = (recipe.clone(), corpus.clone(), barrier.clone());
            std::thread::spawn(move || train(recipe, corpus, barrier))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum::<f64>() / cores as f64
}

/// Tokens per second of a cluster.
fn run(case: &Case, rounds: u64) -> f64 {
    let home = tempfile::tempdir().unwrap();
    let config = ClusterConfig {
        link: case.link.map(|link| link.parse().unwrap()),
        ..ClusterConfig::new(
            home.path(),
            Arc::new(Workload::new(recipe(case), Corpus::bundled().unwrap()).unwrap()),
            case.peers as usize,
        )
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::start(config).await.unwrap();
        let mut status = cluster.members()[0].status();
        let done = WARM_ROUNDS + rounds;
        let reports = status.wait_for(|status| status.rounds.len() as u64 >= done).await.unwrap().rounds.clone();
        let (first, last) = (reports[WARM_ROUNDS as usize - 1], reports[done as usize - 1]);
        let seconds = (last.closed_us - first.closed_us) as f64 / 1e6;
        cluster.kill().await;
        (last.tokens - first.tokens) as f64 / seconds
    })
}

/// A cluster that ran.
struct Run<'a> {
    case: &'a Case,
    input: PlanInput,
    /// Tokens per second.
    measured: f64,
    /// The part of the processors that other programs left.
    share: f64,
}

impl Run<'_> {
    /// What the planner is told, with these constants. What other programs took is not there for the run.
    fn with(&self, [pass_s, parameter_s, link]: [f64; 3]) -> PlanInput {
        let calibration = Calibration { pass_s, parameter_s, link: link.min(1.0), ..self.input.calibration };
        let group = self.input.groups[0];
        let processors = group.processors.map(|processors| processors * self.share);
        PlanInput { calibration, groups: vec![PeerGroup { processors, ..group }], ..self.input.clone() }
    }
}

/// Fits the constants on the runs that are meant for it: least squares of the logarithms, one constant after the other.
fn fit(runs: &[Run<'_>]) -> [f64; 3] {
    let miss = |constants: [f64; 3]| -> f64 {
        let of = |run: &Run<'_>| (Plan::tokens_per_s(&run.with(constants)).unwrap() / run.measured).ln().powi(2);
        runs.iter().filter(|run| run.case.fitted).map(of).sum()
    };
    let mut best = [1e-3, 5e-8, 0.9];
    let mut least = miss(best);
    for step in [4.0, 2.0, 1.4, 1.1, 1.03, 1.01] {
        for _ in 0..40 {
            let before = least;
            for at in 0..best.len() {
                for factor in [step, 1.0 / step] {
                    let mut tried = best;
                    tried[at] = (tried[at] * factor).max(1e-12);
                    let missed = miss(tried);
                    if missed < least {
                        (best, least) = (tried, missed);
                    }
                }
            }
            if least >= before {
                break;
            }
        }
    }
    best
}

fn report(runs: &[Run<'_>], constants: [f64; 3]) {
    let [pass_s, parameter_s, link] = constants;
    println!(
        "\npass {:.0} µs, end of a round {:.1} ns for each parameter, link {:.3}\n",
        pass_s * 1e6,
        parameter_s * 1e9,
        link.min(1.0)
    );
    println!(
        "| width | stages | peers | codec | link | others took | measured, tokens/s | planned | error | simulated | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let (mut fitted, mut others) = (Vec::new(), Vec::new());
    for run in runs {
        let (case, input, measured) = (run.case, run.with(constants), run.measured);
        let planned = Plan::tokens_per_s(&input).unwrap();
        let options = FlowOptions { seed: 1, rounds: 4, life_s: None, away_s: 1.0 };
        let simulated = simulate(&input, &options).unwrap().tokens_per_s;
        let error = planned / measured - 1.0;
        let errors = if case.fitted { &mut fitted } else { &mut others };
        errors.push(error.abs());
        println!(
            "{} {:.0} % | {measured:.0} | {planned:.0} | {:+.1} % | {simulated:.0} ({:+.1} %) | {} |",
            name(case),
            100.0 * (1.0 - run.share),
            100.0 * error,
            100.0 * (simulated / measured - 1.0),
            if case.fitted { "fitted" } else { "held out" }
        );
    }
    for (name, errors) in [("fitted", fitted), ("held out", others)] {
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        let most = errors.iter().copied().fold(0.0, f64::max);
        println!(
            "\n{name}: {} runs, error {:.1} % in the mean, {:.1} % at most",
            errors.len(),
            100.0 * mean,
            100.0 * most
        );
    }
}

//! One real layer of a model of 32 billion parameters, as a stage in the middle: time and memory of its passes, against what is planned.
//!
//! The stage worker is the one of a run: it gets the bytes that a neighbour would send, goes forward and back, and gives bytes. All it
//! holds is f32. The end of a round is timed, too: contribution, residual, payload, step.
//!
//! Takes 7 GB of memory and two minutes; with the step 14 GB and seven minutes. Run: `cargo bench -p learn --bench stage32b -- [tokens=N] [codec=CODEC]
//! [threads=N] [units=N] [step=yes]`.

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

use std::hint::black_box;
use std::time::Instant;

use learn::boundary::{Codec, GRADIENT_MAX, HIDDEN_MAX, Precision, Rounding, encode};
use learn::pipeline::{MicroBatch, Neighbours, StageShape, StageState, StageWorker, step};
use learn::recipe::{BatchShape, Compression, Pipeline};
use learn::{Recipe, sparseloco};
use sim::plan::{Calibration, PeerGroup, Plan, PlanInput, StagePlan, model_shape};
use tensor::random::Stream;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The layer that is run, of 64.
const LAYER: usize = 30;

fn main() {
    let argument = |name: &str| {
        let named = |argument: String| argument.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        std::env::args().find_map(named)
    };
    let number = |name: &str, default: usize| argument(name).map_or(default, |text| text.parse().unwrap());
    let (tokens, threads, units) = (number("tokens", 512), number("threads", 1), number("units", 3));
    let codec: Codec = argument("codec").unwrap_or("full,f32".into()).parse().unwrap();
    let slots = number("slots", 1);
    let peak = peak_flops();
    let plan = plan(tokens, codec, slots, peak * threads as f64);
    let planned = &plan.stages[LAYER];
    println!(
        "layer {LAYER} of 32b: {} parameters, {tokens} tokens, {codec}, {threads} threads of {:.1} GFLOP/s of peak",
        planned.parameters,
        peak / 1e9
    );
    let recipe = recipe(tokens, codec);
    let shape = StageShape::all(&recipe).remove(LAYER);
    let ctx = recipe.context(threads);
    let start = Instant::now();
    let state = StageState::genesis(&ctx, &recipe, &shape);
    let mut worker = StageWorker::new(ctx, &recipe, shape.clone(), Default::default(), &state, slots);
    println!("made in {:.1} s, {} of memory", start.elapsed().as_secs_f64(), gigabytes(peak_memory()));
    let (input, gradient) = messages(&recipe, codec.precision, tokens);
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for unit in 0..units {
        let batch = batch(&recipe, tokens, unit as u8);
        let start = Instant::now();
        let output = worker.forward(&batch, Some(&input), codec.precision).unwrap();
        forward.push(start.elapsed().as_secs_f64());
        assert_eq!(output.len(), input.len());
        let start = Instant::now();
        black_box(worker.backward(&batch, Some(&input), &gradient, codec.precision, true).unwrap());
        backward.push(start.elapsed().as_secs_f64());
    }
    let passes = peak_memory();
    let (forward, backward) = (least(&forward), least(&backward));
    let rate = |flops: f64, seconds: f64| flops / seconds / 1e9;
    let (planned_forward, planned_backward) = planned.unit_s;
    for (name, flops, seconds, planned) in [
        ("forward", planned.unit_flops.0, forward, planned_forward),
        ("backward", planned.unit_flops.1, backward, planned_backward),
    ] {
        println!(
            "{name:9} {seconds:.3} s, {:.1} GFLOP/s, {:.1} % of peak; planned {planned:.3} s, {:+.1} %",
            rate(flops, seconds),
            100.0 * flops / seconds / peak / threads as f64,
            100.0 * (planned / seconds - 1.0)
        );
    }
    let memory = &planned.memory;
    // Moments are not touched before the step.
    let working = memory.weights + memory.gradients + memory.activations;
    println!(
        "memory    {} with the passes; planned {} (weights, gradients, activations), {:+.1} %",
        gigabytes(passes),
        gigabytes(working),
        100.0 * (working as f64 / passes as f64 - 1.0)
    );
    if argument("step").is_some_and(|text| text == "yes") {
        end_of_round(&recipe, &shape, (state, worker), planned, threads);
    }
}

/// Contribution, payload and step, and their memory.
fn end_of_round(
    recipe: &Recipe,
    shape: &StageShape,
    (mut state, worker): (StageState, StageWorker),
    planned: &StagePlan,
    threads: usize,
) {
    let start = Instant::now();
    let mut residual = worker.contribution().unwrap().gradient;
    let payload = sparseloco::encode(shape.layout(), recipe.compression, &mut residual).unwrap();
    let paid = start.elapsed().as_secs_f64();
    let read = sparseloco::decode(shape.layout(), recipe.compression, &payload).unwrap();
    let start = Instant::now();
    let none = Neighbours { before: None, after: None };
    step(&recipe.context(threads), recipe, shape, &mut state, &[(1, &read)], none);
    let stepped = start.elapsed().as_secs_f64();
    println!(
        "payload   {} bytes; planned {:.0} bytes, {:+.2} %",
        payload.len(),
        planned.payload_bytes,
        100.0 * (planned.payload_bytes / payload.len() as f64 - 1.0)
    );
    println!(
        "step      {:.1} s, {paid:.1} s of it for the payload; planned {:.1} s, {:+.1} %",
        paid + stepped,
        planned.step_s,
        100.0 * (planned.step_s / (paid + stepped) - 1.0)
    );
    let whole = planned.memory.without_window();
    println!(
        "memory    {} at most, without the new state as bytes; planned {} with these",
        gigabytes(peak_memory()),
        gigabytes(whole)
    );
}

fn plan(tokens: usize, codec: Codec, slots: usize, flops: f64) -> Plan {
    let peer = format!("64×(4000GB,{}GFLOPS)", flops / 1e9);
    let input = PlanInput {
        model: model_shape("32b").unwrap(),
        groups: PeerGroup::parse_all(&peer).unwrap(),
        batch: BatchShape { sequences: 1, tokens },
        round_tokens: tokens as u64,
        keep: 64,
        tokens: 1_000_000_000,
        stages: Some(64),
        codec: Some(codec),
        slots,
        all_peers: true,
        orderer_bits_per_s: f64::INFINITY,
        calibration: Calibration::MEASURED,
    };
    Plan::of(&input).unwrap()
}

fn recipe(tokens: usize, codec: Codec) -> Recipe {
    // Not validated: recipes that run stop at 2^32 parameters of the whole model, and this is one layer of it.
    Recipe {
        model: model_shape("32b").unwrap(),
        batch: BatchShape { sequences: 1, tokens },
        compression: Compression { chunk: 4096, keep: 64, beta: 0.95 },
        pipeline: Some(Pipeline { stages: 64, space: codec.space, precision: codec.precision, coarsest: None }),
        ..Recipe::default_run()
    }
}

fn batch(recipe: &Recipe, tokens: usize, unit: u8) -> MicroBatch {
    let ids = |add: usize| (0..tokens).map(|at| ((at * 7919 + add) % recipe.model.vocab) as u32).collect();
    MicroBatch { unit: [unit; 32], tokens: ids(0), targets: ids(1), data_root: [0; 32] }
}

/// What both neighbours would send: hidden states of the size of an initial model's, and their gradient.
fn messages(recipe: &Recipe, precision: Precision, tokens: usize) -> (Vec<u8>, Vec<u8>) {
    let width = recipe.pipeline.unwrap().space.columns(recipe.model.width);
    let mut stream = Stream::new([3; 32], "stage32b");
    let mut values = vec![0.0; tokens * width];
    stream.fill_normal(1.0, &mut values);
    let input = encode(precision, &values, width, Rounding::Nearest, HIDDEN_MAX).unwrap();
    stream.fill_normal(1e-3, &mut values);
    (input, encode(precision, &values, width, Rounding::Nearest, GRADIENT_MAX).unwrap())
}

/// Multiply-adds in registers of one core, FLOP/s.
fn peak_flops() -> f64 {
    let ctx = tensor::Context::single();
    let timed = |_| {
        let start = Instant::now();
        let flops = tensor::gemm::multiply_add_burst(&ctx, black_box(20_000_000));
        flops as f64 / start.elapsed().as_secs_f64()
    };
    (0..5).map(timed).fold(0.0, f64::max)
}

fn least(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The most memory that this process had so far, in bytes.
fn peak_memory() -> u64 {
    let report = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = report.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap()
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

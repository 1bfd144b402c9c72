//! Tokens per second of a full fine-tuning step of SmolLM2-135M (batch 2 × 512; forward, backward, AdamW) beside PyTorch
//! eager on the same cores.
//!
//! `cargo bench -p model --bench finetune_step [-- ROUNDS] [alone] [threads=N]`. Needs `benches/peers/setup.sh` once for the
//! comparison. Both programs stay loaded (7 GB together); for each number of threads they take turns (A B A B …), and the ratio is
//! the median over the turns, so that other load on the machine meets both alike.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use model::{Attention, Config, Stage, Trainer, init};
use tensor::random::Stream;
use tensor::{AdamwStep, Context, adamw_update};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 2;
const TOKENS: usize = 512;
/// SmolLM2-135M; the time of a step does not depend on the values.
const CONFIG: Config = Config {
    vocab: 49_152,
    width: 576,
    layers: 30,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    ff: 1536,
    context: 8192,
    rope_theta: 100_000.0,
    norm_eps: 1e-5,
    tied_head: true,
    attention: Attention::PLAIN,
};
/// Steps per turn.
const STEPS: usize = 1;
/// Turns of each program per number of threads.
const ROUNDS: usize = 5;

fn main() {
    let rounds = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let alone = std::env::args().any(|arg| arg == "alone");
    let only = std::env::args().find_map(|arg| arg.strip_prefix("threads=").and_then(|n| n.parse().ok()));
    for threads in only.map_or(vec![1, 2], |n| vec![n]) {
        let ctx = Context::new(threads);
        let mut ours = Ours::new(ctx.clone());
        println!("{threads} thread(s): Cairn on {}, {} parameters", ctx.isa().name(), ours.params.len());
        let mut peer = if alone { None } else { Peer::start(threads) };
        ours.seconds();
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push((ours.seconds(), peer.as_mut().map(Peer::seconds)));
        }
        report(&times);
        println!("  loss after {} steps: {:.4}", ours.step, ours.loss);
    }
}

fn report(times: &[(f64, Option<f64>)]) {
    let rate = |seconds: f64| (BATCH * TOKENS * STEPS) as f64 / seconds;
    println!("  Cairn:   {:8.0} tokens/s", median(times.iter().map(|(ours, _)| rate(*ours))));
    let peers: Option<Vec<(f64, f64)>> = times.iter().map(|(ours, peer)| peer.map(|peer| (*ours, peer))).collect();
    let Some(peers) = peers else { return };
    println!("  PyTorch: {:8.0} tokens/s", median(peers.iter().map(|(_, peer)| rate(*peer))));
    println!(
        "  ratio:   {:8.2} (median of {} turns)",
        median(peers.iter().map(|(ours, peer)| peer / ours)),
        peers.len()
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Our training step and its state.
struct Ours {
    ctx: Context,
    trainer: Trainer,
    params: Vec<f32>,
    grads: Vec<f32>,
    moments: [Vec<f32>; 2],
    tokens: Vec<u32>,
    targets: Vec<u32>,
    step: u64,
    loss: f64,
}

impl Ours {
    fn new(ctx: Context) -> Ours {
        let stage = Stage::whole(CONFIG).expect("the benchmark's config is sound");
        let params = init(&stage, [0; 32]);
        let len = params.len();
        let mut random = Stream::new([0; 32], "finetune_step");
        let mut draw = || (0..BATCH * TOKENS).map(|_| random.below(CONFIG.vocab as u64) as u32).collect();
        Ours {
            trainer: Trainer::new(stage, BATCH, TOKENS).expect("the batch fits the context"),
            ctx,
            params,
            grads: vec![0.0; len],
            moments: [vec![0.0; len], vec![0.0; len]],
            tokens: draw(),
            targets: draw(),
            step: 0,
            loss: f64::NAN,
        }
    }

    /// Runs one turn.
    fn seconds(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..STEPS {
            self.step();
        }
        start.elapsed().as_secs_f64()
    }

    fn step(&mut self) {
        self.step += 1;
        let Ours { ctx, trainer, params, grads, moments: [m, v], .. } = self;
        grads.fill(0.0);
        self.loss = trainer.loss_and_grads(ctx, params, &self.tokens, &self.targets, grads);
        let step = AdamwStep::new(self.step, 2e-5, 0.9, 0.999, 1e-8, 0.0);
        adamw_update(ctx, params, grads, m, v, step);
    }
}

/// PyTorch in its own process.
struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the peer; says how to install it when it is absent.
    fn start(threads: usize) -> Option<Peer> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = root.join(".venv-peers/bin/python");
        if !python.exists() {
            println!("  PyTorch is not installed: no comparison. Run `benches/peers/setup.sh` first.");
            return None;
        }
        let mut command = Command::new(python);
        command.arg(root.join("benches/peers/finetune_step_torch.py")).arg(threads.to_string());
        command.env("OMP_NUM_THREADS", threads.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the peer's Python starts");
        let input = process.stdin.take().expect("stdin is piped");
        let output = BufReader::new(process.stdout.take().expect("stdout is piped"));
        let mut peer = Peer { process, input, output };
        println!("  beside {}", peer.line());
        Some(peer)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        line.trim().to_owned()
    }

    /// Runs one turn of the peer.
    fn seconds(&mut self) -> f64 {
        writeln!(self.input, "{STEPS}").expect("the peer listens");
        self.line().parse().expect("the peer answers with seconds")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its work is done; there is nothing to do about a failure here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

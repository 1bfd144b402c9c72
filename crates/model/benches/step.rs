//! A training step (forward, backward, AdamW) beside PyTorch eager and burn-flex on the same cores, for models of different shapes.
//!
//! All programs stay loaded; for each number of threads they take turns (A B C A B C …), and a ratio is the median over the turns, so
//! that other load on the machine meets all alike. Arguments: the number of turns, `alone`, `threads=N`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use model::{Config, Stage, Trainer, init};
use tensor::random::Stream;
use tensor::{AdamwStep, Context, adamw_update};

/// What is trained.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// The name of the shape for `benches/peers/train_step_torch.py`, which must have the same.
    pub(crate) shape: &'static str,
    pub(crate) config: Config,
    pub(crate) batch: usize,
    pub(crate) tokens: usize,
    /// Steps per turn.
    pub(crate) steps: usize,
    /// Turns of each program per number of threads, unless told otherwise.
    pub(crate) turns: usize,
    /// Whether `benches/peers/burn_step` has the shape as well.
    pub(crate) burn: bool,
}

/// The seconds of one turn of each program: ours, then the peers in their order.
type Turn = (f64, Vec<f64>);

impl Case {
    /// Runs the bench with the program's arguments.
    pub(crate) fn run(self) {
        let turns = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(self.turns);
        let alone = std::env::args().any(|arg| arg == "alone");
        let only = std::env::args().find_map(|arg| arg.strip_prefix("threads=").and_then(|n| n.parse().ok()));
        for threads in only.map_or(vec![1, 2], |n| vec![n]) {
            let ctx = Context::new(threads);
            let mut ours = Ours::new(self, ctx.clone());
            println!("{threads} thread(s): Cairn on {}, {} parameters", ctx.isa().name(), ours.params.len());
            let mut peers = if alone { Vec::new() } else { Peer::all(self, threads) };
            ours.seconds();
            let times: Vec<Turn> =
                (0..turns).map(|_| (ours.seconds(), peers.iter_mut().map(Peer::seconds).collect())).collect();
            self.report(&times, &peers);
            println!("  loss after {} steps: {:.4}", ours.step, ours.loss);
        }
    }

    fn report(self, times: &[Turn], peers: &[Peer]) {
        let rate = |seconds: f64| (self.batch * self.tokens * self.steps) as f64 / seconds;
        println!("  {:<16} {:8.0} tokens/s", "Cairn:", median(times.iter().map(|(ours, _)| rate(*ours))));
        for (i, Peer { name, .. }) in peers.iter().enumerate() {
            println!("  {:<16} {:8.0} tokens/s", format!("{name}:"), median(times.iter().map(|(_, all)| rate(all[i]))));
            let ratio = median(times.iter().map(|(ours, all)| all[i] / ours));
            println!("  {:<16} {ratio:8.2} (median of {} turns)", format!("Cairn/{name}:"), times.len());
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Our training step and its state.
struct Ours {
    case: Case,
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
    fn new(case: Case, ctx: Context) -> Ours {
        let Case { config, batch, tokens, .. } = case;
        let stage = Stage::whole(config).expect("the benchmark's config is sound");
        let params = init(&stage, [0; 32]);
        let len = params.len();
        let mut random = Stream::new([0; 32], "train_step");
        let mut draw = || (0..batch * tokens).map(|_| random.below(config.vocab as u64) as u32).collect();
        Ours {
            trainer: Trainer::new(stage, batch, tokens).expect("the batch fits the context"),
            case,
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
        for _ in 0..self.case.steps {
            self.step();
        }
        start.elapsed().as_secs_f64()
    }

    fn step(&mut self) {
        self.step += 1;
        let Ours { ctx, trainer, params, grads, moments: [m, v], .. } = self;
        grads.fill(0.0);
        self.loss = trainer.loss_and_grads(ctx, params, &self.tokens, &self.targets, grads);
        let step = AdamwStep::new(self.step, 3e-4, 0.9, 0.95, 1e-8, 0.1);
        adamw_update(ctx, params, grads, m, v, step);
    }
}

/// Another framework in its own process.
struct Peer {
    name: &'static str,
    case: Case,
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the peers that have the shape and are installed.
    fn all(case: Case, threads: usize) -> Vec<Peer> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let bin = root.join(".venv-peers/bin");
        let mut torch = Command::new(bin.join("python"));
        torch.arg(root.join("benches/peers/train_step_torch.py"));
        let mut commands = vec![("PyTorch", torch)];
        if case.burn {
            commands.push(("burn-flex", Command::new(bin.join("burn_step"))));
        }
        commands.into_iter().filter_map(|(name, command)| Peer::start(name, command, case, threads)).collect()
    }

    /// Starts a peer; says how to install it when it is absent.
    fn start(name: &'static str, mut command: Command, case: Case, threads: usize) -> Option<Peer> {
        if !Path::new(command.get_program()).exists() {
            println!("  {name} is not installed: no comparison. Run `benches/peers/setup.sh` first.");
            return None;
        }
        command.arg(threads.to_string()).arg(case.shape);
        command.env("OMP_NUM_THREADS", threads.to_string()).env("RAYON_NUM_THREADS", threads.to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer starts");
        let input = process.stdin.take().expect("stdin is piped");
        let output = BufReader::new(process.stdout.take().expect("stdout is piped"));
        let mut peer = Peer { name, case, process, input, output };
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
        writeln!(self.input, "{}", self.case.steps).expect("the peer listens");
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

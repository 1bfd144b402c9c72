//! Tokens per second of a pretrained model beside llama.cpp on the same cores: decoding, a prompt, and many streams at once.
//!
//! `cargo bench -p model --bench decode_pretrained -- MODEL.gguf... [turns=N] [alone] [threads=N]
//! [task=decode|prefill|streams]`. Needs `benches/peers/setup.sh` and the
//! PyPI package `xllamacpp` in its environment for the comparison. Both programs stay loaded; for each figure they take turns, and the
//! ratio is the median over the turns, so that other load on the machine meets both alike.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use model::{Cache, CachePool, Decoder, Feed, Sampler, Sampling, decoder_from_gguf};
use tensor::Context;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tokens that are decoded after a short prompt.
const DECODED: usize = 128;
/// Tokens of a prompt.
const PROMPT: usize = 512;
/// Requests at once, and the tokens of each.
const STREAMS: usize = 16;
const STREAM_TOKENS: usize = 64;
const TURNS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |name: &str| arguments.iter().find_map(|arg| arg.strip_prefix(name)?.parse::<usize>().ok());
    let (turns, only) = (number("turns=").unwrap_or(TURNS), number("threads="));
    let alone = arguments.iter().any(|arg| arg == "alone");
    let only_task = arguments.iter().find_map(|arg| arg.strip_prefix("task="));
    for path in arguments.iter().filter(|arg| arg.ends_with(".gguf")) {
        for threads in only.map_or(vec![1, 2], |threads| vec![threads]) {
            let mut ours = Ours::new(path, threads);
            println!("{path}, {threads} thread(s) on {}", ours.ctx.isa().name());
            let mut peer = if alone { None } else { Peer::start(path, threads) };
            let mut streams_over_one = 0.0;
            let wanted = |task: &Task| only_task.is_none_or(|name| name == task.name());
            for task in [Task::Decode, Task::Prefill, Task::Streams].into_iter().filter(wanted) {
                ours.run(task);
                let pairs: Vec<(f64, Option<f64>)> =
                    (0..turns).map(|_| (ours.run(task), peer.as_mut().map(|peer| peer.run(task)))).collect();
                let rate = median(pairs.iter().map(|(ours, _)| *ours));
                print!("  {:8} {rate:8.1} tokens/s", task.name());
                if let Some(ratios) =
                    pairs.iter().map(|(ours, peer)| peer.map(|peer| ours / peer)).collect::<Option<Vec<_>>>()
                {
                    let theirs = median(pairs.iter().filter_map(|(_, peer)| *peer));
                    print!("   llama.cpp {theirs:8.1}   ratio {:5.2}", median(ratios.into_iter()));
                }
                match task {
                    Task::Decode => streams_over_one = rate,
                    Task::Streams => print!("   {STREAMS} streams over one {:.2}", rate / streams_over_one),
                    Task::Prefill => {}
                }
                println!();
            }
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Clone, Copy)]
enum Task {
    Decode,
    Prefill,
    Streams,
}

impl Task {
    fn name(self) -> &'static str {
        ["decode", "prefill", "streams"][self as usize]
    }

    fn tokens(self) -> usize {
        [DECODED, PROMPT, STREAM_TOKENS][self as usize]
    }
}

/// Any tokens: what they say does not matter for the time.
fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| (1000 + (37 * i + 101 * seed) % 20_000) as u32).collect()
}

struct Ours {
    ctx: Context,
    decoder: Decoder,
    /// Memory for all sequences, kept between runs, as a server keeps it.
    pool: CachePool,
}

impl Ours {
    fn new(path: &str, threads: usize) -> Ours {
        let file = model::gguf::load(Path::new(path)).expect("a GGUF file");
        let decoder = decoder_from_gguf(&file).expect("a model of a supported kind");
        let pool = CachePool::new(decoder.config(), STREAMS * (STREAM_TOKENS + 32) + PROMPT);
        Ours { ctx: Context::new(threads), decoder, pool }
    }

    /// Tokens per second, sampling included.
    fn run(&mut self, task: Task) -> f64 {
        match task {
            Task::Decode => self.streams(1, DECODED),
            Task::Streams => self.streams(STREAMS, STREAM_TOKENS),
            Task::Prefill => {
                let mut cache = self.pool.cache();
                let start = Instant::now();
                self.decoder.feed(&self.ctx, &mut cache, &tokens(PROMPT, 0)).expect("the prompt fits");
                PROMPT as f64 / start.elapsed().as_secs_f64()
            }
        }
    }

    /// Sequences of a prompt of four and `count` tokens each; a single one is timed after its prompt, as the peer times it.
    fn streams(&mut self, streams: usize, count: usize) -> f64 {
        let mut caches: Vec<Cache> = (0..streams).map(|_| self.pool.cache()).collect();
        let mut samplers: Vec<Sampler> =
            (0..streams).map(|_| Sampler::new(Sampling::greedy()).expect("sound settings")).collect();
        let mut next: Vec<Vec<u32>> = (0..streams).map(|seed| tokens(4, seed)).collect();
        let vocab = self.decoder.config().vocab;
        let mut start = Instant::now();
        for step in 0..=count {
            let feeds = caches.iter_mut().zip(&next).map(|(cache, tokens)| Feed { cache, tokens });
            let logits = self.decoder.feed_batch(&self.ctx, &mut feeds.collect::<Vec<_>>()).expect("it fits");
            for ((logits, sampler), next) in logits.chunks_exact(vocab).zip(&mut samplers).zip(&mut next) {
                *next = vec![sampler.sample(logits, &[])];
            }
            if step == 0 && streams == 1 {
                start = Instant::now();
            }
        }
        (streams * count) as f64 / start.elapsed().as_secs_f64()
    }
}

/// llama.cpp in a process of its own.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(path: &str, threads: usize) -> Option<Peer> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = root.join(".venv-peers/bin/python");
        let script = root.join("benches/peers/decode_llama.py");
        let mut command = Command::new(python);
        command.arg(script).arg(path).arg(threads.to_string()).arg(STREAMS.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else {
            println!("  no llama.cpp: run benches/peers/setup.sh");
            return None;
        };
        let to = child.stdin.take().expect("a pipe was asked for");
        let from = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let mut peer = Peer { child, to, from };
        if peer.line() != "ready" {
            println!("  llama.cpp did not start: is xllamacpp in .venv-peers?");
            return None;
        }
        // The first answer warms it up.
        peer.run(Task::Decode);
        Some(peer)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("the peer's pipe");
        line.trim().to_owned()
    }

    fn run(&mut self, task: Task) -> f64 {
        writeln!(self.to, "{} {}", task.name(), task.tokens()).expect("the peer's pipe");
        self.line().parse().expect("a number from the peer")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when its input does; killing it is for the case that it hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! What a person can type.

mod limits;
mod peers;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use limits::LimitArgs;
pub(crate) use peers::{JoinArgs, RelayArgs, UpArgs};
pub(crate) use run::{ExportRunArgs, ForkArgs, NewArgs, RunCommand, RunExportArgs, ShowRunArgs, WatchArgs};

/// An open network in which ordinary machines train, serve and own language models together.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Where identity, runs and checkpoints are kept
    #[arg(long, global = true, env = "CAIRN_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 unexpected · 2 usage · 3 bad input · 4 port busy · 5 data directory in use
            6 corrupt or foreign data · 7 disk full or unwritable · 8 not verified · 9 states diverged · 10 network

Logs: set CAIRN_LOG=debug (or info, node=trace, ...) to see what happens inside.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a swarm of peers on this machine that trains a model, with its pages; without arguments, the newest run goes on
    Up(UpArgs),
    /// Take part in a run on another machine, with the ticket that it printed
    Join(JoinArgs),
    /// Describe, found, list, show, watch, export and fork runs
    #[command(subcommand)]
    Run(RunCommand),
    /// Let this machine's peers rest: the others do not wait for them, and what they did stays theirs
    Pause,
    /// Let them go on
    Resume,
    /// End the cairn that runs with this data directory, as Ctrl-C does
    Stop,
    /// Train without a network: the centralised baseline of the same recipe
    Train(TrainArgs),
    /// Teach a pretrained model your own text or conversations, on this machine
    Finetune(FinetuneArgs),
    /// Talk to the newest checkpoint in the terminal
    Chat(ChatArgs),
    /// Import, show, export and remove models that others trained
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Write the model of a run for other programs, when its charter opens the weights
    Export(RunExportArgs),
    /// Serve the pages and the API without training
    Serve(ServeArgs),
    /// Show my shares and receipts, or write them to a file that anybody can verify
    Piece(PieceArgs),
    /// Check a piece offline: signatures, receipts, Merkle proof and ledger root
    Verify(VerifyArgs),
    /// Compute recorded units of work again, and compare with their receipts, bit for bit
    Replay(ReplayArgs),
    /// Run a relay: a public place where peers meet that cannot reach each other
    Relay(RelayArgs),
    /// Look at this machine: cores, memory, instruction set, speed, port, disk
    Doctor(DoctorArgs),
    /// Prove that this machine computes exactly as every other: all kernels and a training run against recorded hashes
    Conformance(ConformanceArgs),
    /// Measure this machine: products against the peak, memory, training and decoding
    Bench(BenchArgs),
    /// Plan a run before it starts: stages, replicas, codec, memory, bytes, time, and what limits it
    Plan(PlanArgs),
    /// Run one peer, told what to do on standard input (started by `up --processes`)
    #[command(hide = true)]
    Peer,
}

/// A recipe that ships with the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// About three minutes on two cores
    #[default]
    Default,
    /// More rounds at a higher compression
    Long,
    /// A few seconds, to see that everything works
    Tiny,
}

/// What is trained, and on what.
#[derive(Args, Debug)]
pub(crate) struct RecipeArgs {
    /// Your own UTF-8 text instead of the bundled novels
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A recipe that ships with the program [default: default]
    #[arg(long, value_enum)]
    pub(crate) preset: Option<Preset>,
    /// A recipe of your own, as TOML (`cairn train --print-recipe` shows one)
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub(crate) recipe: Option<PathBuf>,
    /// The arithmetic of all peers instead of the recipe's: `f32-fma`, fast where fused multiply-adds are, or `f32-muladd`
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<tensor::Profile>,
    /// Use another seed than the recipe's
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Train for this many rounds instead of the recipe's
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct PageArgs {
    /// Port of the pages and the API
    #[arg(long, default_value_t = 7070)]
    pub(crate) port: u16,
}

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// The round; the newest one whose state is held unless told otherwise
    #[arg(long)]
    pub(crate) round: Option<u64>,
    /// Only this unit of the round
    #[arg(long)]
    pub(crate) unit: Option<u32>,
    /// The text that the run was trained on, when it is not in the data directory
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub(crate) data: Option<PathBuf>,
    /// One line of JSON for each receipt
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Train on this machine alone
    #[arg(long, required_unless_present = "print_recipe")]
    pub(crate) solo: bool,
    /// Threads; the result is the same for any number
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Write the loss curve to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Write the trained model to a safetensors file
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Print the recipe as TOML and stop
    #[arg(long)]
    pub(crate) print_recipe: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FinetuneArgs {
    /// A GGUF file or a directory of Hugging Face (Llama, SmolLM2, Qwen2.5, Qwen3), or the name of an imported model
    #[arg(long, value_name = "PATH_OR_NAME")]
    pub(crate) model: PathBuf,
    /// UTF-8 text (`.txt`), or conversations as lines of `{"messages":[...]}` (`.jsonl`) of which only the answers count
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub(crate) data: PathBuf,
    /// Train low-rank adapters of this rank and freeze the model (16 unless told otherwise)
    #[arg(long, value_name = "RANK", value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "full")]
    pub(crate) lora: Option<u16>,
    /// What the adapters count, times the rank [default: twice the rank]
    #[arg(long, conflicts_with = "full")]
    pub(crate) alpha: Option<f32>,
    /// The maps that get adapters, e.g. `q_proj,v_proj` [default: all seven]
    #[arg(long, value_delimiter = ',', conflicts_with = "full")]
    pub(crate) targets: Vec<String>,
    /// Train all parameters
    #[arg(long)]
    pub(crate) full: bool,
    /// Optimiser steps
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) steps: u64,
    /// Sequences of a step
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) batch: u16,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) tokens: u32,
    /// Peak learning rate [default: 0.0002 for adapters, 0.00002 for all parameters]
    #[arg(long)]
    pub(crate) lr: Option<f32>,
    /// The same seed gives the same result, bit for bit
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Refuse what would take more memory than this, e.g. `4G` (or `4Gi`), and save memory where that helps
    #[arg(long, value_name = "BYTES", value_parser = crate::figures::parse_bytes)]
    pub(crate) memory: Option<u64>,
    /// Save memory: compute activations again in the backward, with the same bits
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Where the result goes: a `.gguf` file, a `.safetensors` checkpoint with its tokenizer, or a folder for the adapters alone
    #[arg(long, value_name = "PATH", default_value = "finetuned.gguf")]
    pub(crate) out: PathBuf,
    /// How a GGUF file stores matrices
    #[arg(long = "type", value_enum, default_value_t)]
    pub(crate) stored: Stored,
    /// Steps between two saved states, from which a run that was stopped goes on
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) save_every: u64,
    /// Threads; the result is the same for any number
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// How a file stores values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stored {
    /// 4 bytes a value, exact
    F32,
    /// 2 bytes a value
    #[default]
    F16,
    /// 8.5 bits a value
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Args, Debug)]
pub(crate) struct ChatArgs {
    /// The beginning of a text, or a question to a model that answers; without it, a conversation starts
    pub(crate) prompt: Option<String>,
    /// An imported model, by its name or the beginning of it (`cairn models ls` lists them)
    #[arg(long, value_name = "NAME", conflicts_with = "checkpoint")]
    pub(crate) model: Option<String>,
    /// A safetensors checkpoint with its tokenizer beside it, a GGUF file or a directory of Hugging Face (Llama, Qwen2.5,
    /// Qwen3), instead of the newest checkpoint of the data directory
    #[arg(long, value_name = "PATH")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Most tokens to write
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) max_tokens: u32,
    /// 0 always takes the likeliest token, 1 samples as the model believes
    #[arg(long, default_value_t = 0.8)]
    pub(crate) temperature: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Check a model and copy it into the data directory
    Import(ImportArgs),
    /// List the imported models
    Ls(LsArgs),
    /// Show what is known of a model
    Show(ShowArgs),
    /// Write a model for other programs
    Export(ExportArgs),
    /// Remove a model from the data directory
    Rm(RmArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// A GGUF file, a directory of Hugging Face (config.json, tokenizer.json, model.safetensors), or a checkpoint of
    /// `cairn train --save`; Llama, SmolLM2, Qwen2.5 and Qwen3 models work
    pub(crate) path: PathBuf,
    /// What to call it: a-z, 0-9, `.`, `_` and `-`; otherwise made from what its makers call it
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The model's name, or the beginning of it
    pub(crate) name: String,
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a model is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A directory of Hugging Face, for transformers and its relatives
    Safetensors,
    /// One file, for llama.cpp and its relatives
    Gguf,
}

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportType {
    /// 32 bits; nothing is lost
    F32,
    /// 16 bits
    F16,
    /// 8 bits and a scale for 32 values; GGUF only
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The model's name, or the beginning of it
    pub(crate) name: String,
    /// What to write
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// How values are stored [default: f32]
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) value_type: Option<ExportType>,
    /// The new directory or file
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// The model's whole name
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) page: PageArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PieceArgs {
    /// Print the whole piece as JSON, ready for `cairn verify`
    #[arg(long)]
    pub(crate) json: bool,
    /// The piece of another peer of this machine, by the beginning of its id or its number
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// A file that `cairn piece --json` wrote; `-` reads standard input
    pub(crate) piece: PathBuf,
    /// Print the verdict as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// Look also at the run of this ticket: whether it answers, how fast, and which part this machine could take
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: Option<String>,
    /// Bytes of memory that a peer may take, e.g. `4G` [default: three quarters of what is free]
    #[arg(long, value_name = "BYTES", value_parser = crate::figures::parse_bytes)]
    pub(crate) memory: Option<u64>,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ConformanceArgs {
    /// Only this numeric profile, `f32-fma` or `f32-muladd`
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<tensor::Profile>,
    /// Only this instruction set of the machine, for example `avx2` or `scalar`
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<String>,
    /// Only this number of threads
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=2))]
    pub(crate) threads: Option<u16>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The model: default, 1b, 8b, 32b or 70b, or sizes such as `layers=64,width=5120`
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// The peers, as TOML: `[[peers]]` with count, memory, speed, link and round_trip
    #[arg(long, value_name = "FILE", required_unless_present = "like", conflicts_with = "like")]
    pub(crate) peers: Option<PathBuf>,
    /// The peers, e.g. `200×(24GB,25TFLOPS,80/20Mbps,60ms)`: memory, peak speed, down/up, round trip; `x` is as good as `×`, groups are
    /// joined by `+`, and `2cores` makes the peers of a group share two processors
    #[arg(long, value_name = "PEERS")]
    pub(crate) like: Option<String>,
    /// Tokens of the run, e.g. `500B` [default: 20 for each parameter]
    #[arg(long, value_name = "TOKENS", value_parser = crate::figures::parse_count)]
    pub(crate) tokens: Option<u64>,
    /// Tokens of a micro-batch
    #[arg(long, default_value = "1024", value_name = "TOKENS", value_parser = crate::figures::parse_count)]
    pub(crate) unit_tokens: u64,
    /// Tokens of a round, which is one step of the optimiser; fewer when commitments have no room for its micro-batches
    #[arg(long, default_value = "1M", value_name = "TOKENS", value_parser = crate::figures::parse_count)]
    pub(crate) round_tokens: u64,
    /// What travels between stages, e.g. `full,int8` or `projector:640,int4` [default: the most exact that is fast]
    #[arg(long, value_name = "CODEC")]
    pub(crate) codec: Option<String>,
    /// So many stages [default: as many as are fastest]
    #[arg(long, value_name = "N")]
    pub(crate) stages: Option<usize>,
    /// Entries that a payload keeps of 4096
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) keep: u32,
    /// Give every peer a stage, even if the run is faster when some stand by
    #[arg(long)]
    pub(crate) all_peers: bool,
    /// Downlink of the peer that orders blocks and gets every payload, e.g. `1Gbps` [default: fast enough]
    #[arg(long, value_name = "RATE")]
    pub(crate) orderer: Option<String>,
    /// Simulate the plan, too
    #[arg(long)]
    pub(crate) simulate: bool,
    /// Peers leave in the simulation, after this long in the mean, e.g. `6h`
    #[arg(long, value_name = "TIME", requires = "simulate", value_parser = crate::figures::parse_seconds)]
    pub(crate) churn: Option<f64>,
    /// How long they are away in the mean, e.g. `10m`
    #[arg(long, default_value = "10m", value_name = "TIME", requires = "churn", value_parser = crate::figures::parse_seconds)]
    pub(crate) away: f64,
    /// Rounds that are simulated
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000), requires = "simulate")]
    pub(crate) rounds: u64,
    /// The same seed gives the same simulation
    #[arg(long, default_value_t = 1, requires = "simulate")]
    pub(crate) seed: u64,
    /// Print plan and simulation as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

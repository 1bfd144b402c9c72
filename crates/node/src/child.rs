//! A peer in a process of its own: lines of JSON over its standard input and output.
//!
//! Sequence: the parent writes a [`ChildConfig`]; the child answers with a `status` line once it listens, or with a `failed`
//! line and ends. Then the parent writes [`Order`] lines, and the child writes [`Report`] lines: a status whenever it
//! changed, at most every [`STATUS_MS_MIN`], and every closed round once. The child ends when its input does, so that no
//! child outlives its parent. One that dies is started again by its parent, with the same configuration, and reports all closed rounds anew.

mod handle;
mod life;
mod restarts;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use iroh::RelayUrl;
use learn::Recipe;
use learn::data::{Corpus, Texts};
use ledger::Piece;
use serde::{Deserialize, Serialize};
use swarm::CheckedBlocks;
use swarm::pipeline::PipelineConfig;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::sync::watch;
use wire::{Charter, OperatorCertificate, PeerId, Signed};

pub use handle::{ChildHandle, ChildProgram};
pub use restarts::{DEATHS_MAX, LIVED_WELL, OVER_MEMORY_MAX, PAUSE_FIRST, PAUSE_MAX};

use crate::identity::load_or_create;
use crate::limits::{CpuShare, Rates};
use crate::member::{Failure, FailureKind};
use crate::memory;
use crate::peer::{self, NodeConfig, NodeHandle};
use crate::status::{PeerStatus, RoundReport};
use crate::transport::TransportConfig;
use crate::workload::{Cores, Workload};

/// Least time between two status lines, in milliseconds.
pub const STATUS_MS_MIN: u64 = 100;

/// How long a child waits for one of a killed parent to leave its directory, and how often it looks.
const PREDECESSOR_MAX: Duration = Duration::from_secs(20);
const PREDECESSOR_LOOK: Duration = Duration::from_millis(100);

/// What a child needs to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChildConfig {
    /// The peer's directory for the run.
    pub directory: PathBuf,
    /// Its key file.
    pub key: PathBuf,
    /// The run's terms.
    pub charter: Signed<Charter>,
    /// The recipe, in canonical bytes.
    pub recipe: String,
    /// The user's own text; the bundled corpus when there is none.
    pub data: Option<PathBuf>,
    /// The stage in which it begins; 0 when every peer holds the whole model.
    pub stage: u16,
    /// Who runs it, when that is not its own key.
    #[serde(default)]
    pub operator: Option<Signed<OperatorCertificate>>,
    /// Cores that it may use.
    pub cores: usize,
    /// Where to listen.
    pub bind: SocketAddr,
    /// Relays through which it is reached.
    #[serde(default)]
    pub relays: Vec<RelayUrl>,
    /// Whether to use the addresses that the parent tells and no path besides.
    pub fixed_paths: bool,
    /// The stages in which it can take part, with the most bytes of inputs, outputs and gradients that its pipeline holds in each.
    pub held_bytes_max: BTreeMap<u16, u64>,
    /// Bytes of memory that the process may take: it ends when it took more.
    pub memory: Option<u64>,
    /// The part of the machine's processor time that it may take.
    #[serde(default)]
    pub cpu: Option<CpuShare>,
    /// Bits per second that it may send to other machines.
    #[serde(default)]
    pub up_bits_per_s: Option<u64>,
    /// Bits per second that it may fetch from other machines.
    #[serde(default)]
    pub down_bits_per_s: Option<u64>,
    /// The peers of this machine, and who uses their model.
    #[serde(default)]
    pub own: Vec<PeerId>,
    /// The ids of the run's known peers.
    pub peers: Vec<PeerId>,
}

/// What a parent tells a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Where others listen.
    Introduce(Vec<(PeerId, SocketAddr)>),
    /// The process of a peer ended.
    Ended(PeerId),
    /// Pause, or go on.
    Pause(bool),
    /// Report the piece of a peer.
    Piece(PeerId),
    /// Stop.
    Stop,
}

/// What a child tells its parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Its status.
    Status(Box<PeerStatus>),
    /// A round closed.
    Round(RoundReport),
    /// A piece that was asked for.
    Piece(PeerId, Option<Box<Piece>>),
    /// It ends, because something went wrong.
    Failed(Failure),
}

/// Runs a child: reads its configuration and orders from `input`, reports to `output`, and returns when the input ends,
/// a stop is ordered, or the peer fails. The failure was reported by then, too.
///
/// # Errors
/// What went wrong.
pub async fn run(input: impl AsyncRead + Unpin, output: impl AsyncWrite + Unpin) -> Result<(), Failure> {
    let mut child = Child { orders: BufReader::new(input).lines(), output, rounds_sent: 0 };
    let outcome = child.run().await;
    if let Err(failure) = &outcome {
        // The parent may be gone.
        let _ = child.report(&Report::Failed(failure.clone())).await;
    }
    outcome
}

/// Starts the peer. Its directory may still be that of a child whose parent was killed: that child ends by itself, so it is waited for.
async fn start(config: ChildConfig) -> Result<NodeHandle, Failure> {
    let deadline = tokio::time::Instant::now() + PREDECESSOR_MAX;
    loop {
        let failure = match peer::start(node_config(config.clone())?).await {
            Ok(node) => return Ok(node),
            Err(error) => Failure::from(&error),
        };
        if failure.kind != FailureKind::InUse || tokio::time::Instant::now() >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(PREDECESSOR_LOOK).await;
    }
}

struct Child<R, W> {
    orders: Lines<BufReader<R>>,
    output: W,
    rounds_sent: usize,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Child<R, W> {
    async fn run(&mut self) -> Result<(), Failure> {
        let line = self.orders.next_line().await.ok().flatten().unwrap_or_default();
        let config: ChildConfig =
            serde_json::from_str(&line).map_err(|error| bad_input(format!("bad configuration: {error}")))?;
        let memory = config.memory;
        let node = start(config).await?;
        let outcome = self.serve(&node, memory).await;
        node.shutdown().await;
        outcome
    }

    async fn serve(&mut self, node: &NodeHandle, memory: Option<u64>) -> Result<(), Failure> {
        let (mut status, mut ended) = (node.status(), node.ended());
        let mut due = tokio::time::interval(Duration::from_millis(STATUS_MS_MIN));
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        status.mark_changed();
        loop {
            tokio::select! {
                order = self.orders.next_line() => match order.ok().flatten() {
                    Some(line) if !self.obey(node, &line).await? => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                ending = ended.wait_for(Option::is_some) => {
                    let failure = ending.ok().and_then(|ending| ending.as_ref().and_then(|ended| ended.failure.clone()));
                    return failure.map_or(Ok(()), Err);
                }
                _ = due.tick() => {
                    check_memory(memory)?;
                    self.report_status(&mut status).await?;
                }
            }
        }
    }

    /// Does what an order says; false to stop.
    async fn obey(&mut self, node: &NodeHandle, line: &str) -> Result<bool, Failure> {
        let order = serde_json::from_str(line).map_err(|error| bad_input(format!("bad order: {error}")))?;
        match order {
            Order::Introduce(peers) => node.introduce(peers).await,
            Order::Ended(peer) => node.note_end(peer).await,
            Order::Pause(paused) => node.set_paused(paused).await,
            Order::Piece(peer) => {
                let piece = node.piece(peer).await.map(Box::new);
                self.report(&Report::Piece(peer, piece)).await?;
            }
            Order::Stop => return Ok(false),
        }
        Ok(true)
    }

    async fn report_status(&mut self, status: &mut watch::Receiver<PeerStatus>) -> Result<(), Failure> {
        if !status.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let newest = status.borrow_and_update().clone();
        for round in newest.rounds.iter().skip(self.rounds_sent) {
            self.report(&Report::Round(*round)).await?;
        }
        self.rounds_sent = newest.rounds.len();
        self.report(&Report::Status(Box::new(newest))).await
    }

    async fn report(&mut self, report: &Report) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(report).expect("a report is plain data");
        line.push(b'\n');
        let sent = async {
            self.output.write_all(&line).await?;
            self.output.flush().await
        };
        sent.await.map_err(|error: std::io::Error| Failure {
            kind: FailureKind::Unexpected,
            message: format!("the parent process is gone: {error}"),
            hint: "start again: it goes on from the last committed round".to_owned(),
        })
    }
}

/// Ends a process that took more memory than it may: a machine on which others work is to be relied on.
fn check_memory(limit: Option<u64>) -> Result<(), Failure> {
    let taken = limit.and_then(|_| memory::peak_bytes());
    match (taken, limit) {
        (Some(taken), Some(limit)) if taken > limit => Err(Failure {
            kind: FailureKind::OverMemory,
            message: format!("a peer took {} MB of memory, and may take {} MB", taken / 1_000_000, limit / 1_000_000),
            hint: "allow a peer more memory, or take more stages".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn bad_input(message: String) -> Failure {
    let hint = "this command is started by `cairn up --processes`, not by hand".to_owned();
    Failure { kind: FailureKind::BadInput, message, hint }
}

fn node_config(config: ChildConfig) -> Result<NodeConfig, Failure> {
    let recipe = Recipe::from_bytes(config.recipe.as_bytes()).map_err(|error| bad_input(error.to_string()))?;
    let corpus = match &config.data {
        Some(path) => Corpus::from_path(path),
        None => Corpus::bundled(),
    };
    let unusable = |error: learn::data::CorpusError| Failure {
        kind: FailureKind::BadInput,
        message: error.to_string(),
        hint: error.hint().to_owned(),
    };
    let workload = Workload::new(recipe, corpus.map_err(unusable)?).map_err(unusable)?;
    let charter = config.charter.verify().map_err(|error| bad_input(error.to_string()))?;
    let identity = load_or_create(&config.key).map_err(|error| Failure::from(&peer::NodeError::from(error)))?;
    let place = |(stage, held_bytes_max)| (stage, PipelineConfig { held_bytes_max, ..workload.pipeline() });
    let rates = Rates::new(config.up_bits_per_s, config.down_bits_per_s, &config.own);
    Ok(NodeConfig {
        directory: config.directory,
        identity,
        charter,
        places: config.held_bytes_max.into_iter().map(place).collect(),
        alone: true,
        workload: Arc::new(workload),
        stage: config.stage,
        operator: config.operator,
        cores: Cores::new(config.cores).limited(config.cpu),
        transport: TransportConfig {
            bind: config.bind,
            fixed_paths: config.fixed_paths,
            rates,
            relays: config.relays,
            ..TransportConfig::default()
        },
        peers: config.peers,
        texts: config.data.filter(|path| Texts::are_kept_in(path)),
        checked: CheckedBlocks::default(),
    })
}

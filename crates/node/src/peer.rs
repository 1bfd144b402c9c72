//! One peer: the protocol's state machine with the transport, the store, the blobs and the executor around it.
//!
//! One task owns everything. It tells the state machine what happened, and does what it asks, in order: a record is on
//! disk before the next output is looked at. Anything slow (dialling, fetching, computing) runs in tasks of its own and
//! reports through bounded channels. A disk that refuses ends the task with a typed error; nothing that was reported
//! before is lost, and starting again goes on from there.
//!
//! A peer that moves to another stage ends its shell and makes another one in the same task, with the same key, directory and address:
//! the others see it go and come back, as they see a restart.

mod addresses;
mod fetching;
mod rounds;
mod shell;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use learn::pipeline::StageShape;
use swarm::CheckedBlocks;
use swarm::pipeline::PipelineConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::{Charter, Identity, OperatorCertificate, PeerId, Signed, Verified};

use crate::blobs::BlobError;
use crate::member::{Ended, Failure, FailureKind};
use crate::status::PeerStatus;
use crate::store::StoreError;
use crate::transport::{TransportConfig, TransportError};
use crate::workload::{Cores, Workload};
use shell::{Ending, Past, Shell};

pub use shell::FAULTS_SHOWN_MAX;

const COMMANDS_QUEUED_MAX: usize = 16;
/// How long a peer that leaves waits until the ledger says so.
pub const LEAVE_MAX: Duration = Duration::from_secs(3);
/// How long a peer that moved waits for its own address to be free again, and how often it looks.
const ADDRESS_MAX: Duration = Duration::from_secs(5);
const ADDRESS_LOOK: Duration = Duration::from_millis(20);

/// Everything that a peer needs to start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The peer's directory for this run.
    pub directory: PathBuf,
    /// Its key.
    pub identity: Identity,
    /// The run's terms.
    pub charter: Verified<Charter>,
    /// The recipe and the corpus.
    pub workload: Arc<Workload>,
    /// The stage in which it begins; 0 when every peer holds the whole model. One that took part before is where its store says.
    pub stage: u16,
    /// Who runs the peer, when that is not its own key.
    pub operator: Option<Signed<OperatorCertificate>>,
    /// The stages in which this machine can take part, that in which it begins among them, with the settings of its pipeline in each.
    pub places: BTreeMap<u16, PipelineConfig>,
    /// Whether it is the only peer of its process, so that the process' memory is its own.
    pub alone: bool,
    /// The cores that it may use, shared with other peers of the process.
    pub cores: Cores,
    /// Where to listen.
    pub transport: TransportConfig,
    /// The ids of the run's known peers; their addresses are told later.
    pub peers: Vec<PeerId>,
    /// Where the run's text is kept, in the form of [`learn::data::Texts`], for machines that join; none for the bundled one.
    pub texts: Option<PathBuf>,
    /// Blocks that peers of this process have checked.
    pub checked: CheckedBlocks,
}

/// A peer cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The network.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The charter is about another recipe, corpus or tokenizer.
    #[error("the run's charter is about another recipe, corpus or tokenizer")]
    ForeignCharter,
    /// The charter splits the weights, and the stages of this recipe need each other's payloads.
    #[error("learned bases need the payloads of neighbouring stages, which a split of the weights forbids")]
    LearnedBases,
    /// The peer is a member of a stage for which this machine has no place.
    #[error("this peer is in stage {stage}, in which it cannot take part with these settings")]
    NoPlace {
        /// The stage.
        stage: u16,
    },
}

impl NodeError {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Store(error) | Self::Blob(BlobError::Store(error)) => error.hint(),
            Self::Blob(_) => "move the peer's `blobs` directory away; blobs come back from the other peers".to_owned(),
            Self::Transport(_) => "check that UDP on the loopback interface is permitted".to_owned(),
            Self::NoPlace { .. } => "allow the peer as much memory as before".to_owned(),
            Self::LearnedBases => "choose `--codec full,…` or `--codec subspace:…`".to_owned(),
            Self::ForeignCharter => "start with the recipe and the corpus that the run was started with".to_owned(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Store(error) | Self::Blob(BlobError::Store(error)) => error.kind(),
            Self::Blob(_) => FailureKind::Storage,
            Self::Transport(_) => FailureKind::Network,
            Self::ForeignCharter | Self::LearnedBases | Self::NoPlace { .. } => FailureKind::BadInput,
        }
    }
}

/// What a peer can be asked.
enum Command {
    Introduce(Vec<(PeerId, SocketAddr)>),
    Ended(PeerId),
    Piece(PeerId, oneshot::Sender<Option<ledger::Piece>>),
    Pause(bool),
    Leave,
    Shutdown,
}

/// A running peer. Dropping the handle stops it as [`NodeHandle::shutdown`] does.
#[derive(Debug)]
pub struct NodeHandle {
    id: PeerId,
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<PeerStatus>,
    ended: watch::Receiver<Option<Ended>>,
    task: tokio::task::AbortHandle,
}

impl NodeHandle {
    /// The peer's id.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its newest status, and a way to wait for the next.
    pub fn status(&self) -> watch::Receiver<PeerStatus> {
        self.status.clone()
    }

    /// Why it ended, once it has. The sender is gone after [`NodeHandle::kill`].
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.clone()
    }

    /// Tells the peer where others listen. The first time, it starts to take part.
    pub async fn introduce(&self, peers: Vec<(PeerId, SocketAddr)>) {
        // A peer that ended needs no addresses.
        let _ = self.commands.send(Command::Introduce(peers)).await;
    }

    /// Pauses the peer, or lets it go on. It serves on meanwhile, and nobody waits for it.
    pub async fn set_paused(&self, paused: bool) {
        // A peer that ended does nothing anyway.
        let _ = self.commands.send(Command::Pause(paused)).await;
    }

    /// Tells the peer that the process of another one ended.
    pub async fn note_end(&self, peer: PeerId) {
        // A peer that ended has no connections.
        let _ = self.commands.send(Command::Ended(peer)).await;
    }

    /// The piece of a peer, as of this peer's ledger.
    pub async fn piece(&self, peer: PeerId) -> Option<ledger::Piece> {
        let (answer, receiver) = oneshot::channel();
        self.commands.send(Command::Piece(peer, answer)).await.ok()?;
        receiver.await.ok().flatten()
    }

    /// Stops the peer for good: it says so to the others, who then do not wait for it. Returns when it has ended, after [`LEAVE_MAX`] at the
    /// latest.
    pub async fn leave(&self) {
        // As for a shutdown.
        let _ = self.commands.send(Command::Leave).await;
        let _ = self.ended.clone().wait_for(Option::is_some).await;
    }

    /// Stops the peer as if it paused: it means to come back, and stays a member. Returns when it has ended.
    pub async fn shutdown(&self) {
        // A peer that already ended has closed the channel; one that was killed has dropped the sender.
        let _ = self.commands.send(Command::Shutdown).await;
        let _ = self.ended.clone().wait_for(Option::is_some).await;
    }

    /// Ends the peer at once, with nothing flushed or closed, as a crash does.
    pub fn kill(&self) {
        self.task.abort();
    }
}

/// Opens a peer's directory, binds its endpoint and starts its task. It takes part once it is introduced to others.
///
/// # Errors
/// [`NodeError`] when the directory, the endpoint or the charter cannot be used.
pub async fn start(config: NodeConfig) -> Result<NodeHandle, NodeError> {
    if !config.workload.matches(&config.charter.body) {
        return Err(NodeError::ForeignCharter);
    }
    let needs_neighbours = config.workload.shape(config.stage).is_some_and(StageShape::needs_neighbours);
    if config.charter.body.release.is_split() && needs_neighbours {
        return Err(NodeError::LearnedBases);
    }
    let id = config.identity.id();
    let (status, seen) = watch::channel(PeerStatus::blank(id, config.transport.bind));
    let shell = Shell::open(config.clone(), status.clone(), Past::default()).await?;
    let address = shell.address();
    let (commands, inbox) = mpsc::channel(COMMANDS_QUEUED_MAX);
    let (ending, ended) = watch::channel(None);
    let task = tokio::spawn(async move {
        let failure = run(config, shell, inbox, status).await.err().map(|error| Failure::from(&error));
        ending.send_replace(Some(Ended { failure, killed: false }));
    });
    Ok(NodeHandle { id, address, commands, status: seen, ended, task: task.abort_handle() })
}

/// Runs a peer in one stage after the other, and anew where it pauses with sums in memory, until it is to stop.
async fn run(
    mut config: NodeConfig,
    mut shell: Shell,
    mut commands: mpsc::Receiver<Command>,
    status: watch::Sender<PeerStatus>,
) -> Result<(), NodeError> {
    loop {
        config.transport.bind = shell.address();
        let Ending::Anew { known, past } = shell.run(&mut commands).await? else { return Ok(()) };
        let until = Instant::now() + ADDRESS_MAX;
        shell = loop {
            match Shell::open(config.clone(), status.clone(), past).await {
                // The socket of the shell before may take a moment to close.
                Err(NodeError::Transport(_)) if Instant::now() < until => tokio::time::sleep(ADDRESS_LOOK).await,
                opened => break opened?,
            }
        };
        shell.introduce(known.into_iter().collect()).await?;
    }
}

//! One peer: the protocol's state machine with the transport, the store, the blobs and the executor around it.
//!
//! One task owns everything. It tells the state machine what happened, and does what it asks, in order: a record is on
//! disk before the next output is looked at. Anything slow (dialling, fetching, computing) runs in tasks of its own and
//! reports through bounded channels. A disk that refuses ends the task with a typed error; nothing that was reported
//! before is lost, and starting again goes on from there.

mod fetching;
mod rounds;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use learn::pipeline::StageShape;
use swarm::pipeline::PipelineConfig;
use swarm::{CheckedBlocks, Event, HaltReason, Input, Output, PeerConfig, Record, Restored};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use wire::{Charter, Identity, Message, OperatorCertificate, PeerId, Signed, StageCall, StageReply, Verified};

use crate::blobs::{BlobError, BlobGate, Blobs};
use crate::compute::{Done, Executor, Means};
use crate::inference::InferenceServer;
use crate::member::{Ended, Failure, FailureKind};
use crate::memory;
use crate::status::{AgreedState, Lives, ModelStatus, PeerStatus, activity_view};
use crate::store::{Store, StoreError};
use crate::time::{TimeBook, now, until};
use crate::transport::{Services, Traffic, Transport, TransportConfig, TransportError, TransportEvent};
use crate::view::FaultView;
use crate::workload::{Cores, Workload};
use fetching::{FetchNews, Fetching};
use rounds::Rounds;

/// Faults shown to people; the store keeps more.
pub const FAULTS_SHOWN_MAX: usize = 100;

const DONE_QUEUED_MAX: usize = 16;
const FETCH_NEWS_QUEUED_MAX: usize = 256;
const COMMANDS_QUEUED_MAX: usize = 16;
/// How often the byte counters are refreshed when nothing else happens.
const REFRESH: Duration = Duration::from_millis(500);
/// How long to sleep when the protocol waits for nothing.
const FOREVER: Duration = Duration::from_secs(3600);

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
    /// The stage in which it takes part; 0 when every peer holds the whole model.
    pub stage: u16,
    /// Who runs the peer, when that is not its own key.
    pub operator: Option<Signed<OperatorCertificate>>,
    /// The settings of the pipeline, with several stages.
    pub pipeline: PipelineConfig,
    /// Whether it is the only peer of its process, so that the process' memory is its own.
    pub alone: bool,
    /// The cores that it may use, shared with other peers of the process.
    pub cores: Cores,
    /// Where to listen.
    pub transport: TransportConfig,
    /// The ids of the run's known peers; their addresses are told later.
    pub peers: Vec<PeerId>,
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
}

impl NodeError {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Store(error) | Self::Blob(BlobError::Store(error)) => error.hint(),
            Self::Blob(_) => "move the peer's `blobs` directory away; blobs come back from the other peers".to_owned(),
            Self::Transport(_) => "check that UDP on the loopback interface is permitted".to_owned(),
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
            Self::ForeignCharter | Self::LearnedBases => FailureKind::BadInput,
        }
    }
}

/// What a peer can be asked.
enum Command {
    Introduce(Vec<(PeerId, SocketAddr)>),
    Ended(PeerId),
    Piece(PeerId, oneshot::Sender<Option<ledger::Piece>>),
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
    let shell = Shell::open(config).await?;
    let address = shell.transport.dialer().address();
    let (commands, inbox) = mpsc::channel(COMMANDS_QUEUED_MAX);
    let status = shell.status.subscribe();
    let (ending, ended) = watch::channel(None);
    let task = tokio::spawn(async move {
        let failure = shell.run(inbox).await.err().map(|error| Failure::from(&error));
        ending.send_replace(Some(Ended { failure, killed: false }));
    });
    Ok(NodeHandle { id, address, commands, status, ended, task: task.abort_handle() })
}

/// The peer's task.
struct Shell {
    peer: swarm::Peer,
    transport: Transport,
    blobs: Blobs,
    gate: BlobGate,
    store: Arc<Store>,
    executor: Executor,
    done: mpsc::Receiver<Done>,
    fetching: Fetching,
    fetch_news: mpsc::Receiver<FetchNews>,
    time: TimeBook,
    rounds: Rounds,
    faults: VecDeque<FaultView>,
    refused_versions: BTreeMap<PeerId, ()>,
    halted: Option<Failure>,
    job_failure: Option<Failure>,
    trained_tokens: u64,
    trained_seconds: f64,
    started: bool,
    timing: bool,
    stage: u16,
    alone: bool,
    status: watch::Sender<PeerStatus>,
}

impl Shell {
    async fn open(config: NodeConfig) -> Result<Self, NodeError> {
        let run = config.charter.body.run_id();
        let id = config.identity.id();
        let store = Arc::new(Store::open(&config.directory, run, id)?);
        let blobs = Blobs::open(&config.directory.join("blobs")).await?;
        let inference =
            InferenceServer::new(run, config.stage, config.workload.clone(), blobs.clone(), config.cores.count());
        let gate = if config.charter.body.release.is_split() { BlobGate::closed() } else { BlobGate::default() };
        let services = Services { blobs: Some(blobs.index()), gate: gate.clone(), inference };
        let transport = Transport::bind(&config.transport, &config.identity, services).await?;
        let time = TimeBook::default();
        let (done_sender, done) = mpsc::channel(DONE_QUEUED_MAX);
        let (stage, alone) = (config.stage, config.alone);
        let shape = config.workload.shape(stage);
        let neighbour_payloads = shape.is_some_and(StageShape::needs_neighbours);
        let means = Means {
            workload: config.workload,
            stage: config.stage,
            cores: config.cores,
            store: store.clone(),
            blobs: blobs.clone(),
            time: time.clone(),
        };
        let (executor, model) = Executor::restore(means, done_sender)?;
        let restored = Restored { blocks: store.blocks()?, model, outbox: store.outbox()? };
        let mut rounds = Rounds::new(&config.charter);
        restored.blocks.iter().for_each(|block| rounds.take(block));
        let mut faults: VecDeque<FaultView> = store.faults()?.into();
        faults.drain(..faults.len().saturating_sub(FAULTS_SHOWN_MAX));
        let peer_config = PeerConfig {
            checked: config.checked,
            stage: config.stage,
            operator: config.operator,
            neighbour_payloads,
            pipeline: config.pipeline,
            ..PeerConfig::new(config.charter, config.peers)
        };
        let peer = swarm::Peer::new(peer_config, config.identity, restored, now());
        let (news_sender, fetch_news) = mpsc::channel(FETCH_NEWS_QUEUED_MAX);
        let fetching = Fetching::new(blobs.clone(), transport.dialer().clone(), time.clone(), news_sender);
        let blank = blank_status(&peer, &transport);
        let mut shell = Self {
            peer,
            transport,
            blobs,
            gate,
            store,
            executor,
            done,
            fetching,
            fetch_news,
            time,
            rounds,
            faults,
            refused_versions: BTreeMap::new(),
            halted: None,
            job_failure: None,
            trained_tokens: 0,
            trained_seconds: 0.0,
            started: false,
            timing: false,
            stage,
            alone,
            status: watch::Sender::new(blank),
        };
        shell.publish();
        Ok(shell)
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), NodeError> {
        let outcome = self.serve(&mut commands).await;
        self.executor.stop().await;
        self.transport.shutdown().await;
        self.blobs.close().await;
        outcome
    }

    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<(), NodeError> {
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pause = self.peer.poll_timeout().map_or(FOREVER, |(at, _)| until(at).min(FOREVER));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Introduce(peers)) => self.introduce(peers).await?,
                    Some(Command::Ended(peer)) => self.transport.note_end(peer),
                    Some(Command::Piece(peer, answer)) => {
                        let ledger = self.peer.ledger();
                        let receipts = ledger.paid_receipts(&peer, self.peer.blocks());
                        // Whoever asked may have given up.
                        let _ = answer.send(ledger.piece(&peer, receipts));
                    }
                    Some(Command::Shutdown) | None => return Ok(()),
                },
                // Before the start the protocol ignores everything, so connections wait in their queue.
                event = self.transport.next(), if self.started => self.on_network(event).await?,
                Some(done) = self.done.recv() => {
                    self.trained_tokens += done.effort.tokens;
                    self.trained_seconds += done.effort.seconds;
                    self.job_failure = done.failure;
                    self.feed(Input::Computed { job: done.job, result: done.result }).await?;
                }
                Some(news) = self.fetch_news.recv() => self.on_fetch_news(news).await?,
                () = tokio::time::sleep_until(Instant::now() + pause) => self.feed(Input::Tick).await?,
                _ = refresh.tick() => {}
            }
            self.publish();
        }
    }

    async fn introduce(&mut self, peers: Vec<(PeerId, SocketAddr)>) -> Result<(), NodeError> {
        for (peer, address) in peers {
            self.transport.set_address(peer, address);
        }
        self.started = true;
        self.feed(Input::Start).await
    }

    async fn on_network(&mut self, event: TransportEvent) -> Result<(), NodeError> {
        match event {
            TransportEvent::Connected(peer) => self.feed(Input::Connected(peer)).await,
            TransportEvent::Disconnected(peer) => self.feed(Input::Disconnected(peer)).await,
            TransportEvent::Received { from, message, took_us } => {
                if let Message::StageCall(StageCall { stage, .. }) | Message::StageReply(StageReply { stage, .. }) =
                    *message
                {
                    self.feed(Input::Carried { stage, took_us }).await?;
                }
                self.feed(Input::Received { from, message: *message }).await
            }
            TransportEvent::Undecodable { from, error } => self.feed(Input::Undecodable { from, error }).await,
            TransportEvent::ConnectFailed { peer, error } => {
                tracing::debug!(peer = ?peer, %error, "cannot connect");
                if let TransportError::WrongVersion { .. } = error
                    && self.refused_versions.insert(peer, ()).is_none()
                {
                    let round = self.peer.ledger().round().map_or(0, |open| open.round);
                    let what = "speaks another version of the protocol".to_owned();
                    self.record_fault(FaultView { peer, round, what }).await?;
                }
                self.feed(Input::Disconnected(peer)).await
            }
        }
    }

    async fn on_fetch_news(&mut self, news: FetchNews) -> Result<(), NodeError> {
        match news {
            FetchNews::Fetched { hash, bytes } => {
                self.fetching.finished(hash);
                self.feed(Input::Fetched { hash, bytes }).await
            }
            FetchNews::ProviderFailed { hash, from } => self.feed(Input::FetchFailed { hash, from }).await,
            FetchNews::Exhausted { hash } => {
                self.fetching.exhausted(hash);
                Ok(())
            }
            FetchNews::Broken(error) => Err(error.into()),
        }
    }

    /// Tells the protocol what happened, and does what it asks.
    async fn feed(&mut self, input: Input) -> Result<(), NodeError> {
        let mut outputs = Vec::new();
        self.peer.handle(now(), input, &mut outputs);
        for output in outputs {
            self.execute(output).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, output: Output) -> Result<(), NodeError> {
        match output {
            Output::Connect(peer) => self.transport.connect(peer),
            Output::Disconnect(peer) => self.transport.disconnect(peer),
            Output::Send { to, message } => self.transport.send(to, &message),
            Output::Compute { job, work } => self.executor.start(job, work),
            Output::Cancel(job) => self.executor.cancel(job),
            Output::Fetch { hash, bytes, providers } => self.fetching.start(hash, bytes, providers),
            Output::Forget { hashes } => self.blobs.forget(&hashes).await,
            Output::Persist(record) => self.persist(record).await?,
            Output::Event(event) => self.on_event(&event),
            Output::Fault(fault) => {
                let what = fault.kind.to_string();
                self.record_fault(FaultView { peer: fault.peer, round: fault.round, what }).await?;
            }
            Output::Halt(reason) => {
                tracing::error!(%reason, "this peer stopped taking part");
                self.halted = Some(self.halt_failure(&reason));
            }
        }
        Ok(())
    }

    async fn persist(&mut self, record: Record) -> Result<(), StoreError> {
        if let Record::Block(block) = &record {
            self.rounds.take(block);
        }
        let store = self.store.clone();
        let write = move || match record {
            Record::Block(block) => store.put_block(&block),
            Record::Outgoing(transaction) => store.put_outgoing(&transaction),
        };
        tokio::task::spawn_blocking(write).await.expect("a write does not panic")
    }

    async fn record_fault(&mut self, fault: FaultView) -> Result<(), StoreError> {
        tracing::warn!(peer = ?fault.peer, round = fault.round, what = fault.what, "a peer misbehaved");
        self.faults.push_back(fault.clone());
        if self.faults.len() > FAULTS_SHOWN_MAX {
            self.faults.pop_front();
        }
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.put_fault(&fault)).await.expect("a write does not panic")
    }

    /// What people are told when this peer stops taking part.
    fn halt_failure(&self, reason: &HaltReason) -> Failure {
        let failure = |kind, hint: &str| Failure { kind, message: reason.to_string(), hint: hint.to_owned() };
        match reason {
            HaltReason::StateDivergence { .. } => {
                failure(FailureKind::Divergence, "run `cairn doctor`: this machine or this build is not bit-exact")
            }
            HaltReason::DamagedStore { .. } => {
                failure(FailureKind::CorruptData, "restore the peer's directory from a copy, or use `cairn up --fresh`")
            }
            HaltReason::MayNotJoin { .. } => {
                failure(FailureKind::BadInput, "start it in the stage that its operator is in, or leave it to others")
            }
            HaltReason::JobFailed { .. } => self.job_failure.clone().unwrap_or_else(|| {
                failure(FailureKind::Unexpected, "start again: it goes on from the last committed round")
            }),
        }
    }

    fn on_event(&mut self, event: &Event) {
        tracing::debug!(?event, "protocol event");
        if let Event::RoundOpened { .. } = event
            && !self.timing
        {
            self.timing = true;
            self.time.reset();
        }
    }

    fn publish(&mut self) {
        let ledger = self.peer.ledger();
        // Of a split run, an account stays in its stage for good.
        let ours = ledger.accounts().iter().filter(|account| account.stage == self.stage);
        self.gate.admit(ours.map(|account| account.peer));
        let mut traffic = Traffic::default();
        self.transport.dialer().traffic().into_values().for_each(|of_peer| traffic.add(of_peer));
        let connected = self.peer.connected().count() as u64;
        let status = PeerStatus {
            id: self.peer.id(),
            address: self.transport.dialer().address(),
            activity: activity_view(self.peer.activity(), connected > 0),
            connected,
            open_round: ledger.round().map(|open| open.round),
            coarser: ledger.round().map_or_else(Vec::new, |open| open.coarser.to_vec()),
            stage: self.stage,
            agreed: AgreedState::newest(ledger),
            model: self.peer.model().map(|model| ModelStatus { round: model.round, state_root: model.state_root }),
            finished: self.peer.is_finished(),
            halted: self.halted.clone(),
            last_failure: self.peer.last_failure().map(str::to_owned),
            height: ledger.height(),
            ledger_root: ledger.root(),
            totals: *ledger.totals(),
            accounts: ledger.accounts().to_vec(),
            traffic,
            memory_peak_bytes: self.alone.then(memory::peak_bytes).flatten(),
            spent: self.time.read(),
            trained_tokens: self.trained_tokens,
            trained_seconds: self.trained_seconds,
            faults: self.faults.iter().cloned().collect(),
            rounds: self.rounds.reports(),
            lives: Lives::default(),
        };
        self.status.send_replace(status);
    }
}

fn blank_status(peer: &swarm::Peer, transport: &Transport) -> PeerStatus {
    let ledger = peer.ledger();
    PeerStatus {
        id: peer.id(),
        address: transport.dialer().address(),
        activity: Default::default(),
        connected: 0,
        open_round: None,
        coarser: Vec::new(),
        stage: 0,
        model: None,
        agreed: None,
        finished: false,
        halted: None,
        last_failure: None,
        height: 0,
        ledger_root: ledger.root(),
        totals: *ledger.totals(),
        accounts: Vec::new(),
        traffic: Traffic::default(),
        memory_peak_bytes: None,
        spent: Default::default(),
        trained_tokens: 0,
        trained_seconds: 0.0,
        faults: Vec::new(),
        rounds: Arc::default(),
        lives: Lives::default(),
    }
}

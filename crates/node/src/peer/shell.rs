//! The shell of a peer's state machine in one stage.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use learn::pipeline::StageShape;
use ledger::Standing;
use swarm::{Event, HaltReason, Input, Output, PeerConfig, Record, Restored};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use wire::{Message, PeerId, StageCall, StageReply};

use super::fetching::{FetchNews, Fetching};
use super::rounds::Rounds;
use super::{Command, LEAVE_MAX, NodeConfig, NodeError};
use crate::blobs::{BlobGate, Blobs};
use crate::compute::{Done, Executor, Means};
use crate::inference::InferenceServer;
use crate::join::{RunOffer, on_this_machine};
use crate::member::{Failure, FailureKind};
use crate::memory;
use crate::status::{AgreedState, Lives, ModelStatus, PeerStatus, activity_view};
use crate::store::{Store, StoreError};
use crate::texts::TextOffer;
use crate::time::{TimeBook, now, until};
use crate::transport::{Services, Traffic, Transport, TransportError, TransportEvent};
use crate::view::FaultView;

/// Faults shown to people; the store keeps more.
pub const FAULTS_SHOWN_MAX: usize = 100;

const DONE_QUEUED_MAX: usize = 16;
const FETCH_NEWS_QUEUED_MAX: usize = 256;
/// How often the byte counters are refreshed when nothing else happens.
const REFRESH: Duration = Duration::from_millis(500);
/// How long to sleep when the protocol waits for nothing.
const FOREVER: Duration = Duration::from_secs(3600);

/// What a peer counted in the stages before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    traffic: Traffic,
    outside: Traffic,
    trained_tokens: u64,
    trained_seconds: f64,
    /// Whether the peer pauses.
    paused: bool,
}

/// Why a shell ended without an error.
#[derive(Debug)]
pub(super) enum Ending {
    /// It was asked to.
    Stopped,
    /// The peer is to be made anew: it is a member of another stage, and the store says so, or it pauses and what it had added up is lost.
    Anew {
        /// Where others listen.
        known: BTreeMap<PeerId, SocketAddr>,
        /// What was counted until now.
        past: Past,
    },
}

/// One peer in one stage.
pub(super) struct Shell {
    pub(super) peer: swarm::Peer,
    pub(super) transport: Transport,
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
    /// Where others listen, as it was told.
    pub(super) known: BTreeMap<PeerId, SocketAddr>,
    halted: Option<Failure>,
    job_failure: Option<Failure>,
    /// What was counted here and in the stages before; the traffic is that of those only.
    past: Past,
    started: bool,
    timing: bool,
    stage: u16,
    /// The stage to which this peer moved.
    moves_to: Option<u16>,
    /// Whether this peer is to be made anew, because it pauses.
    begins_anew: bool,
    offer: RunOffer,
    texts: Option<TextOffer>,
    alone: bool,
    status: watch::Sender<PeerStatus>,
}

impl Shell {
    /// Opens the peer's directory and binds its endpoint.
    pub(super) async fn open(
        config: NodeConfig,
        status: watch::Sender<PeerStatus>,
        past: Past,
    ) -> Result<Self, NodeError> {
        let run = config.charter.body.run_id();
        let id = config.identity.id();
        let store = Arc::new(Store::open(&config.directory, run, id)?);
        let stage = store.stage_or(config.stage)?;
        let pipeline = config.places.get(&stage).cloned().ok_or(NodeError::NoPlace { stage })?;
        let other_stages = config.places.keys().copied().filter(|other| *other != stage).collect();
        let blobs = Blobs::open(&config.directory.join("blobs")).await?;
        let inference = InferenceServer::new(run, stage, config.workload.clone(), blobs.clone(), config.cores.clone());
        let gate = if config.charter.body.release.is_split() { BlobGate::closed() } else { BlobGate::default() };
        let offer = RunOffer::new(config.charter.clone().into_signed(), &config.workload.recipe);
        // Who joins asks the validator.
        let texts = match config.texts.as_ref().filter(|_| config.charter.body.validators.contains(&id)) {
            Some(folder) => Some(TextOffer::open(folder, &config.directory.join("text-index")).await?),
            None => None,
        };
        let services = Services {
            blobs: Some(blobs.index()),
            gate: gate.clone(),
            inference,
            offer: Some(offer.clone()),
            texts: texts.clone(),
        };
        let transport = Transport::bind(&config.transport, &config.identity, services).await?;
        let time = TimeBook::default();
        let (done_sender, done) = mpsc::channel(DONE_QUEUED_MAX);
        let alone = config.alone;
        let shape = config.workload.shape(stage);
        let neighbour_payloads = shape.is_some_and(StageShape::needs_neighbours);
        let means = Means {
            workload: config.workload,
            stage,
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
            paused: past.paused,
            stage,
            other_stages,
            operator: config.operator,
            neighbour_payloads,
            pipeline,
            ..PeerConfig::new(config.charter, config.peers)
        };
        let peer = swarm::Peer::new(peer_config, config.identity, restored, now());
        let (news_sender, fetch_news) = mpsc::channel(FETCH_NEWS_QUEUED_MAX);
        let fetching = Fetching::new(blobs.clone(), transport.dialer().clone(), time.clone(), news_sender);
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
            known: BTreeMap::new(),
            halted: None,
            job_failure: None,
            past,
            started: false,
            timing: false,
            stage,
            moves_to: None,
            begins_anew: false,
            offer,
            texts,
            alone,
            status,
        };
        shell.publish();
        Ok(shell)
    }

    /// Whether this peer orders blocks.
    pub(super) fn is_validator(&self) -> bool {
        self.peer.ledger().is_validator(&self.peer.id())
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.transport.dialer().address()
    }

    /// Does what the commands say until one ends it, the peer moves to another stage, or something fails.
    pub(super) async fn run(mut self, commands: &mut mpsc::Receiver<Command>) -> Result<Ending, NodeError> {
        let outcome = self.serve(commands).await;
        self.executor.stop().await;
        let mut past = self.past;
        (past.traffic, past.outside) = self.traffic();
        self.transport.shutdown().await;
        self.blobs.close().await;
        if let Some(texts) = &self.texts {
            texts.close().await;
        }
        outcome?;
        if let Some(stage) = self.moves_to {
            self.store.set_stage(stage)?;
        } else if !self.begins_anew {
            return Ok(Ending::Stopped);
        }
        Ok(Ending::Anew { known: self.known, past })
    }

    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<(), NodeError> {
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaves_until: Option<Instant> = None;
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
                    Some(Command::Pause(paused)) => self.set_paused(paused).await?,
                    Some(Command::Leave) => {
                        leaves_until = Some(Instant::now() + LEAVE_MAX);
                        self.feed(Input::Stop).await?;
                    }
                    Some(Command::Shutdown) | None => return Ok(()),
                },
                // Before the start the protocol ignores everything, so connections wait in their queue.
                event = self.transport.next(), if self.started => self.on_network(event).await?,
                Some(done) = self.done.recv() => {
                    self.past.trained_tokens += done.effort.tokens;
                    self.past.trained_seconds += done.effort.seconds;
                    self.job_failure = done.failure;
                    self.feed(Input::Computed { job: done.job, result: done.result }).await?;
                }
                Some(news) = self.fetch_news.recv() => self.on_fetch_news(news).await?,
                () = tokio::time::sleep_until(Instant::now() + pause) => self.feed(Input::Tick).await?,
                _ = refresh.tick() => {}
            }
            self.publish();
            let left = leaves_until.is_some_and(|until| self.has_left() || Instant::now() >= until);
            if self.moves_to.is_some() || self.begins_anew || left {
                return Ok(());
            }
        }
    }

    /// Pauses the peer, or lets it go on.
    async fn set_paused(&mut self, paused: bool) -> Result<(), NodeError> {
        self.past.paused = paused;
        if paused && self.peer.counts().is_some() {
            self.begins_anew = true;
            return Ok(());
        }
        self.feed(if paused { Input::Pause } else { Input::Resume }).await
    }

    /// Whether the ledger does not wait for this peer beyond the open round.
    fn has_left(&self) -> bool {
        let ledger = self.peer.ledger();
        let standing = ledger.account(&self.peer.id()).map_or(Standing::Out, |account| account.standing);
        ledger.finished() || matches!(standing, Standing::Out | Standing::Leaving)
    }

    /// Tells the peer where others listen. The first time, it starts to take part.
    pub(super) async fn introduce(&mut self, peers: Vec<(PeerId, SocketAddr)>) -> Result<(), NodeError> {
        for (peer, address) in peers {
            let address = on_this_machine(address);
            self.transport.set_address(peer, address);
            self.known.insert(peer, address);
        }
        self.started = true;
        self.feed(Input::Start).await
    }

    async fn on_network(&mut self, event: TransportEvent) -> Result<(), NodeError> {
        match event {
            TransportEvent::Connected(peer) => {
                self.feed(Input::Connected(peer)).await?;
                self.introduce_each_other(peer);
                Ok(())
            }
            TransportEvent::Disconnected(peer) => self.feed(Input::Disconnected(peer)).await,
            TransportEvent::Received { from, message, took_us } => {
                if let Message::Addresses(all) = message.as_ref() {
                    self.take_addresses(from, all);
                }
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
            Output::Move { stage } => {
                tracing::info!(from = self.stage, to = stage, "this peer moves to another stage");
                self.moves_to = Some(stage);
            }
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
        self.offer.note_members(ledger.accounts());
        // Of a split run, an account stays in its stage for good.
        let ours = ledger.accounts().iter().filter(|account| account.stage == self.stage);
        self.gate.admit(ours.map(|account| account.peer));
        let connected = self.peer.connected().count() as u64;
        let (traffic, outside) = self.traffic();
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
            outside,
            paths: self.transport.dialer().paths(),
            memory_peak_bytes: self.alone.then(memory::peak_bytes).flatten(),
            spent: self.time.read(),
            trained_tokens: self.past.trained_tokens,
            trained_seconds: self.past.trained_seconds,
            faults: self.faults.iter().cloned().collect(),
            rounds: self.rounds.reports(),
            lives: Lives::default(),
        };
        self.status.send_replace(status);
    }

    /// What was sent and received, here and in the stages before; and how much of it to and from other machines.
    fn traffic(&self) -> (Traffic, Traffic) {
        let (mut traffic, mut outside) = (self.past.traffic, self.past.outside);
        let dialer = self.transport.dialer();
        for (peer, of_peer) in dialer.traffic() {
            traffic.add(of_peer);
            if !dialer.rates().is_own(&peer) {
                outside.add(of_peer);
            }
        }
        (traffic, outside)
    }
}

//! A consumer of a model in stages: which replica it calls, and what it does when one fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use iroh::endpoint::Connection;
use learn::pipeline::{read_logits, reads_tokens};
use model::{Request, Sampler};
use wire::{Identity, InferenceAnswer, InferenceCall, InferenceRefusal, PeerId, RunId, SequenceFeed};

use super::{ALPN, CALL_TIME};
use crate::frames::{FrameError, read_frame, write_frame};
use crate::status::AgreedState;
use crate::transport::{Dialer, Services, Transport, TransportConfig, TransportError};
use crate::workload::Workload;

/// A replica that failed is called again after this time, unless there is no other.
const AVOIDED_FOR: Duration = Duration::from_secs(20);
/// Ended sequences that are remembered until the next call; beyond that, a server forgets them by itself.
const ENDED_MAX: usize = 256;

/// How often a sequence may begin anew without a token in between.
pub const INTERRUPTIONS_MAX: usize = 8;
/// How long to wait before it does.
pub const PAUSE: Duration = Duration::from_millis(50);
/// Tokens of a prompt in one call.
const FEED_TOKENS: usize = 64;

/// A peer that serves a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Who.
    pub peer: PeerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its stage.
    pub stage: u16,
}

/// Why no logits came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StagedError {
    /// A replica failed; the sequences of the call are empty, and are to be fed from their beginnings, through another replica.
    #[error("stage {stage} failed on peer `{peer:?}`: {reason}")]
    Interrupted {
        /// The stage.
        stage: u16,
        /// Its replica.
        peer: PeerId,
        /// What happened.
        reason: String,
    },
    /// Another replica serves a stage since a sequence was fed; it is empty, and is to be fed from its beginning.
    #[error("another peer serves a stage now")]
    Rerouted,
    /// No peer is known that serves a stage.
    #[error("no peer serves stage {stage}")]
    Deserted {
        /// The stage.
        stage: u16,
    },
    /// The feeds are not what the model takes.
    #[error("stage {stage} refuses the tokens")]
    Refused {
        /// The stage.
        stage: u16,
    },
}

/// Calls the stages of one run's model. Shared by everything in the process that uses it.
#[derive(Debug)]
pub struct InferenceClient {
    runtime: tokio::runtime::Handle,
    /// Held for its endpoint; it takes part in nothing.
    _transport: Transport,
    dialer: Dialer,
    run: RunId,
    workload: Arc<Workload>,
    /// The replicas of every stage, in the order in which they are preferred: consumers have different orders.
    replicas: Mutex<Vec<Vec<PeerId>>>,
    /// When replicas failed last.
    failed: Mutex<BTreeMap<PeerId, Instant>>,
    sequences: AtomicU64,
    ended: Mutex<Vec<u64>>,
}

impl InferenceClient {
    /// Makes an endpoint that knows where the replicas are, with a key of its own, which nobody else needs to know.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(
        config: &TransportConfig,
        identity: &Identity,
        run: RunId,
        workload: Arc<Workload>,
        replicas: &[Replica],
    ) -> Result<(Arc<Self>, SocketAddr), TransportError> {
        let transport = Transport::bind(config, identity, Services::default()).await?;
        let dialer = transport.dialer().clone();
        let mut by_stage = vec![Vec::new(); usize::from(workload.stages_len())];
        for replica in replicas {
            dialer.set_address(replica.peer, replica.address);
            if let Some(stage) = by_stage.get_mut(usize::from(replica.stage)) {
                stage.push(replica.peer);
            }
        }
        for replicas in &mut by_stage {
            let first = usize::from(identity.id().0[0]) % replicas.len().max(1);
            replicas.rotate_left(first);
        }
        let address = dialer.address();
        let client = Self {
            runtime: tokio::runtime::Handle::current(),
            _transport: transport,
            dialer,
            run,
            workload,
            replicas: Mutex::new(by_stage),
            failed: Mutex::default(),
            sequences: AtomicU64::new(0),
            ended: Mutex::default(),
        };
        Ok((Arc::new(client), address))
    }

    /// Takes leave of all peers; calls fail from now on.
    pub async fn close(&self) {
        self.dialer.close().await;
    }

    /// Notes that a peer's process ended: calls to it fail now, and go elsewhere for a while.
    pub fn note_end(&self, peer: PeerId) {
        self.dialer.forget_connections(peer);
        self.note_failure(peer);
    }

    /// Notes that a peer listens again, and where: it is called like any other.
    pub fn note_return(&self, peer: PeerId, address: SocketAddr) {
        self.dialer.set_address(peer, address);
        self.dialer.forget_connections(peer);
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }

    /// Notes that a peer serves another stage now.
    pub fn note_stage(&self, peer: PeerId, stage: u16) {
        self.dialer.forget_connections(peer);
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.iter_mut().for_each(|replicas| replicas.retain(|replica| *replica != peer));
        if let Some(replicas) = replicas.get_mut(usize::from(stage)) {
            replicas.push(peer);
        }
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        usize::from(self.workload.stages_len())
    }

    /// The replica of a stage to call: the first that did not fail lately, or else the one whose failure is the longest ago.
    fn choose(&self, stage: usize) -> Option<PeerId> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |peer: &PeerId| failed.get(peer).filter(|at| at.elapsed() < AVOIDED_FOR).copied();
        let replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        let replicas = replicas.get(stage)?;
        let well = replicas.iter().find(|peer| lately(peer).is_none());
        well.or_else(|| replicas.iter().min_by_key(|peer| lately(peer))).copied()
    }

    fn note_failure(&self, peer: PeerId) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, Instant::now());
    }

    /// Calls a replica and waits for its answer. Must not run on a thread of the runtime.
    fn call(&self, peer: PeerId, call: &InferenceCall) -> Result<InferenceAnswer, String> {
        self.runtime.block_on(async {
            let exchange = async {
                let connection = self.dialer.connection(peer, ALPN).await.map_err(|error| error.to_string())?;
                exchange(&connection, call).await.map_err(|error| error.to_string())
            };
            tokio::time::timeout(CALL_TIME, exchange).await.unwrap_or_else(|_| Err(FrameError::TimeOut.to_string()))
        })
    }
}

async fn exchange(connection: &Connection, call: &InferenceCall) -> Result<InferenceAnswer, FrameError> {
    let lost = |error: iroh::endpoint::ConnectionError| FrameError::Connection(error.to_string());
    let (mut calls, mut answers) = connection.open_bi().await.map_err(lost)?;
    write_frame(&mut calls, call).await?;
    read_frame(&mut answers).await
}

/// A state of the model, to be decoded through its stages. Cheap to clone; clones share the choice of replicas.
#[derive(Clone, Debug)]
pub struct StagedModel {
    client: Arc<InferenceClient>,
    state: Arc<AgreedState>,
    route: Arc<Mutex<Route>>,
}

/// Which replica serves each stage, and how often that changed: a sequence lives on the replicas that it was fed through.
#[derive(Debug)]
struct Route {
    peers: Vec<Option<PeerId>>,
    changes: u64,
}

/// A sequence of a model in stages. Dropping it ends it.
#[derive(Debug)]
pub struct StagedSequence {
    client: Arc<InferenceClient>,
    name: u64,
    length: usize,
    /// [`Route::changes`] when it was fed from its beginning.
    route: u64,
}

/// Tokens for one of the sequences of [`StagedModel::feed`].
#[derive(Debug)]
pub struct StagedFeed<'a> {
    /// The sequence.
    pub sequence: &'a mut StagedSequence,
    /// What follows what it holds.
    pub tokens: &'a [u32],
}

impl StagedModel {
    /// The model in a state that all stages agreed on.
    pub fn new(client: Arc<InferenceClient>, state: AgreedState) -> Self {
        let route = Route { peers: vec![None; client.stages()], changes: 0 };
        Self { client, state: Arc::new(state), route: Arc::new(Mutex::new(route)) }
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.client.stages()
    }

    /// Who serves each stage to this consumer now; none where nobody did yet, or who did has failed.
    pub fn route(&self) -> Vec<Option<PeerId>> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner).peers.clone()
    }

    /// An empty sequence.
    pub fn sequence(&self) -> StagedSequence {
        let name = self.client.sequences.fetch_add(1, Ordering::Relaxed);
        StagedSequence { client: self.client.clone(), name, length: 0, route: 0 }
    }

    /// Appends tokens to several sequences, in one call to a replica of every stage after the other, and returns the logits
    /// `[feeds, vocab]` of what follows the last token of each. It waits for the network, so it must not run on a thread of the runtime.
    ///
    /// # Errors
    /// After [`StagedError::Interrupted`] the sequences are empty, and the next call tries another replica; after
    /// [`StagedError::Rerouted`] some are. After the others trying again is of no use.
    pub fn feed(&self, feeds: &mut [StagedFeed<'_>]) -> Result<Vec<f32>, StagedError> {
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in 0..route.peers.len() {
            if route.peers[stage].is_none() {
                route.peers[stage] = self.client.choose(stage);
                route.changes += 1;
            }
        }
        let stale = |feed: &&mut StagedFeed<'_>| feed.sequence.length > 0 && feed.sequence.route != route.changes;
        if feeds.iter_mut().filter(stale).map(|feed| feed.sequence.length = 0).count() > 0 {
            return Err(StagedError::Rerouted);
        }
        match self.pass(&mut route, feeds) {
            Ok(logits) => {
                for StagedFeed { sequence, tokens } in feeds {
                    sequence.length += tokens.len();
                    sequence.route = route.changes;
                }
                Ok(logits)
            }
            Err(error) => {
                feeds.iter_mut().for_each(|feed| feed.sequence.length = 0);
                Err(error)
            }
        }
    }

    /// Continues a prompt as [`model::generate`] does, beginning anew through other replicas when one fails, up to
    /// [`INTERRUPTIONS_MAX`] times without a token in between. Returns the number of tokens.
    ///
    /// # Errors
    /// As [`StagedModel::feed`], when it failed too often.
    pub fn generate(
        &self,
        request: Request<'_>,
        sampler: &mut Sampler,
        mut on_token: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<usize, StagedError> {
        let mut sequence = self.sequence();
        let mut tokens = request.prompt.to_vec();
        let context = self.client.workload.recipe.model.context;
        let mut interruptions = 0;
        while tokens.len() < context && tokens.len() - request.prompt.len() < request.tokens_max {
            let end = tokens.len().min(sequence.len() + FEED_TOKENS);
            let fed = &tokens[sequence.len()..end];
            let logits = match self.feed(&mut [StagedFeed { sequence: &mut sequence, tokens: fed }]) {
                Ok(logits) => logits,
                Err(error @ (StagedError::Interrupted { .. } | StagedError::Rerouted))
                    if interruptions < INTERRUPTIONS_MAX =>
                {
                    interruptions += 1;
                    tracing::debug!(%error, "a sequence begins anew");
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if end < tokens.len() {
                continue;
            }
            interruptions = 0;
            let token = sampler.sample(&logits, &tokens);
            if request.ends.contains(&token) {
                break;
            }
            tokens.push(token);
            if on_token(token).is_break() {
                break;
            }
        }
        Ok(tokens.len() - request.prompt.len())
    }

    fn pass(&self, route: &mut Route, feeds: &[StagedFeed<'_>]) -> Result<Vec<f32>, StagedError> {
        let config = self.client.workload.recipe.model;
        let ended = std::mem::take(&mut *self.client.ended.lock().unwrap_or_else(PoisonError::into_inner));
        let mut input = Vec::new();
        let stages = route.peers.len();
        for at in 0..stages {
            let stage = u16::try_from(at).unwrap_or(u16::MAX);
            let Some(peer) = route.peers[at] else { return Err(StagedError::Deserted { stage }) };
            let reads = self.client.workload.shape(stage).is_none_or(reads_tokens);
            let row = |feed: &StagedFeed<'_>| SequenceFeed {
                sequence: feed.sequence.name,
                start: u32::try_from(feed.sequence.length).unwrap_or(u32::MAX),
                tokens: if reads { feed.tokens.to_vec() } else { vec![0; feed.tokens.len()] },
            };
            let call = InferenceCall {
                run: self.client.run,
                stage,
                state: self.state.roots.get(at).copied().unwrap_or_default(),
                feeds: feeds.iter().map(row).collect(),
                input: std::mem::take(&mut input),
                ended: ended.clone(),
            };
            let interrupted = |reason: String| StagedError::Interrupted { stage, peer, reason };
            let failure = match self.client.call(peer, &call) {
                Ok(InferenceAnswer::Fed(output)) if at + 1 < stages => {
                    input = output;
                    continue;
                }
                Ok(InferenceAnswer::Fed(output)) => match read_logits(&output, feeds.len(), config.vocab) {
                    Ok(logits) => return Ok(logits),
                    Err(error) => interrupted(error.to_string()),
                },
                Ok(InferenceAnswer::Refused(InferenceRefusal::BadInput)) if at == 0 => {
                    return Err(StagedError::Refused { stage });
                }
                // The same replica, from the beginning.
                Ok(InferenceAnswer::Refused(InferenceRefusal::UnknownSequence)) => {
                    return Err(interrupted("it forgot a sequence".to_owned()));
                }
                Ok(InferenceAnswer::Refused(refusal)) => interrupted(format!("{refusal:?}")),
                Err(reason) => interrupted(reason),
            };
            tracing::debug!(stage, peer = ?peer, error = %failure, "another replica is tried");
            self.client.note_failure(peer);
            route.peers[at] = None;
            return Err(failure);
        }
        Err(StagedError::Deserted { stage: 0 })
    }
}

impl StagedSequence {
    /// Number of tokens that it was fed.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has to be fed from its beginning.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Drop for StagedSequence {
    fn drop(&mut self) {
        let mut ended = self.client.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() < ENDED_MAX {
            ended.push(self.name);
        }
    }
}

//! A stage that consumers can call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use iroh::endpoint::{Connection, RecvStream, SendStream};
use learn::pipeline::{InferenceError, InferenceFeed, StageInference, TokenParts};
use model::{Cache, CachePool, DecodeError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wire::{Hash, InferenceAnswer, InferenceCall, InferenceRefusal, PeerId, RunId, SequenceFeed};

use super::{CACHE_BYTES, CACHED_CONTEXTS, CALL_TIME, CALLS_MAX, MODELS_MAX, SEQUENCES_MAX};
use crate::blobs::Blobs;
use crate::frames::{FrameError, read_frame_at, write_frame_at};
use crate::limits::Rates;
use crate::state::ModelState;
use crate::workload::{Cores, Workload};

/// A sequence that was not fed for so long is forgotten when room is needed or another call comes.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Serves the stage of a peer to consumers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InferenceServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run: RunId,
    stage: u16,
    workload: Arc<Workload>,
    blobs: Blobs,
    cores: Cores,
    calls: Semaphore,
    models: Mutex<Models>,
}

/// The states that are ready, in the order in which they were used, the newest last.
#[derive(Debug, Default)]
struct Models {
    ready: Vec<Ready>,
    parts: Option<TokenParts>,
}

#[derive(Debug)]
struct Ready {
    state: Hash,
    inference: StageInference,
    pool: CachePool,
    sequences: BTreeMap<(PeerId, u64), Sequence>,
}

#[derive(Debug)]
struct Sequence {
    cache: Cache,
    used: Instant,
}

impl InferenceServer {
    /// Serves the states of a stage that are among the blobs, with a thread for each of the cores. None for a model that every peer holds as a whole.
    pub fn new(run: RunId, stage: u16, workload: Arc<Workload>, blobs: Blobs, cores: Cores) -> Option<Self> {
        workload.shape(stage)?;
        let (calls, models) = (Semaphore::new(CALLS_MAX), Mutex::default());
        Some(Self { shared: Arc::new(Shared { run, stage, workload, blobs, cores, calls, models }) })
    }

    /// Answers calls until the connection ends.
    pub(crate) async fn serve(self, connection: Connection, rates: &Rates) {
        let consumer = PeerId(*connection.remote_id().as_bytes());
        // Whoever ends this task ends its calls.
        let mut under_way = JoinSet::new();
        while let Ok((answers, calls)) = connection.accept_bi().await {
            while under_way.try_join_next().is_some() {}
            let (server, rates) = (self.clone(), rates.clone());
            under_way.spawn(async move {
                if let Err(error) = server.take_call(consumer, calls, answers, &rates).await {
                    tracing::debug!(consumer = ?consumer, %error, "a call was not answered");
                }
            });
        }
    }

    async fn take_call(
        &self,
        from: PeerId,
        mut call: RecvStream,
        mut answer: SendStream,
        rates: &Rates,
    ) -> Result<(), FrameError> {
        let (up, down) = (rates.up_to(&from), rates.down_from(&from));
        // Calls beyond the limit wait unread, which QUIC's flow control bounds.
        let _place = self.shared.calls.acquire().await.map_err(|error| FrameError::Connection(error.to_string()))?;
        let read = tokio::time::timeout(CALL_TIME, read_frame_at::<InferenceCall>(&mut call, down));
        let call = match read.await.map_err(|_| FrameError::TimeOut)? {
            Ok(call) => call,
            Err(error @ FrameError::Decode(_)) => {
                tracing::debug!(consumer = ?from, %error, "a call that is none");
                return write_frame_at(&mut answer, &InferenceAnswer::Refused(InferenceRefusal::BadInput), up).await;
            }
            Err(error) => return Err(error),
        };
        self.shared.cores.ready().await;
        let shared = self.shared.clone();
        let answered = tokio::task::spawn_blocking(move || shared.answer(from, &call)).await;
        let answered = answered.unwrap_or(InferenceAnswer::Refused(InferenceRefusal::Failed));
        let write = tokio::time::timeout(CALL_TIME, write_frame_at(&mut answer, &answered, up));
        write.await.map_err(|_| FrameError::TimeOut)?
    }

    /// What the stage makes of a call.
    #[cfg(test)]
    pub(super) fn answer(&self, from: PeerId, call: &InferenceCall) -> InferenceAnswer {
        self.shared.answer(from, call)
    }
}

impl Shared {
    fn answer(&self, from: PeerId, call: &InferenceCall) -> InferenceAnswer {
        if (call.run, call.stage) != (self.run, self.stage) {
            return InferenceAnswer::Refused(InferenceRefusal::WrongStage);
        }
        // A computation that panicked has its sequences outside of the map: they are unknown then, which is true.
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        for ready in &mut models.ready {
            call.ended.iter().for_each(|sequence| drop(ready.sequences.remove(&(from, *sequence))));
            ready.sequences.retain(|_, sequence| sequence.used.elapsed() < IDLE_MAX);
        }
        if call.feeds.is_empty() {
            return InferenceAnswer::Fed(Vec::new());
        }
        match self.ready(&mut models, call.state).and_then(|ready| ready.feed(from, &call.feeds, &call.input)) {
            Ok(output) => InferenceAnswer::Fed(output),
            Err(refusal) => InferenceAnswer::Refused(refusal),
        }
    }

    /// The state that a call names, made ready if it is held.
    fn ready<'a>(&self, models: &'a mut Models, state: Hash) -> Result<&'a mut Ready, InferenceRefusal> {
        if let Some(place) = models.ready.iter().position(|ready| ready.state == state) {
            let ready = models.ready.remove(place);
            models.ready.push(ready);
        } else {
            let ready = self.load(models, state)?;
            // Whose sequences are lost is fed again.
            if models.ready.len() == MODELS_MAX {
                let unused = models.ready.iter().position(|ready| ready.sequences.is_empty());
                models.ready.remove(unused.unwrap_or(0));
            }
            models.ready.push(ready);
        }
        models.ready.last_mut().ok_or(InferenceRefusal::Failed)
    }

    fn load(&self, models: &mut Models, state: Hash) -> Result<Ready, InferenceRefusal> {
        let unknown = |error: &dyn std::fmt::Display| {
            tracing::debug!(%error, "a state cannot be served");
            InferenceRefusal::UnknownState
        };
        let bytes = self.blobs.get(state).map_err(|error| unknown(&error))?;
        let parts = self.workload.parts();
        let read = ModelState::from_bytes(&bytes, parts, self.stage).map_err(|error| unknown(&error))?;
        let (ModelState::Stage(read), Some(shape)) = (read, parts.shape(self.stage)) else {
            return Err(InferenceRefusal::WrongStage);
        };
        let shared = models.parts.get_or_insert_with(|| shape.token_parts()).clone();
        let ctx = self.workload.recipe.context(self.cores.count());
        let inference = StageInference::new(ctx, shape, shared, &read).map_err(|error| unknown(&error))?;
        let pages = cache_pages(inference.pool(0).page_bytes(), self.workload.recipe.model.context);
        let pool = inference.pool(pages.saturating_mul(tensor::PAGE));
        Ok(Ready { state, inference, pool, sequences: BTreeMap::new() })
    }
}

/// Pages for the sequences of one state.
fn cache_pages(page_bytes: usize, context: usize) -> usize {
    (CACHE_BYTES / page_bytes.max(1)).max(CACHED_CONTEXTS * CachePool::pages_for(context) + 1)
}

/// What a server of a stage takes at most, in bytes; nothing until a consumer comes.
pub(crate) fn serving_bytes(workload: &Workload, stage: u16) -> u64 {
    let Some(shape) = workload.shape(stage) else { return 0 };
    let config = model::Config { layers: shape.stage().layers().len(), ..workload.recipe.model };
    let page_bytes = CachePool::new(&config, 0).page_bytes();
    let weights = shape.stage().layout().len() * size_of::<f32>();
    // While a state is made ready, its parameters are there twice.
    ((MODELS_MAX + 1) * weights + MODELS_MAX * cache_pages(page_bytes, config.context) * page_bytes) as u64
}

impl Ready {
    fn feed(&mut self, from: PeerId, feeds: &[SequenceFeed], input: &[u8]) -> Result<Vec<u8>, InferenceRefusal> {
        let known = |feed: &SequenceFeed| {
            let held = self.sequences.get(&(from, feed.sequence)).map_or(0, |sequence| sequence.cache.len());
            held >= feed.start as usize
        };
        if !feeds.iter().all(known) {
            return Err(InferenceRefusal::UnknownSequence);
        }
        let new = feeds.iter().filter(|feed| !self.sequences.contains_key(&(from, feed.sequence))).count();
        if self.sequences.len() + new > SEQUENCES_MAX {
            return Err(InferenceRefusal::Busy);
        }
        let taken = feeds.iter().map(|feed| {
            let known = self.sequences.remove(&(from, feed.sequence));
            let mut cache = known.map_or_else(|| self.pool.cache(), |sequence| sequence.cache);
            cache.truncate(feed.start as usize);
            cache
        });
        let mut caches: Vec<Cache> = taken.collect();
        let mut rows: Vec<InferenceFeed<'_>> =
            caches.iter_mut().zip(feeds).map(|(cache, feed)| InferenceFeed { cache, tokens: &feed.tokens }).collect();
        let fed = self.inference.feed(&mut rows, input);
        let used = Instant::now();
        for (feed, cache) in feeds.iter().zip(caches) {
            self.sequences.insert((from, feed.sequence), Sequence { cache, used });
        }
        fed.map_err(|error| match error {
            InferenceError::Decode(DecodeError::PoolFull { .. }) => InferenceRefusal::Busy,
            error => {
                tracing::debug!(%error, "a consumer sent what cannot be fed");
                InferenceRefusal::BadInput
            }
        })
    }
}

//! The thread that decodes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use model::{CachePool, Decoder};
use node::Checkpoint;
use tensor::Context;
use tokio::sync::{mpsc, watch};

use super::request::{self, Request, send};
use super::{Job, Piece};
use crate::error::ApiError;

/// Requests that are decoded in turns at a time.
const ACTIVE_MAX: usize = 16;

/// Memory for the keys and values of one model's requests in bytes; more when a single sequence of the model may need it.
const CACHE_BYTES: usize = 1 << 30;

pub(super) struct Worker {
    jobs: mpsc::Receiver<Job>,
    checkpoints: watch::Receiver<Option<Arc<Checkpoint>>>,
    running: watch::Receiver<bool>,
    active: Vec<Request>,
    /// The next one, when the active ones may need the memory that it needs.
    held: Option<Request>,
    /// One for each checkpoint in use; the last one stays for the next request.
    models: Vec<Model>,
    context: Context,
}

struct Model {
    checkpoint: Arc<Checkpoint>,
    decoder: Decoder,
    /// Where its requests keep their keys and values.
    pool: CachePool,
    /// Pages of the pool.
    pages: usize,
}

impl Model {
    fn new(checkpoint: Arc<Checkpoint>, decoder: Decoder) -> Self {
        let context = checkpoint.config.context;
        let page_bytes = CachePool::new(&checkpoint.config, 0).page_bytes();
        // One page more than the longest sequence, as a request may ask for.
        let pages = (CACHE_BYTES / page_bytes).max(CachePool::pages_for(context) + 1);
        let pool = CachePool::new(&checkpoint.config, pages.saturating_mul(tensor::PAGE));
        Self { checkpoint, decoder, pool, pages }
    }
}

impl Worker {
    pub(super) fn new(
        jobs: mpsc::Receiver<Job>,
        checkpoints: watch::Receiver<Option<Arc<Checkpoint>>>,
        running: watch::Receiver<bool>,
    ) -> Self {
        // Small models stay on one thread by themselves.
        let context = Context::new(node::probe::cores());
        Self { jobs, checkpoints, running, active: Vec::new(), held: None, models: Vec::new(), context }
    }

    /// Decodes until the scheduler is dropped, or the sender of `running` is.
    pub(super) fn run(mut self) {
        while self.running.has_changed().is_ok() && self.admit() {
            self.turn();
            self.active.retain(|request| !request.is_over());
            self.forget_models();
        }
    }

    /// Starts waiting requests up to the limit, and waits for one when there is nothing else to do. False at the end.
    fn admit(&mut self) -> bool {
        while self.active.len() < ACTIVE_MAX {
            let Some(request) = self.held.take().or_else(|| self.next()) else { return !self.active.is_empty() };
            if self.has_room(&request) {
                self.active.push(request);
            } else {
                self.held = Some(request);
                return true;
            }
        }
        true
    }

    /// The next request that can be started. When none is active, it waits for one.
    fn next(&mut self) -> Option<Request> {
        loop {
            let job = if self.active.is_empty() { self.jobs.blocking_recv() } else { self.jobs.try_recv().ok() }?;
            let pieces = job.pieces.clone();
            // A fault of ours in one request must not end the others.
            match catch_unwind(AssertUnwindSafe(|| self.start(job))) {
                Ok(Ok(request)) => return Some(request),
                Ok(Err(error)) => send(&pieces, Piece::Failed(error)),
                Err(_) => send(&pieces, Piece::Failed(ApiError::internal())),
            }
        }
    }

    /// Whether the memory suffices for the longest answers of all, so that none has to be broken off.
    fn has_room(&self, request: &Request) -> bool {
        let same = |other: &&Request| Arc::ptr_eq(other.checkpoint(), request.checkpoint());
        let taken: usize = self.active.iter().filter(same).map(Request::pages).sum();
        let pages = self.models.iter().find(|model| Arc::ptr_eq(&model.checkpoint, request.checkpoint()));
        taken == 0 || pages.is_some_and(|model| taken + request.pages() <= model.pages)
    }

    fn start(&mut self, job: Job) -> Result<Request, ApiError> {
        let newest = || self.checkpoints.borrow().clone().ok_or_else(ApiError::no_checkpoint);
        let checkpoint = job.model.clone().map_or_else(newest, Ok)?;
        if !self.models.iter().any(|model| Arc::ptr_eq(&model.checkpoint, &checkpoint)) {
            let decoder = checkpoint.decoder().map_err(|error| {
                tracing::error!(%error, round = checkpoint.round, "the checkpoint cannot be decoded");
                ApiError::internal()
            })?;
            self.models.push(Model::new(Arc::clone(&checkpoint), decoder));
        }
        let model = self.models.iter().find(|model| Arc::ptr_eq(&model.checkpoint, &checkpoint));
        let pool = model.expect("it was just made, if it was not there").pool.clone();
        Request::start(job, checkpoint, pool)
    }

    /// One turn of every request: those of one checkpoint go through the model together.
    fn turn(&mut self) {
        for Model { checkpoint, decoder, .. } in &mut self.models {
            let of_model = |request: &&mut Request| !request.is_over() && Arc::ptr_eq(request.checkpoint(), checkpoint);
            let mut batch: Vec<&mut Request> = self.active.iter_mut().filter(of_model).collect();
            if batch.is_empty() {
                continue;
            }
            let result = catch_unwind(AssertUnwindSafe(|| request::turn(&self.context, decoder, &mut batch)));
            if let Ok(Ok(())) = result {
                continue;
            }
            match result {
                Ok(Err(error)) => tracing::error!(%error, round = checkpoint.round, "decoding failed"),
                _ => tracing::error!(round = checkpoint.round, "decoding panicked"),
            }
            batch.into_iter().for_each(|request| request.fail(ApiError::internal()));
        }
    }

    fn forget_models(&mut self) {
        // One that comes with its decoder costs nothing to take again, and must not be kept from making room.
        let kept = self.models.iter().rev().find(|model| model.checkpoint.decoder.is_none());
        let newest = kept.map(|model| Arc::clone(&model.checkpoint));
        self.models.retain(|model| {
            let same = |checkpoint: &Arc<Checkpoint>| Arc::ptr_eq(checkpoint, &model.checkpoint);
            newest.as_ref().is_some_and(same)
                || self.active.iter().chain(&self.held).any(|request| same(request.checkpoint()))
        });
    }
}

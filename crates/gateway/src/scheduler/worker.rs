//! The thread that decodes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use model::Decoder;
use node::Checkpoint;
use tensor::Context;
use tokio::sync::{mpsc, watch};

use super::request::{self, Request, send};
use super::{Job, Piece};
use crate::error::ApiError;

/// Requests that are decoded in turns at a time; each has a key-value cache.
const ACTIVE_MAX: usize = 8;

pub(super) struct Worker {
    jobs: mpsc::Receiver<Job>,
    checkpoints: watch::Receiver<Option<Arc<Checkpoint>>>,
    running: watch::Receiver<bool>,
    active: Vec<Request>,
    /// One for each checkpoint in use; the last one stays for the next request.
    models: Vec<Model>,
    context: Context,
}

struct Model {
    checkpoint: Arc<Checkpoint>,
    decoder: Decoder,
}

impl Worker {
    pub(super) fn new(
        jobs: mpsc::Receiver<Job>,
        checkpoints: watch::Receiver<Option<Arc<Checkpoint>>>,
        running: watch::Receiver<bool>,
    ) -> Self {
        Self { jobs, checkpoints, running, active: Vec::new(), models: Vec::new(), context: Context::single() }
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
            let job = if self.active.is_empty() { self.jobs.blocking_recv() } else { self.jobs.try_recv().ok() };
            let Some(job) = job else { return !self.active.is_empty() };
            let pieces = job.pieces.clone();
            // A fault of ours in one request must not end the others.
            match catch_unwind(AssertUnwindSafe(|| self.start(job))) {
                Ok(Ok(request)) => self.active.push(request),
                Ok(Err(error)) => send(&pieces, Piece::Failed(error)),
                Err(_) => send(&pieces, Piece::Failed(ApiError::internal())),
            }
        }
        true
    }

    fn start(&mut self, job: Job) -> Result<Request, ApiError> {
        let newest = || self.checkpoints.borrow().clone().ok_or_else(ApiError::no_checkpoint);
        let checkpoint = job.model.clone().map_or_else(newest, Ok)?;
        if !self.models.iter().any(|model| Arc::ptr_eq(&model.checkpoint, &checkpoint)) {
            let decoder = checkpoint.decoder().map_err(|error| {
                tracing::error!(%error, round = checkpoint.round, "the checkpoint cannot be decoded");
                ApiError::internal()
            })?;
            self.models.push(Model { checkpoint: Arc::clone(&checkpoint), decoder });
        }
        Request::start(job, checkpoint)
    }

    /// One turn of every request: those of one checkpoint go through the model together.
    fn turn(&mut self) {
        for Model { checkpoint, decoder } in &mut self.models {
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
            newest.as_ref().is_some_and(same) || self.active.iter().any(|request| same(request.checkpoint()))
        });
    }
}

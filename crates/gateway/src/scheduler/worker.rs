//! The thread that decodes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use node::{Checkpoint, Weights};
use tensor::Context;
use tokio::sync::{mpsc, watch};

use super::engine::{Engine, EngineError};
use super::request::{self, Request, send};
use super::{Job, Piece};
use crate::error::ApiError;

/// Requests that are decoded in turns at a time.
const ACTIVE_MAX: usize = 16;

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
    engine: Engine,
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
        let model = self.models.iter().find(|model| Arc::ptr_eq(&model.checkpoint, request.checkpoint()));
        let pages = model.and_then(|model| model.engine.pages());
        taken == 0 || pages.is_none_or(|pages| taken + request.pages() <= pages)
    }

    fn start(&mut self, job: Job) -> Result<Request, ApiError> {
        let newest = || self.checkpoints.borrow().clone().ok_or_else(ApiError::no_checkpoint);
        let checkpoint = job.model.clone().map_or_else(newest, Ok)?;
        if !self.models.iter().any(|model| Arc::ptr_eq(&model.checkpoint, &checkpoint)) {
            let engine = Engine::new(&checkpoint).map_err(|error| {
                tracing::error!(%error, round = checkpoint.round, "the checkpoint cannot be decoded");
                ApiError::internal()
            })?;
            self.models.push(Model { checkpoint: Arc::clone(&checkpoint), engine });
        }
        let model = self.models.iter().find(|model| Arc::ptr_eq(&model.checkpoint, &checkpoint));
        let sequences = model.expect("it was just made, if it was not there").engine.sequences();
        Request::start(job, checkpoint, sequences)
    }

    /// One turn of every request: those of one checkpoint go through the model together.
    fn turn(&mut self) {
        for Model { checkpoint, engine } in &mut self.models {
            let of_model = |request: &&mut Request| !request.is_over() && Arc::ptr_eq(request.checkpoint(), checkpoint);
            let mut batch: Vec<&mut Request> = self.active.iter_mut().filter(of_model).collect();
            if batch.is_empty() {
                continue;
            }
            let result = catch_unwind(AssertUnwindSafe(|| request::turn(&self.context, engine, &mut batch)));
            if let Ok(Ok(())) = result {
                continue;
            }
            let answer = match result {
                Ok(Err(EngineError::Stages(error))) => {
                    tracing::warn!(%error, round = checkpoint.round, "the stages of the model do not answer");
                    ApiError::stages()
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, round = checkpoint.round, "decoding failed");
                    ApiError::internal()
                }
                _ => {
                    tracing::error!(round = checkpoint.round, "decoding panicked");
                    ApiError::internal()
                }
            };
            batch.into_iter().for_each(|request| request.fail(answer.clone()));
        }
    }

    fn forget_models(&mut self) {
        // One that comes with its decoder costs nothing to take again, and must not be kept from making room.
        let kept = self.models.iter().rev().find(|model| matches!(model.checkpoint.weights, Weights::Values(_)));
        let newest = kept.map(|model| Arc::clone(&model.checkpoint));
        self.models.retain(|model| {
            let same = |checkpoint: &Arc<Checkpoint>| Arc::ptr_eq(checkpoint, &model.checkpoint);
            newest.as_ref().is_some_and(same)
                || self.active.iter().chain(&self.held).any(|request| same(request.checkpoint()))
        });
    }
}

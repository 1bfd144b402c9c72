//! Runs a peer's jobs: from the protocol's hashes to tensors and back.
//!
//! Every job reads what is stored, computes on one core with one thread, stores its result durably, and only then reports
//! it. A result that is stored already is reported without computing again, so a job may be asked any number of times.
//!
//! What is stored, and in which order (a crash between two steps leaves the point of before):
//! - `Work`: the payload as a blob, the residual after it as a file, then the pending work in the database;
//! - `OuterStep`, `LoadState`: the state as a blob, the residual as a file, then the new point in the database.
//!
//! Jobs of one peer run one after the other. A cancelled unit stops at its next inner step. With several stages a round has many small
//! tasks instead of `Work`, each a pass of one micro-batch, whose sum is in memory only, and `Contribute` makes the payload of it.

mod machine;
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use swarm::{Job, JobId, JobResult, ModelPoint};
use tokio::sync::{Mutex, mpsc};

use crate::blobs::Blobs;
use crate::member::Failure;
use crate::store::{Store, StoreError};
use crate::time::TimeBook;
use crate::workload::{Cores, Workload};
use machine::{Machine, Ran};

/// What a finished job says beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
}

/// A job that ended.
#[derive(Debug)]
pub struct Done {
    /// The job.
    pub job: JobId,
    /// What came of it.
    pub result: JobResult,
    /// What it cost.
    pub effort: Effort,
    /// What people are told when it failed.
    pub failure: Option<Failure>,
}

/// What the executor works with.
#[derive(Clone, Debug)]
pub struct Means {
    /// The recipe and the corpus.
    pub workload: Arc<Workload>,
    /// The peer's stage.
    pub stage: u16,
    /// The cores.
    pub cores: Cores,
    /// The peer's database and residuals.
    pub store: Arc<Store>,
    /// The peer's blobs.
    pub blobs: Blobs,
    /// The account of the peer's time.
    pub time: TimeBook,
}

/// Runs the jobs of one peer.
#[derive(Debug)]
pub struct Executor {
    machine: Arc<Mutex<Machine>>,
    current: Option<(JobId, Arc<AtomicBool>, tokio::task::JoinHandle<()>)>,
    done: mpsc::Sender<Done>,
}

impl Executor {
    /// Makes an executor from what is stored. Results go to `done`. Gives the stored model, when it is whole: one whose
    /// state is missing or damaged is left to the protocol, which gets it from others.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub fn restore(means: Means, done: mpsc::Sender<Done>) -> Result<(Self, Option<ModelPoint>), StoreError> {
        let mut machine = Machine::new(means);
        let model = machine.restore()?;
        Ok((Self { machine: Arc::new(Mutex::new(machine)), current: None, done }, model))
    }

    /// Starts a job; it waits until the one before is out of the way.
    pub fn start(&mut self, job: JobId, work: Job) {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (machine, done, flag) = (self.machine.clone(), self.done.clone(), cancelled.clone());
        let task = tokio::spawn(async move {
            let Ran { result, effort, failure } = machine.lock().await.run(work, flag).await;
            // The receiver is gone only when the peer is.
            let _ = done.send(Done { job, result, effort, failure }).await;
        });
        self.current = Some((job, cancelled, task));
    }

    /// Gives a job up at its next inner step.
    pub fn cancel(&self, job: JobId) {
        if let Some((current, cancelled, _)) = &self.current
            && *current == job
        {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Gives the current job up and waits until it is out of the way.
    pub async fn stop(&mut self) {
        if let Some((_, cancelled, task)) = self.current.take() {
            cancelled.store(true, Ordering::Relaxed);
            // A job that panicked has stopped, too.
            let _ = task.await;
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some((_, cancelled, _)) = &self.current {
            cancelled.store(true, Ordering::Relaxed);
        }
    }
}

//! Models that others trained: read when they are first asked for, and forgotten when others need the memory.
//!
//! The memory that may be used is fixed at the start. A model that is asked for takes the place of those that were not used for the
//! longest time; one that answers at the moment is never taken away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{Checkpoint, Manifest, Models, ModelsError};
use tokio::sync::Mutex;

use crate::error::ApiError;

/// How long a request waits for other models' answers to end. One that has just ended is let go at the next turn of the thread that decodes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// The imported models, and those of them that are ready.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    models: Models,
    memory_bytes: u64,
    /// The one that was used last is last.
    ready: Arc<Mutex<Vec<Ready>>>,
}

#[derive(Debug)]
struct Ready {
    checkpoint: Arc<Checkpoint>,
    hash: String,
    bytes: u64,
}

impl Imported {
    /// Those of a data directory; `memory_bytes` is what they may take together.
    pub(crate) fn new(models: Models, memory_bytes: u64) -> Self {
        Self { models, memory_bytes, ready: Arc::default() }
    }

    /// All imported models, by name. None when the directory cannot be read, which is logged.
    pub(crate) async fn list(&self) -> Vec<Manifest> {
        let models = self.models.clone();
        match tokio::task::spawn_blocking(move || models.list()).await {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the imported models cannot be listed");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// The model with this name, or the only one whose name begins with it; none when there is no such model.
    ///
    /// # Errors
    /// Several begin with it, or it is damaged.
    pub(crate) async fn find(&self, wanted: &str) -> Result<Option<Manifest>, ApiError> {
        let (models, wanted) = (self.models.clone(), wanted.to_owned());
        let found =
            tokio::task::spawn_blocking(move || models.find(&wanted)).await.map_err(|_| ApiError::internal())?;
        match found {
            Ok(manifest) => Ok(Some(manifest)),
            Err(ModelsError::Unknown { .. }) => Ok(None),
            Err(error) => Err(ApiError::unusable_model(&error)),
        }
    }

    /// The model, ready to decode; read now when it is not. A request that is given up meanwhile does not stop the reading.
    ///
    /// # Errors
    /// It does not fit into the memory, or it was damaged.
    pub(crate) async fn ready(&self, manifest: Manifest) -> Result<Arc<Checkpoint>, ApiError> {
        let needed = manifest.memory_bytes();
        if needed > self.memory_bytes {
            return Err(ApiError::model_too_large(&manifest.name, needed, self.memory_bytes));
        }
        let deadline = Instant::now() + PATIENCE;
        let mut ready = loop {
            let mut ready = Arc::clone(&self.ready).lock_owned().await;
            if let Some(checkpoint) = known(&mut ready, &manifest) {
                return Ok(checkpoint);
            }
            if make_room(&mut ready, self.memory_bytes - needed) {
                break ready;
            }
            drop(ready);
            if Instant::now() >= deadline {
                return Err(ApiError::overloaded("models in use"));
            }
            tokio::time::sleep(LOOK).await;
        };
        let models = self.models.clone();
        let read = tokio::task::spawn_blocking(move || {
            tracing::info!(model = manifest.name, "reading an imported model");
            let checkpoint = Arc::new(read(&models, &manifest)?);
            let bytes = manifest.kept_bytes();
            ready.push(Ready { checkpoint: Arc::clone(&checkpoint), hash: manifest.blake3, bytes });
            Ok(checkpoint)
        });
        read.await.map_err(|_| ApiError::internal())?
    }
}

/// The model, if it is ready; it then counts as the one that was used last.
fn known(ready: &mut Vec<Ready>, manifest: &Manifest) -> Option<Arc<Checkpoint>> {
    // One of that name that was imported anew since is another model.
    ready.retain(|model| model.checkpoint.name != manifest.name || model.hash == manifest.blake3);
    let at = ready.iter().position(|model| model.checkpoint.name == manifest.name)?;
    let model = ready.remove(at);
    let checkpoint = Arc::clone(&model.checkpoint);
    ready.push(model);
    Some(checkpoint)
}

/// Forgets models that do not answer at the moment, the longest unused first, until no more than `bytes` are taken. False when those that answer
/// take more.
fn make_room(ready: &mut Vec<Ready>, bytes: u64) -> bool {
    while ready.iter().map(|model| model.bytes).sum::<u64>() > bytes {
        let idle = ready.iter().position(|model| Arc::strong_count(&model.checkpoint) == 1);
        let Some(idle) = idle else { return false };
        let forgotten = ready.remove(idle);
        tracing::info!(model = forgotten.checkpoint.name, "an imported model makes room");
    }
    true
}

fn read(models: &Models, manifest: &Manifest) -> Result<Checkpoint, ApiError> {
    let model = models.open_decoder(manifest).map_err(|error| ApiError::unusable_model(&error))?;
    let hash = manifest.blake3.parse().map_err(|_| ApiError::internal())?;
    Ok(Checkpoint::pretrained(manifest.name.clone(), hash, model))
}

//! What the gateway needs from the process that it is part of.

use std::fmt;
use std::sync::Arc;

use node::view::{NetEvent, NetState, PauseView, RunLine};
use node::{Checkpoint, Models};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

/// Checks the bytes of a piece.
pub type Verify = Arc<dyn Fn(&[u8]) -> Result<Value, Refused> + Send + Sync>;

/// Carries out what people ask of this machine's peers, and gives why they pause then, if they do.
pub type Control = Arc<dyn Fn(Asked) -> Option<PauseView> + Send + Sync>;

/// What people ask of this machine's peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To pause.
    Pause,
    /// To go on.
    Resume,
    /// To end, as Ctrl-C does.
    Stop,
}

/// Everything that the routes read, and the one thing that they may change. Cheap to clone.
#[derive(Clone)]
pub struct GatewayState {
    /// The whole state of the network as of now; must return quickly.
    pub net: Arc<dyn Fn() -> NetState + Send + Sync>,
    /// Changes of that state. Its capacity bounds how far a listener may fall behind before it is disconnected.
    pub events: broadcast::Sender<NetEvent>,
    /// The newest model that may be served, or none yet.
    pub checkpoints: watch::Receiver<Option<Arc<Checkpoint>>>,
    /// Models that others trained.
    pub models: Models,
    /// Memory that those may take together, in bytes.
    pub models_memory_bytes: u64,
    /// The runs of the data directory; may read the disk.
    pub runs: Arc<dyn Fn() -> Result<Vec<RunLine>, NoRuns> + Send + Sync>,
    /// This user's piece as JSON; may read the disk.
    pub piece: Arc<dyn Fn() -> Result<Value, NoPiece> + Send + Sync>,
    /// Checks the bytes of a piece and returns what it proves; may take a while.
    pub verify: Verify,
    /// Does what people ask of this machine's peers; none when it takes part in no run.
    pub control: Option<Control>,
}

impl fmt::Debug for GatewayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayState").field("checkpoint", &*self.checkpoints.borrow()).finish_non_exhaustive()
    }
}

/// There is no piece to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoPiece {
    /// Why, as a lower-case fragment.
    pub reason: String,
}

/// The runs cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoRuns {
    /// Why, as a lower-case fragment.
    pub reason: String,
    /// What a person can do.
    pub hint: String,
}

/// Why a posted piece proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are not a piece at all.
    #[error("{reason}")]
    Malformed {
        /// Why, as a lower-case fragment.
        reason: String,
    },
    /// It is a piece, and a signature, proof or root in it is wrong.
    #[error("{reason}")]
    Invalid {
        /// Why, as a lower-case fragment.
        reason: String,
    },
}

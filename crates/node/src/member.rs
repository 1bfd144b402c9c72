//! A peer of a local cluster: a task of this process, or a process of its own.

use std::net::SocketAddr;

use tokio::sync::watch;
use wire::PeerId;

use crate::child::ChildHandle;
use crate::peer::{NodeError, NodeHandle};
use crate::status::PeerStatus;

/// A peer of a local cluster.
#[derive(Debug)]
pub enum Member {
    /// A task of this process.
    Task(NodeHandle),
    /// A process of its own.
    Process(ChildHandle),
}

impl Member {
    /// The peer's id.
    pub fn id(&self) -> PeerId {
        match self {
            Self::Task(node) => node.id(),
            Self::Process(child) => child.id(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Task(node) => node.address(),
            Self::Process(child) => child.address(),
        }
    }

    /// Its newest status, and a way to wait for the next.
    pub fn status(&self) -> watch::Receiver<PeerStatus> {
        match self {
            Self::Task(node) => node.status(),
            Self::Process(child) => child.status(),
        }
    }

    /// Why it ended, once it has.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        match self {
            Self::Task(node) => node.ended(),
            Self::Process(child) => child.ended(),
        }
    }

    /// Tells it where others listen.
    pub async fn introduce(&self, peers: Vec<(PeerId, SocketAddr)>) {
        match self {
            Self::Task(node) => node.introduce(peers).await,
            Self::Process(child) => child.introduce(peers).await,
        }
    }

    /// Pauses it, or lets it go on. It serves on meanwhile, and nobody waits for it.
    pub async fn set_paused(&self, paused: bool) {
        match self {
            Self::Task(node) => node.set_paused(paused).await,
            Self::Process(child) => child.set_paused(paused).await,
        }
    }

    /// Tells it that the process of another peer ended.
    pub async fn note_end(&self, peer: PeerId) {
        match self {
            Self::Task(node) => node.note_end(peer).await,
            Self::Process(child) => child.note_end(peer).await,
        }
    }

    /// The piece of a peer, as of this peer's ledger.
    pub async fn piece(&self, peer: PeerId) -> Option<ledger::Piece> {
        match self {
            Self::Task(node) => node.piece(peer).await,
            Self::Process(child) => child.piece(peer).await,
        }
    }

    /// Stops it for good: the others are told, where it is a task of this process.
    pub async fn leave(&self) {
        match self {
            Self::Task(node) => node.leave().await,
            Self::Process(child) => child.shutdown().await,
        }
    }

    /// Stops it as if it paused.
    pub async fn shutdown(&self) {
        match self {
            Self::Task(node) => node.shutdown().await,
            Self::Process(child) => child.shutdown().await,
        }
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&self) {
        match self {
            Self::Task(node) => node.kill(),
            Self::Process(child) => child.kill(),
        }
    }
}

/// What kind of thing went wrong: each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Something that should not happen.
    Unexpected,
    /// A corpus or recipe that cannot be used.
    BadInput,
    /// Another process uses the directory.
    InUse,
    /// A stored file is damaged, or belongs to another run, peer or version.
    CorruptData,
    /// The disk is full, or refuses.
    Storage,
    /// The network cannot be used.
    Network,
    /// Peers computed different states.
    Divergence,
    /// A peer took more memory than it may.
    OverMemory,
}

/// How a peer ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ended {
    /// Why, when it was not asked to.
    pub failure: Option<Failure>,
    /// Whether it was killed from outside, and said nothing.
    pub killed: bool,
}

/// What went wrong, for people, and for whoever chooses an exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// A lower-case fragment.
    pub message: String,
    /// What a person can do.
    pub hint: String,
}

impl From<&NodeError> for Failure {
    fn from(error: &NodeError) -> Self {
        Self { kind: error.kind(), message: error.to_string(), hint: error.hint() }
    }
}

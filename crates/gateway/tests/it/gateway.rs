//! A server for one test, on a port of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use gateway::{Asked, Control, GatewayState, NoPiece, NoRuns, Options, Refused, Server};
use node::view::{NetEvent, NetState, PauseView};
use node::{Checkpoint, Models};
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;

/// A running server and the other end of everything that it reads.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) net: Arc<Mutex<NetState>>,
    pub(crate) events: broadcast::Sender<NetEvent>,
    pub(crate) checkpoints: watch::Sender<Option<Arc<Checkpoint>>>,
    /// What was asked of the peers.
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Gateway {
    /// Starts a server that has no checkpoint yet.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts a server with this checkpoint.
    pub(crate) async fn start_with(checkpoint: Option<Arc<Checkpoint>>) -> Self {
        Self::start_in(Path::new("/nowhere/at/all"), u64::MAX, checkpoint).await
    }

    /// Starts a server over the imported models of a data directory.
    pub(crate) async fn start_in(home: &Path, memory_bytes: u64, checkpoint: Option<Arc<Checkpoint>>) -> Self {
        Self::begin(home, memory_bytes, checkpoint, true).await
    }

    /// Starts a server of a program that takes part in no run.
    pub(crate) async fn start_without_peers() -> Self {
        Self::begin(Path::new("/nowhere/at/all"), u64::MAX, None, false).await
    }

    async fn begin(home: &Path, memory_bytes: u64, checkpoint: Option<Arc<Checkpoint>>, has_peers: bool) -> Self {
        let net = Arc::new(Mutex::new(NetState { version: "test".into(), ..NetState::default() }));
        let events = broadcast::channel(16).0;
        let (checkpoints, newest) = watch::channel(checkpoint);
        let shown = Arc::clone(&net);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let control: Control = Arc::new(move |wanted| {
            heard.lock().unwrap().push(wanted);
            (wanted == Asked::Pause).then_some(PauseView::Person)
        });
        let state = GatewayState {
            net: Arc::new(move || shown.lock().unwrap().clone()),
            events: events.clone(),
            checkpoints: newest,
            models: Models::new(home),
            models_memory_bytes: memory_bytes,
            runs: Arc::new({
                let home = home.to_owned();
                move || {
                    node::runs::list(&home).map_err(|error| NoRuns { reason: error.to_string(), hint: error.hint() })
                }
            }),
            piece: Arc::new(|| Err(NoPiece { reason: "no unit of this peer was paid yet".into() })),
            verify: Arc::new(verify),
            control: has_peers.then_some(control),
        };
        let server = Server::bind(any_port()).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            server.serve(state, stopped).await.unwrap();
        });
        Self { address, net, events, checkpoints, asked, stop: Some(stop), serving }
    }

    /// Tells the server to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.serving.await.unwrap();
    }
}

pub(crate) fn any_port() -> Options {
    Options { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), allowed_hosts: Vec::new() }
}

/// Takes any JSON for a piece, and believes the ones that say `{"sound": true}`.
fn verify(bytes: &[u8]) -> Result<Value, Refused> {
    let piece: Value = serde_json::from_slice(bytes).map_err(|e| Refused::Malformed { reason: e.to_string() })?;
    match piece["sound"].as_bool() {
        Some(true) => Ok(json!({"shares": 7})),
        _ => Err(Refused::Invalid { reason: "the signature is wrong".into() }),
    }
}

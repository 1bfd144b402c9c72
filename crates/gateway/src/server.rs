//! Binds the address, routes requests, and ends without cutting answers short.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::error::ApiError;
use crate::imported::Imported;
use crate::openai::now_seconds;
use crate::scheduler::Scheduler;
use crate::state::GatewayState;
use crate::{assets, guard, net, openai};

/// The port when none is given.
pub const PORT: u16 = 7070;

/// How long answers that are under way may take to end once the server is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Where to listen, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address; loopback unless the user says otherwise. Port 0 takes any free one.
    pub address: SocketAddr,
    /// Names besides `localhost` under which browsers may reach the server, when it is put behind one.
    pub allowed_hosts: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), allowed_hosts: Vec::new() }
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("port `{port}` is already in use")]
    Busy {
        /// The port.
        port: u16,
    },
    /// The system does not allow it.
    #[error("this user may not listen on port `{port}`")]
    Denied {
        /// The port.
        port: u16,
    },
    /// The address is not one of this machine, or the system is out of resources.
    #[error("cannot listen on `{address}`: {source}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    /// The one thing to try.
    pub fn hint(&self) -> String {
        match self {
            Self::Busy { port } => {
                format!("choose another with `--port {}`, or stop the other program", neighbour(*port))
            }
            Self::Denied { .. } => format!("choose a port from 1024 on, such as `--port {PORT}`"),
            Self::Failed { .. } => "listen on this machine only: leave the address out".to_owned(),
        }
    }
}

fn neighbour(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(PORT)
}

/// The server stopped by itself.
#[derive(Debug, thiserror::Error)]
#[error("the server cannot go on: {source}")]
pub struct ServeError {
    /// What the system said.
    #[from]
    source: io::Error,
}

/// A server that is bound and not yet serving, so that its address can be shown first.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    allowed_hosts: Vec<String>,
}

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    /// The port is taken, forbidden, or the address is not this machine's.
    pub async fn bind(options: Options) -> Result<Self, BindError> {
        let Options { address, allowed_hosts } = options;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Busy { port: address.port() },
            io::ErrorKind::PermissionDenied => BindError::Denied { port: address.port() },
            _ => BindError::Failed { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, allowed_hosts })
    }

    /// The address with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes; then event streams end, and answers under way have two seconds to end.
    ///
    /// # Errors
    /// The system refuses to accept connections any more.
    pub async fn serve(
        self,
        state: GatewayState,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let (stop, stopped) = watch::channel(false);
        let app = App {
            scheduler: Scheduler::start(state.checkpoints.clone(), stopped.clone())?,
            imported: Imported::new(state.models.clone(), state.models_memory_bytes),
            started_seconds: now_seconds(),
            state,
            allowed_hosts: self.allowed_hosts.into(),
            listeners: net::listeners(),
            stopped: stopped.clone(),
        };
        let told = async move {
            shutdown.await;
            let _ = stop.send(true);
        };
        tokio::select! {
            served = axum::serve(self.listener, router(app)).with_graceful_shutdown(told).into_future() => served?,
            () = grace_over(stopped) => tracing::debug!("connections were still open at the end"),
        }
        Ok(())
    }
}

async fn grace_over(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which happens once serving is over.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    tokio::time::sleep(GRACE).await;
}

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) state: GatewayState,
    pub(crate) scheduler: Scheduler,
    pub(crate) imported: Imported,
    pub(crate) started_seconds: u64,
    pub(crate) allowed_hosts: Arc<[String]>,
    pub(crate) listeners: Arc<Semaphore>,
    pub(crate) stopped: watch::Receiver<bool>,
}

fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(net::health))
        .route("/net/state", get(net::state))
        .route("/net/events", get(net::events))
        .route("/runs", get(net::runs))
        .route("/net/pause", post(net::pause))
        .route("/net/resume", post(net::resume))
        .route("/net/stop", post(net::stop))
        .route("/piece", get(net::piece))
        .route("/verify", post(net::verify).layer(DefaultBodyLimit::max(net::PIECE_BYTES_MAX)))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::one_model))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/chat/completions", post(openai::chat))
        .layer(DefaultBodyLimit::max(openai::REQUEST_BYTES_MAX))
        .method_not_allowed_fallback(wrong_method)
        .fallback(page)
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

async fn page(request: Request) -> Response {
    assets::serve(request.method(), request.uri().path(), request.headers())
}

async fn wrong_method(request: Request) -> Response {
    ApiError::wrong_method(request.method(), request.uri().path()).into_response()
}

//! Health, the network's state and its changes, pieces and their verification.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Method, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use node::view::{NetEvent, NetState};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

use crate::assets;
use crate::error::ApiError;
use crate::server::App;
use crate::state::{Asked, Refused};

/// Most bytes of a posted piece; one receipt is under a kilobyte.
pub(crate) const PIECE_BYTES_MAX: usize = 16 << 20;

/// Most listeners of `GET /net/events` at a time.
pub(crate) const LISTENERS_MAX: usize = 64;

/// How often a silent stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// `GET /health`: also which checkpoint answers, and how many requests are under way.
pub(crate) async fn health(State(app): State<App>) -> Json<Value> {
    let checkpoint = app.state.checkpoints.borrow().clone();
    let model = checkpoint.map(
        |checkpoint| json!({"id": checkpoint.name, "round": checkpoint.round, "state_root": checkpoint.state_root}),
    );
    let requests = app.scheduler.requests();
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION"), "model": model, "requests": requests}))
}

/// `GET /net/state`.
pub(crate) async fn state(State(app): State<App>) -> Json<NetState> {
    Json((app.state.net)())
}

/// `GET /net/events`: first the whole state, then every change. A change may be in both, so listeners merge points by
/// their tokens and samples by their round. A listener that falls too far behind is disconnected, and starts again
/// with the whole state.
pub(crate) async fn events(State(app): State<App>) -> Result<Response, ApiError> {
    let permit = Arc::clone(&app.listeners).try_acquire_owned().map_err(|_| ApiError::overloaded("listeners"))?;
    let listener = Listener {
        changes: app.state.events.subscribe(),
        first: Some(Box::new((app.state.net)())),
        stopped: app.stopped.clone(),
        _permit: permit,
    };
    Ok(Sse::new(listener.into_stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

struct Listener {
    changes: broadcast::Receiver<NetEvent>,
    first: Option<Box<NetState>>,
    stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Listener {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut listener| async move {
            let event = listener.next().await?;
            Some((Ok(event), listener))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        if let Some(state) = self.first.take() {
            return named("state", &state);
        }
        let change = tokio::select! {
            change = self.changes.recv() => change,
            _ = self.stopped.wait_for(|stopped| *stopped) => return None,
        };
        match change {
            Ok(NetEvent::State(state)) => named("state", &state),
            Ok(NetEvent::Point(point)) => named("point", &point),
            Ok(NetEvent::Sample(sample)) => named("sample", &sample),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "a listener fell behind and is disconnected");
                None
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// An event with the JSON of a view, which has string keys only and so always serialises.
fn named(name: &'static str, data: &impl serde::Serialize) -> Option<Event> {
    Event::default().event(name).json_data(data).ok()
}

/// `POST /net/pause`: `{paused}`, why it pauses then.
pub(crate) async fn pause(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    control(&app, Asked::Pause)
}

/// `POST /net/resume`: `{paused}`, why it pauses on, or null.
pub(crate) async fn resume(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    control(&app, Asked::Resume)
}

/// `POST /net/stop`: ends the program as Ctrl-C does.
pub(crate) async fn stop(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    control(&app, Asked::Stop)
}

fn control(app: &App, asked: Asked) -> Result<Json<Value>, ApiError> {
    let control = app.state.control.as_ref().ok_or_else(ApiError::no_peers)?;
    Ok(Json(json!({"paused": control(asked)})))
}

/// A semaphore for the listeners.
pub(crate) fn listeners() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LISTENERS_MAX))
}

/// `GET /runs`: the runs of the data directory, the newest first; of the one that this process trains, as of now. A browser that opens the
/// address gets the page that shows them.
pub(crate) async fn runs(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/html") {
        return Ok(assets::serve(&Method::GET, "/runs", &headers));
    }
    let net = Arc::clone(&app.state.net);
    let listed = tokio::task::spawn_blocking(move || (app.state.runs)()).await.map_err(|_| ApiError::internal())?;
    let mut lines = listed.map_err(|error| ApiError::unreadable_runs(&error.reason, &error.hint))?;
    node::runs::note_running(&mut lines, &net());
    Ok(Json(json!({"runs": lines})).into_response())
}

/// `GET /piece`.
pub(crate) async fn piece(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let piece = tokio::task::spawn_blocking(move || (app.state.piece)()).await.map_err(|_| ApiError::internal())?;
    piece.map(Json).map_err(|none| ApiError::no_piece(&none.reason))
}

/// `POST /verify`: `{valid: true, summary}` or `{valid: false, reason}`.
pub(crate) async fn verify(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body = body.map_err(|rejection| ApiError::unreadable_body(&rejection, PIECE_BYTES_MAX))?;
    let checked = tokio::task::spawn_blocking(move || (app.state.verify)(&body)).await;
    match checked.map_err(|_| ApiError::internal())? {
        Ok(summary) => Ok(Json(json!({"valid": true, "summary": summary}))),
        Err(Refused::Invalid { reason }) => Ok(Json(json!({"valid": false, "reason": reason}))),
        Err(Refused::Malformed { reason }) => Err(ApiError::malformed_piece(&reason)),
    }
}

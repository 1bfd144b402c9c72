//! What the API says when it cannot answer: a status, and `{error: {type, code, message, hint, param}}`.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use node::ModelsError;
use serde::Serialize;

/// Whose move it is, in the words that clients of this API know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Kind {
    /// The request must change.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    /// The request is fine; come back later.
    #[serde(rename = "unavailable_error")]
    Unavailable,
    /// Our fault.
    #[serde(rename = "server_error")]
    Server,
}

/// An error that a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) body: ErrorBody,
    pub(crate) retry_after_seconds: Option<u32>,
}

/// The value of `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorBody {
    #[serde(rename = "type")]
    kind: Kind,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
}

/// The whole answer.
#[derive(Serialize)]
pub(crate) struct ErrorAnswer<'a> {
    pub(crate) error: &'a ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        let body = ErrorBody { kind, code, message: message.into(), hint: None, param: None };
        Self { status, body, retry_after_seconds: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// A field whose value cannot be used.
    pub(crate) fn parameter(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "invalid_value", message);
        error.body.param = Some(param.into());
        error
    }

    /// A conversation without text that a model could go on from.
    pub(crate) fn no_text() -> Self {
        Self::parameter("messages", "no message has text to continue")
    }

    /// A body that is not the JSON that the route takes.
    pub(crate) fn bad_json(error: &serde_json::Error) -> Self {
        let message = format!("the body is not a JSON object: {error}");
        Self::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "invalid_json", message)
            .hint("send a JSON object with `Content-Type: application/json`")
    }

    /// A body that could not be read, mostly because it is too large.
    pub(crate) fn unreadable_body(rejection: &BytesRejection, bytes_max: usize) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the body is larger than {bytes_max} bytes");
            return Self::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::InvalidRequest, "body_too_large", message)
                .hint("send less text");
        }
        Self::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "unreadable_body", "the body ended too early")
    }

    /// A path that does not exist.
    pub(crate) fn unknown_route(method: &Method, path: &str) -> Self {
        let message = format!("there is no `{method} {path}`");
        Self::new(StatusCode::NOT_FOUND, Kind::InvalidRequest, "unknown_route", message)
            .hint("the API is under `/v1`, the network under `/net`, the pages are at `/`")
    }

    /// A path that exists with another method.
    pub(crate) fn wrong_method(method: &Method, path: &str) -> Self {
        let message = format!("`{path}` does not take `{method}`");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Kind::InvalidRequest, "wrong_method", message)
    }

    /// A program that was built without its pages.
    pub(crate) fn no_pages() -> Self {
        Self::new(StatusCode::NOT_FOUND, Kind::Server, "no_pages", "this program was built without its pages")
            .hint("run `npm ci && npm run build` in `web/`, then build again")
    }

    /// A `Host` that a rebound name would send.
    pub(crate) fn foreign_host() -> Self {
        let message = "the `Host` header names neither this machine nor an allowed name";
        Self::new(StatusCode::FORBIDDEN, Kind::InvalidRequest, "foreign_host", message)
            .hint("use `http://127.0.0.1` with the port, or `localhost`")
    }

    /// A state-changing request that another site's page sent.
    pub(crate) fn foreign_origin() -> Self {
        let message = "pages of another origin may not send requests here";
        Self::new(StatusCode::FORBIDDEN, Kind::InvalidRequest, "foreign_origin", message)
            .hint("send the request from a program, or from the pages that this address serves")
    }

    /// Something is asked of peers, and there are none.
    pub(crate) fn no_peers() -> Self {
        Self::new(StatusCode::CONFLICT, Kind::InvalidRequest, "no_peers", "this program takes part in no run")
            .hint("`cairn up` and `cairn join` start peers; `cairn serve` has none")
    }

    /// Too many are connected or waiting.
    pub(crate) fn overloaded(what: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, Kind::Unavailable, "overloaded", format!("too many {what}"))
            .hint("try again in a moment")
            .retry_after(1)
    }

    /// A prompt that leaves no room for an answer.
    pub(crate) fn context_overflow(tokens: usize, context: usize) -> Self {
        let message = format!("the prompt has {tokens} tokens, and the model reads at most {context} with its answer");
        Self::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "context_length_exceeded", message)
            .hint("shorten the prompt")
    }

    /// A model that is not served here.
    pub(crate) fn unknown_model(served: &str) -> Self {
        let message = "this server does not have that model";
        let mut error = Self::new(StatusCode::NOT_FOUND, Kind::InvalidRequest, "model_not_found", message)
            .hint(format!("use `{served}`, or what `GET /v1/models` lists"));
        error.body.param = Some("model".to_owned());
        error
    }

    /// An imported model that needs more memory than may be used.
    pub(crate) fn model_too_large(name: &str, needed: u64, allowed: u64) -> Self {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let message = format!(
            "the model `{name}` needs up to {:.2} GB of memory, and {:.2} GB may be used",
            gigabytes(needed),
            gigabytes(allowed)
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Unavailable, "model_too_large", message)
            .hint("choose a smaller model, or end other programs and start `cairn` again")
    }

    /// An imported model that cannot be read, or a name that is not clear.
    pub(crate) fn unusable_model(error: &ModelsError) -> Self {
        let mut answer = match error {
            ModelsError::Ambiguous { .. } => {
                Self::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "model_ambiguous", error.to_string())
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Server, "model_unusable", error.to_string()),
        };
        answer.body.param = Some("model".to_owned());
        answer.hint(error.hint())
    }

    /// Nothing to serve yet.
    pub(crate) fn no_checkpoint() -> Self {
        let message = "no checkpoint of the model is committed yet";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Unavailable, "no_checkpoint", message)
            .hint("the first round commits one; try again in a few seconds")
            .retry_after(2)
    }

    /// The peers that hold the model's stages do not answer.
    pub(crate) fn stages() -> Self {
        let message = "the peers that hold the parts of this model do not answer";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Unavailable, "stages_unreachable", message)
            .hint("a part may be without peers for now; try again in a few seconds")
            .retry_after(5)
    }

    /// No piece, or none yet.
    pub(crate) fn no_piece(reason: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, Kind::Unavailable, "no_piece", reason)
            .hint("a piece exists once this peer was paid for a unit of work")
    }

    /// The data directory cannot be read.
    pub(crate) fn unreadable_runs(reason: &str, hint: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Server, "unreadable_runs", reason).hint(hint)
    }

    /// A posted piece that is none.
    pub(crate) fn malformed_piece(reason: &str) -> Self {
        let message = format!("this is not a piece: {reason}");
        Self::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "malformed_piece", message)
            .hint("post the JSON that `cairn piece --json` prints")
    }

    /// A bug of ours; the details are in the log.
    pub(crate) fn internal() -> Self {
        let message = "something went wrong inside the server";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Server, "internal_error", message)
            .hint("the log of `cairn` says more")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorAnswer { error: &self.body })).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

//! The OpenAI-compatible API: models, completions and chat completions.
//!
//! Source: the published API reference; checked with the official Python client. Deviations: the model is a base model,
//! so a chat is rendered as prose that the model continues (see [`request`]) and the oldest paragraphs of a chat make
//! room when the context is full; a prompt comes as text, not as tokens; `top_k`, `min_p` and `repetition_penalty` are
//! understood as well; `system_fingerprint` is the short root of the training state that answered.

mod answer;
mod request;
mod stream;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use node::Checkpoint;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::scheduler::{Answer, Finish, Logprob, Piece};
use crate::server::App;
pub(crate) use answer::now_seconds;
use answer::{Choice, Head, Object, Offset, Usage};
use request::Order;
use stream::Chunks;

/// Most bytes of a request.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Which of the two routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/v1/completions`.
    Text,
    /// `/v1/chat/completions`.
    Chat,
}

impl Form {
    fn whole(self) -> &'static str {
        match self {
            Self::Text => "text_completion",
            Self::Chat => "chat.completion",
        }
    }

    fn chunk(self) -> &'static str {
        match self {
            Self::Text => "text_completion",
            Self::Chat => "chat.completion.chunk",
        }
    }
}

impl Order {
    /// The prompt that answer `choice` repeats.
    fn echoed(&self, choice: usize) -> Option<String> {
        self.echo.then(|| self.ask.prompts[choice / self.ask.answers].joined())
    }
}

/// `GET /v1/models`: the one that is trained, once it has a checkpoint.
pub(crate) async fn models(State(app): State<App>) -> Json<Value> {
    let data: Vec<Value> = app.state.checkpoints.borrow().iter().map(|newest| model(newest, &app)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `GET /v1/models/{id}`.
pub(crate) async fn one_model(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let checkpoint = served(&app, Some(&id))?;
    Ok(Json(model(&checkpoint, &app)))
}

fn model(checkpoint: &Checkpoint, app: &App) -> Value {
    json!({
        "id": checkpoint.name,
        "object": "model",
        "created": app.started_seconds,
        "owned_by": "cairn",
        "round": checkpoint.round,
        "state_root": checkpoint.state_root,
        "parameters": checkpoint.params.len(),
        "context": checkpoint.config.context,
    })
}

/// The newest checkpoint, if the client wants that model.
fn served(app: &App, wanted: Option<&str>) -> Result<Arc<Checkpoint>, ApiError> {
    let newest = app.state.checkpoints.borrow().clone().ok_or_else(ApiError::no_checkpoint)?;
    match wanted {
        Some(name) if name != newest.name => Err(ApiError::unknown_model(&newest.name)),
        _ => Ok(newest),
    }
}

/// `POST /v1/completions`.
pub(crate) async fn completions(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    complete(Form::Text, &app, body).await
}

/// `POST /v1/chat/completions`.
pub(crate) async fn chat(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Result<Response, ApiError> {
    complete(Form::Chat, &app, body).await
}

async fn complete(form: Form, app: &App, body: Result<Bytes, BytesRejection>) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| ApiError::unreadable_body(&rejection, REQUEST_BYTES_MAX))?;
    let order = request::read(form, &body)?;
    let context = served(app, order.model.as_deref())?.config.context;
    let mut answer = app.scheduler.submit(order.ask.clone(), context)?;
    let (checkpoint, prompt_tokens) = match answer.next().await {
        Some(Piece::Started { checkpoint, prompt_tokens }) => (checkpoint, prompt_tokens),
        Some(Piece::Failed(error)) => return Err(error),
        _ => return Err(ApiError::internal()),
    };
    tracing::debug!(prompt_tokens, choices = order.ask.choices(), stream = order.stream, "answering");
    let head = Head::new(form, &checkpoint);
    let usage = Usage { prompt_tokens, total_tokens: prompt_tokens, completion_tokens: 0 };
    if order.stream {
        return Ok(Chunks::new(answer, head, order, usage).into_response());
    }
    let (choices, usage) = collect(answer, &order, usage).await?;
    Ok(Json(Object { head: &head, object: form.whole(), choices, usage: Some(Some(usage)) }).into_response())
}

/// An answer as far as it is decoded.
#[derive(Default)]
struct Part {
    text: String,
    tokens: Vec<Logprob>,
    finish: Option<Finish>,
}

async fn collect(mut answer: Answer, order: &Order, mut usage: Usage) -> Result<(Vec<Choice>, Usage), ApiError> {
    let mut parts: Vec<Part> = Vec::new();
    parts.resize_with(order.ask.choices(), Part::default);
    while parts.iter().any(|part| part.finish.is_none()) {
        match answer.next().await {
            Some(Piece::Text { choice, text, logprob }) => {
                parts[choice].text += &text.0;
                parts[choice].tokens.extend(logprob);
            }
            Some(Piece::Finished { choice, reason, tokens }) => {
                parts[choice].finish = Some(reason);
                usage.add(tokens);
            }
            Some(Piece::Failed(error)) => return Err(error),
            Some(Piece::Started { .. }) | None => return Err(ApiError::internal()),
        }
    }
    let choices = parts.into_iter().enumerate().map(|(index, part)| {
        let mut text = order.echoed(index).unwrap_or_default();
        let mut offset = Offset::after(&text);
        text += &part.text;
        let logprobs = order.ask.logprobs.map(|_| answer::logprobs(order.form, &part.tokens, &mut offset));
        Choice { logprobs, ..Choice::whole(order.form, index, text, part.finish) }
    });
    Ok((choices.collect(), usage))
}

//! The OpenAI-compatible API: models, completions and chat completions.
//!
//! Source: the published API reference; checked with the official Python client. Deviations: the model that is trained here is a base
//! model, so a chat is rendered as prose that it continues (see [`Prompt`](crate::scheduler::Prompt)) and the oldest paragraphs of a chat
//! make room when the context is full; an imported model with a chat template gets that, and a conversation that is too long is
//! refused. Imported models are known by the beginnings of their names too; a prompt comes as text, not as tokens; `top_k`, `min_p` and `repetition_penalty` are
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
use node::{Checkpoint, Manifest};
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

/// `GET /v1/models`: the one that is trained, once it has a checkpoint, and those that others trained.
pub(crate) async fn models(State(app): State<App>) -> Json<Value> {
    let newest = app.state.checkpoints.borrow().clone();
    let imported = app.imported.list().await;
    let hidden = |name: &str| newest.as_ref().is_some_and(|newest| newest.name == name);
    let imported = imported.iter().filter(|manifest| !hidden(&manifest.name)).map(imported_model);
    let data: Vec<Value> = newest.iter().map(|newest| model(newest, &app)).chain(imported).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `GET /v1/models/{id}`.
pub(crate) async fn one_model(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(match served(&app, Some(&id)).await? {
        Served::Trained(checkpoint) => model(&checkpoint, &app),
        Served::Imported(manifest) => imported_model(&manifest),
    }))
}

fn imported_model(manifest: &Manifest) -> Value {
    json!({
        "id": manifest.name,
        "object": "model",
        "created": manifest.imported_seconds,
        "owned_by": "imported",
        "imported": true,
        "chat": manifest.chat,
        "title": manifest.title,
        "licence": manifest.licence,
        "state_root": manifest.blake3,
        "parameters": manifest.parameters,
        "context": manifest.context,
    })
}

fn model(checkpoint: &Checkpoint, app: &App) -> Value {
    let mut model = json!({
        "id": checkpoint.name,
        "object": "model",
        "created": app.started_seconds,
        "owned_by": "cairn",
        "round": checkpoint.round,
        "state_root": checkpoint.state_root,
        "parameters": checkpoint.config.parameters(),
        "context": checkpoint.config.context,
    });
    if let Some(stages) = checkpoint.stages() {
        model["stages"] = stages.into();
    }
    model
}

/// A model that answers.
enum Served {
    /// The newest checkpoint of the one that is trained.
    Trained(Arc<Checkpoint>),
    /// One that others trained.
    Imported(Box<Manifest>),
}

/// The model that the client wants: the newest checkpoint when it names none, or the only imported model where nothing is trained.
async fn served(app: &App, wanted: Option<&str>) -> Result<Served, ApiError> {
    let newest = app.state.checkpoints.borrow().clone();
    match (wanted, newest) {
        (None, Some(newest)) => Ok(Served::Trained(newest)),
        (Some(name), Some(newest)) if name == newest.name => Ok(Served::Trained(newest)),
        (None, None) => match <[Manifest; 1]>::try_from(app.imported.list().await) {
            Ok([only]) => Ok(Served::Imported(Box::new(only))),
            Err(_) => Err(ApiError::no_checkpoint()),
        },
        (Some(name), newest) => match (app.imported.find(name).await?, newest) {
            (Some(manifest), _) => Ok(Served::Imported(Box::new(manifest))),
            (None, Some(newest)) => Err(ApiError::unknown_model(&newest.name)),
            (None, None) => match app.imported.list().await.first() {
                Some(first) => Err(ApiError::unknown_model(&first.name)),
                None => Err(ApiError::no_checkpoint()),
            },
        },
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
    let (context, imported) = match served(app, order.model.as_deref()).await? {
        Served::Trained(newest) => (newest.config.context, None),
        Served::Imported(manifest) => (manifest.context, Some(app.imported.ready(*manifest).await?)),
    };
    let mut answer = app.scheduler.submit(order.ask.clone(), context, imported)?;
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

//! An answer as server-sent events: `data:` lines with chunks, and `data: [DONE]`.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::answer::{Choice, Head, Object, Offset, Usage, logprobs};
use super::request::Order;
use crate::error::{ApiError, ErrorAnswer};
use crate::scheduler::{Answer, Logprob, Piece};

/// What turns pieces into chunks.
pub(crate) struct Chunks {
    answer: Answer,
    head: Head,
    order: Order,
    usage: Usage,
    /// Answers that have begun.
    begun: usize,
    /// Of the answer under way.
    offset: Offset,
    over: bool,
}

impl Chunks {
    pub(crate) fn new(answer: Answer, head: Head, order: Order, usage: Usage) -> Self {
        Self { answer, head, order, usage, begun: 0, offset: Offset::after(""), over: false }
    }

    /// The response whose body the chunks are. Dropping it, as happens when the client goes away, cancels the request.
    pub(crate) fn into_response(self) -> Response {
        let chunks = stream::unfold(self, |mut chunks| async move {
            let frames = chunks.next().await?;
            Some((Ok::<_, Infallible>(Bytes::from(frames)), chunks))
        });
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        (headers, Body::from_stream(chunks)).into_response()
    }

    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let mut frames = String::new();
        if self.begun == 0 {
            self.begin(&mut frames);
            if !frames.is_empty() {
                return Some(frames);
            }
        }
        match self.answer.next().await {
            Some(Piece::Text { choice, text, logprob }) => {
                self.reach(choice, &mut frames);
                self.part(choice, text.0, logprob.as_slice(), &mut frames);
            }
            Some(Piece::Finished { choice, reason, tokens }) => {
                self.reach(choice, &mut frames);
                self.chunk(Choice::end(self.order.form, choice, reason), &mut frames);
                self.usage.add(tokens);
                if choice + 1 == self.order.ask.choices() {
                    self.end(&mut frames);
                }
            }
            Some(Piece::Failed(error)) => self.break_off(&error, &mut frames),
            Some(Piece::Started { .. }) | None => self.break_off(&ApiError::internal(), &mut frames),
        }
        Some(frames)
    }

    /// Opens answers up to this one; they come in order.
    fn reach(&mut self, choice: usize, frames: &mut String) {
        while self.begun <= choice {
            self.begin(frames);
        }
    }

    fn begin(&mut self, frames: &mut String) {
        let choice = self.begun;
        self.begun += 1;
        self.offset = Offset::after("");
        if self.order.form == super::Form::Chat {
            self.chunk(Choice::opening(choice), frames);
        } else if let Some(prompt) = self.order.echoed(choice) {
            self.offset = Offset::after(&prompt);
            self.part(choice, prompt, &[], frames);
        }
    }

    fn part(&mut self, choice: usize, text: String, tokens: &[Logprob], frames: &mut String) {
        let form = self.order.form;
        let logprobs = (!tokens.is_empty()).then(|| logprobs(form, tokens, &mut self.offset));
        self.chunk(Choice { logprobs, ..Choice::part(form, choice, text) }, frames);
    }

    fn chunk(&self, choice: Choice, frames: &mut String) {
        self.object(vec![choice], self.order.include_usage.then_some(None), frames);
    }

    fn end(&mut self, frames: &mut String) {
        self.over = true;
        if self.order.include_usage {
            self.object(Vec::new(), Some(Some(self.usage)), frames);
        }
        frame("[DONE]", frames);
    }

    fn object(&self, choices: Vec<Choice>, usage: Option<Option<Usage>>, frames: &mut String) {
        let object = Object { head: &self.head, object: self.order.form.chunk(), choices, usage };
        frame(&serde_json::to_string(&object).expect("chunks have string keys only"), frames);
    }

    fn break_off(&mut self, error: &ApiError, frames: &mut String) {
        self.over = true;
        let answer = ErrorAnswer { error: &error.body };
        frame(&serde_json::to_string(&answer).expect("errors have string keys only"), frames);
    }
}

fn frame(data: &str, frames: &mut String) {
    frames.push_str("data: ");
    frames.push_str(data);
    frames.push_str("\n\n");
}

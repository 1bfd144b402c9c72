//! What clients get: the objects of the API, whole or in chunks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use node::Checkpoint;
use serde::Serialize;
use serde_json::{Value, json};

use super::Form;
use super::request::random;
use crate::scheduler::{Finish, Logprob, Outlet};

/// A whole answer, or one chunk of a stream.
#[derive(Serialize)]
pub(crate) struct Object<'a> {
    #[serde(flatten)]
    pub(crate) head: &'a Head,
    pub(crate) object: &'static str,
    pub(crate) choices: Vec<Choice>,
    /// The inner `None` is `null`, which a stream with counts sends until its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
}

/// What all chunks of an answer have in common.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    id: String,
    created: u64,
    model: String,
    /// Names the weights: the short root of the state.
    system_fingerprint: String,
}

impl Head {
    pub(crate) fn new(form: Form, checkpoint: &Checkpoint) -> Self {
        let prefix = match form {
            Form::Text => "cmpl",
            Form::Chat => "chatcmpl",
        };
        Self {
            id: format!("{prefix}-{:016x}", random()),
            created: now_seconds(),
            model: checkpoint.name.clone(),
            system_fingerprint: checkpoint.state_root.short(),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    // A clock before 1970 is wrong, and the field is for people.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One answer, in one of four shapes: `text`, `message`, or a part of them.
#[derive(Default, Serialize)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delta: Option<Message>,
    pub(crate) logprobs: Option<Value>,
    pub(crate) finish_reason: Option<Finish>,
}

/// A message, or what a chunk adds to one.
#[derive(Default, Serialize)]
pub(crate) struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
}

impl Choice {
    /// A whole answer.
    pub(crate) fn whole(form: Form, index: usize, text: String, finish: Option<Finish>) -> Self {
        let choice = Self { index, finish_reason: finish, ..Self::default() };
        match form {
            Form::Text => Self { text: Some(text), ..choice },
            Form::Chat => Self { message: Some(Message { role: Some("assistant"), content: Some(text) }), ..choice },
        }
    }

    /// A part of an answer.
    pub(crate) fn part(form: Form, index: usize, text: String) -> Self {
        match form {
            Form::Text => Self { index, text: Some(text), ..Self::default() },
            Form::Chat => {
                let delta = Message { content: Some(text), ..Message::default() };
                Self { index, delta: Some(delta), ..Self::default() }
            }
        }
    }

    /// The first part of a chat answer.
    pub(crate) fn opening(index: usize) -> Self {
        let delta = Message { role: Some("assistant"), content: Some(String::new()) };
        Self { index, delta: Some(delta), ..Self::default() }
    }

    /// The last part of an answer, without text.
    pub(crate) fn end(form: Form, index: usize, finish: Finish) -> Self {
        let choice = Self { index, finish_reason: Some(finish), ..Self::default() };
        match form {
            Form::Text => Self { text: Some(String::new()), ..choice },
            Form::Chat => Self { delta: Some(Message::default()), ..choice },
        }
    }
}

/// Tokens that were read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
}

impl Usage {
    pub(crate) fn add(&mut self, completion_tokens: usize) {
        self.completion_tokens += completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// Counts the characters of an answer's text, for the offsets of its tokens.
#[derive(Debug)]
pub(crate) struct Offset {
    characters: usize,
    text: Outlet,
}

impl Offset {
    /// After `before`, which an answer may repeat.
    pub(crate) fn after(before: &str) -> Self {
        Self { characters: before.chars().count(), text: Outlet::new(Arc::default()) }
    }

    /// Where a token with these bytes begins.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let at = self.characters;
        self.characters += self.text.push(bytes).0.chars().count();
        at
    }
}

/// The log-probabilities of the tokens of an answer's part, which begins at `offset`.
pub(crate) fn logprobs(form: Form, tokens: &[Logprob], offset: &mut Offset) -> Value {
    match form {
        Form::Chat => {
            let entry = |bytes: &[u8], logprob: f64| json!({"token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": logprob});
            let content = tokens.iter().map(|token| {
                let mut value = entry(&token.bytes, token.logprob);
                value["top_logprobs"] = token.top.iter().map(|(bytes, logprob)| entry(bytes, *logprob)).collect();
                value
            });
            json!({"content": content.collect::<Vec<_>>()})
        }
        Form::Text => {
            let offsets: Vec<usize> = tokens.iter().map(|token| offset.pass(&token.bytes)).collect();
            let top = tokens.iter().map(|token| {
                let entries = token.top.iter().map(|(bytes, logprob)| (named(bytes), json!(logprob)));
                entries.collect::<serde_json::Map<_, _>>()
            });
            json!({
                "tokens": tokens.iter().map(|token| named(&token.bytes)).collect::<Vec<_>>(),
                "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
                "top_logprobs": top.collect::<Vec<_>>(),
                "text_offset": offsets,
            })
        }
    }
}

/// A token as text; one that is no text as its bytes, as the API writes it, so that no two tokens have one name.
fn named(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |name, byte| name + &format!("\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters_that_several_tokens_make() {
        let mut offset = Offset::after("«a");
        let offsets: Vec<usize> = [&b"b"[..], &[0xE2, 0x80], &[0x94], b"c"].map(|bytes| offset.pass(bytes)).into();
        assert_eq!(offsets, [2, 3, 3, 4]);
    }

    #[test]
    fn tokens_that_are_no_text_have_names_of_their_own() {
        assert_eq!(named(b" a"), " a");
        assert_eq!(named(&[0xE2, 0x80]), r"bytes:\xe2\x80");
    }
}

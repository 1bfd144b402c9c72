//! What clients send, checked field by field. Unknown fields are ignored.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::RangeInclusive;
use std::sync::Arc;

use model::Sampling;
use serde::Deserialize;
use serde_json::Value;

use super::Form;
use crate::error::ApiError;
use crate::scheduler::{Ask, Prompt, Role, Turn};

const ANSWERS_MAX: u64 = 8;
const PROMPTS_MAX: usize = 16;
const STOPS_MAX: usize = 4;
const STOP_BYTES_MAX: usize = 256;
const LOGPROBS_MAX: u64 = 20;
/// Tokens of a completion that names no limit, as in the API that this one follows.
const COMPLETION_TOKENS: usize = 16;

/// A checked request.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) form: Form,
    /// The model by name; none takes the newest.
    pub(crate) model: Option<String>,
    pub(crate) ask: Ask,
    pub(crate) stream: bool,
    /// Whether a stream ends with the counts.
    pub(crate) include_usage: bool,
    /// Whether a completion repeats its prompt.
    pub(crate) echo: bool,
}

/// The fields of both routes.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Fields {
    model: Option<String>,
    prompt: Option<Value>,
    messages: Option<Vec<Message>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<Value>,
    n: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    echo: Option<bool>,
    logprobs: Option<Value>,
    top_logprobs: Option<u64>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Reads the body of a request.
///
/// # Errors
/// The body is not JSON, or a field has a value that cannot be used; the error names it.
pub(crate) fn read(form: Form, body: &[u8]) -> Result<Order, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let fields: Fields =
        serde_path_to_error::deserialize(&mut reader).map_err(|error| match error.path().to_string() {
            path if path != "." && error.inner().is_data() => ApiError::parameter(path, error.inner().to_string()),
            _ => ApiError::bad_json(error.inner()),
        })?;
    reader.end().map_err(|error| ApiError::bad_json(&error))?;
    let prompts = match form {
        Form::Text => prompts(fields.prompt.as_ref())?,
        Form::Chat => vec![conversation(fields.messages.as_deref())?],
    };
    let limit =
        limit(fields.max_completion_tokens, "max_completion_tokens")?.or(limit(fields.max_tokens, "max_tokens")?);
    let answers = within("n", fields.n.unwrap_or(1), 1..=ANSWERS_MAX)?;
    let ask = Ask {
        prompts,
        answers: answers as usize,
        sampling: sampling(&fields)?,
        tokens_max: limit.or((form == Form::Text).then_some(COMPLETION_TOKENS)),
        stops: stops(fields.stop.as_ref())?,
        logprobs: logprobs(form, &fields)?,
    };
    Ok(Order {
        form,
        model: fields.model,
        ask,
        stream: fields.stream.unwrap_or(false),
        include_usage: fields.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        echo: form == Form::Text && fields.echo.unwrap_or(false),
    })
}

fn limit(value: Option<u64>, name: &str) -> Result<Option<usize>, ApiError> {
    match value {
        Some(0) => Err(ApiError::parameter(name, format!("`{name}` is 0, and must be at least 1"))),
        // What exceeds the context is cut there.
        value => Ok(value.map(|value| usize::try_from(value).unwrap_or(usize::MAX))),
    }
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, range: RangeInclusive<T>) -> Result<T, ApiError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let message = format!("`{name}` is {value}, and must be between {} and {}", range.start(), range.end());
    Err(ApiError::parameter(name, message))
}

fn sampling(fields: &Fields) -> Result<Sampling, ApiError> {
    let plain = Sampling::default();
    let penalty = fields.repetition_penalty.unwrap_or(plain.repetition_penalty);
    Ok(Sampling {
        temperature: within("temperature", fields.temperature.unwrap_or(plain.temperature), 0.0..=2.0)?,
        top_k: fields.top_k.map_or(plain.top_k, |top_k| usize::try_from(top_k).unwrap_or(usize::MAX)),
        // 0 means the most probable token alone, which the smallest positive number says as well.
        top_p: within("top_p", fields.top_p.unwrap_or(plain.top_p), 0.0..=1.0)?.max(f32::MIN_POSITIVE),
        min_p: within("min_p", fields.min_p.unwrap_or(plain.min_p), 0.0..=1.0)?,
        repetition_penalty: within("repetition_penalty", penalty, 0.01..=100.0)?,
        seed: fields.seed.map_or_else(random, i64::cast_unsigned),
    })
}

/// A number that nobody chose. The standard library keys every `RandomState` differently.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn prompts(value: Option<&Value>) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || ApiError::parameter("prompt", "`prompt` must be a string, or an array of strings");
    let texts = match value {
        None | Some(Value::Null) => vec![String::new()],
        Some(value) => strings(value).ok_or_else(wrong)?,
    };
    if texts.is_empty() || texts.len() > PROMPTS_MAX {
        let message = format!("`prompt` has {} texts, and must have between 1 and {PROMPTS_MAX}", texts.len());
        return Err(ApiError::parameter("prompt", message));
    }
    Ok(texts.into_iter().map(|text| Prompt::Text(text.into())).collect())
}

fn stops(value: Option<&Value>) -> Result<Arc<[String]>, ApiError> {
    let wrong = |message: String| ApiError::parameter("stop", message);
    let texts = match value {
        None | Some(Value::Null) => return Ok(Arc::default()),
        Some(value) => strings(value).ok_or_else(|| wrong("`stop` must be a string, or an array of strings".into()))?,
    };
    if texts.len() > STOPS_MAX {
        return Err(wrong(format!("`stop` has {} texts, and may have at most {STOPS_MAX}", texts.len())));
    }
    if texts.iter().any(|text| text.is_empty() || text.len() > STOP_BYTES_MAX) {
        return Err(wrong(format!("a text of `stop` must have between 1 and {STOP_BYTES_MAX} bytes")));
    }
    Ok(texts.into())
}

/// A string, or an array of strings.
fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn logprobs(form: Form, fields: &Fields) -> Result<Option<usize>, ApiError> {
    let wanted = match (form, fields.logprobs.as_ref()) {
        (_, None | Some(Value::Null)) | (Form::Chat, Some(Value::Bool(false))) => return Ok(None),
        (Form::Chat, Some(Value::Bool(true))) => {
            within("top_logprobs", fields.top_logprobs.unwrap_or(0), 0..=LOGPROBS_MAX)?
        }
        (Form::Chat, Some(_)) => return Err(ApiError::parameter("logprobs", "`logprobs` must be true or false")),
        (Form::Text, Some(value)) => {
            let wrong = || ApiError::parameter("logprobs", "`logprobs` must be a number");
            within("logprobs", value.as_u64().ok_or_else(wrong)?, 0..=LOGPROBS_MAX)?
        }
    };
    Ok(Some(wanted as usize))
}

/// Checks the roles and texts of a conversation.
fn conversation(messages: Option<&[Message]>) -> Result<Prompt, ApiError> {
    let mut turns = Vec::new();
    for (index, message) in messages.unwrap_or_default().iter().enumerate() {
        let text = content(message.content.as_ref(), index)?;
        let role = match message.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            _ => {
                let message = "the role must be `system`, `user`, `assistant` or `tool`";
                return Err(ApiError::parameter(format!("messages[{index}].role"), message));
            }
        };
        turns.push(Turn { role, text: text.into() });
    }
    if turns.iter().all(|turn| turn.text.0.trim().is_empty()) {
        return Err(ApiError::no_text());
    }
    Ok(Prompt::Conversation(turns))
}

/// A message's text: a string, or parts of which each is text.
fn content(value: Option<&Value>, index: usize) -> Result<String, ApiError> {
    let part = |part: &Value| match part["type"].as_str() {
        Some("text") => part["text"].as_str().map(str::to_owned),
        _ => None,
    };
    let text = match value {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(parts)) => parts.iter().map(part).collect::<Option<String>>(),
        Some(_) => None,
    };
    text.ok_or_else(|| ApiError::parameter(format!("messages[{index}].content"), "only text can be continued"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prose(messages: Value) -> String {
        read(Form::Chat, json!({"messages": messages}).to_string().as_bytes()).unwrap().ask.prompts[0].joined()
    }

    #[test]
    fn a_conversation_is_prose() {
        assert_eq!(prose(json!([{"role": "user", "content": "It was a "}])), "It was a");
        let turns = json!([
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "It was a"},
            {"role": "assistant", "content": " truth."},
            {"role": "user", "content": [{"type": "text", "text": "She "}, {"type": "text", "text": "said"}]},
        ]);
        assert_eq!(prose(turns), "It was a truth.\n\nShe said");
        assert_eq!(prose(json!([{"role": "assistant", "content": "He "}])), "He ");
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let text = read(Form::Text, b"{}").unwrap();
        assert_eq!((text.ask.tokens_max, text.ask.answers, text.stream, text.echo), (Some(16), 1, false, false));
        assert_eq!(text.ask.prompts, [Prompt::Text(String::new().into())]);
        let chat = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "max_completion_tokens": 5});
        let chat = read(Form::Chat, chat.to_string().as_bytes()).unwrap();
        assert_eq!((chat.ask.tokens_max, chat.ask.sampling.temperature), (Some(5), 1.0));
    }

    #[test]
    fn two_requests_without_a_seed_differ() {
        assert_ne!(random(), random());
    }
}

//! Answers as they are written.

use serde_json::{Value, json};

use crate::completions::{CHAT, TEXT, ask, gateway, scrubbed, text};
use crate::gateway::Gateway;
use crate::http::Request;

/// The data of every event of a stream, without the `[DONE]` that must end it.
pub(crate) async fn chunks(gateway: &Gateway, path: &str, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let live = Request::post(path, &body).start(gateway.address).await;
    assert_eq!(live.status, 200);
    let mut events = live.events().await;
    assert_eq!(events.pop().as_deref(), Some("data: [DONE]\n\n"));
    let data = |event: &String| serde_json::from_str(event.strip_prefix("data: ").unwrap().trim_end()).unwrap();
    events.iter().map(data).collect()
}

/// The text of every answer, and why it ended.
pub(crate) fn assembled(chunks: &[Value], answers: usize) -> Vec<(String, Value)> {
    let mut all = vec![(String::new(), Value::Null); answers];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let (text, finish) = &mut all[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()];
        assert!(finish.is_null(), "an answer goes on after its end");
        *text += choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or_default();
        *finish = choice["finish_reason"].clone();
    }
    all
}

#[tokio::test]
async fn a_chat_streams_role_text_end_counts_and_done() {
    let gateway = gateway().await;
    let body = json!({
        "model": "pebble", "messages": [{"role": "user", "content": "It was"}], "max_tokens": 4, "temperature": 0.7,
        "seed": 7, "stream_options": {"include_usage": true},
    });
    let chunks: Vec<Value> = chunks(&gateway, CHAT, body).await.into_iter().map(scrubbed).collect();
    insta::assert_json_snapshot!("chat_stream", chunks);
}

#[tokio::test]
async fn a_completion_streams_without_counts_unless_asked() {
    let gateway = gateway().await;
    let body = json!({"prompt": "It was", "max_tokens": 3, "temperature": 0.7, "seed": 7, "echo": true});
    let chunks: Vec<Value> = chunks(&gateway, TEXT, body).await.into_iter().map(scrubbed).collect();
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    insta::assert_json_snapshot!("completion_stream", chunks);
}

#[tokio::test]
async fn the_frames_are_those_of_the_api() {
    let gateway = gateway().await;
    let body = json!({"messages": [{"role": "user", "content": "It was"}], "max_tokens": 2, "seed": 7, "stream": true});
    let live = Request::post(CHAT, &body).start(gateway.address).await;
    assert!(live.headers.iter().any(|(name, value)| name == "content-type" && value.starts_with("text/event-stream")));
    for event in live.events().await {
        let data = event.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains('\n') && (data == "[DONE]" || data.starts_with('{')), "{event}");
        assert!(!data.contains(r#""role":null"#) && !data.contains(r#""content":null"#), "{event}");
    }
}

#[tokio::test]
async fn a_stream_has_the_text_of_the_whole_answer() {
    let gateway = gateway().await;
    let chat = |content: &str| json!([{"role": "user", "content": content}]);
    let bodies = [
        (TEXT, json!({"prompt": "It was", "max_tokens": 80, "seed": 1})),
        (TEXT, json!({"prompt": ["It was", "She —", ""], "n": 2, "max_tokens": 20, "seed": 2, "echo": true})),
        (TEXT, json!({"prompt": "It was", "max_tokens": 80, "seed": 3, "stop": [" ", "e"]})),
        (CHAT, json!({"messages": chat("It was"), "seed": 4, "n": 3, "stop": "the"})),
        (CHAT, json!({"messages": chat("«It was»"), "seed": 5, "temperature": 0.3, "logprobs": true})),
        (CHAT, json!({"messages": chat("It"), "seed": 6, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.3})),
    ];
    for (path, mut body) in bodies {
        let whole = ask(&gateway, path, body.clone()).await;
        body["stream_options"] = json!({"include_usage": true});
        let chunks = chunks(&gateway, path, body.clone()).await;
        let answers = whole["choices"].as_array().unwrap().len();
        let streamed = assembled(&chunks, answers);
        for (choice, (streamed, finish)) in streamed.iter().enumerate() {
            assert_eq!(*streamed, text(&whole, choice), "{body}");
            assert_eq!(*finish, whole["choices"][choice]["finish_reason"], "{body}");
        }
        assert_eq!(chunks.last().unwrap()["usage"], whole["usage"], "{body}");
        assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["usage"].is_null()), "{body}");
    }
}

#[tokio::test]
async fn streamed_log_probabilities_are_those_of_the_whole_answer() {
    let gateway = gateway().await;
    let body = json!({"prompt": "It was", "max_tokens": 12, "seed": 7, "logprobs": 1, "echo": true});
    let whole = ask(&gateway, TEXT, body.clone()).await;
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let chunks = chunks(&gateway, TEXT, body.clone()).await;
        let parts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"][field].as_array());
        let joined: Vec<Value> = parts.flatten().cloned().collect();
        assert_eq!(json!(joined), whole["choices"][0]["logprobs"][field], "{field}");
    }
}

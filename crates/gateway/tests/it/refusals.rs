//! Requests that cannot be answered: the status, and what a person reads.

use serde_json::{Value, json};

use crate::checkpoint::CONTEXT;
use crate::completions::{CHAT, TEXT, gateway};
use crate::gateway::Gateway;
use crate::http::Request;

#[tokio::test]
async fn before_the_first_checkpoint_clients_are_told_to_come_back() {
    let gateway = Gateway::start().await;
    let list = Request::get("/v1/models").send(gateway.address).await;
    assert_eq!((list.status, list.json()), (200, json!({"object": "list", "data": []})));
    for (path, body) in
        [(TEXT, json!({"prompt": "a"})), (CHAT, json!({"messages": [{"role": "user", "content": "a"}]}))]
    {
        let answer = Request::post(path, &body).send(gateway.address).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
        insta::assert_json_snapshot!("no_checkpoint", answer.json());
    }
}

#[tokio::test]
async fn every_refusal_names_what_is_wrong() {
    let gateway = gateway().await;
    let chat = json!([{"role": "user", "content": "a"}]);
    let bodies = [
        (TEXT, json!({"model": "other", "prompt": "a"})),
        (TEXT, json!({"prompt": "stone ".repeat(CONTEXT)})),
        (TEXT, json!({"prompt": [1, 2]})),
        (TEXT, json!({"prompt": []})),
        (TEXT, json!({"prompt": vec!["a"; 17]})),
        (TEXT, json!({"prompt": "a", "max_tokens": 0})),
        (TEXT, json!({"prompt": "a", "max_tokens": -1})),
        (TEXT, json!({"prompt": "a", "n": 9})),
        (TEXT, json!({"prompt": "a", "temperature": 2.5})),
        (TEXT, json!({"prompt": "a", "temperature": "hot"})),
        (TEXT, json!({"prompt": "a", "top_p": 1.5})),
        (TEXT, json!({"prompt": "a", "min_p": -0.5})),
        (TEXT, json!({"prompt": "a", "repetition_penalty": 0})),
        (TEXT, json!({"prompt": "a", "stop": 7})),
        (TEXT, json!({"prompt": "a", "stop": [""]})),
        (TEXT, json!({"prompt": "a", "stop": ["a", "b", "c", "d", "e"]})),
        (TEXT, json!({"prompt": "a", "logprobs": true})),
        (TEXT, json!([])),
        (CHAT, json!({})),
        (CHAT, json!({"messages": []})),
        (CHAT, json!({"messages": [{"role": "user", "content": " \n"}]})),
        (CHAT, json!({"messages": [{"role": "oracle", "content": "a"}]})),
        (CHAT, json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "b"}]}]})),
        (CHAT, json!({"messages": [{"content": "a"}]})),
        (CHAT, json!({"messages": "a"})),
        (CHAT, json!({"messages": [{"role": "user", "content": "stone ".repeat(CONTEXT)}]})),
        (CHAT, json!({"messages": chat, "logprobs": true, "top_logprobs": 21})),
        (CHAT, json!({"messages": chat, "stream": "yes"})),
    ];
    let mut refusals = Vec::new();
    for (path, body) in bodies {
        let answer = Request::post(path, &body).send(gateway.address).await;
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text());
        let mut shown = body.to_string();
        shown.truncate(90);
        refusals.push(json!({"request": format!("{path} {shown}"), "status": answer.status, "answer": answer.json()}));
    }
    insta::assert_json_snapshot!("refusals", refusals);
}

#[tokio::test]
async fn a_stream_that_cannot_begin_is_refused_with_a_status() {
    let gateway = gateway().await;
    let body = json!({"prompt": "stone ".repeat(CONTEXT), "stream": true});
    let answer = Request::post(TEXT, &body).send(gateway.address).await;
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/json")));
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let gateway = gateway().await;
    for body in ["", "{", "nonsense", "{} {}", "\u{0}", "{\"prompt\": \"a\u{1}\"}"] {
        let answer = Request::new("POST", TEXT).body(body).send(gateway.address).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("invalid_json")), "{body:?}");
    }
    let answer = Request::new("POST", TEXT).body([b'"', 0xFF, b'"']).send(gateway.address).await;
    assert_eq!(answer.status, 400);
    let deep = "[".repeat(100_000);
    let answer = Request::new("POST", TEXT).body(format!("{{\"prompt\":{deep}")).send(gateway.address).await;
    assert_eq!(answer.status, 400);
    let large = Request::post(TEXT, &json!({"prompt": "a".repeat(1 << 20)})).send(gateway.address).await;
    assert_eq!((large.status, &large.json()["error"]["code"]), (413, &json!("body_too_large")));
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let gateway = gateway().await;
    let body = json!({
        "prompt": "a", "seed": 7, "presence_penalty": 1, "user": "somebody", "best_of": 3, "metadata": {"deep": [1]},
        "stop": Value::Null, "stream": Value::Null, "n": Value::Null, "logprobs": Value::Null,
    });
    assert_eq!(Request::post(TEXT, &body).send(gateway.address).await.status, 200);
}

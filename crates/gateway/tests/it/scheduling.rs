//! Many clients at a time, and clients that go away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::checkpoint;
use crate::completions::{CHAT, TEXT, ask, gateway, text};
use crate::gateway::Gateway;
use crate::http::{Live, Request};

/// More tokens than a test waits for.
const ENDLESS: usize = 1 << 16;

/// Longer than any wait takes; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests that are decoded at a time.
const ACTIVE: usize = 16;

async fn endless_gateway() -> Gateway {
    Gateway::start_with(Some(checkpoint::with_context(3, ENDLESS))).await
}

/// A greedy answer of a model that never ends by itself, as its first text arrives.
async fn endless(gateway: &Gateway) -> Live {
    let body = json!({"prompt": "It was", "max_tokens": ENDLESS, "temperature": 0, "stream": true});
    let mut live = Request::post(TEXT, &body).start(gateway.address).await;
    assert_eq!(live.status, 200);
    live.event().await.unwrap();
    live
}

async fn requests(gateway: &Gateway) -> usize {
    let health = Request::get("/health").send(gateway.address).await.json();
    health["requests"].as_u64().unwrap().try_into().unwrap()
}

/// Asks until the number of requests under way is as it should be.
async fn until(gateway: &Gateway, right: impl Fn(usize) -> bool) {
    let asking = async { while !right(requests(gateway).await) {} };
    tokio::time::timeout(PATIENCE, asking).await.expect("the right number of requests in time");
}

#[tokio::test]
async fn many_at_a_time_get_what_each_would_get_alone() {
    let gateway = gateway().await;
    let bodies: Vec<Value> = (0..24)
        .map(|index| json!({"prompt": "It was ".repeat(index % 5), "max_tokens": 8 + index, "seed": index, "n": 1 + index % 2}))
        .collect();
    let mut alone = Vec::new();
    for body in &bodies {
        alone.push(ask(&gateway, TEXT, body.clone()).await);
    }
    let address = gateway.address;
    let asked = bodies.iter().map(|body| {
        let request = Request::post(TEXT, body);
        tokio::spawn(async move { request.send(address).await.json() })
    });
    let asked: Vec<_> = asked.collect();
    for (together, alone) in asked.into_iter().zip(&alone) {
        let together = together.await.unwrap();
        assert_eq!(together["usage"], alone["usage"]);
        assert_eq!(text(&together, 0), text(alone, 0));
    }
}

#[tokio::test]
async fn a_short_request_is_answered_beside_long_ones() {
    let gateway = endless_gateway().await;
    let long = [endless(&gateway).await, endless(&gateway).await];
    let body = json!({"messages": [{"role": "user", "content": "It was"}], "max_tokens": 4, "seed": 7});
    assert_eq!(ask(&gateway, CHAT, body).await["usage"]["completion_tokens"], 4);
    until(&gateway, |requests| requests == long.len()).await;
}

#[tokio::test]
async fn an_answer_goes_on_from_the_checkpoint_that_it_began_with() {
    let gateway = gateway().await;
    let body = json!({"prompt": "It was", "max_tokens": 64, "seed": 7, "temperature": 0.7});
    let whole = text(&ask(&gateway, TEXT, body.clone()).await, 0);
    let mut streaming = body;
    streaming["stream"] = json!(true);
    let mut live = Request::post(TEXT, &streaming).start(gateway.address).await;
    let mut events = vec![live.event().await.unwrap()];
    gateway.checkpoints.send(Some(checkpoint::at_round(4))).unwrap();
    events.extend(live.events().await);
    let mut written = String::new();
    for event in events.iter().filter(|event| !event.contains("[DONE]")) {
        let chunk: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(chunk["system_fingerprint"], "03030303");
        written += chunk["choices"][0]["text"].as_str().unwrap();
    }
    assert_eq!(written, whole);
}

#[tokio::test]
async fn clients_that_go_away_give_their_place_to_others() {
    let gateway = endless_gateway().await;
    for _ in 0..3 {
        let mut long = Vec::new();
        for _ in 0..ACTIVE {
            long.push(endless(&gateway).await);
        }
        // All that are decoded at a time never end by themselves; the next round of them begins only because these do.
        drop(long);
    }
    let body = json!({"prompt": "It was", "max_tokens": 4});
    ask(&gateway, TEXT, body).await;
    until(&gateway, |requests| requests == 0).await;
}

#[tokio::test]
async fn a_client_that_waits_for_a_whole_answer_and_goes_away_is_noticed() {
    let gateway = endless_gateway().await;
    let body = json!({"prompt": "It was", "max_tokens": ENDLESS, "temperature": 0});
    let ask_endlessly = |_| tokio::spawn(Request::post(TEXT, &body).start(gateway.address));
    let waiting: Vec<_> = (0..ACTIVE).map(ask_endlessly).collect();
    until(&gateway, |requests| requests == ACTIVE).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    until(&gateway, |requests| requests == 0).await;
    let body = json!({"prompt": "It was", "max_tokens": 4});
    ask(&gateway, TEXT, body).await;
    until(&gateway, |requests| requests == 0).await;
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let gateway = endless_gateway().await;
    let mut long = Vec::new();
    for _ in 0..ACTIVE {
        long.push(endless(&gateway).await);
    }
    let address = gateway.address;
    let body = json!({"prompt": "It was", "max_tokens": 2});
    let waiting: Vec<_> = (ACTIVE..64).map(|_| tokio::spawn(Request::post(TEXT, &body).send(address))).collect();
    until(&gateway, |requests| requests == 64).await;
    let refused = Request::post(TEXT, &body).send(address).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    insta::assert_json_snapshot!("overloaded", refused.json());
    drop(long);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn stopping_cuts_endless_answers_short() {
    let gateway = endless_gateway().await;
    let live = endless(&gateway).await;
    gateway.stop().await;
    drop(live);
}

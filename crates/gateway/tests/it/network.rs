//! Health, state, events, pieces; ports, hosts, limits, shutdown.

use std::time::Duration;

use gateway::{Asked, BindError, Server};
use node::description::RunDescription;
use node::home::Home;
use node::view::{CurvePoint, NetEvent, NetState, Sample};
use serde_json::{Value, json};

use crate::gateway::{Gateway, any_port};
use crate::http::{Live, Request};

fn parts(event: &str) -> (&str, Value) {
    let (name, data) = event.split_once('\n').unwrap();
    (name.strip_prefix("event: ").unwrap(), serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap())
}

#[tokio::test]
async fn health_says_that_there_is_no_model_yet() {
    let gateway = Gateway::start().await;
    let answer = Request::get("/health").send(gateway.address).await;
    assert_eq!(answer.status, 200);
    insta::assert_json_snapshot!(answer.json(), @r#"
    {
      "model": null,
      "requests": 0,
      "status": "ok",
      "version": "0.1.0"
    }
    "#);
}

#[tokio::test]
async fn state_is_the_whole_view() {
    let gateway = Gateway::start().await;
    let point = CurvePoint { tokens: 8, training_loss: Some(2.5), heldout_loss: None };
    gateway.net.lock().unwrap().curve.push(point);
    let answer = Request::get("/net/state").send(gateway.address).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let state: NetState = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(state, *gateway.net.lock().unwrap());
}

#[tokio::test]
async fn events_begin_with_the_whole_state_and_follow_every_change() {
    let gateway = Gateway::start().await;
    let point = CurvePoint { tokens: 8, training_loss: Some(2.5), heldout_loss: None };
    gateway.net.lock().unwrap().curve.push(point);
    let mut live: Live = Request::get("/net/events").start(gateway.address).await;
    assert_eq!(live.status, 200);
    let first = live.event().await.unwrap();
    let (name, data) = parts(&first);
    assert_eq!((name, &data["curve"][0]["tokens"]), ("state", &json!(8)));

    let sample = Sample { round: 1, tokens: 16, prompt: "It was".into(), text: " a\ntruth".into() };
    let state = NetState { version: "next".into(), ..NetState::default() };
    gateway.events.send(NetEvent::Point(CurvePoint { tokens: 16, ..point })).unwrap();
    gateway.events.send(NetEvent::Sample(sample)).unwrap();
    gateway.events.send(NetEvent::State(Box::new(state))).unwrap();
    let point = live.event().await.unwrap();
    assert_eq!(parts(&point), ("point", json!({"tokens": 16, "training_loss": 2.5, "heldout_loss": null})));
    let sample = live.event().await.unwrap();
    assert_eq!(parts(&sample), ("sample", json!({"round": 1, "tokens": 16, "prompt": "It was", "text": " a\ntruth"})));
    let state = live.event().await.unwrap();
    assert_eq!(parts(&state).1["version"], "next");
}

#[tokio::test]
async fn a_listener_that_falls_behind_is_disconnected() {
    let gateway = Gateway::start().await;
    let mut live = Request::get("/net/events").start(gateway.address).await;
    live.event().await.unwrap();
    // Far more than the channel and the socket's buffers hold, sent without a pause in which the listener could read.
    let text = "stone ".repeat(1 << 17);
    for round in 0..64 {
        let sample = Sample { round, tokens: round, prompt: String::new(), text: text.clone() };
        gateway.events.send(NetEvent::Sample(sample)).unwrap();
    }
    let heard = live.events().await.len();
    assert!(heard < 64, "all {heard} events were kept for a listener that did not read");
}

#[tokio::test]
async fn listeners_are_bounded_and_free_their_place() {
    let gateway = Gateway::start().await;
    let mut listeners = Vec::new();
    for _ in 0..64 {
        let mut live = Request::get("/net/events").start(gateway.address).await;
        live.event().await.unwrap();
        listeners.push(live);
    }
    let refused = Request::get("/net/events").send(gateway.address).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    drop(listeners);
    // The server sees the ends of those connections in its own time.
    let again = async { while Request::get("/net/events").start(gateway.address).await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("a free place in time");
}

#[tokio::test]
async fn pieces_are_shown_and_checked() {
    let gateway = Gateway::start().await;
    let none = Request::get("/piece").send(gateway.address).await;
    assert_eq!(none.status, 404);
    insta::assert_json_snapshot!(none.json(), @r#"
    {
      "error": {
        "code": "no_piece",
        "hint": "a piece exists once this peer was paid for a unit of work",
        "message": "no unit of this peer was paid yet",
        "type": "unavailable_error"
      }
    }
    "#);
    let sound = Request::post("/verify", &json!({"sound": true})).send(gateway.address).await;
    assert_eq!((sound.status, sound.json()), (200, json!({"valid": true, "summary": {"shares": 7}})));
    let wrong = Request::post("/verify", &json!({"sound": false})).send(gateway.address).await;
    assert_eq!((wrong.status, wrong.json()), (200, json!({"valid": false, "reason": "the signature is wrong"})));
    let malformed = Request::new("POST", "/verify").body("{").send(gateway.address).await;
    assert_eq!((malformed.status, malformed.json()["error"]["code"].as_str()), (400, Some("malformed_piece")));
    let large = Request::new("POST", "/verify").body(vec![b' '; (16 << 20) + 1]).send(gateway.address).await;
    assert_eq!((large.status, large.json()["error"]["code"].as_str()), (413, Some("body_too_large")));
}

#[tokio::test]
async fn a_busy_port_is_named_with_the_way_out() {
    let first = Server::bind(any_port()).await.unwrap();
    let mut again = any_port();
    again.address = first.address();
    let error = Server::bind(again).await.unwrap_err();
    let port = first.address().port();
    assert!(matches!(error, BindError::Busy { port: named } if named == port), "{error:?}");
    assert_eq!(error.to_string(), format!("port `{port}` is already in use"));
    assert!(error.hint().contains("--port"), "{}", error.hint());
}

#[tokio::test]
async fn a_rebound_name_and_another_origin_are_refused() {
    let gateway = Gateway::start().await;
    let rebound = Request::get("/net/state").header("Host", "evil.example:7070").send(gateway.address).await;
    assert_eq!(rebound.status, 403);
    insta::assert_json_snapshot!(rebound.json(), @r#"
    {
      "error": {
        "code": "foreign_host",
        "hint": "use `http://127.0.0.1` with the port, or `localhost`",
        "message": "the `Host` header names neither this machine nor an allowed name",
        "type": "invalid_request_error"
      }
    }
    "#);
    let foreign = Request::post("/verify", &json!({"sound": true})).header("Origin", "https://evil.example");
    let foreign = foreign.send(gateway.address).await;
    assert_eq!((foreign.status, foreign.json()["error"]["code"].as_str()), (403, Some("foreign_origin")));
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    let own = format!("http://{}", gateway.address);
    let same = Request::post("/verify", &json!({"sound": true})).header("Origin", &own).send(gateway.address).await;
    assert_eq!(same.status, 200);
}

#[tokio::test]
async fn peers_pause_and_resume_and_stop_for_whoever_is_here() {
    let gateway = Gateway::start().await;
    let ask = async |path: &str, origin: Option<&str>| {
        let request = Request::post(path, &json!({}));
        let request = match origin {
            Some(origin) => request.header("Origin", origin),
            None => request,
        };
        request.send(gateway.address).await
    };
    let own = format!("http://{}", gateway.address);
    assert_eq!(ask("/net/pause", Some(&own)).await.json(), json!({"paused": {"why": "person"}}));
    assert_eq!(ask("/net/resume", None).await.json(), json!({"paused": null}));
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        for path in ["/net/pause", "/net/resume", "/net/stop"] {
            let refused = ask(path, Some(origin)).await;
            assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (403, Some("foreign_origin")));
        }
    }
    let sneaky = Request::post("/net/stop", &json!({})).header("Sec-Fetch-Site", "cross-site");
    assert_eq!(sneaky.send(gateway.address).await.status, 403);
    assert_eq!(Request::get("/net/pause").send(gateway.address).await.status, 405, "a link or an image cannot ask");
    assert_eq!(ask("/net/stop", Some(&own)).await.status, 200);
    assert_eq!(*gateway.asked.lock().unwrap(), [Asked::Pause, Asked::Resume, Asked::Stop], "and nothing else");
}

#[tokio::test]
async fn a_program_without_peers_says_that_it_has_none() {
    let gateway = Gateway::start_without_peers().await;
    let answer = Request::post("/net/pause", &json!({})).send(gateway.address).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (409, Some("no_peers")));
}

#[tokio::test]
async fn unknown_routes_and_methods_are_errors_of_the_same_shape() {
    let gateway = Gateway::start().await;
    let unknown = Request::get("/v1/nothing").send(gateway.address).await;
    assert_eq!((unknown.status, unknown.json()["error"]["code"].as_str()), (404, Some("unknown_route")));
    let method = Request::get("/verify").send(gateway.address).await;
    assert_eq!((method.status, method.json()["error"]["code"].as_str()), (405, Some("wrong_method")));
}

#[tokio::test]
async fn stopping_ends_event_streams_and_frees_the_port() {
    let gateway = Gateway::start().await;
    let address = gateway.address;
    let mut live = Request::get("/net/events").start(address).await;
    live.event().await.unwrap();
    gateway.stop().await;
    assert_eq!(live.event().await, None);
    let mut options = any_port();
    options.address = address;
    Server::bind(options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_those_of_the_data_directory_and_the_one_under_way_is_as_of_now() {
    let home = tempfile::tempdir().unwrap();
    let gateway = Gateway::start_in(home.path(), u64::MAX, None).await;
    let listed = || async { Request::get("/runs").send(gateway.address).await.json() };
    assert_eq!(listed().await, json!({"runs": []}));

    let opened = Home::open(home.path()).unwrap();
    let founder = opened.identity(1).unwrap();
    let description = RunDescription::from_toml("name = 'mine'\nsize = 'tiny'\nrounds = 9").unwrap();
    let draft = description.draft(founder.id()).unwrap();
    let run = opened.found_run(&founder, &draft.workload, draft.charter).unwrap();
    let line = &listed().await["runs"][0];
    assert_eq!(line["id"], json!(run.charter().body.run_id()));
    assert_eq!(
        (&line["name"], &line["state"], &line["round"], &line["rounds"]),
        (&json!("mine"), &json!("new"), &json!(0), &json!(9))
    );
    assert_eq!(
        (&line["licence"], &line["parent"], &line["newest"]),
        (&json!("public domain"), &json!(null), &json!(true))
    );

    let page = Request::get("/runs").header("accept", "text/html,*/*").send(gateway.address).await;
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "a browser gets the page");

    std::fs::write(run.path().join("charter.json"), "no charter").unwrap();
    assert_eq!(listed().await, json!({"runs": []}), "a damaged run does not hide the others");
    std::fs::remove_dir_all(home.path().join("runs")).unwrap();
    std::fs::write(home.path().join("runs"), "no directory").unwrap();
    let answer = Request::get("/runs").send(gateway.address).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["error"]["code"], json!("unreadable_runs"));
    gateway.stop().await;
}

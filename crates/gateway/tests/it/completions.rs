//! Models, completions and chats as whole answers.

use serde_json::{Value, json};

use crate::checkpoint::{self, CONTEXT, NAME};
use crate::gateway::Gateway;
use crate::http::Request;

pub(crate) const TEXT: &str = "/v1/completions";
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// Replaces what differs from answer to answer, after a look at its form.
pub(crate) fn scrubbed(mut answer: Value) -> Value {
    let id = answer["id"].as_str().unwrap();
    assert!(id.rsplit('-').next().unwrap().len() == 16 && id.contains("cmpl-"), "{id}");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    answer["id"] = "[id]".into();
    answer["created"] = "[created]".into();
    answer
}

pub(crate) async fn ask(gateway: &Gateway, path: &str, body: Value) -> Value {
    let answer = Request::post(path, &body).send(gateway.address).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub(crate) fn text(answer: &Value, choice: usize) -> String {
    let choice = &answer["choices"][choice];
    choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap().to_owned()
}

pub(crate) async fn gateway() -> Gateway {
    Gateway::start_with(Some(checkpoint::at_round(3))).await
}

#[tokio::test]
async fn the_model_is_listed_with_its_round() {
    let gateway = gateway().await;
    let mut list = Request::get("/v1/models").send(gateway.address).await.json();
    let one = Request::get(&format!("/v1/models/{NAME}")).send(gateway.address).await.json();
    assert_eq!(list["data"][0], one);
    list["data"][0]["created"] = "[created]".into();
    insta::assert_json_snapshot!("models", list);
    let health = Request::get("/health").send(gateway.address).await.json();
    insta::assert_json_snapshot!("health", health);
    let unknown = Request::get("/v1/models/other").send(gateway.address).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_completion_has_stable_text() {
    let gateway = gateway().await;
    let body = json!({"model": NAME, "prompt": "It was", "max_tokens": 12, "temperature": 0.7, "seed": 7});
    let answer = ask(&gateway, TEXT, body).await;
    insta::assert_json_snapshot!("completion", scrubbed(answer));
}

#[tokio::test]
async fn a_chat_continues_the_text_of_its_messages() {
    let gateway = gateway().await;
    let messages = json!([
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "It was"},
        {"role": "assistant", "content": " a walk."},
        {"role": "user", "content": "She "},
    ]);
    let body = json!({"model": NAME, "messages": messages, "max_tokens": 12, "temperature": 0.7, "seed": 7});
    let chat = ask(&gateway, CHAT, body).await;
    let body = json!({"prompt": "It was a walk.\n\nShe", "max_tokens": 12, "temperature": 0.7, "seed": 7});
    assert_eq!(text(&chat, 0), text(&ask(&gateway, TEXT, body).await, 0));
    insta::assert_json_snapshot!("chat", scrubbed(chat));
}

#[tokio::test]
async fn a_long_chat_forgets_its_oldest_paragraphs() {
    let gateway = gateway().await;
    let old = json!({"role": "user", "content": "word ".repeat(CONTEXT)});
    let new = json!({"role": "user", "content": "She said"});
    let with = |messages: &[&Value]| json!({"messages": messages, "max_tokens": 8, "seed": 7});
    let long = ask(&gateway, CHAT, with(&[&old, &new])).await;
    let short = ask(&gateway, CHAT, with(&[&new])).await;
    assert_eq!((text(&long, 0), &long["usage"]), (text(&short, 0), &short["usage"]));
}

#[tokio::test]
async fn seeds_decide_and_answers_to_one_prompt_differ() {
    let gateway = gateway().await;
    let with = |seed: i64, n: u64| json!({"prompt": "It was", "max_tokens": 16, "seed": seed, "n": n});
    let one = ask(&gateway, TEXT, with(7, 1)).await;
    assert_eq!(text(&one, 0), text(&ask(&gateway, TEXT, with(7, 1)).await, 0));
    let three = ask(&gateway, TEXT, with(7, 3)).await;
    assert_eq!(three["choices"].as_array().unwrap().len(), 3);
    assert_eq!(text(&three, 0), text(&one, 0));
    assert_ne!(text(&three, 1), text(&one, 0));
    assert_eq!(text(&three, 1), text(&ask(&gateway, TEXT, with(8, 1)).await, 0));
    assert_ne!(text(&ask(&gateway, TEXT, with(-1, 1)).await, 0), text(&one, 0));
    let free = json!({"prompt": "It was", "max_tokens": 16});
    assert_ne!(text(&ask(&gateway, TEXT, free.clone()).await, 0), text(&ask(&gateway, TEXT, free).await, 0));
}

#[tokio::test]
async fn several_prompts_are_answered_as_if_alone() {
    let gateway = gateway().await;
    let with = |prompt: Value| json!({"prompt": prompt, "max_tokens": 16, "seed": 7, "n": 2, "echo": true});
    let both = ask(&gateway, TEXT, with(json!(["It was", "She — said"]))).await;
    assert_eq!(both["choices"].as_array().unwrap().len(), 4);
    let mut prompt_tokens = 0;
    for (first, prompt) in [(0, "It was"), (2, "She — said")] {
        let alone = ask(&gateway, TEXT, with(json!(prompt))).await;
        prompt_tokens += alone["usage"]["prompt_tokens"].as_u64().unwrap();
        for choice in 0..2 {
            assert!(text(&alone, choice).starts_with(prompt));
            assert_eq!(text(&both, first + choice), text(&alone, choice));
            assert_eq!(both["choices"][first + choice]["index"], first + choice);
        }
    }
    assert_eq!(both["usage"]["prompt_tokens"], prompt_tokens);
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let gateway = gateway().await;
    let with = |stop: Value| json!({"prompt": "It was", "max_tokens": 24, "seed": 7, "temperature": 0.7, "stop": stop});
    let whole = text(&ask(&gateway, TEXT, with(Value::Null)).await, 0);
    // A stop in the middle of the text, which may begin and end inside of tokens; of characters that no token broke.
    let sound: Vec<&str> = whole.split('\u{FFFD}').filter(|part| part.len() > 4 && part.is_ascii()).collect();
    let stop = &sound[sound.len() / 2][1..4];
    let expected = &whole[..whole.find(stop).unwrap()];
    for stop in [json!(stop), json!(["never written", stop])] {
        let answer = ask(&gateway, TEXT, with(stop)).await;
        assert_eq!(text(&answer, 0), expected);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() < 24);
    }
}

#[tokio::test]
async fn the_context_ends_an_answer() {
    let gateway = gateway().await;
    for limit in [json!(1_000_000), json!(u64::MAX), Value::Null] {
        let body = json!({
            "messages": [{"role": "user", "content": "It was"}], "max_tokens": limit, "temperature": 0, "seed": 7,
        });
        let answer = ask(&gateway, CHAT, body).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["total_tokens"], CONTEXT);
    }
    let body = json!({"prompt": "It was", "temperature": 0});
    assert_eq!(ask(&gateway, TEXT, body).await["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn no_prompt_begins_a_document() {
    let gateway = gateway().await;
    let none = ask(&gateway, TEXT, json!({"seed": 7})).await;
    let empty = ask(&gateway, TEXT, json!({"seed": 7, "prompt": ""})).await;
    assert_eq!(text(&none, 0), text(&empty, 0));
    assert_eq!(none["usage"]["prompt_tokens"], 1);
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_tokens() {
    let gateway = gateway().await;
    let sampling = json!({"max_tokens": 6, "temperature": 0, "seed": 7});
    let with = |more: Value| {
        let mut body = sampling.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let body = with(json!({"prompt": "It was", "logprobs": 2, "echo": true}));
    let answer = ask(&gateway, TEXT, body).await;
    let logprobs = &answer["choices"][0]["logprobs"];
    let tokens: Vec<&str> = logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert!(text(&answer, 0).starts_with(&format!("It was{}", tokens[0])));
    assert_eq!(logprobs["text_offset"][0], "It was".len());
    for (index, token) in tokens.iter().enumerate() {
        let logprob = logprobs["token_logprobs"][index].as_f64().unwrap();
        assert!(logprob < 0.0);
        assert_eq!(logprobs["top_logprobs"][index][token], logprob, "the likeliest was chosen");
        assert_eq!(logprobs["top_logprobs"][index].as_object().unwrap().len(), 2);
    }
    let messages = json!([{"role": "user", "content": "It was"}]);
    let chat = with(json!({"messages": messages, "logprobs": true, "top_logprobs": 1}));
    let chat = ask(&gateway, CHAT, chat).await;
    let content = chat["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(content.len(), 6);
    for (index, token) in content.iter().enumerate() {
        let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        assert_eq!(token["token"], String::from_utf8_lossy(&bytes).as_ref());
        assert_eq!(token["logprob"], logprobs["token_logprobs"][index]);
        assert_eq!(token["top_logprobs"][0]["logprob"], token["logprob"]);
    }
}

#[tokio::test]
async fn the_newest_checkpoint_answers() {
    let gateway = gateway().await;
    let body = json!({"prompt": "It was", "seed": 7});
    let before = ask(&gateway, TEXT, body.clone()).await;
    assert_eq!(before["system_fingerprint"], "03030303");
    gateway.checkpoints.send(Some(checkpoint::at_round(4))).unwrap();
    let after = ask(&gateway, TEXT, body).await;
    assert_eq!(after["system_fingerprint"], "04040404");
    assert_ne!(text(&before, 0), text(&after, 0));
}

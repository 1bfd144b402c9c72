//! A whole run as a user has it: up, pages, API, piece, verify, chat, doctor.

use serde_json::{Value, json};

use crate::program::{Place, failed};

#[test]
fn up_trains_serves_and_ends_with_a_summary() {
    let place = Place::new();
    let mut up = place.up(&["--preset", "tiny"]);
    up.wait_for("done:");
    up.wait_for("shares");

    let state = up.state();
    assert_eq!(state["run"]["phase"], "finished", "{state:#}");
    let curve: Vec<f64> =
        state["curve"].as_array().unwrap().iter().filter_map(|point| point["training_loss"].as_f64()).collect();
    assert!(curve.len() >= 2 && curve[curve.len() - 1] < curve[0], "the loss falls: {curve:?}");
    let peers = state["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 4);
    let shares: u64 = peers.iter().map(|peer| peer["shares"].as_u64().unwrap()).sum();
    assert_eq!(Some(shares), state["ledger"]["supply"].as_u64(), "shares sum to the supply");
    assert!(peers.iter().all(|peer| peer["receipts"].as_u64().unwrap() > 0), "everyone worked: {peers:#?}");

    let models: Value = ureq::get(format!("{}/v1/models", up.url())).call().unwrap().body_mut().read_json().unwrap();
    let model = models["data"][0]["id"].as_str().unwrap();
    let request = json!({ "model": model, "prompt": "It was", "max_tokens": 8, "temperature": 0, "seed": 1 });
    let mut answer = ureq::post(format!("{}/v1/completions", up.url())).send_json(&request).unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer:#}");

    // Other commands find the running one.
    let chat = place.run(&["chat", "--max-tokens", "8", "--temperature", "0", "It was"]);
    let said = String::from_utf8(chat.stdout).unwrap();
    assert_eq!(said.trim_end(), format!("It was{}", answer["choices"][0]["text"].as_str().unwrap()).trim_end());
    let piece = place.run(&["piece", "--json"]).stdout;
    assert_eq!(up.interrupt(), Some(0), "Ctrl-C stops cleanly");

    // The same receipts and the same text once nothing runs.
    let receipts = |piece: &[u8]| serde_json::from_slice::<Value>(piece).unwrap()["receipts"].clone();
    assert!(receipts(&piece).as_array().is_some_and(|receipts| !receipts.is_empty()));
    assert_eq!(receipts(&place.run(&["piece", "--json"]).stdout), receipts(&piece));
    let offline = place.run(&["chat", "--max-tokens", "8", "--temperature", "0", "It was"]);
    assert_eq!(String::from_utf8(offline.stdout).unwrap(), said);
}

#[test]
fn a_piece_verifies_anywhere_and_a_changed_one_does_not() {
    let place = Place::new();
    let (code, said) = place.up(&["--preset", "tiny", "--peers", "2", "--exit-when-done"]).finish();
    assert_eq!(code, Some(0), "{said}");
    let path = place.file("piece.json");
    let piece = place.run(&["piece", "--json"]).stdout;
    std::fs::write(&path, &piece).unwrap();

    let stranger = Place::new();
    let verdict = stranger.run(&["verify", path.to_str().unwrap()]);
    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stderr));
    assert!(String::from_utf8_lossy(&verdict.stdout).starts_with("verified"));

    let mut changed: Value = serde_json::from_slice(&piece).unwrap();
    let shares = changed["account"]["shares"].as_u64().unwrap();
    changed["account"]["shares"] = json!(shares + 1);
    let mut other_run: Value = serde_json::from_slice(&piece).unwrap();
    other_run["receipts"][0]["body"]["run"] = json!("00".repeat(32));
    let mut forged: Value = serde_json::from_slice(&piece).unwrap();
    forged["receipts"][0]["signature"] = json!("00".repeat(64));
    for (what, value) in [("shares", changed), ("run", other_run), ("signature", forged)] {
        std::fs::write(&path, serde_json::to_vec(&value).unwrap()).unwrap();
        let (code, said) = failed(&stranger.run(&["verify", path.to_str().unwrap()]));
        assert_eq!(code, 8, "{what}: {said}");
        assert!(said.contains("not verified"), "{what}: {said}");
    }
    std::fs::write(&path, &piece[..piece.len() / 2]).unwrap();
    let (code, said) = failed(&stranger.run(&["verify", path.to_str().unwrap()]));
    assert_eq!(code, 3, "{said}");
}

#[test]
fn peers_as_processes_end_with_the_same_state() {
    let root = |arguments: &[&str]| {
        let place = Place::new();
        let mut up = place.up(arguments);
        up.wait_for("done:");
        let state = up.state();
        assert_eq!(up.interrupt(), Some(0));
        (state["run"]["state_root"].clone(), state["peers"].as_array().unwrap().len())
    };
    let (root, peers) = root(&["--preset", "tiny", "--peers", "2", "--processes"]);
    assert_eq!(peers, 2);
    assert!(root.is_string(), "{root}");
}

#[test]
fn the_users_own_text_can_be_trained_on() {
    let place = Place::new();
    let path = place.file("mine.txt");
    let lines: Vec<String> =
        (0..6000).map(|n| format!("Line {n} says that {} is {}.\n", n * 7 % 97, n * 3 % 89)).collect();
    std::fs::write(&path, lines.concat()).unwrap();
    let data = path.to_str().unwrap();
    let (code, said) = place.up(&["--preset", "tiny", "--data", data, "--peers", "2", "--exit-when-done"]).finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no recorded baseline"), "{said}");
}

#[test]
fn solo_training_is_the_same_for_any_number_of_threads() {
    let place = Place::new();
    let curve = |threads: &str| {
        let path = place.file("curve.json");
        let run = place.run(&[
            "train",
            "--solo",
            "--preset",
            "tiny",
            "--threads",
            threads,
            "--record",
            path.to_str().unwrap(),
        ]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(curve("1"), curve("2"));
}

#[test]
fn this_machine_conforms_and_says_so() {
    let place = Place::new();
    let output = place.run(&["conformance", "--threads", "1", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["conforms"], true);
    assert!(report["runs"].as_array().unwrap().iter().any(|run| run["instruction_set"] == "scalar"));
    let output = place.run(&["conformance", "--threads", "2", "--isa", "scalar"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let hash = report["hash"].as_str().unwrap();
    assert_eq!(said.lines().last().unwrap(), format!("conformance hash {hash}"));
}

#[test]
fn the_doctor_measures_this_machine() {
    let output = Place::new().run(&["doctor", "--json", "--port", "0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["hardware"]["cores"].as_u64().unwrap() >= 1);
    assert!(report["speed"]["single_gflops"].as_f64().unwrap() > 0.1, "{report:#}");
    assert_eq!(report["exact_floats"], true);
    assert_eq!(report["role"]["role"], "replica", "{report:#}");
    let small = Place::new().run(&["doctor", "--memory", "10M", "--port", "0"]);
    let said = String::from_utf8_lossy(&small.stdout).into_owned();
    assert!(said.contains("look  role    follow and serve: training takes") && said.contains("of 10.0 MB"), "{said}");
}

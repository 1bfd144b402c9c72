//! A model in stages as a user has it: peers with little memory, one of which is killed twice and comes back, a model that answers through
//! them, and the proof that what is recorded can be computed again.

use serde_json::{Value, json};

use crate::program::{Place, Up, failed};

/// More than a peer of this run takes; it does not suffice for a much larger model.
const MEMORY: &str = "400M";

/// The processes that a process started.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent_of = |process: &u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    numbers.filter(|process| parent_of(process) == Some(parent)).collect()
}

fn answer(up: &Up) -> String {
    let request = json!({ "prompt": "It was", "max_tokens": 8, "temperature": 0, "seed": 1 });
    let mut answer = ureq::post(format!("{}/v1/completions", up.url())).send_json(&request).unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer:#}");
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// Receipts of peer 4 that are paid.
fn receipts(up: &Up) -> u64 {
    up.state()["peers"][3]["receipts"].as_u64().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_model_in_stages_trains_answers_and_can_be_computed_again() {
    let place = Place::new();
    let arguments = ["--preset", "tiny", "--stages", "2", "--peers", "4", "--processes", "--memory", MEMORY];
    let mut up = place.up(&[&arguments[..], &["--rounds", "90"]].concat());
    up.wait_for_round(3);
    for death in 1..=2 {
        // The last peer is the second one of the last stage; its process is the one that was started last.
        let victim = children(up.id()).into_iter().max().unwrap();
        assert!(std::process::Command::new("kill").args(["-KILL", &victim.to_string()]).status().unwrap().success());
        up.wait_for("peer 4 is away: its process died, and is started again");
        up.wait_for(&format!("peer 4 is back, restarted {death}×"));
        let before = receipts(&up);
        while receipts(&up) == before {
            up.wait_for("round ");
        }
    }
    up.wait_for("done: 90 rounds");
    assert_eq!(up.state()["peers"][3]["restarts"], 2);
    let run = up.state()["run"].clone();
    assert_eq!(run["tokens"], run["tokens_target"], "a unit was lost");
    let memory = up.wait_for("memory of a peer");
    assert!(memory.contains("times the"), "{memory}");

    let models: Value = ureq::get(format!("{}/v1/models", up.url())).call().unwrap().body_mut().read_json().unwrap();
    assert_eq!(models["data"][0]["stages"], 2, "{models:#}");
    let said = answer(&up);
    assert_eq!(answer(&up), said, "the same question, the same bits");
    assert_eq!(up.interrupt(), Some(0));

    // The whole model, which only this machine's owner can put together, says the same.
    let chat = place.run(&["chat", "--max-tokens", "8", "--temperature", "0", "It was"]);
    assert_eq!(String::from_utf8(chat.stdout).unwrap().trim_end(), format!("It was{said}").trim_end());

    let replay = place.run(&["replay"]);
    let said = String::from_utf8_lossy(&replay.stdout).into_owned();
    assert!(replay.status.success() && said.contains("every hash is the same"), "{said}{}", failed(&replay).1);
    let one = place.run(&["replay", "--unit", "0", "--json"]).stdout;
    let lines: Vec<Value> =
        String::from_utf8(one).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["stage"].as_u64().unwrap()).collect::<std::collections::BTreeSet<_>>().len(),
        2
    );
    assert!(lines.iter().all(|line| line["differences"] == json!([])), "{lines:?}");
    let (code, said) = failed(&place.run(&["replay", "--round", "5"]));
    assert!(code == 3 && said.contains("rounds are: 87, "), "{said}");
    let (code, said) = failed(&place.run(&["replay", "--unit", "999"]));
    assert!(code == 3 && said.contains("no receipt of unit 999"), "{said}");
}

#[test]
fn nothing_recorded_cannot_be_computed_again() {
    let place = Place::new();
    let (code, said) = failed(&place.run(&["replay"]));
    assert!(code == 3 && said.contains("cairn up"), "{said}");
}

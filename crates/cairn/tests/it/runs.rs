//! Runs as things: described, founded, listed, shown, watched, exported and forked from the command line.

use serde_json::Value;

use crate::program::{Place, failed};

fn printed(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", failed(output).1);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &std::process::Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

const QUICK: [&str; 7] = [
    "--size=tiny",
    "--rounds=8",
    "--peers=2",
    "--set=inner_steps=4",
    "--set=evaluation.windows=8",
    "--yes",
    "--name=first",
];

#[test]
fn a_run_is_described_trained_listed_shown_exported_and_forked() {
    let place = Place::new();
    let run = |arguments: &[&str]| place.run(&[&["run"], arguments].concat());
    let (code, said) = failed(&run(&["show"]));
    assert!(code == 3 && said.contains("no run in") && said.contains("cairn run new"), "{said}");
    let output = run(&[&["new"], QUICK.as_slice()].concat());
    let takes = failed(&output).1;
    for part in ["parameters", "in 8 rounds", "for each peer and round", "of computing, with all 2 peers"] {
        assert!(takes.contains(part), "{takes}");
    }
    let said = printed(&output);
    assert!(said.contains("founded `first`") && said.contains("public domain") && said.contains("cairn up"), "{said}");
    let listed = printed(&run(&["ls"]));
    assert!(
        listed.contains("* ") && listed.contains("first") && listed.contains("0/8") && listed.contains("new"),
        "{listed}"
    );

    // Nothing on the command line says what is trained: it is the newest run.
    let (code, said) = place.up(&["--exit-when-done"]).finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("training `first`") && said.contains("2 peers on this machine"), "{said}");
    assert!(said.contains("done: 8 rounds"), "{said}");
    let lines = json(&run(&["ls", "--json"]));
    assert_eq!((&lines[0]["state"], &lines[0]["round"]), (&Value::from("complete"), &Value::from(8)));
    let id = lines[0]["id"].as_str().unwrap().to_owned();
    let shown = printed(&run(&["show", &id[..6]]));
    assert!(shown.contains("name = \"first\"") && shown.contains("licence = \"public domain\""), "{shown}");
    assert_eq!(json(&run(&["show", "first", "--json"]))["recipe"]["inner_steps"], 4);

    let to = place.file("exported");
    printed(&run(&["export", "first", "--to", to.to_str().unwrap()]));
    assert!(to.join("model.safetensors").is_file());
    let other = place.file("again");
    printed(&place.run(&["export", "--run", &id[..8], "--to", other.to_str().unwrap()]));
    let model = |folder: &std::path::Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(model(&to), model(&other), "one command by two names");

    let said = printed(&run(&["fork", "first", "--set", "inner.adamw.lr=0.25", "--name", "second"]));
    assert!(said.contains("inner.adamw.lr: 0.004 → 0.25") && said.contains("charter.name: first → second"), "{said}");
    assert!(!said.contains("rounds"), "{said}");
    let lines = json(&run(&["ls", "--json"]));
    assert_eq!((&lines[0]["name"], &lines[0]["parent"]), (&Value::from("second"), &Value::from(id.clone())));
    assert!(printed(&run(&["show"])).contains(&format!("parent = \"{id}\"")));
    let (code, said) = failed(&run(&["fork", "second", "--set", "speed=3"]));
    assert!(code == 3 && said.contains("speed") && said.contains("hint:"), "{said}");
    let (code, said) = failed(&run(&["fork", "third", "--set", "seed=3"]));
    assert!(code == 3 && said.contains("`third`") && said.contains("cairn run ls"), "{said}");

    // The older one by its name, while the newest is another.
    let mut up = place.up(&["--run", "first"]);
    assert!(up.state()["run"]["name"] == "first", "{}", up.state()["run"]);
    up.wait_for("the model goes on answering");
    let watched = run(&["watch", "first"]);
    assert!(failed(&watched).1.contains("round 8/8"), "{}", failed(&watched).1);
    let (code, said) = failed(&run(&["watch", "second"]));
    assert!(code == 3 && said.contains("trains `first`, not `second`"), "{said}");
    assert_eq!(up.interrupt(), Some(0));
    let (code, said) = failed(&run(&["watch"]));
    assert!(code == 3 && said.contains("no cairn is running"), "{said}");
}

#[test]
fn a_description_in_a_file_names_a_text_that_a_joiner_gets_from_the_run() {
    let (one, two) = (Place::new(), Place::new());
    let text: String = (0..9000).map(|i| format!("word{} and {}. ", i % 977, i * i % 7919)).collect();
    std::fs::write(one.file("letters.txt"), text).unwrap();
    let description = "size = 'tiny'\nrounds = 200\npeers = 2\nround_seconds = 10\n[data]\npath = 'letters.txt'\n\
                       name = 'letters'\nlicence = 'CC-BY-4.0'\n[recipe]\ninner_steps = 4\nevaluation.windows = 8\n";
    let path = one.file("run.toml");
    std::fs::write(&path, description).unwrap();
    let founded = json(&one.run(&["run", "new", "--from", path.to_str().unwrap(), "--json"]));
    assert_eq!(
        (&founded["charter"]["name"], &founded["charter"]["round_us_first"]),
        (&"letters-tiny".into(), &10_000_000.into())
    );
    assert!(founded["takes"]["round_bytes"].as_f64().is_some_and(|bytes| bytes > 0.0), "{founded}");
    // The run has its own copy.
    std::fs::remove_file(one.file("letters.txt")).unwrap();

    let mut founder = one.up(&["--listen", "127.0.0.1:0"]);
    let line = founder.wait_for("cairn join ");
    let ticket = line.split_whitespace().last().unwrap();
    let mut guest = two.start("join", &[ticket]);
    guest.wait_for_round(3);
    let state = guest.state();
    assert!(state["run"]["data"].as_str().is_some_and(|data| data.starts_with("letters")), "{}", state["run"]);
    assert_eq!(state["run"]["licence"], "CC-BY-4.0");
    let done = founder.wait_for("state root");
    assert_eq!(guest.wait_for("state root"), done, "the same bits on both machines");
    assert_eq!(guest.interrupt(), Some(0));
    assert_eq!(founder.interrupt(), Some(0));
    let shown = printed(&two.run(&["run", "show", "letters-tiny"]));
    assert!(shown.contains("licence = \"CC-BY-4.0\""), "{shown}");
    // What was joined can be forked: the text is here now.
    let said = printed(&two.run(&["run", "fork", "letters-tiny", "--set", "seed=2", "--set", "rounds=250"]));
    assert!(said.contains("seed: 1 → 2") && said.contains("rounds: 200 → 250"), "{said}");
}

#[test]
fn what_cannot_be_founded_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let path = place.file("bad.toml");
    std::fs::write(&path, "speed = 3\n").unwrap();
    let path = path.to_str().unwrap();
    for (arguments, code, part) in [
        (&["--size", "huge"][..], 3, "`huge` is no size"),
        (&["--rounds", "1"], 3, "compression.keep"),
        (&["--release", "split"], 3, "at least 2 stages"),
        (&["--set", "inner"], 2, "write a path and a value"),
        (&["--licence", "MIT"], 2, "--data"),
        (&["--data", "/no such text"], 3, "/no such text"),
        (&["--from", path], 3, "speed"),
        (&["--from", "/no such file"], 3, "cannot read `/no such file`"),
    ] {
        let output = place.run(&[&["run", "new", "--yes"], arguments].concat());
        let (got, said) = failed(&output);
        assert!(got == code && said.contains(part), "{arguments:?}: {got}, {said}");
    }
    assert!(!place.home().join("runs").exists(), "nothing was founded");
    assert!(printed(&place.run(&["run", "ls"])).is_empty());
    let (code, said) = failed(&place.run(&["up", "--run", "mine", "--port", "0"]));
    assert!(code == 3 && said.contains("`mine`") && said.contains("cairn run ls"), "{said}");
    let (code, said) = failed(&place.run(&["up", "--run", "mine", "--seed", "3"]));
    assert!(code == 2 && said.contains("--seed"), "{said}");
}

//! `cairn plan` says what a run would take.

use serde_json::Value;

use crate::program::Place;

fn said(arguments: &[&str]) -> String {
    let output = Place::new().run(&[&["plan"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_plan_is_told_in_a_table() {
    let like = "260×(24GB,25TFLOPS,80/20Mbps,60ms)+40x(64GB,25TFLOPS,80/20Mbps,60ms)";
    let text = said(&["--model", "32b", "--like", like, "--tokens", "500B"]);
    for expected in [
        "32b, 32.8 G parameters",
        "260 × 24.0 GB, 25.0 TFLOP/s, 80.0 Mbit/s down, 20.0 Mbit/s up, 60 ms",
        "at every boundary",
        "bound by",
        "memory     ",
        "units of 1024 tokens",
        "a joiner or a checkpoint",
        "for 500 G tokens",
        "would give",
        "measured runs that it was not fitted on",
    ] {
        assert!(text.contains(expected), "`{expected}` is missing:\n{text}");
    }
    assert!(!text.contains("simulated"), "{text}");
}

#[test]
fn a_file_and_a_line_give_the_same_plan() {
    let place = Place::new();
    let file = place.file("peers.toml");
    let peers =
        "[[peers]]\ncount = 12\nmemory = \"16GB\"\nspeed = \"2TFLOPS\"\nlink = \"80/20Mbps\"\nround_trip = \"60ms\"\n";
    std::fs::write(&file, peers).unwrap();
    let plan = |arguments: &[&str]| -> Value {
        serde_json::from_str(&said(&[&["--model", "1b", "--json"], arguments].concat())).unwrap()
    };
    let (file, line) =
        (plan(&["--peers", file.to_str().unwrap()]), plan(&["--like", "12×(16GB,2TFLOPS,80/20Mbps,60ms)"]));
    assert_eq!(file, line);
    let plan = &file["plan"];
    let replicas: u64 =
        plan["stages"].as_array().unwrap().iter().map(|stage| stage["replicas"][0].as_u64().unwrap()).sum();
    assert_eq!(Some(replicas), plan["peers_used"].as_u64());
    let round = &plan["round"];
    let seconds: f64 = ["fill_s", "steady_s", "exchange_s"].iter().map(|part| round[part].as_f64().unwrap()).sum();
    let tokens = plan["units"].as_f64().unwrap() * plan["unit_tokens"].as_f64().unwrap();
    let rate = plan["tokens_per_s"].as_f64().unwrap();
    assert!((tokens / seconds / rate - 1.0).abs() < 1e-9, "{plan}");
    assert_eq!(file["simulation"], Value::Null);
}

#[test]
fn a_plan_is_simulated_the_same_twice_and_with_peers_that_leave() {
    let like = "16×(16GB,2TFLOPS,80/20Mbps,60ms)";
    let simulate = |more: &[&str]| {
        let text = said(&[&["--model", "1b", "--like", like, "--simulate", "--json"], more].concat());
        serde_json::from_str::<Value>(&text).unwrap()["simulation"].clone()
    };
    let calm = simulate(&[]);
    assert_eq!((calm.clone(), calm["departures"].as_u64()), (simulate(&[]), Some(0)));
    let churn = simulate(&["--churn", "30m", "--away", "5m", "--rounds", "10"]);
    assert!(churn["departures"].as_u64() > Some(0), "{churn}");
    assert!(churn["tokens_per_s"].as_f64() < calm["tokens_per_s"].as_f64(), "{churn} {calm}");
    let text = said(&["--model", "1b", "--like", like, "--simulate", "--churn", "30m"]);
    assert!(text.contains("of the plan") && text.contains("departures"), "{text}");
}

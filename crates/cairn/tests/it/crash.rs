//! `kill -9` at any moment loses no finished receipt.

use serde_json::Value;

use crate::program::Place;

/// More rounds than the tiny recipe has, so that there is time to kill.
const ROUNDS: &str = "24";

fn receipts(piece: &Value) -> Vec<String> {
    let receipts = piece["receipts"].as_array().unwrap();
    receipts.iter().map(|receipt| receipt["signature"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_killed_run_resumes_with_every_receipt() {
    for arguments in [vec![], vec!["--processes"]] {
        let place = Place::new();
        let mut all = vec!["--preset", "tiny", "--rounds", ROUNDS, "--peers", "3"];
        all.extend(&arguments);
        let mut before: Vec<String> = Vec::new();
        for (life, wanted) in [2, 5, 9].into_iter().enumerate() {
            let mut up = place.up(&all);
            let done = up.rounds_done();
            // Rounds are quick: the life before may have got further than the round it was killed for.
            up.wait_for_round(wanted.max(done + 2));
            let piece = up.piece().expect("a piece after the first rounds");
            let now = receipts(&piece);
            assert_eq!(now[..before.len()], before[..], "life {life} of {arguments:?} lost a receipt");
            assert!(now.len() > before.len(), "life {life} of {arguments:?} earned nothing");
            before = now;
            up.kill_hard();
        }
        all.push("--exit-when-done");
        let (code, said) = place.up(&all).finish();
        assert_eq!(code, Some(0), "{said}");
        let piece: Value = serde_json::from_slice(&place.run(&["piece", "--json"]).stdout).unwrap();
        let now = receipts(&piece);
        assert_eq!(now[..before.len()], before[..], "the last life of {arguments:?} lost a receipt");
        let counters: Vec<u64> = piece["receipts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|receipt| receipt["body"]["counter"].as_u64().unwrap())
            .collect();
        assert_eq!(counters, (0..counters.len() as u64).collect::<Vec<_>>(), "none was paid twice or skipped");
    }
}

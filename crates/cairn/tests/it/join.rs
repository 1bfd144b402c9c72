//! Two data directories, as on two machines: one founds a run, the other joins it with the ticket that the first printed.

use serde_json::Value;

use crate::program::{Place, failed};

fn printed(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", failed(output).1);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_machine_joins_with_a_ticket_and_owns_its_piece() {
    let (one, two) = (Place::new(), Place::new());
    let arguments = ["--preset", "tiny", "--peers", "2", "--rounds", "200", "--listen", "127.0.0.1:0"];
    let mut founder = one.up(&arguments);
    let line = founder.wait_for("cairn join ");
    let ticket = line.split_whitespace().last().unwrap();

    let mut guest = two.start("join", &[ticket]);
    guest.wait_for_round(3);
    let id = guest.state()["peers"][0]["id"].as_str().unwrap().to_owned();
    let elsewhere = |peer: &Value| peer["id"] == id.as_str() && peer["name"] == id[..8];
    founder.wait_for_state(|state| state["peers"].as_array().unwrap().iter().any(elsewhere));
    guest.wait_for_state(|state| state["peers"].as_array().unwrap().len() == 3);

    let done = founder.wait_for("state root");
    assert_eq!(guest.wait_for("state root"), done, "the same bits on both machines");
    guest.wait_for("others");
    assert_eq!(guest.interrupt(), Some(0));
    assert_eq!(founder.interrupt(), Some(0));

    let said = printed(&two.run(&["piece"]));
    assert!(said.contains(&id[..8]), "{said}");
    let piece = two.file("piece.json");
    std::fs::write(&piece, printed(&two.run(&["piece", "--json"]))).unwrap();
    let verified = printed(&one.run(&["verify", piece.to_str().unwrap()]));
    assert!(verified.contains("receipts"), "{verified}");
    let text = printed(&two.run(&["chat", "--max-tokens", "5", "It was"]));
    assert!(!text.trim().is_empty(), "the guest has the model, too");

    let (code, said) = failed(&two.run(&["join", ticket]));
    assert!(code == 10 && said.contains("no answer from 127.0.0.1") && said.contains("hint:"), "{said}");
}

#[test]
fn what_is_no_ticket_is_refused() {
    let place = Place::new();
    let good = "cairnair26ew4yirftoh3jylzmxnv7djaow3hvgswnexelsjyw27jv3hbrajzo4hkq7ixl5lkgvdgyngh5tglrwfjdnhog6rf35qploh4tm4uaiaaaaaayaaaeb47dmasa\
        ainxaaaaaaaaaaaaaaaaaaadhy3aeaaaaavaaaaa2duorydulzpge4telrqfyzc4oj2gmztimfyxkeoc";
    for (ticket, part) in [("hello", "begins with `cairn`"), (&good[..90], "is damaged"), ("cairn", "is damaged")] {
        let (code, said) = failed(&place.run(&["join", ticket]));
        assert!(code == 3 && said.contains(part) && said.contains("hint: copy the whole line"), "{said}");
    }
    assert!(!place.home().exists(), "nothing was made");
}

//! Real hosts of a test internet, behind routers and bad links: the whole program, as people run it at home.

use std::time::{Duration, Instant};

use serde_json::Value;
use testnet::{Host, HostSpec, Internet, InternetError, Nat};

use crate::program::{PATIENCE, Place, Up, failed};

/// An ordinary home.
const HOME: &str = "100M/20M,40ms,0.2%";

fn internet() -> Option<Internet> {
    match Internet::new(5) {
        Ok(internet) => Some(internet),
        Err(InternetError::Unavailable(why)) => {
            eprintln!("SKIPPED: no test internet here: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn add(internet: &Internet, name: &str, nat: Nat, cpu_percent: Option<u32>) -> Host {
    internet.add(name, &HostSpec { link: HOME.parse().unwrap(), nat, cpu_percent }).unwrap()
}

/// How a peer is reached by the first peer of another: directly or through a relay.
fn path(of: &Up, peer: &str) -> Option<bool> {
    let state = of.state();
    let view = state["peers"].as_array()?.iter().find(|view| view["id"] == peer)?.clone();
    view["path"]["relayed"].as_bool()
}

fn id(of: &Up) -> String {
    of.state()["peers"][0]["id"].as_str().unwrap().to_owned()
}

fn receipts(of: &Up, peer: &str) -> u64 {
    let state = of.state();
    let found = state["peers"].as_array().unwrap().iter().find(|view| view["id"] == peer).cloned();
    found.map_or(0, |view: Value| view["receipts"].as_u64().unwrap_or(0))
}

#[test]
fn homes_behind_routers_meet_at_a_relay_and_train_one_model() {
    let Some(internet) = internet() else { return };
    let public = add(&internet, "relay", Nat::None, None);
    let founders = add(&internet, "founder", Nat::PortPreserving, Some(40));
    let homes = add(&internet, "home", Nat::PortPreserving, None);
    let offices = add(&internet, "office", Nat::Symmetric, Some(50));
    let [at_relay, at_founder, at_home, at_office] = [&public, &founders, &homes, &offices].map(Place::on);

    let mut relay = at_relay.listen(&["relay"], 0);
    let line = relay.wait_for("cairn up --relay");
    let url = line.split_whitespace().last().unwrap().to_owned();
    assert_eq!(url, format!("http://{}:3340", public.address()));

    let arguments = ["--preset", "tiny", "--peers", "1", "--rounds", "160", "--relay", &url];
    let mut founder = at_founder.up(&arguments);
    let ticket = founder.wait_for("cairn join ").split_whitespace().last().unwrap().to_owned();
    let mut home = at_home.start("join", &[&ticket]);
    let mut office = at_office.start("join", &[&ticket]);
    let (home_id, office_id) = (id(&home), id(&office));
    let begun = Instant::now();
    for peer in [&home_id, &office_id] {
        while receipts(&founder, peer) < 3 {
            assert!(begun.elapsed() < PATIENCE, "no receipts: {}", founder.state()["peers"]);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    // A connection begins at the relay; two routers that keep ports let the peers through to each other within moments.
    let begun = Instant::now();
    while path(&founder, &home_id) != Some(false) {
        assert!(begun.elapsed() < PATIENCE, "no direct path: {}", founder.state()["peers"]);
        std::thread::sleep(Duration::from_millis(200));
    }
    let relayed = path(&founder, &office_id);
    println!("home: direct; office behind a symmetric router: relayed {relayed:?}");
    assert!(relayed.is_some(), "the office is connected, one way or the other");
    // Both joined with a ticket that names only the founder, and each is behind a router of its own.
    let begun = Instant::now();
    while path(&home, &office_id).is_none() {
        assert!(begun.elapsed() < PATIENCE, "the guests never met: {}", home.state()["peers"]);
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("home to office: relayed {:?}", path(&home, &office_id));

    for (place, expected) in [(&at_home, "keeps_ports"), (&at_office, "changes_ports")] {
        let output = place.run(&["doctor", "--json", "--ticket", &ticket]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["run"]["network"]["translation"], expected, "{report:#}");
    }
    let done = founder.wait_for("state root");
    assert_eq!(home.wait_for("state root"), done, "the same bits on every host");
    assert_eq!(office.wait_for("state root"), done, "the same bits on every host");
    let paid = [&home_id, &office_id].map(|peer| receipts(&founder, peer));
    assert!(paid.iter().all(|paid| *paid > 0), "{paid:?}");
    for (host, name) in [(&founders, "founder"), (&homes, "home"), (&offices, "office")] {
        let counts = internet.counts(host);
        let (sent, received) = (counts.sent.delivered.bytes, counts.received.delivered.bytes);
        println!("{name}: {sent} bytes sent, {received} received, {} lost", counts.sent.lost.datagrams);
        assert!(sent > 10_000 && received > 10_000);
    }
    for up in [office, home, founder, relay] {
        assert_eq!(up.interrupt(), Some(0));
    }
}

#[test]
fn machines_of_one_home_find_each_other_without_a_ticket() {
    let Some(internet) = internet() else { return };
    let first = add(&internet, "first", Nat::PortPreserving, Some(40));
    let second = internet.add_beside("second", &first).unwrap();
    let [at_first, at_second] = [&first, &second].map(Place::on);
    let (code, said) = failed(&at_second.run(&["join", "--lan"]));
    assert!(code == 10 && said.contains("no machine in the local network"), "{said}");

    let mut founder = at_first.up(&["--preset", "tiny", "--peers", "1", "--rounds", "400", "--listen", "0.0.0.0:7071"]);
    let mut guest = at_second.start_until("join", &["--lan"], PATIENCE);
    guest.wait_for_round(1);
    let guest_id = id(&guest);
    let begun = Instant::now();
    while receipts(&founder, &guest_id) == 0 {
        assert!(begun.elapsed() < PATIENCE, "no receipts: {}", founder.state()["peers"]);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(path(&founder, &guest_id), Some(false), "they are in one network");
    assert_eq!(guest.interrupt(), Some(0));
    founder.wait_for("round ");
    assert_eq!(founder.interrupt(), Some(0));
}

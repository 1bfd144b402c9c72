//! Whole networks by seed.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod stages;

use std::collections::BTreeSet;

use sim::{Adversary, Report, SimConfig, Simulation, Violation};

/// Runs a configuration, or fails with the command that reproduces it.
fn run(config: SimConfig) -> Report {
    match Simulation::new(config).run() {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn fifty_peers_and_fifty_rounds_with_loss_delay_crashes_and_restarts() {
    let mut config = SimConfig::from_seed(11, 50, 50);
    config.units_per_round = 50;
    config.late = 5;
    config.slow = 5;
    config.faults.loss = 20_000;
    config.faults.breaks = 1_000;
    config.faults.crash_us_mean = 120_000_000;
    config.faults.crash_outputs = 200;
    config.faults.partition_us_mean = 120_000_000;
    let shares_per_round = 1_000_003;
    let report = run(config);
    assert_eq!(report.supply, 50 * shares_per_round);
    assert_eq!(report.shares.iter().sum::<u64>(), report.supply);
    assert!(report.counts.crashes >= 50, "{:?}", report.counts);
    assert!(report.counts.breaks >= 100 && report.counts.partitions >= 1, "{:?}", report.counts);
    assert!(report.counts.snapshots >= 1 && report.counts.stale_results >= 1, "{:?}", report.counts);
    assert!(report.receipts > 1_000, "{} receipts", report.receipts);
}

#[test]
fn eighty_seeds_of_small_networks() {
    let mut counts = sim::Counts::default();
    for seed in 0..80 {
        let config = SimConfig::from_seed(seed, 5 + usize::try_from(seed % 4).unwrap(), 8);
        let report = run(config);
        assert_eq!(report.shares.iter().sum::<u64>(), report.supply, "seed {seed}");
        counts.crashes += report.counts.crashes;
        counts.partitions += report.counts.partitions;
        counts.snapshots += report.counts.snapshots;
        counts.transfers_failed += report.counts.transfers_failed;
    }
    assert!(counts.crashes > 20 && counts.partitions > 2 && counts.transfers_failed > 20, "{counts:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let [one, two, other] = [7, 7, 8].map(|seed| run(SimConfig::from_seed(seed, 8, 8)));
    assert_eq!(one, two);
    assert_ne!(one.trace, other.trace);
}

#[test]
fn without_faults_every_unit_is_paid_and_rounds_do_not_wait_for_deadlines() {
    let config = SimConfig::calm(3, 6, 10);
    let deadlines_us = config.rounds * config.round_us_max;
    let report = run(config);
    assert_eq!(report.receipts, 60);
    assert!(report.end.as_micros() < deadlines_us / 2, "{}", report.end);
    let (least, most) = (report.shares.iter().min().unwrap(), report.shares.iter().max().unwrap());
    assert!(most - least <= 1_000, "equal work, nearly equal shares: {:?}", report.shares);
}

#[test]
fn one_peer_alone_finishes_too() {
    let report = run(SimConfig::calm(1, 1, 5));
    assert_eq!((report.receipts, report.shares.len()), (5, 1));
}

#[test]
fn adversaries_are_found_out_and_gain_nothing() {
    let expected = [
        (Adversary::Copycat, &["rejected transaction"][..]),
        (Adversary::Stale, &["rejected transaction"]),
        (Adversary::Forger, &["bad signature", "rejected transaction"]),
        (Adversary::Divergent, &["divergent", "rejected transaction"]),
        (Adversary::Garbage, &["undecodable"]),
    ];
    assert_eq!(expected.map(|(adversary, _)| adversary), Adversary::SIGNERS);
    for (adversary, kinds) in expected {
        let mut all = BTreeSet::new();
        for seed in 0..4 {
            let report = run(SimConfig::calm(seed, 5, 6).with(adversary));
            let name = adversary.name();
            assert_eq!(report.adversary_shares, [0], "{name} earned shares with seed {seed}");
            assert!(!report.adversary_faults[0].is_empty(), "{name} with seed {seed}");
            all.extend(report.adversary_faults[0].keys().copied());
        }
        assert_eq!(all, kinds.iter().copied().collect(), "{}", adversary.name());
    }
}

#[test]
fn all_adversaries_together_under_faults_gain_nothing() {
    let mut config = SimConfig::from_seed(5, 9, 8);
    config.adversaries = Adversary::SIGNERS.to_vec();
    let report = run(config);
    assert_eq!(report.adversary_shares, [0; 5]);
    assert!(report.adversary_faults.iter().all(|faults| !faults.is_empty()), "{:?}", report.adversary_faults);
}

#[test]
fn a_wrong_state_is_found_and_the_failure_says_how_to_reproduce_it() {
    let mut config = SimConfig::calm(2, 5, 6);
    config.broken = 1;
    let failure = Simulation::new(config).run().unwrap_err();
    assert!(matches!(failure.violation, Violation::States { round: 3, .. }), "{failure}");
    assert!(
        failure.to_string().contains("hint: cargo run --release -p sim -- --seed 2 --peers 5 --rounds 6"),
        "{failure}"
    );
    assert!(SimConfig::from_seed(4, 6, 7).command().ends_with("--seed 4 --peers 6 --rounds 7"));
    assert!(SimConfig::calm(4, 6, 7).with(Adversary::Stale).command().ends_with("--rounds 7 --adversary stale --calm"));
}

/// A run of so many peers whose payloads are together more than a state.
fn crowd(seed: u64, peers: usize, rounds: u64) -> SimConfig {
    SimConfig { round_us_max: 120_000_000, ..SimConfig::calm(seed, peers, rounds) }
}

#[test]
fn among_many_a_committee_folds_and_the_others_fetch_the_state() {
    let (peers, rounds) = (60, 4);
    let report = run(crowd(1, peers, rounds));
    assert_eq!(report.receipts, peers as u64 * rounds);
    // Everybody but the committee and the validator, in each round after which a state follows.
    assert!(report.counts.snapshots > 40 * rounds, "{:?}", report.counts);
    let all = peers as u64 * peers as u64 * rounds;
    assert!(report.counts.transfers < all / 2, "{} transfers, {all} payloads times peers", report.counts.transfers);
}

#[test]
fn what_a_round_costs_grows_with_the_members_not_with_their_square() {
    let each = |peers: usize| {
        let report = run(crowd(2, peers, 3));
        report.events as f64 / (peers as u64 * 3) as f64
    };
    let (few, many) = (each(50), each(200));
    assert!(many < few * 2.0, "{few} and {many} events for each member and round");
}

#[test]
fn a_crowd_survives_crashes_loss_and_partitions() {
    let mut snapshots = 0;
    for seed in 0..4 {
        let mut config = crowd(seed, 40, 5);
        config.faults.loss = 10_000;
        config.faults.crash_us_mean = 60_000_000;
        config.faults.crash_outputs = 100;
        config.faults.down_us_max = 10_000_000;
        config.faults.partition_us_mean = 60_000_000;
        config.late = 4;
        let report = run(config);
        assert_eq!(report.shares.iter().sum::<u64>(), report.supply, "seed {seed}");
        assert!(report.counts.crashes > 5, "{:?}", report.counts);
        snapshots += report.counts.snapshots;
    }
    assert!(snapshots > 100, "{snapshots} states fetched");
}

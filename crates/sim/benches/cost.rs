//! What a simulation costs: wall seconds of networks of many peers in virtual time, without faults.
//!
//! `cargo bench -p sim --bench cost` runs 64 peers in 8 stages for 20 rounds, then 100, 300 and 1,000 peers in one stage for 6 rounds each, and prints
//! wall and virtual seconds, events, and the wall time of each member and round beside what it would be if cost grew with n log n. Numbers
//! after `--` make it another size: `cargo bench -p sim --bench cost -- PEERS STAGES ROUNDS`.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::process::ExitCode;
use std::time::Instant;

use sim::{SimConfig, Simulation};

/// Peers of the curve.
const CURVE: [usize; 3] = [100, 300, 1_000];
/// Rounds of each of its points.
const CURVE_ROUNDS: u64 = 6;

fn config(peers: usize, stages: usize, rounds: u64) -> SimConfig {
    match stages {
        // Among many it takes a while until everybody has the state.
        0 | 1 => SimConfig { round_us_max: 120_000_000, ..SimConfig::calm(1, peers, rounds) },
        _ => SimConfig::calm_stages(1, stages, peers.div_ceil(stages), rounds),
    }
}

/// Runs a network and prints what it cost; wall seconds, unless it failed.
fn measure(peers: usize, stages: usize, rounds: u64) -> Option<f64> {
    let start = Instant::now();
    let run = Simulation::new(config(peers, stages, rounds)).run();
    let wall = start.elapsed().as_secs_f64();
    let report = match run {
        Ok(report) => report,
        Err(failure) => {
            eprintln!("error: {failure}");
            return None;
        }
    };
    let virtual_s = report.end.as_micros() as f64 / 1e6;
    println!(
        "{peers} peers, {stages} stages, {rounds} rounds: {wall:.1} s for {virtual_s:.0} virtual s, {} events, {:.1} us each, {} messages, \
         {} transfers, {} blocks, {} units lost",
        report.events,
        wall * 1e6 / report.events as f64,
        report.counts.messages,
        report.counts.transfers,
        report.blocks,
        report.units_lost(),
    );
    Some(wall)
}

/// Runs the curve; false when a run failed.
fn curve() -> bool {
    let mut first = None;
    for peers in CURVE {
        let Some(wall) = measure(peers, 1, CURVE_ROUNDS) else { return false };
        let each_us = wall * 1e6 / (peers as f64 * CURVE_ROUNDS as f64);
        let logs = (peers as f64).ln();
        let (first_us, first_logs) = *first.get_or_insert((each_us, logs));
        println!(
            "  {each_us:.0} us for each member and round; {:.0} if it grew with n log n",
            first_us * logs / first_logs
        );
    }
    true
}

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let size = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
    let good = match numbers[..] {
        [peers, stages, rounds] => measure(size(peers), size(stages), rounds.max(1)).is_some(),
        _ => measure(64, 8, 20).is_some() && curve(),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

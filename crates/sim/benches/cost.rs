//! What a simulation costs: wall seconds of networks of many peers in virtual time, without faults.
//!
//! `cargo bench -p sim --bench cost` runs 64 peers in 8 stages for 20 rounds, and 100 and 300 peers in one stage for 20 and 4 rounds, and
//! prints wall seconds, virtual seconds, events and their ratio. Numbers after `--` make it another size:
//! `cargo bench -p sim --bench cost -- PEERS STAGES ROUNDS`. Every peer keeps and applies all blocks, as real ones do, so that time and
//! memory grow with the square of the peers: 1,000 peers for 100 rounds do not fit into a machine.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::process::ExitCode;
use std::time::Instant;

use sim::{SimConfig, Simulation};

fn config(peers: usize, stages: usize, rounds: u64) -> SimConfig {
    match stages {
        // Among many it takes a while until everybody has the state.
        0 | 1 => SimConfig { round_us_max: 120_000_000, ..SimConfig::calm(1, peers, rounds) },
        _ => SimConfig::calm_stages(1, stages, peers.div_ceil(stages), rounds),
    }
}

fn measure(peers: usize, stages: usize, rounds: u64) -> bool {
    let start = Instant::now();
    let run = Simulation::new(config(peers, stages, rounds)).run();
    let wall = start.elapsed().as_secs_f64();
    let report = match run {
        Ok(report) => report,
        Err(failure) => {
            eprintln!("error: {failure}");
            return false;
        }
    };
    let virtual_s = report.end.as_micros() as f64 / 1e6;
    println!(
        "{peers} peers, {stages} stages, {rounds} rounds: {wall:.1} s for {virtual_s:.0} virtual s, {} events, {:.1} us each, {} messages, \
         {} blocks, {} units lost",
        report.events,
        wall * 1e6 / report.events as f64,
        report.counts.messages,
        report.blocks,
        report.units_lost(),
    );
    true
}

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let size = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
    let good = match numbers[..] {
        [peers, stages, rounds] => measure(size(peers), size(stages), rounds.max(1)),
        _ => measure(64, 8, 20) && measure(100, 1, 20) && measure(300, 1, 4),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

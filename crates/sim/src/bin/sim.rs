//! Runs one simulation, or a row of seeds, and prints what came of it.

use std::process::ExitCode;

use sim::{Adversary, SimConfig, Simulation};

const USAGE: &str = "usage: sim [--seed N] [--seeds COUNT] [--peers N] [--rounds N] [--adversary NAME]... [--calm]";

struct Options {
    seed: u64,
    seeds: u64,
    peers: usize,
    rounds: u64,
    adversaries: Vec<Adversary>,
    calm: bool,
}

fn parse() -> Option<Options> {
    let mut options = Options { seed: 0, seeds: 1, peers: 8, rounds: 8, adversaries: Vec::new(), calm: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--calm" {
            options.calm = true;
            continue;
        }
        let value = arguments.next()?;
        match argument.as_str() {
            "--seed" => options.seed = value.parse().ok()?,
            "--seeds" => options.seeds = value.parse().ok()?,
            "--peers" => options.peers = value.parse().ok().filter(|peers| *peers >= 1)?,
            "--rounds" => options.rounds = value.parse().ok().filter(|rounds| *rounds >= 1)?,
            "--adversary" => options.adversaries.push(Adversary::from_name(&value)?),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        let make = if options.calm { SimConfig::calm } else { SimConfig::from_seed };
        let mut config = make(seed, options.peers, options.rounds);
        config.adversaries.clone_from(&options.adversaries);
        match Simulation::new(config).run() {
            Ok(report) => println!("seed {seed}: {report:#?}"),
            Err(failure) => {
                eprintln!("error: seed {seed} {failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

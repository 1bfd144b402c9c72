//! Runs one simulation, or a row of seeds, and prints what came of it.

use std::process::ExitCode;

use sim::{Adversary, SimConfig, Simulation};

const USAGE: &str = "\
usage: sim [--seed N] [--seeds COUNT] [--peers N] [--rounds N] [--adversary NAME]... [--calm | --stages N] [--show]
       sim --staged [--seed N] [--seeds COUNT] [--show]     a run in stages, all of it drawn from the seed";

struct Options {
    seed: u64,
    seeds: u64,
    peers: usize,
    rounds: u64,
    adversaries: Vec<Adversary>,
    calm: bool,
    stages: usize,
    staged: bool,
    show: bool,
}

fn parse() -> Option<Options> {
    let mut options = Options {
        seed: 0,
        seeds: 1,
        peers: 8,
        rounds: 8,
        adversaries: Vec::new(),
        calm: false,
        stages: 1,
        staged: false,
        show: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--calm" => {
                options.calm = true;
                continue;
            }
            "--show" => {
                options.show = true;
                continue;
            }
            "--staged" => {
                options.staged = true;
                continue;
            }
            _ => {}
        }
        let value = arguments.next()?;
        match argument.as_str() {
            "--seed" => options.seed = value.parse().ok()?,
            "--seeds" => options.seeds = value.parse().ok()?,
            "--peers" => options.peers = value.parse().ok().filter(|peers| *peers >= 1)?,
            "--stages" => options.stages = value.parse().ok().filter(|stages| *stages >= 1)?,
            "--rounds" => options.rounds = value.parse().ok().filter(|rounds| *rounds >= 1)?,
            "--adversary" => options.adversaries.push(Adversary::from_name(&value)?),
            _ => return None,
        }
    }
    Some(options)
}

fn configuration(options: &Options, seed: u64) -> SimConfig {
    let (peers, rounds, adversaries) = (options.peers, options.rounds, options.adversaries.clone());
    let config = match (options.staged, options.stages, options.calm) {
        (true, _, _) => return SimConfig::stages_from_seed(seed),
        (false, 1, true) => SimConfig::calm(seed, peers, rounds),
        (false, 1, false) => SimConfig::from_seed(seed, peers, rounds),
        (false, stages, _) => SimConfig::calm_stages(seed, stages, peers.div_ceil(stages), rounds),
    };
    SimConfig { adversaries, ..config }
}

fn main() -> ExitCode {
    let Some(options) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        let config = configuration(&options, seed);
        if options.show {
            println!("{config:#?}");
        }
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

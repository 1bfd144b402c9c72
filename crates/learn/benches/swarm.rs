//! Compares a swarm with the centralised baseline: held-out loss at equal tokens, payload and traffic ratios.
//!
//! `cargo bench -p learn --bench swarm -- [--long] [--seeds N] [--set inner.adamw.lr=0.01]... [--only solo|swarm]
//! [--exchange dense|int8|sign-dct] [--kept-inner-state] [--delay N] [--away N] [--renewed-every N] [--jobs N] [--sample]`
//!
//! The swarm runs in one process with the arithmetic of a network run, so its payloads are the bytes that peers would send
//! without the transport's headers. Both ratios are taken in one run. Training has no other source of chance than the seed,
//! and its figures are the same on every machine.

use std::time::Instant;

use learn::data::Corpus;
use learn::local::{Exchange, Swarm, Variant};
use learn::recipe::Recipe;
use learn::solo::Solo;
use learn::sparseloco::{entries, entropy_bits_per_index, keep_of};
use tensor::Context;

/// What the command line asks for.
struct Options {
    recipe: Recipe,
    seeds: u64,
    variant: Variant,
    jobs: usize,
    solo: bool,
    swarm: bool,
    sample: bool,
}

fn main() {
    let options = parse(std::env::args().skip(1).filter(|argument| argument != "--bench").collect());
    let corpus = Corpus::bundled().expect("the bundled corpus is sound");
    let recipe = &options.recipe;
    println!(
        "recipe `{}`: {} parameters, {} rounds x {} units x {} steps x {} tokens = {:.2} M tokens",
        recipe.name,
        recipe.model.parameters(),
        recipe.rounds,
        recipe.units_per_round,
        recipe.inner_steps,
        recipe.step_tokens(),
        recipe.total_tokens() as f64 / 1e6
    );
    let mut gaps = Vec::new();
    for seed in 1..=options.seeds {
        let recipe = Recipe { seed, ..recipe.clone() };
        let solo = options.solo.then(|| run_solo(&recipe, &corpus, options.jobs));
        let swarm = options.swarm.then(|| run_swarm(&recipe, &corpus, &options));
        if let (Some(solo), Some(swarm)) = (solo, swarm) {
            gaps.push((swarm / solo - 1.0) * 100.0);
            println!("seed {seed}: solo {solo:.4}  swarm {swarm:.4}  gap {:+.2} %", gaps[gaps.len() - 1]);
        }
    }
    if !gaps.is_empty() {
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        println!("mean gap over {} seeds: {mean:+.2} %", gaps.len());
    }
}

fn run_solo(recipe: &Recipe, corpus: &Corpus, threads: usize) -> f64 {
    let start = Instant::now();
    let mut last = f64::NAN;
    for progress in Solo::new(recipe.context(threads), recipe, corpus) {
        let progress = progress.expect("the recipe does not diverge");
        last = progress.heldout_loss.unwrap_or(last);
        report("solo ", recipe, &progress);
    }
    println!("  solo : {:.0} s", start.elapsed().as_secs_f64());
    last
}

fn run_swarm(recipe: &Recipe, corpus: &Corpus, options: &Options) -> f64 {
    let start = Instant::now();
    let (mut last, mut bytes) = (f64::NAN, 0);
    let mut swarm = Swarm::new(recipe, corpus, options.jobs).with_variant(options.variant);
    for progress in swarm.by_ref() {
        let progress = progress.expect("the recipe does not diverge");
        last = progress.heldout_loss.unwrap_or(last);
        bytes += progress.payload_bytes;
        report("swarm", recipe, &progress);
    }
    println!("  swarm: {:.0} s", start.elapsed().as_secs_f64());
    compression(recipe, bytes, options.variant.exchange);
    if options.sample {
        let theta = &swarm.state().theta;
        println!("{}", learn::evaluation::sample(&Context::single(), recipe, corpus, theta, "She was", 120, 1));
    }
    last
}

fn report(what: &str, recipe: &Recipe, progress: &learn::Progress) {
    if let Some(heldout) = progress.heldout_loss
        && progress.round.is_multiple_of((recipe.rounds / 8).max(1))
    {
        println!(
            "  {what}: round {:4}  {:.2} M tokens  training {:.4}  held-out {heldout:.4}",
            progress.round,
            progress.tokens as f64 / 1e6,
            progress.training_loss
        );
    }
}

fn compression(recipe: &Recipe, bytes: u64, exchange: Exchange) {
    let layout = recipe.layout();
    let payloads = recipe.rounds * u64::from(recipe.units_per_round);
    let mean = bytes as f64 / payloads as f64;
    let ratio = layout.len() as f64 * 4.0 / mean;
    let kept = entries(&layout, recipe.compression);
    let chunks: usize =
        layout.tensors().iter().map(|tensor| tensor.len().div_ceil(recipe.compression.chunk as usize)).sum();
    let index_bits = (mean * 8.0 - 160.0 - 36.0 * chunks as f64) / kept as f64 - 2.0;
    let whole = recipe.compression.chunk as usize;
    println!(
        "  payload {mean:.0} bytes, {ratio:.1} x smaller than f32; traffic {:.0} x less than an f32 all-reduce each step",
        ratio * recipe.inner_steps as f64
    );
    if exchange != Exchange::SparseLoCo {
        return;
    }
    println!(
        "  {index_bits:.3} bits per index, entropy bound {:.3}; {:.3} payload bytes per trained token",
        entropy_bits_per_index(whole, keep_of(recipe.compression, whole)),
        mean / recipe.unit_tokens() as f64
    );
}

fn parse(arguments: Vec<String>) -> Options {
    let mut options = Options {
        recipe: Recipe::default_run(),
        seeds: 3,
        variant: Variant::default(),
        jobs: 2,
        solo: true,
        swarm: true,
        sample: false,
    };
    let mut sets: Vec<String> = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("`{argument}` needs a value"));
        match argument.as_str() {
            "--long" => options.recipe = Recipe::long_run(),
            "--seeds" => options.seeds = value().parse().expect("a number of seeds"),
            "--jobs" => options.jobs = value().parse().expect("a number of jobs"),
            "--set" => sets.push(value()),
            "--exchange" => options.variant.exchange = value().parse().unwrap_or_else(|error| panic!("{error}")),
            "--delay" => options.variant.delay = value().parse().expect("a number of rounds"),
            "--away" => options.variant.away = value().parse().expect("a number of replicas"),
            "--renewed-every" => options.variant.renewed_every = value().parse().expect("a number of rounds"),
            "--kept-inner-state" => options.variant.kept_inner_state = true,
            "--sample" => options.sample = true,
            "--only" => match value().as_str() {
                "solo" => options.swarm = false,
                "swarm" => options.solo = false,
                other => panic!("`--only {other}`: `solo` or `swarm`"),
            },
            other => panic!("unknown argument `{other}`"),
        }
    }
    for set in &sets {
        let (path, value) = set.split_once('=').expect("`--set path=value`");
        options.recipe = options.recipe.with_setting(path, value).unwrap_or_else(|error| panic!("{error}"));
    }
    options
}

//! Compares a model in stages with the whole one: held-out loss at equal tokens, and bytes between stages.
//!
//! `cargo bench -p learn --bench pipeline -- [--seeds N] [--rounds N] [--threads N] [--set path=value]... [CASE]...`
//!
//! A case is a codec as `cairn up --codec` takes it, and how many replicas of each stage exchange compressed gradients, as in
//! `projector:16,int4,2` (none: one replica, nothing compressed). Without cases it runs those of `docs/experiments.md`. Everything runs in one process with the arithmetic of a network run, so its figures are the same on every
//! machine.

use std::time::Instant;

use learn::boundary::{Codec, Precision, Space};
use learn::data::Corpus;
use learn::pipeline::{LocalPipeline, Setting};
use learn::recipe::{Compression, Outer, Pipeline, Recipe};
use model::Config;

const STAGES: usize = 4;
const CASES: [&str; 6] =
    ["full,f32", "full,int8", "projector:16,int4", "subspace:16,f32", "full,f32,2", "projector:16,int4,2"];

/// The recipe: the default run's model with a head of its own, a layer for each stage, 1024 tokens a step.
fn recipe() -> Recipe {
    let default = Recipe::default_run();
    Recipe {
        name: "stages".to_owned(),
        rounds: 1320,
        inner_steps: 1,
        units_per_round: 4,
        model: Config { tied_head: false, ..default.model },
        outer: Outer { lr: 1.0, momentum: 0.0, nesterov: false },
        compression: Compression { chunk: 4096, keep: 292, beta: 0.95 },
        pipeline: Some(Pipeline { stages: STAGES, space: Space::Full, precision: Precision::F32, coarsest: None }),
        ..default
    }
}

struct Case {
    name: String,
    space: Space,
    setting: Setting,
}

fn main() {
    let mut options = Options { seeds: 3, threads: 2, recipe: recipe(), cases: Vec::new() };
    options.parse(std::env::args().skip(1).filter(|argument| argument != "--bench"));
    let corpus = Corpus::bundled().expect("the bundled corpus is sound");
    let recipe = &options.recipe;
    println!(
        "{} parameters in {STAGES} stages, {} steps x {} tokens = {:.2} M tokens",
        recipe.model.parameters(),
        recipe.rounds,
        recipe.round_tokens(),
        recipe.total_tokens() as f64 / 1e6
    );
    let mut sums = vec![0.0; options.cases.len()];
    for seed in 1..=options.seeds {
        let pipeline = |stages, space| Some(Pipeline { stages, space, precision: Precision::F32, coarsest: None });
        let whole = Recipe { seed, pipeline: pipeline(1, Space::Full), ..recipe.clone() };
        let base = run("whole model", &whole, &corpus, Setting::EXACT, options.threads);
        for (case, sum) in options.cases.iter().zip(&mut sums) {
            let recipe = Recipe { seed, pipeline: pipeline(STAGES, case.space), ..recipe.clone() };
            let got = run(&case.name, &recipe, &corpus, case.setting, options.threads);
            let gap = (got / base - 1.0) * 100.0;
            *sum += gap;
            println!("seed {seed}  {:26} {:.4}  gap {gap:+.2} %", case.name, got);
        }
    }
    println!("mean over {} seeds:", options.seeds);
    for (case, sum) in options.cases.iter().zip(&sums) {
        println!("  {:26} {:+.2} %", case.name, sum / options.seeds as f64);
    }
}

/// Trains to the end, prints what came of it, and returns the held-out loss.
fn run(name: &str, recipe: &Recipe, corpus: &Corpus, setting: Setting, threads: usize) -> f64 {
    let start = Instant::now();
    let mut pipeline = LocalPipeline::new(recipe.context(threads), recipe, corpus, setting);
    let (mut with, mut payload) = (f64::NAN, 0);
    for progress in pipeline.by_ref() {
        let progress = progress.expect("the recipe does not diverge");
        with = progress.heldout_loss.unwrap_or(with);
        payload += progress.payload_bytes;
    }
    let tokens = recipe.total_tokens() as f64;
    println!(
        "  {name}: held-out {with:.4}, without boundaries {:.4}; {:.1} B a token over {} boundaries, {:.1} B of payloads; {:.0} s",
        pipeline.evaluate_plain(recipe.evaluation.windows),
        pipeline.boundary_bytes() as f64 / tokens,
        recipe.pipeline.map_or(0, |pipeline| pipeline.stages - 1),
        if setting.compressed { payload as f64 / tokens } else { 0.0 },
        start.elapsed().as_secs_f64()
    );
    with
}

struct Options {
    seeds: u64,
    threads: usize,
    recipe: Recipe,
    cases: Vec<Case>,
}

impl Options {
    fn parse(&mut self, mut arguments: impl Iterator<Item = String>) {
        let mut cases: Vec<String> = Vec::new();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("`{argument}` needs a value"));
            match argument.as_str() {
                "--seeds" => self.seeds = value().parse().expect("a number of seeds"),
                "--threads" => self.threads = value().parse().expect("a number of threads"),
                "--rounds" => self.recipe.rounds = value().parse().expect("a number of rounds"),
                "--set" => {
                    let set = value();
                    let (path, value) = set.split_once('=').expect("`--set path=value`");
                    self.recipe = self.recipe.with_setting(path, value).unwrap_or_else(|error| panic!("{error}"));
                }
                _ => cases.push(argument),
            }
        }
        if cases.is_empty() {
            cases = CASES.map(str::to_owned).to_vec();
        }
        self.recipe.evaluation.every_rounds = self.recipe.rounds;
        self.cases = cases.iter().map(|name| case(name)).collect();
    }
}

fn case(name: &str) -> Case {
    let (codec, replicas) = match name.split(',').collect::<Vec<_>>()[..] {
        [space, precision, replicas] => {
            (format!("{space},{precision}"), Some(replicas.parse().expect("a number of replicas")))
        }
        _ => (name.to_owned(), None),
    };
    let Codec { space, precision, .. } = codec.parse().unwrap_or_else(|error| panic!("{error}"));
    let setting = Setting {
        replicas: replicas.unwrap_or(1),
        compressed: replicas.is_some(),
        forward: precision,
        backward: precision,
    };
    Case { name: name.to_owned(), space, setting }
}

//! Records the centralised baseline of the default recipe: `cargo run --release -p learn --example baseline`.
//!
//! To be run again whenever the default recipe changes; a test says when it was forgotten.

use std::path::Path;

use learn::baseline::Baseline;
use learn::data::Corpus;
use learn::recipe::Recipe;
use learn::solo::Solo;
use tensor::Context;

fn main() {
    let recipe = Recipe::default_run();
    let corpus = Corpus::bundled().expect("the bundled corpus is sound");
    let mut rounds = Vec::new();
    for progress in Solo::new(Context::new(2), &recipe, &corpus) {
        let progress = progress.expect("the recipe does not diverge");
        if let Some(heldout) = progress.heldout_loss {
            println!("{:8} tokens: training {:.4}, held-out {heldout:.4}", progress.tokens, progress.training_loss);
        }
        rounds.push(progress);
    }
    let json = serde_json::to_string_pretty(&Baseline::record(&recipe, &rounds)).expect("numbers and text");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/baseline/default.json");
    std::fs::write(path, json + "\n").expect("the folder is writable");
}

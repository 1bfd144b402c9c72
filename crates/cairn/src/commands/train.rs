//! `cairn train --solo`: the centralised baseline.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use learn::baseline::Baseline;
use learn::progress::Progress;
use learn::solo::Solo;
use node::Workload;

use crate::cli::TrainArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{count, duration};
use crate::workload;

/// Trains without a network, and prints the curve as it goes.
pub(crate) fn run(args: &TrainArgs) -> Outcome {
    let recipe = workload::recipe(&args.recipe)?;
    if args.print_recipe {
        print!("{}", recipe.to_toml());
        return Ok(());
    }
    let workload = workload::load(recipe, &args.recipe)?;
    let threads = args.threads.map_or_else(node::probe::cores, usize::from);
    let mut solo = Solo::new(workload.recipe.context(threads), &workload.recipe, &workload.corpus);
    let (start, bar) = (Instant::now(), bar(workload.recipe.rounds));
    let mut curve = Vec::new();
    for progress in solo.by_ref() {
        let progress = progress.map_err(|error| {
            Failure::new(Code::Unexpected, error).hint("a smaller learning rate in the recipe keeps training stable")
        })?;
        show(&bar, &progress, start);
        curve.push(progress);
    }
    bar.finish_and_clear();
    println!("{}", summary(&curve, start));
    if let Some(path) = &args.record {
        write(path, &Baseline::record(&workload.recipe, &curve))?;
    }
    if let Some(path) = &args.save {
        save(path, &workload, solo.params())?;
    }
    Ok(())
}

fn bar(rounds: u64) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("  {bar:36.cyan/dim} {msg}").expect("a valid template");
    ProgressBar::with_draw_target(Some(rounds), target).with_style(style.progress_chars("━╸─"))
}

fn show(bar: &ProgressBar, progress: &Progress, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let heldout = progress.heldout_loss.map_or(String::new(), |loss| format!(" · held-out {loss:.3}"));
    let line = format!(
        "{} tokens · loss {:.3}{heldout} · {} tokens/s",
        count(progress.tokens as f64),
        progress.training_loss,
        count(progress.tokens as f64 / seconds.max(1e-9)),
    );
    bar.set_position(progress.round);
    bar.set_message(line.clone());
    if bar.is_hidden() {
        // Progress is no result: a closed pipe must not end the training.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn summary(curve: &[Progress], start: Instant) -> String {
    let (tokens, loss) = curve.last().map_or((0, f64::NAN), |last| (last.tokens, last.training_loss));
    let heldout = curve.iter().rev().find_map(|point| point.heldout_loss).unwrap_or(f64::NAN);
    let seconds = start.elapsed().as_secs_f64();
    format!(
        "trained on {} tokens in {} ({} tokens/s)\nheld-out loss {heldout:.4}, training loss {loss:.4} nats per token",
        count(tokens as f64),
        duration(seconds),
        count(tokens as f64 / seconds.max(1e-9)),
    )
}

fn write(path: &std::path::Path, baseline: &Baseline) -> Outcome {
    let json = serde_json::to_string_pretty(baseline).expect("a curve is JSON");
    std::fs::write(path, json + "\n").map_err(|error| unwritable(path, &error))
}

fn save(path: &std::path::Path, workload: &Workload, params: &[f32]) -> Outcome {
    let checkpoint = model::files::Checkpoint {
        stage: workload.recipe.stage(),
        tokenizer: workload.corpus.tokenizer().hash(),
        params: params.to_vec(),
    };
    model::files::save(path, &checkpoint)
        .map_err(|error| Failure::new(Code::Storage, &error).hint("choose another place with `--save FILE`"))?;
    let tokenizer = path.with_file_name("tokenizer.json");
    std::fs::write(&tokenizer, workload.corpus.tokenizer().to_bytes()).map_err(|error| unwritable(&tokenizer, &error))
}

fn unwritable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::Storage, format!("cannot write `{}`: {error}", path.display()))
        .hint("choose a place that exists and has space")
}

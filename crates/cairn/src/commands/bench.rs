//! `cairn bench`: how fast this machine computes.

use node::probe;
use node::speed::{self, Figures};
use serde::Serialize;

use crate::cli::BenchArgs;
use crate::exit::Outcome;
use crate::figures::{bytes, count};

#[derive(Serialize)]
struct Report {
    version: &'static str,
    hardware: probe::Hardware,
    figures: Vec<Figures>,
}

/// Measures with one thread and with all, and prints a table.
pub(crate) fn run(args: &BenchArgs) -> Outcome {
    let hardware = probe::hardware();
    let threads = if hardware.cores > 1 { vec![1, hardware.cores] } else { vec![1] };
    let figures = threads.into_iter().map(speed::measure).collect();
    let report = Report { version: env!("CARGO_PKG_VERSION"), hardware, figures };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report).expect("a report has only string keys")),
        false => print!("{}", table(&report)),
    }
    Ok(())
}

fn table(report: &Report) -> String {
    let Report { hardware, figures, .. } = report;
    let row = |name: &str, value: &dyn Fn(&Figures) -> String| {
        let values: String = figures.iter().map(|figures| format!("{:>20}", value(figures))).collect();
        format!("  {name:<28}{values}\n")
    };
    let rate = |tokens: f64| format!("{} tokens/s", count(tokens));
    let mut text = format!("  {} × {}, {}\n\n", hardware.cores, hardware.architecture, hardware.isa);
    text += &row("", &|figures| format!("{} thread{}", figures.threads, if figures.threads > 1 { "s" } else { "" }));
    text += &row("peak (multiply-adds)", &|figures| format!("{:.0} GFLOP/s", figures.peak_gflops));
    text += &row("memory", &|figures| format!("{}/s", bytes(figures.memory_bytes_per_second)));
    for (at, (name, _)) in speed::PRODUCTS.iter().enumerate() {
        text += &row(&format!("product, {name}"), &|figures| {
            let rate = figures.products[at].1;
            format!("{rate:.0} GFLOP/s {:3.0} %", 100.0 * rate / figures.peak_gflops)
        });
    }
    text += &row("training, 10M parameters", &|figures| rate(figures.training_tokens_per_second));
    text += &row("prefill, 10M parameters", &|figures| rate(figures.prefill_tokens_per_second));
    text += &row("decoding, 10M parameters", &|figures| rate(figures.decode_tokens_per_second));
    text
}

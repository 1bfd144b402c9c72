//! The conformance suite as a small program, for machines and emulators on which the whole of Cairn is not built:
//! `cargo run --release -p learn --example conformance [-- [PROFILE] [ISA] [THREADS] | list | record]`.
//!
//! The last line is the conformance hash; the exit status is 1 when a kernel differs. `list` prints the instruction sets of this
//! machine, the fastest first. `record` writes the golden hashes into the
//! repository instead, after a change of the numeric contract.

use std::path::Path;
use std::process::ExitCode;

use learn::conformance::{self, Selection};

fn main() -> ExitCode {
    let mut selection = Selection::default();
    for argument in std::env::args().skip(1) {
        match (argument.parse(), argument.parse()) {
            (Ok(threads), _) => selection.threads = Some(threads),
            (_, Ok(profile)) => selection.profile = Some(profile),
            _ if argument == "record" => return record(),
            _ if argument == "list" => return list(),
            _ => selection.instruction_set = Some(argument),
        }
    }
    let report = conformance::run(&selection, |run| println!("{run}"));
    match report.hash {
        Some(hash) if report.conforms => println!("conformance hash {hash}"),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn list() -> ExitCode {
    conformance::instruction_sets().iter().for_each(|name| println!("{name}"));
    ExitCode::SUCCESS
}

fn record() -> ExitCode {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (crate_name, text) in ["tensor", "learn"].into_iter().zip(conformance::record()) {
        let path = crates.join(crate_name).join("src/conformance/golden.txt");
        std::fs::write(&path, text).expect("the folder is writable");
        println!("wrote {}", path.display());
    }
    ExitCode::SUCCESS
}

//! `cairn conformance`: proves that this machine computes exactly as every other.

use learn::conformance::{self, Report, Run, Selection, instruction_sets};

use crate::cli::ConformanceArgs;
use crate::exit::{Code, Failure, Outcome};

/// Runs the suite in every configuration of the machine that is asked for; a difference is an error that names the kernel.
pub(crate) fn run(args: &ConformanceArgs) -> Outcome {
    let known = instruction_sets();
    if let Some(name) = args.isa.as_ref().filter(|name| !known.contains(&name.as_str())) {
        return Err(Failure::new(Code::BadInput, format!("this machine has no instruction set `{name}`"))
            .hint(format!("choose one of {}", known.join(", "))));
    }
    let selection =
        Selection { profile: args.profile, instruction_set: args.isa.clone(), threads: args.threads.map(usize::from) };
    let report = conformance::run(&selection, |run| {
        if !args.json {
            println!("{run}");
        }
    });
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("a report has only string keys"));
    }
    match (&report.hash, report.conforms) {
        (Some(hash), true) if !args.json => println!("conformance hash {hash}"),
        (_, true) => {}
        (_, false) => return Err(difference(&report)),
    }
    Ok(())
}

fn difference(report: &Report) -> Failure {
    let Some(run) = report.runs.iter().find(|run| !run.different.is_empty()) else {
        return Failure::new(Code::Unexpected, "the system starts no second thread")
            .hint("`cairn conformance --threads 1` checks what this machine can run");
    };
    let Run { profile, instruction_set: isa, threads, .. } = run;
    let kernels = run.faulty.join("`, `");
    let message = format!("`{kernels}` does not compute as the contract says ({profile}, {isa}, threads: {threads})");
    Failure::new(Code::NotVerified, message).hint(
        "run it again: if it passes then, the processor or the memory is unreliable; if not, report the kernel and your processor",
    )
}

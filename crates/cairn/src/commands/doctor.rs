//! `cairn doctor`: looks at this machine.

use std::path::Path;

use node::probe;
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::bytes;

/// Free disk below which a default run may not fit.
const DISK_BYTES_MIN: u64 = 2 << 30;
/// Free memory below which a default run may not fit.
const MEMORY_BYTES_MIN: u64 = 3 << 29;

#[derive(Serialize)]
struct Report {
    version: &'static str,
    hardware: probe::Hardware,
    speed: probe::Speed,
    exact_floats: bool,
    port: u16,
    port_free: bool,
    home: String,
    disk_free_bytes: Option<u64>,
}

/// Measures and prints; a machine that cannot compute exactly is an error.
pub(crate) fn run(args: &DoctorArgs, home: &Path) -> Outcome {
    let floats = probe::float_environment();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        hardware: probe::hardware(),
        speed: probe::speed(),
        exact_floats: floats.is_ok(),
        port: args.page.port,
        port_free: probe::port_is_free(args.page.port),
        home: home.display().to_string(),
        disk_free_bytes: probe::disk_free_bytes(home),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("a report has only string keys"));
    } else {
        print!("{}", text(&report));
    }
    floats.map_err(|error| {
        Failure::new(Code::Unexpected, error).hint("start cairn from a plain shell: another program set fast maths")
    })
}

fn text(report: &Report) -> String {
    let hardware = &report.hardware;
    let known = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| bytes(value as f64));
    let mark = |good: bool| if good { "ok  " } else { "look" };
    let enough = |value: Option<u64>, least: u64| mark(value.is_none_or(|value| value >= least));
    let port = if report.port_free { "free" } else { "in use: choose another with `--port`" };
    let floats = if report.exact_floats { "exact (subnormals on)" } else { "flushes subnormals to zero" };
    let speed = &report.speed;
    [
        (mark(true), "cores", format!("{} × {}, {}", hardware.cores, hardware.architecture, hardware.isa)),
        (
            enough(hardware.memory_free_bytes, MEMORY_BYTES_MIN),
            "memory",
            format!("{} free of {}", known(hardware.memory_free_bytes), known(hardware.memory_bytes)),
        ),
        (
            mark(true),
            "speed",
            format!(
                "{:.0} GFLOP/s on one core, {:.0} on all (matrix product, f32)",
                speed.single_gflops, speed.all_gflops
            ),
        ),
        (mark(report.exact_floats), "floats", floats.to_owned()),
        (mark(report.port_free), "port", format!("{} {port}", report.port)),
        (
            enough(report.disk_free_bytes, DISK_BYTES_MIN),
            "disk",
            format!("{} free at {}", known(report.disk_free_bytes), report.home),
        ),
    ]
    .iter()
    .map(|(mark, name, value)| format!("  {mark}  {name:<8}{value}\n"))
    .collect()
}

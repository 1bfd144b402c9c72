//! `cairn doctor`: looks at this machine, and says which part it can take in a run.

use std::path::Path;
use std::time::Instant;

use learn::Recipe;
use node::probe;
use node::reach::{self, Reach, Translation};
use node::role::{self, Means, Role};
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::commands::join;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{bytes, duration};

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
    /// Memory that a peer may take.
    memory_budget_bytes: Option<u64>,
    /// The part that this machine can take in the default run.
    role: Role,
    /// What was found at the other end of a ticket.
    run: Option<Found>,
}

/// A run on another machine.
#[derive(Serialize)]
struct Found {
    name: String,
    run: String,
    validator: String,
    /// Where it answered; none when that was through a relay.
    address: Option<String>,
    /// Seconds until it had answered, connecting included.
    answered_seconds: f64,
    /// Members of each stage.
    members: Vec<u32>,
    role: Role,
    /// How this machine is seen from outside, when the run has relays that can tell.
    network: Option<Reach>,
    /// The stage in which this machine is needed most, when the model is in several.
    stage: Option<u16>,
}

/// Measures and prints; a machine that cannot compute exactly is an error.
pub(crate) async fn run(args: &DoctorArgs, home: &Path) -> Outcome {
    let floats = probe::float_environment();
    let (hardware, speed) = (probe::hardware(), probe::speed());
    let free = hardware.memory_free_bytes.map(|free| free / 4 * 3);
    let means = Means { memory_bytes: args.memory.or(free), cores: hardware.cores, gflops: speed.single_gflops };
    let found = match &args.ticket {
        Some(ticket) => Some(look(ticket, &means).await?),
        None => None,
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        hardware,
        speed,
        exact_floats: floats.is_ok(),
        port: args.page.port,
        port_free: probe::port_is_free(args.page.port),
        home: home.display().to_string(),
        disk_free_bytes: probe::disk_free_bytes(home),
        memory_budget_bytes: means.memory_bytes,
        role: part(&Recipe::default_run(), &means)?,
        run: found,
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

fn part(recipe: &Recipe, means: &Means) -> Outcome<Role> {
    role::choose(recipe, means).map_err(|error| Failure::new(Code::BadInput, error))
}

/// Asks who is at the other end of a ticket.
async fn look(ticket: &str, means: &Means) -> Outcome<Found> {
    let ticket = join::parse(ticket)?;
    let asked = Instant::now();
    let invitation = node::join::ask(&ticket).await.map_err(|error| join::failure(&error))?;
    let network = match &invitation.relays[..] {
        [] => None,
        relays => Some(reach::look(relays).await.map_err(|error| Failure::new(Code::Network, error))?),
    };
    let stage = (invitation.charter.body.stages.len() > 1).then(|| invitation.neediest_stage());
    Ok(Found {
        name: invitation.charter.body.name.clone(),
        run: ticket.run.0.to_string(),
        validator: ticket.validator.short(),
        address: invitation.validator.1.map(|address| address.to_string()),
        answered_seconds: asked.elapsed().as_secs_f64(),
        role: part(&invitation.recipe, means)?,
        members: invitation.members,
        network,
        stage,
    })
}

/// A part, and why it is this one.
fn role_text(role: &Role, budget: Option<u64>) -> String {
    let budget = budget.map_or_else(|| "unknown memory".to_owned(), |budget| bytes(budget as f64));
    match role {
        Role::Replica { needed_bytes, unit_seconds } => format!(
            "a full replica: the model takes {} of {budget}, a unit about {}",
            bytes(*needed_bytes as f64),
            seconds(*unit_seconds)
        ),
        Role::Stage { stages, needed_bytes, unit_seconds } => format!(
            "one of {stages} stages: it takes at least {} of {budget}, a unit about {}",
            bytes(*needed_bytes as f64),
            seconds(*unit_seconds)
        ),
        Role::TooSmall { needed_bytes } => {
            format!("follow and serve: training takes {} at least, of {budget}", bytes(*needed_bytes as f64))
        }
        Role::TooSlow { unit_seconds } => {
            format!("follow and serve: a unit would take {}, and may take 5 minutes", seconds(*unit_seconds))
        }
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { duration(seconds) }
}

fn found_text(found: &Found, budget: Option<u64>) -> Vec<(&'static str, &'static str, String)> {
    let members: u32 = found.members.iter().sum();
    let needed = found.stage.map_or_else(String::new, |stage| format!("; stage {stage} needs it most"));
    let network = found.network.map(|reach| {
        let good = matches!(reach.translation, Translation::None | Translation::KeepsPorts);
        (mark(good), "network", network_text(&reach))
    });
    let mut lines = vec![
        (
            "ok  ",
            "run",
            format!(
                "`{}`, {members} members, answers {} in {:.0} ms",
                found.name,
                found.address.as_ref().map_or_else(|| "through a relay".to_owned(), |address| format!("at {address}")),
                1e3 * found.answered_seconds
            ),
        ),
        (mark(trains(&found.role)), "part", format!("{}{needed}", role_text(&found.role, budget))),
    ];
    lines.extend(network);
    lines
}

/// What a relay says of this machine's router.
fn network_text(reach: &Reach) -> String {
    let seen = reach.seen.map_or_else(String::new, |seen| format!(", seen at {seen}"));
    let said = match reach.translation {
        Translation::None => "a public address",
        Translation::KeepsPorts => "behind a router that keeps ports: others find a direct path",
        Translation::ChangesPorts => {
            "behind a router that changes ports: a relay passes on what others cannot send directly"
        }
        Translation::Unknown => "no relay of the run answers: is UDP let out?",
    };
    format!("{said}{seen}")
}

fn trains(role: &Role) -> bool {
    matches!(role, Role::Replica { .. } | Role::Stage { .. })
}

fn mark(good: bool) -> &'static str {
    if good { "ok  " } else { "look" }
}

fn text(report: &Report) -> String {
    let hardware = &report.hardware;
    let known = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| bytes(value as f64));
    let enough = |value: Option<u64>, least: u64| mark(value.is_none_or(|value| value >= least));
    let port = if report.port_free { "free" } else { "in use: choose another with `--port`" };
    let floats = if report.exact_floats { "exact (subnormals on)" } else { "flushes subnormals to zero" };
    let speed = &report.speed;
    [
        (mark(true), "cores", format!("{} × {}, {}", hardware.cores, hardware.architecture, hardware.isa)),
        (
            enough(hardware.memory_free_bytes, MEMORY_BYTES_MIN),
            "memory",
            format!(
                "{} free of {}; a peer may take {}",
                known(hardware.memory_free_bytes),
                known(hardware.memory_bytes),
                known(report.memory_budget_bytes)
            ),
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
        (mark(trains(&report.role)), "role", role_text(&report.role, report.memory_budget_bytes)),
    ]
    .into_iter()
    .chain(report.run.iter().flat_map(|found| found_text(found, report.memory_budget_bytes)))
    .map(|(mark, name, value)| format!("  {mark}  {name:<8}{value}\n"))
    .collect()
}

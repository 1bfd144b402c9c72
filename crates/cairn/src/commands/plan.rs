//! `cairn plan`: what a run would take, before it starts.

use learn::boundary::{Codec, CodecError};
use learn::pipeline::STAGE_SLOTS;
use learn::recipe::BatchShape;
use serde::Serialize;
use sim::plan::{
    Bound, Calibration, FlowOptions, FlowReport, PeerGroup, PeersError, Plan, PlanError, PlanInput, StagePlan,
    model_shape, parse_rate, simulate,
};

use crate::cli::PlanArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{bytes, count, long_duration};

/// Tokens for each parameter of a run whose tokens are not given.
const TOKENS_PER_PARAMETER: u64 = 20;

#[derive(Serialize)]
struct Report<'a> {
    plan: &'a Plan,
    simulation: Option<&'a FlowReport>,
}

/// Plans, simulates when that is asked for, and prints both.
pub(crate) fn run(args: &PlanArgs) -> Outcome {
    let input = input(args)?;
    let plan = Plan::of(&input).map_err(|error| failure(&error))?;
    let options = FlowOptions { seed: args.seed, rounds: args.rounds, life_s: args.churn, away_s: args.away };
    let simulation = match args.simulate {
        true => Some(simulate(&input, &options).map_err(|error| failure(&error))?),
        false => None,
    };
    if args.json {
        let report = Report { plan: &plan, simulation: simulation.as_ref() };
        println!("{}", serde_json::to_string_pretty(&report).expect("a report has only string keys"));
        return Ok(());
    }
    print!("{}", text(args, &input, &plan));
    if let Some(simulation) = &simulation {
        print!("{}", simulation_text(args, &plan, simulation));
    }
    Ok(())
}

fn input(args: &PlanArgs) -> Outcome<PlanInput> {
    let bad = |message: String, hint: &str| Failure::new(Code::BadInput, message).hint(hint);
    let model = model_shape(&args.model).map_err(|error| bad(format!("--model: {error}"), error.hint()))?;
    let groups = groups(args)?;
    let codec = args.codec.as_deref().map(str::parse::<Codec>).transpose();
    let codec = codec
        .map_err(|error: CodecError| bad(error.to_string(), "`--codec full,int8` writes all numbers in 8 bits"))?;
    let orderer = args.orderer.as_deref().map(parse_rate).transpose();
    let orderer = orderer.map_err(|error| bad(format!("--orderer: {error}"), "write a rate such as `1Gbps`"))?;
    let tokens = args.tokens.unwrap_or_else(|| model.parameters().saturating_mul(TOKENS_PER_PARAMETER));
    Ok(PlanInput {
        batch: BatchShape { sequences: 1, tokens: usize::try_from(args.unit_tokens).unwrap_or(usize::MAX) },
        model,
        groups,
        round_tokens: args.round_tokens,
        keep: args.keep,
        tokens,
        stages: args.stages,
        codec,
        slots: STAGE_SLOTS,
        all_peers: args.all_peers,
        orderer_bits_per_s: orderer.unwrap_or(f64::INFINITY),
        calibration: Calibration::MEASURED,
    })
}

fn groups(args: &PlanArgs) -> Outcome<Vec<PeerGroup>> {
    let (from, groups) = match (&args.like, &args.peers) {
        (Some(like), _) => ("--like".to_owned(), PeerGroup::parse_all(like)),
        (None, path) => {
            let path = path.as_deref().expect("the parser asks for one of the two");
            let text = std::fs::read_to_string(path).map_err(|error| {
                let said = format!("cannot read `{}`: {error}", path.display());
                Failure::new(Code::BadInput, said).hint(PeersError::File(String::new()).hint())
            })?;
            (format!("`{}`", path.display()), PeerGroup::from_toml(&text))
        }
    };
    groups.map_err(|error| Failure::new(Code::BadInput, format!("{from}: {error}")).hint(error.hint()))
}

fn failure(error: &PlanError) -> Failure {
    let hint = match error {
        PlanError::TooLittleMemory { needed, .. } => format!(
            "peers with {:.1} GB would do, for example `+4×({:.0}GB,25TFLOPS,80/20Mbps,60ms)`; shorter micro-batches \
             (`--unit-tokens`) take less, and so do more stages where layers are left",
            *needed as f64 / 1e9,
            (*needed as f64 / 1e9).ceil()
        ),
        PlanError::TooFewPeers { stages, .. } => {
            format!("{stages} peers with enough memory can hold {stages} stages; `--stages` asks for fewer")
        }
        PlanError::Config(_) => {
            "`--unit-tokens 1024` suits every preset but `default`, whose sequences have 256".to_owned()
        }
        PlanError::Range { .. } => "`cairn plan --help` shows what can be planned".to_owned(),
    };
    Failure::new(Code::BadInput, error).hint(hint)
}

fn text(args: &PlanArgs, input: &PlanInput, plan: &Plan) -> String {
    let row = |name: &str, value: String| format!("  {name:<11}{value}\n");
    let mut text = row("model", format!("{}, {} parameters", args.model, count(plan.parameters as f64)));
    for (at, group) in input.groups.iter().enumerate() {
        text += &row(if at == 0 { "peers" } else { "" }, group_text(group));
    }
    let idle = plan.peers.iter().sum::<u32>() - plan.peers_used;
    if idle > 0 {
        text += &row("", format!("{idle} stand by: the run is not faster with them"));
    }
    text += &row("codec", format!("{} at every boundary", plan.codec));
    text += &format!("\n{}\n", stages_text(plan));
    text += &row("memory", memory_text(plan));
    let round_tokens = u64::from(plan.units) * plan.unit_tokens;
    let bounded = if plan.units_bounded { "; commitments have no room for more" } else { "" };
    text += &row(
        "round",
        format!("{} units of {} tokens: {} tokens{bounded}", plan.units, plan.unit_tokens, count(round_tokens as f64)),
    );
    let round = &plan.round;
    text += &row(
        "",
        format!(
            "{:.1} s: the first unit {:.1} s, the others {:.1} s, payloads and step {:.1} s",
            round.total_s(),
            round.fill_s,
            round.steady_s,
            round.exchange_s
        ),
    );
    text += &bytes_text(plan, &row);
    text += &row("speed", format!("{} tokens/s", count(plan.tokens_per_s)));
    text += &row("time", format!("{} for {} tokens", long_duration(plan.seconds), count(plan.tokens as f64)));
    text += &row("limit", format!("{}: {}", plan.limit.resource.name(), plan.limit.sentence));
    let gains = plan.limit.gains.iter().filter(|(resource, _)| *resource != plan.limit.resource);
    let gains: Vec<String> = gains.map(|(what, gain)| format!("{} {:+.0} %", what.name(), 100.0 * gain)).collect();
    text += &row("", format!("twice as much of the others: {}", gains.join(", ")));
    let Calibration { error_mean, error_max, runs, .. } = plan.calibration;
    text += &row(
        "error",
        format!(
            "{:.0} % in the mean and at most {:.0} % in {} measured runs that it was not fitted on (docs/plan.md)",
            100.0 * error_mean,
            100.0 * error_max,
            runs.1
        ),
    );
    text
}

fn group_text(group: &PeerGroup) -> String {
    let PeerGroup { count: peers, peer, processors } = group;
    let mut parts = vec![bytes(peer.memory_bytes as f64), format!("{}FLOP/s", count(peer.flops))];
    if peer.down_bits_per_s.is_finite() {
        parts.push(format!("{}bit/s down, {}bit/s up", count(peer.down_bits_per_s), count(peer.up_bits_per_s)));
    }
    if peer.round_trip_s > 0.0 {
        parts.push(format!("{} ms", 1000.0 * peer.round_trip_s));
    }
    if let Some(processors) = processors {
        parts.push(format!("{processors} processors for all"));
    }
    format!("{peers} × {}", parts.join(", "))
}

/// A table in which equal neighbours share a row.
fn stages_text(plan: &Plan) -> String {
    let mut text = format!(
        "  {:>7} {:>8} {:>11} {:>9} {:>9} {:>7} {:>9}  {}\n",
        "stage", "layers", "parameters", "replicas", "memory", "window", "units/s", "bound by"
    );
    let mut from = 0;
    while from < plan.stages.len() {
        let alike = |other: &StagePlan| row_key(other) == row_key(&plan.stages[from]);
        let length = plan.stages[from..].iter().take_while(|stage| alike(stage)).count();
        text += &stage_row(from, &plan.stages[from..from + length]);
        from += length;
    }
    text
}

fn row_key(stage: &StagePlan) -> (u64, usize, u32, Bound, bool) {
    let StagePlan { parameters, layers, window, bound, recomputes, .. } = *stage;
    (parameters, layers.1 - layers.0, window, bound, recomputes)
}

fn stage_row(from: usize, stages: &[StagePlan]) -> String {
    let (first, last) = (&stages[0], &stages[stages.len() - 1]);
    let replicas = || stages.iter().map(|stage| stage.replicas.iter().sum::<u32>());
    let rates = || stages.iter().map(|stage| stage.units_per_s);
    let (low, high) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    let (low, high) = (format!("{low:.2}"), format!("{high:.2}"));
    format!(
        "  {:>7} {:>8} {:>11} {:>9} {:>9} {:>7} {:>9}  {}{}\n",
        range(from, from + stages.len() - 1),
        range(first.layers.0, last.layers.1 - 1),
        count(first.parameters as f64),
        range(replicas().min().unwrap_or(0), replicas().max().unwrap_or(0)),
        bytes(first.memory.total() as f64),
        first.window,
        range(low, high),
        bound_name(first.bound),
        if first.recomputes { ", forwards are computed again" } else { "" },
    )
}

fn range<T: PartialEq + std::fmt::Display>(low: T, high: T) -> String {
    if low == high { low.to_string() } else { format!("{low}–{high}") }
}

fn bound_name(bound: Bound) -> &'static str {
    match bound {
        Bound::Compute => "compute",
        Bound::Uplink => "uplink",
        Bound::Downlink => "downlink",
        Bound::Window => "window",
    }
}

fn memory_text(plan: &Plan) -> String {
    let largest = plan.stages.iter().max_by_key(|stage| stage.memory.total()).expect("a plan has a stage");
    let memory = &largest.memory;
    let parts = [
        ("weights", memory.weights),
        ("optimiser", memory.optimiser),
        ("gradients", memory.gradients),
        ("activations", memory.activations),
        ("token parts", memory.token_parts),
        ("end of round", memory.exchange),
        ("window", memory.window),
        ("program", memory.program),
    ];
    let parts = parts.into_iter().filter(|(_, size)| *size > 0);
    let parts: Vec<String> = parts.map(|(name, size)| format!("{name} {}", bytes(size as f64))).collect();
    format!("{} at most: {}", bytes(memory.total() as f64), parts.join(", "))
}

fn bytes_text(plan: &Plan, row: &dyn Fn(&str, String) -> String) -> String {
    let boundary = plan.stages.iter().map(|stage| stage.bytes_per_token).fold(0.0, f64::max);
    let most = |value: &dyn Fn(&StagePlan) -> f64| plan.stages.iter().map(value).fold(0.0, f64::max);
    let (up, down) = (most(&|stage| stage.exchange_bytes.0), most(&|stage| stage.exchange_bytes.1));
    let mut text = row(
        "bytes",
        format!("{} for each token by all peers, {} by one", bytes(plan.bytes_per_token), bytes(boundary)),
    );
    text += &row(
        "",
        format!(
            "payload {}; a replica sends {} and gets {} of them in a round",
            bytes(most(&|stage| stage.payload_bytes)),
            bytes(up),
            bytes(down)
        ),
    );
    text += &row("", format!("a joiner or a checkpoint: {}", bytes(most(&|stage| stage.state_bytes as f64))));
    let rate = 8.0 * plan.ordered_bytes / plan.round.total_s();
    text + &row("", format!("who orders blocks gets {} in a round: {}bit/s", bytes(plan.ordered_bytes), count(rate)))
}

fn simulation_text(args: &PlanArgs, plan: &Plan, flow: &FlowReport) -> String {
    let churn = args.churn.map_or_else(String::new, |life| {
        format!(", peers stay {} and are away {} in the mean", long_duration(life), long_duration(args.away))
    });
    let mut text = format!("\n  simulated  {} rounds in {}{churn}\n", flow.rounds, long_duration(flow.seconds));
    text += &format!(
        "             {} tokens/s, {:+.1} % of the plan; {} for {} tokens\n",
        count(flow.tokens_per_s),
        100.0 * (flow.tokens_per_s / plan.tokens_per_s - 1.0),
        if flow.tokens_per_s > 0.0 {
            long_duration(plan.tokens as f64 / flow.tokens_per_s)
        } else {
            "never".to_owned()
        },
        count(plan.tokens as f64)
    );
    text += &format!("             peers idle {:.0} % of the time\n", 100.0 * flow.idle);
    let lost = flow.departures + flow.rerouted + flow.redone + flow.left_out;
    if lost > 0 {
        text += &format!(
            "             {} departures: {} passes taken over by others, {} done again, {} units left out\n",
            flow.departures, flow.rerouted, flow.redone, flow.left_out
        );
    }
    text
}

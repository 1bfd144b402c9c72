//! What a run would be: stages, replicas, codec, memory, bytes, time, and what limits it.
//!
//! Purpose: to say before a run what it takes, from the same arithmetic as the run: the memory is [`learn::pipeline::StageBudget`]'s, the
//! messages are the codecs', the payloads SparseLoCo's. Nothing is allocated: a model of 32 billion parameters is planned in a second.
//!
//! | part | file |
//! |---|---|
//! | who takes part | `peers.rs` |
//! | the model | `shapes.rs` |
//! | what a stage costs | `cost.rs` |
//! | how long a round takes | `estimate.rs` |
//! | which stages, which codec, who holds what | `search.rs` |
//! | what was measured | `calibration.rs` |
//! | the same plan as discrete events, with peers that come and go | `flow.rs` |
//!
//! A round is one step of the optimiser on the units of the round, as in [`learn::pipeline`]. What the model leaves out is in
//! `docs/plan.md`.

mod calibration;
mod cost;
mod estimate;
mod flow;
mod peers;
mod search;
mod shapes;

use learn::boundary::Codec;
use learn::recipe::BatchShape;
use model::{Config, ConfigError};
use serde::Serialize;

pub use self::calibration::Calibration;
pub use self::cost::StageMemory;
pub use self::estimate::{Bound, RoundTime};
pub use self::flow::{FlowOptions, FlowReport, simulate};
pub use self::peers::{PEERS_MAX, PeerGroup, PeerSpec, PeersError, parse_rate};
pub use self::shapes::{PRESETS, ShapeError, model_shape};

use self::estimate::Work;
use self::search::{Found, search};

/// What is planned.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanInput {
    /// The shape of the model.
    pub model: Config,
    /// Who takes part.
    pub groups: Vec<PeerGroup>,
    /// A unit: one micro-batch.
    pub batch: BatchShape,
    /// Tokens of a round that are wanted; commitments may have room for fewer.
    pub round_tokens: u64,
    /// Entries that a payload keeps of 4096, from 1.
    pub keep: u32,
    /// Tokens of the whole run.
    pub tokens: u64,
    /// So many stages; otherwise as many as are best.
    pub stages: Option<usize>,
    /// This codec; otherwise the one that is best.
    pub codec: Option<Codec>,
    /// Micro-batches whose activations a replica keeps.
    pub slots: usize,
    /// Whether all peers must take part; otherwise some may stand by when the run is faster without them.
    pub all_peers: bool,
    /// Rate of the downlink of the peer that orders blocks and gets every payload, in bits per second; infinite when it does not count.
    pub orderer_bits_per_s: f64,
    /// What was measured.
    pub calibration: Calibration,
}

impl PlanInput {
    /// Tokens of a unit.
    pub fn unit_tokens(&self) -> u64 {
        (self.batch.sequences * self.batch.tokens) as u64
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A stage is too large for every peer.
    #[error(
        "a stage of layers {} to {}{} takes {:.1} GB with {stages} stages, and the largest peer may take {:.1} GB",
        layers.0, layers.1 - 1, if *ends { " with its table" } else { "" }, *needed as f64 / 1e9, *largest as f64 / 1e9
    )]
    TooLittleMemory {
        /// Bytes that the largest stage takes at least.
        needed: u64,
        /// Bytes that the largest peer may take.
        largest: u64,
        /// Stages.
        stages: usize,
        /// The stage's first layer and the one past its last.
        layers: (usize, usize),
        /// Whether it is the first or the last, with embedding or head.
        ends: bool,
    },
    /// There are more stages than peers that can hold them.
    #[error(
        "{peers} peers cannot hold {stages} stages: one that takes {:.1} GB is left, which {holders} peers have",
        *needed as f64 / 1e9
    )]
    TooFewPeers {
        /// All peers.
        peers: u64,
        /// Stages.
        stages: usize,
        /// Bytes that the stage takes which is left.
        needed: u64,
        /// Peers with that much memory.
        holders: u32,
    },
    /// The sizes are not those of a model, or the micro-batch does not suit it.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A setting is out of range.
    #[error("{what} must be {range}")]
    Range {
        /// The setting.
        what: &'static str,
        /// What is permitted.
        range: String,
    },
}

/// What bounds a run most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Speed of the peers.
    Compute,
    /// Their uplinks.
    Uplink,
    /// Their downlinks.
    Downlink,
    /// Round-trip times.
    Latency,
    /// Their memory.
    Memory,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Compute, Self::Uplink, Self::Downlink, Self::Latency, Self::Memory];

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Uplink => "uplink",
            Self::Downlink => "downlink",
            Self::Latency => "latency",
            Self::Memory => "memory",
        }
    }

    /// Peers that have twice as much of it, or half the round-trip time.
    fn double(self, group: &PeerGroup) -> PeerGroup {
        let mut peer = group.peer;
        match self {
            Self::Compute => peer.flops *= 2.0,
            Self::Uplink => peer.up_bits_per_s *= 2.0,
            Self::Downlink => peer.down_bits_per_s *= 2.0,
            Self::Latency => peer.round_trip_s /= 2.0,
            Self::Memory => peer.memory_bytes = peer.memory_bytes.saturating_mul(2),
        }
        PeerGroup { peer, ..*group }
    }
}

/// What bounds a run, and what would move it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// What twice as much of would help most.
    pub resource: Resource,
    /// What it would help, in words.
    pub sentence: String,
    /// By how much tokens per second would grow with twice as much of each, or half the round-trip time: 0.5 for half as many more.
    pub gains: Vec<(Resource, f64)>,
}

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StagePlan {
    /// Its first layer and the one past its last.
    pub layers: (usize, usize),
    /// Canonical parameters.
    pub parameters: u64,
    /// FLOPs of a unit, forward and backward.
    pub unit_flops: (f64, f64),
    /// Seconds of a unit forward and backward at the first group that holds it, without forwards that are computed again.
    pub unit_s: (f64, f64),
    /// Seconds of processor that the end of a round takes there.
    pub step_s: f64,
    /// Replicas by group of peers.
    pub replicas: Vec<u32>,
    /// What a member takes, with the window of the group that has the smallest.
    pub memory: StageMemory,
    /// Units that may be under way at a member.
    pub window: u32,
    /// Whether forwards are computed again, because more units are under way than activations are kept.
    pub recomputes: bool,
    /// Units per second of all replicas.
    pub units_per_s: f64,
    /// What bounds it between fill and exchange.
    pub bound: Bound,
    /// Bytes for each token that a unit's replica sends, and as many gets.
    pub bytes_per_token: f64,
    /// Bytes of a payload.
    pub payload_bytes: f64,
    /// Bytes of payloads that a replica sends and gets at the end of a round.
    pub exchange_bytes: (f64, f64),
    /// Bytes of the state: what a joiner downloads and a checkpoint has.
    pub state_bytes: u64,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Parameters of the model.
    pub parameters: u64,
    /// Peers by group.
    pub peers: Vec<u32>,
    /// Peers that hold a stage; the others stand by.
    pub peers_used: u32,
    /// The codec of every boundary.
    pub codec: String,
    /// The stages in order.
    pub stages: Vec<StagePlan>,
    /// Tokens of a unit.
    pub unit_tokens: u64,
    /// Units of a round.
    pub units: u32,
    /// Whether the round has fewer tokens than were wanted.
    pub units_bounded: bool,
    /// The time of a round.
    pub round: RoundTime,
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Bytes that all peers together send for each token, payloads included.
    pub bytes_per_token: f64,
    /// Bytes of all payloads of a round, which the peer that orders blocks gets.
    pub ordered_bytes: f64,
    /// Tokens of the run.
    pub tokens: u64,
    /// Seconds until they are trained.
    pub seconds: f64,
    /// What bounds it.
    pub limit: Limit,
    /// What was measured.
    pub calibration: Calibration,
}

impl Plan {
    /// Plans a run.
    ///
    /// # Errors
    /// [`PlanError`] when nothing fits, with the least that would, or a setting is out of range.
    pub fn of(input: &PlanInput) -> Result<Self, PlanError> {
        check(input)?;
        let found = search(input)?;
        let limit = limit(input, found.tokens_per_s);
        Ok(Self::describe(input, &found, limit))
    }

    /// Tokens per second that are planned, without what bounds them.
    ///
    /// # Errors
    /// As [`Plan::of`].
    pub fn tokens_per_s(input: &PlanInput) -> Result<f64, PlanError> {
        check(input)?;
        Ok(search(input)?.tokens_per_s)
    }

    fn describe(input: &PlanInput, found: &Found, limit: Limit) -> Self {
        let work = work(input, found);
        let unit_tokens = input.unit_tokens();
        let round_tokens = f64::from(found.units) * unit_tokens as f64;
        let stages: Vec<StagePlan> =
            (0..found.costs.len()).map(|place| stage(&work, found, unit_tokens, place)).collect();
        let messages: f64 = stages.iter().map(|stage| stage.bytes_per_token).sum();
        let replicas = |stage: &StagePlan| f64::from(stage.replicas.iter().sum::<u32>());
        let exchanged: f64 = stages.iter().map(|stage| stage.exchange_bytes.0 * replicas(stage)).sum();
        Self {
            parameters: input.model.parameters(),
            peers: input.groups.iter().map(|group| group.count).collect(),
            peers_used: found.replicas.iter().flatten().sum(),
            codec: found.codec.to_string(),
            stages,
            unit_tokens,
            units: found.units,
            units_bounded: (u64::from(found.units) * unit_tokens) < input.round_tokens,
            round: found.estimate.round,
            tokens_per_s: found.tokens_per_s,
            bytes_per_token: messages + exchanged / round_tokens,
            ordered_bytes: work.payload_bytes(&found.replicas),
            tokens: input.tokens,
            seconds: input.tokens as f64 / found.tokens_per_s,
            limit,
            calibration: input.calibration,
        }
    }
}

fn work<'a>(input: &'a PlanInput, found: &'a Found) -> Work<'a> {
    Work {
        costs: &found.costs,
        groups: &input.groups,
        calibration: &input.calibration,
        slots: input.slots,
        orderer_bits_per_s: input.orderer_bits_per_s,
    }
}

fn stage(work: &Work<'_>, found: &Found, unit_tokens: u64, place: usize) -> StagePlan {
    let (cost, time, replicas) = (&found.costs[place], &found.estimate.stages[place], &found.replicas[place]);
    let held = || (0..replicas.len()).filter(|group| replicas[*group] > 0);
    let peer = &work.groups[held().next().expect("a stage has a replica")].peer;
    let window = held().map(|group| time.windows[group]).min().unwrap_or(1);
    StagePlan {
        layers: cost.layers,
        parameters: cost.parameters,
        unit_flops: (cost.forward_flops, cost.backward_flops),
        unit_s: (cost.forward_s(peer, work.calibration), cost.backward_s(peer, work.calibration, false)),
        step_s: cost.step_s(peer, work.calibration),
        replicas: replicas.clone(),
        memory: cost.memory_with(window),
        window,
        recomputes: held().any(|group| time.again[group]),
        units_per_s: time.rate,
        bound: time.bound,
        bytes_per_token: (cost.message * cost.messages()) as f64 / unit_tokens as f64,
        payload_bytes: cost.payload,
        exchange_bytes: work.exchange_bytes(&found.replicas, place),
        state_bytes: cost.state,
    }
}

fn check(input: &PlanInput) -> Result<(), PlanError> {
    let wrong = |what, range: &str| Err(PlanError::Range { what, range: range.to_owned() });
    let layers = input.model.layers;
    if input.groups.is_empty() {
        return wrong("the number of peers", "at least 1");
    }
    if !(1..=4096).contains(&input.keep) {
        return wrong("the entries kept of 4096", "from 1 to 4096");
    }
    if input.stages.is_some_and(|stages| !(1..=layers.min(wire::STAGES_MAX)).contains(&stages)) {
        return wrong(
            "the number of stages",
            &format!("from 1 to {}: the layers, at most 256", layers.min(wire::STAGES_MAX)),
        );
    }
    if input.batch.sequences == 0 || input.unit_tokens() == 0 || input.round_tokens == 0 || input.tokens == 0 {
        return wrong("the number of tokens", "at least 1");
    }
    if input.slots == 0 {
        return wrong("the number of micro-batches whose activations are kept", "at least 1");
    }
    match input.codec.map(|codec| codec.space) {
        Some(learn::boundary::Space::Subspace { .. }) => {
            wrong("the codec", "`full` or `projector:RANK`: a frozen subspace is not planned")
        }
        Some(learn::boundary::Space::Projector { rank, .. }) if !(1..=input.model.width).contains(&rank) => {
            wrong("the rank of the codec", &format!("from 1 to the width, {}", input.model.width))
        }
        _ => Ok(()),
    }
}

/// Plans again with twice as much of each resource.
fn limit(input: &PlanInput, tokens_per_s: f64) -> Limit {
    let gain = |resource: Resource| {
        let groups = input.groups.iter().map(|group| resource.double(group)).collect();
        let found = search(&PlanInput { groups, ..input.clone() });
        (resource, found.map_or(0.0, |found| found.tokens_per_s / tokens_per_s - 1.0))
    };
    let gains: Vec<(Resource, f64)> = Resource::ALL.into_iter().map(gain).collect();
    let (resource, most) = gains.iter().copied().rev().max_by(|a, b| a.1.total_cmp(&b.1)).expect("five resources");
    let what = match resource {
        Resource::Compute => "peers of twice the speed",
        Resource::Uplink => "uplinks of twice the rate",
        Resource::Downlink => "downlinks of twice the rate",
        Resource::Latency => "half the round-trip time",
        Resource::Memory => "twice the memory",
    };
    let sentence = format!("{what} would give {:.0} % more tokens per second", 100.0 * most);
    Limit { resource, sentence, gains }
}

#[cfg(test)]
mod tests;

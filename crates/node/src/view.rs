//! What the terminal and the pages show: plain data, the same for both.

use serde::{Deserialize, Serialize};
use wire::{Hash, PeerId, Release, RunId};

/// Everything about a run at one moment, as `GET /net/state` returns it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetState {
    /// The version of the program.
    pub version: String,
    /// The run, when there is one (`serve` without a run has none).
    pub run: Option<RunView>,
    /// The swarm's loss curve, oldest first.
    pub curve: Vec<CurvePoint>,
    /// The centralised baseline of the same recipe, when one is recorded.
    pub baseline: Option<Baseline>,
    /// The peers, in the order of their ids.
    pub peers: Vec<PeerView>,
    /// The model's text as it learned, oldest first, thinned to at most 64.
    pub samples: Vec<Sample>,
    /// The ledger's head.
    pub ledger: Option<LedgerView>,
    /// Recorded faults, newest last, at most 100.
    pub faults: Vec<FaultView>,
    /// What this machine gives, when it takes part in a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineView>,
}

/// What a machine gives to the run, in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its cores.
    pub cores: u64,
    /// The instruction set that its kernels use.
    pub isa: String,
    /// All its memory in bytes, when the system says it.
    pub memory_bytes: Option<u64>,
    /// Memory in bytes that programs can still take, when the system says it.
    pub memory_free_bytes: Option<u64>,
    /// Bytes that can still be written where the data directory is, when the system says it.
    pub disk_free_bytes: Option<u64>,
    /// Why it does not work now, if it does not.
    pub paused: Option<PauseView>,
    /// What it may take.
    pub limits: LimitsView,
    /// What it takes.
    pub used: UsedView,
}

/// Why a machine pauses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum PauseView {
    /// A person said so.
    Person,
    /// It is outside of its hours.
    Hours {
        /// When these begin, in the machine's time: `22:00`.
        until: String,
    },
    /// Other programs keep it busy.
    Busy,
}

/// The limits of a machine, as people set them; none where there is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitsView {
    /// Part of the processor time of all cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Bytes of memory of a peer.
    pub memory_bytes: Option<u64>,
    /// Bits per second to other machines.
    pub up_bits_per_s: Option<u64>,
    /// Bits per second from other machines.
    pub down_bits_per_s: Option<u64>,
    /// When it works: `always`, `idle` or `22:00-07:00`.
    pub when: String,
}

/// What a machine takes: means over the last ten seconds, but for the memory, which is that of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsedView {
    /// Part of the processor time of all cores, 0 to 1; none where the system does not say.
    pub cpu: Option<f64>,
    /// Part of the processor time of all cores that other programs use, in the last second; none where the system does not say.
    pub others_cpu: Option<f64>,
    /// Bytes of memory of all its processes; none where the system does not say.
    pub memory_bytes: Option<u64>,
    /// Bits per second to other machines, headers included.
    pub up_bits_per_s: f64,
    /// Bits per second from other machines, headers included.
    pub down_bits_per_s: f64,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Peers connect and join.
    #[default]
    Starting,
    /// Rounds are under way.
    Training,
    /// All rounds are done.
    Finished,
    /// The run stopped on a fatal fault.
    Halted,
}

/// A run's identity, shape and progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// The run's id.
    pub id: RunId,
    /// What people call it.
    pub name: String,
    /// Where it stands.
    pub phase: Phase,
    /// Trained parameters.
    pub parameters: u64,
    /// One line on the model's shape.
    pub model: String,
    /// One line on the data.
    pub data: String,
    /// One line on optimiser and compression.
    pub recipe: String,
    /// Rounds that are complete.
    pub round: u64,
    /// Rounds in all.
    pub rounds: u64,
    /// Tokens trained on in committed units.
    pub tokens: u64,
    /// Tokens when the run is complete.
    pub tokens_target: u64,
    /// Seconds since the first round opened in this process.
    pub elapsed_seconds: f64,
    /// Estimated seconds to the end.
    pub eta_seconds: Option<f64>,
    /// Tokens per second over the last rounds, all peers.
    pub tokens_per_second: f64,
    /// Newest mean training loss, nats per token.
    pub training_loss: Option<f64>,
    /// Newest held-out loss, nats per token.
    pub heldout_loss: Option<f64>,
    /// Bytes sent by all peers, headers included, per trained token.
    pub bytes_per_token: f64,
    /// Payload bytes per trained token, by the codec's formula.
    pub payload_bytes_per_token: f64,
    /// Size of the f32 parameters over the mean payload.
    pub compression: f64,
    /// Where the peers' time went.
    pub time: TimeSplit,
    /// The newest state root.
    pub state_root: Option<Hash>,
    /// When the weights may leave their stages.
    #[serde(default)]
    pub release: Release,
    /// The licence of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The run whose terms it took over and changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// What another machine needs to take part, when the run lets others in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// How the model is cut, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<PipelineView>,
}

/// Where a run of a data directory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It was founded, and never started.
    New,
    /// It stopped before its end, and can go on.
    Paused,
    /// A process of this machine trains it, or serves it on.
    Running,
    /// It ended on a fatal fault.
    Halted,
    /// All rounds are done.
    Complete,
}

/// A run of a data directory in a line, as `GET /runs` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// The run's id.
    pub id: RunId,
    /// What people call it.
    pub name: String,
    /// Trained parameters.
    pub parameters: u64,
    /// Where it stands.
    pub state: RunState,
    /// Rounds that are complete, as far as was observed here.
    pub round: u64,
    /// Rounds in all.
    pub rounds: u64,
    /// Newest held-out loss, nats per token.
    pub heldout_loss: Option<f64>,
    /// How much higher the final loss is than that of the recorded baseline, as a fraction.
    pub gap: Option<f64>,
    /// What people call its text.
    pub data: Option<String>,
    /// The licence of its text.
    pub licence: Option<String>,
    /// The run whose terms it took over and changed.
    pub parent: Option<RunId>,
    /// Whether it is the one that `cairn up` goes on with.
    pub newest: bool,
}

/// A model in stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineView {
    /// The layers of each stage: the first, and how many.
    pub layers: Vec<(u64, u64)>,
    /// Which numbers travel between stages, and how they are written, as `--codec` has it.
    pub codec: String,
    /// What is between each stage and the next in the open round.
    pub boundaries: Vec<BoundaryView>,
    /// The link that every peer sits behind, as `--link` has it; none on the machine's own.
    pub link: Option<String>,
}

/// How numbers travel between a stage and the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundaryView {
    /// How one is written in the open round: the recipe's precision, or a smaller one that the members' links asked for.
    pub precision: String,
    /// Bytes of a token on the way; as many come back.
    pub bytes_per_token: f64,
}

/// Fractions of wall time, mean over peers; they sum to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeSplit {
    /// Training and applying.
    pub compute: f64,
    /// Waiting for bytes.
    pub communication: f64,
    /// Waiting for others.
    pub idle: f64,
}

/// One point of a loss curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Mean training loss since the point before, nats per token.
    pub training_loss: Option<f64>,
    /// Held-out loss, nats per token.
    pub heldout_loss: Option<f64>,
}

/// A recorded centralised run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What was run, in one line.
    pub label: String,
    /// Its curve.
    pub points: Vec<CurvePoint>,
}

/// What a peer is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerActivity {
    /// Not connected.
    #[default]
    Offline,
    /// Connected, not yet a member.
    Joining,
    /// Training a unit.
    Training,
    /// Fetching payloads or blocks.
    Fetching,
    /// Applying a committed set.
    Applying,
    /// Nothing to do until others are done.
    Waiting,
    /// It takes no part for a while, as its owner wants it.
    Paused,
    /// The run is complete.
    Done,
    /// Its process died, and is started again.
    Restarting,
    /// On another machine: it takes part, and what it does just now is not known here.
    Elsewhere,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its id.
    pub id: PeerId,
    /// What people call it (`peer 1`).
    pub name: String,
    /// What it is doing.
    pub activity: PeerActivity,
    /// Whether it orders blocks.
    pub validator: bool,
    /// Shares in micro-shares.
    pub shares: u64,
    /// Its part of all shares, 0 to 1.
    pub share_of_supply: f64,
    /// Receipts paid.
    pub receipts: u64,
    /// Bytes sent since start, headers included.
    pub bytes_sent: u64,
    /// Bytes received since start, headers included.
    pub bytes_received: u64,
    /// Its tokens per second while training.
    pub tokens_per_second: f64,
    /// Its stage, when the model is in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<u16>,
    /// The most memory that it took, where it has a process of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// How often its process died and was started again.
    #[serde(default)]
    pub restarts: u64,
    /// Why it is gone for good, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Whether peer 1 of this machine reaches it directly or through a relay; none of itself, and while it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathView>,
    /// Faults recorded against it.
    pub faults: u64,
}

/// Which way packets to a peer take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathView {
    /// Whether a relay passes them on.
    pub relayed: bool,
    /// Round-trip time, in milliseconds.
    pub round_trip_ms: f64,
}

/// Text that the model wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Rounds complete when it was written.
    pub round: u64,
    /// Tokens trained on by then.
    pub tokens: u64,
    /// The beginning that was given.
    pub prompt: String,
    /// What the model added.
    pub text: String,
}

/// The ledger's head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerView {
    /// Blocks.
    pub height: u64,
    /// Root of the ledger.
    pub root: Hash,
    /// All shares, in micro-shares.
    pub supply: u64,
    /// Receipts paid.
    pub receipts: u64,
}

/// A recorded fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultView {
    /// Whose fault.
    pub peer: PeerId,
    /// The round in which it was seen.
    pub round: u64,
    /// What was wrong, in words.
    pub what: String,
}

/// What `GET /net/events` streams: the event's name is the variant in snake case, its data the JSON of the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum NetEvent {
    /// Run, peers and ledger changed. `curve`, `samples` and `baseline` are empty in it: they come by the events below.
    State(Box<NetState>),
    /// A point was added to the curve.
    Point(CurvePoint),
    /// The model wrote a sample.
    Sample(Sample),
}

//! What is simulated: sizes, links, faults. All of it follows from a seed unless a caller sets it.

use crate::adversary::Adversary;
use crate::network::AccessLink;
use crate::random::Random;
use crate::schedule::{self, Scheduled};
use crate::trainer::stage::MESSAGE_BYTES;

/// The fixed settings of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// What every random choice follows from.
    pub seed: u64,
    /// Honest peers, at least 1 and one for each stage. The first is the validator.
    pub peers: usize,
    /// Stages of the model, at least 1. The peer at place `p` begins in stage `p % stages`.
    pub stages: usize,
    /// How many peers begin in each stage instead, in the order of their places; empty for the rule above.
    pub staff: Vec<usize>,
    /// Whether peers move to other stages when they are advised to.
    pub moves: bool,
    /// The stage of the first adversary; the others take part in those that follow.
    pub adversary_stage: usize,
    /// Rounds of the run, at least 1.
    pub rounds: u64,
    /// Further peers that do not follow the protocol.
    pub adversaries: Vec<Adversary>,
    /// Units in each round; at least one per peer (with several stages, per member of stage 0) when there are adversaries, since the
    /// ledger does not end a round all of whose units belong to peers that never commit.
    pub units_per_round: u32,
    /// Time from a round's opening to its deadline, in microseconds.
    pub round_us_max: u64,
    /// Time that an average machine trains one unit, in microseconds. With several stages, in its stage: a third of it forward.
    pub unit_us: u64,
    /// Bytes of an output or a gradient of a stage, as the network counts them.
    pub stage_bytes: u64,
    /// Outputs and gradients of other stages that a peer has memory for.
    pub stage_messages_held: u64,
    /// Whether a state needs the payloads of the neighbouring stages too.
    pub neighbour_payloads: bool,
    /// Bytes of a payload.
    pub payload_bytes: u64,
    /// Bytes of a state.
    pub state_bytes: u64,
    /// Least and greatest one-way delay of a link, in microseconds.
    pub latency_us: (u64, u64),
    /// Greatest random extra delay of a message, in microseconds.
    pub jitter_us: u64,
    /// Least and greatest upload rate of a machine, in bytes per second.
    pub bandwidth: (u64, u64),
    /// Least and greatest download rate of a machine, in bytes per second.
    pub bandwidth_down: (u64, u64),
    /// Access links that are not drawn: of the host at a place. They take the place of rates and jitter.
    pub links: Vec<(usize, AccessLink)>,
    /// Greatest difference of a machine's clock from true time, in microseconds.
    pub skew_us_max: u64,
    /// Honest peers that start late, during the first half of the run.
    pub late: usize,
    /// Honest peers that train five times slower.
    pub slow: usize,
    /// Honest peers whose machines compute the third round's step wrongly: the checks must find it.
    pub broken: usize,
    /// What goes wrong until the faults end.
    pub faults: Faults,
    /// What else is done to the network, in the order of time. The faults end after the last of it, or with the last round.
    pub schedule: Vec<Scheduled>,
}

/// What goes wrong, and how often. Rates are per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Packets lost, which delays their messages.
    pub loss: u32,
    /// Messages on which the connection breaks, so that everything under way on it is lost.
    pub breaks: u32,
    /// Mean time between two crashes of one machine, in microseconds; 0 for none.
    pub crash_us_mean: u64,
    /// Inputs during whose handling the machine crashes, between two outputs.
    pub crash_outputs: u32,
    /// Longest time that a crashed machine stays down, in microseconds.
    pub down_us_max: u64,
    /// Mean time between two partitions, in microseconds; 0 for none.
    pub partition_us_mean: u64,
    /// Jobs that fail and are to be tried again.
    pub job_failures: u32,
}

impl SimConfig {
    /// A run without faults over good links.
    pub fn calm(seed: u64, peers: usize, rounds: u64) -> Self {
        Self {
            seed,
            peers,
            stages: 1,
            staff: Vec::new(),
            moves: true,
            adversary_stage: 0,
            rounds,
            adversaries: Vec::new(),
            units_per_round: u32::try_from(peers).unwrap_or(u32::MAX),
            round_us_max: 20_000_000,
            unit_us: 2_000_000,
            stage_bytes: 100_000,
            stage_messages_held: 4_096,
            neighbour_payloads: false,
            payload_bytes: 100_000,
            state_bytes: 2_000_000,
            latency_us: (5_000, 60_000),
            jitter_us: 5_000,
            bandwidth: (10_000_000, 50_000_000),
            bandwidth_down: (50_000_000, 100_000_000),
            links: Vec::new(),
            skew_us_max: 0,
            late: 0,
            slow: 0,
            broken: 0,
            faults: Faults::default(),
            schedule: Vec::new(),
        }
    }

    /// A run whose sizes, links and faults are all drawn from the seed.
    pub fn from_seed(seed: u64, peers: usize, rounds: u64) -> Self {
        let mut draw = Random::new(seed, "options");
        let calm = Self::calm(seed, peers, rounds);
        let some = |draw: &mut Random, of: usize| draw.index(of / 4 + 1);
        let often = draw.chance(750_000);
        Self {
            units_per_round: u32::try_from(draw.between(1, 2 * peers as u64)).unwrap_or(1),
            unit_us: draw.between(500_000, 4_000_000),
            payload_bytes: draw.between(1_000, 300_000),
            state_bytes: draw.between(300_001, 5_000_000),
            latency_us: (draw.between(100, 20_000), draw.between(20_000, 200_000)),
            jitter_us: draw.between(0, 50_000),
            bandwidth: (draw.between(500_000, 2_000_000), draw.between(5_000_000, 100_000_000)),
            skew_us_max: draw.between(0, 5_000_000),
            late: some(&mut draw, peers),
            slow: some(&mut draw, peers),
            faults: Faults {
                loss: u32::try_from(draw.between(0, 50_000)).unwrap_or(0),
                breaks: u32::try_from(draw.between(0, 5_000)).unwrap_or(0),
                crash_us_mean: if often { draw.between(20_000_000, 200_000_000) } else { 0 },
                crash_outputs: u32::try_from(draw.between(0, 1_000)).unwrap_or(0),
                down_us_max: draw.between(1_000_000, 60_000_000),
                partition_us_mean: if draw.chance(500_000) { draw.between(30_000_000, 120_000_000) } else { 0 },
                job_failures: u32::try_from(draw.between(0, 20_000)).unwrap_or(0),
            },
            ..calm
        }
    }

    /// A run in stages without faults: `stages` × `replicas` peers, `rounds` rounds, eight units for each replica of a stage.
    pub fn calm_stages(seed: u64, stages: usize, replicas: usize, rounds: u64) -> Self {
        Self {
            stages,
            units_per_round: u32::try_from(8 * replicas).unwrap_or(u32::MAX),
            round_us_max: 60_000_000,
            unit_us: 300_000,
            ..Self::calm(seed, stages * replicas, rounds)
        }
    }

    /// A short run in stages whose sizes, links, faults, adversaries and schedule are all drawn from the seed.
    pub fn stages_from_seed(seed: u64) -> Self {
        let mut draw = Random::new(seed, "stages");
        let (stages, replicas) = (2 + draw.index(3), 1 + draw.index(3));
        let uneven = draw.chance(400_000);
        let staff: Vec<usize> = if uneven { (0..stages).map(|_| 1 + draw.index(4)).collect() } else { Vec::new() };
        let (peers, rounds) = match uneven {
            true => (staff.iter().sum(), draw.between(3, 7)),
            false => (stages * replicas, draw.between(2, 4)),
        };
        let units = draw.between(1, 8 * replicas as u64);
        let often = |draw: &mut Random, value: u64| if draw.chance(300_000) { value } else { 0 };
        let rare = |draw: &mut Random, most: u64| u32::try_from(draw.between(0, most)).unwrap_or(0);
        let faults = Faults {
            loss: rare(&mut draw, 20_000),
            breaks: if draw.chance(500_000) { rare(&mut draw, 2_000) } else { 0 },
            crash_us_mean: often(&mut draw, 60_000_000),
            crash_outputs: if draw.chance(300_000) { rare(&mut draw, 500) } else { 0 },
            down_us_max: draw.between(1_000_000, 30_000_000),
            partition_us_mean: 0,
            job_failures: rare(&mut draw, 10_000),
        };
        let acts = draw.between(0, 4);
        let schedule = schedule::random(&mut draw, acts, 90_000_000, peers, stages);
        // An adversary must not be all that there is of a stage, nor half of it: then its root could be the canonical one.
        let liar = replicas >= 2 && !uneven && draw.chance(250_000);
        // As in a run of one stage: a unit of a member that neither does it nor goes away is done by nobody.
        let units = if liar { units.max(2 * (replicas as u64 + 1)) } else { units };
        let adversaries =
            if liar { vec![Adversary::NEIGHBOURS[draw.index(Adversary::NEIGHBOURS.len())]] } else { Vec::new() };
        Self {
            adversaries,
            adversary_stage: draw.index(stages),
            units_per_round: u32::try_from(units).unwrap_or(1),
            unit_us: draw.between(50_000, 1_000_000),
            stage_bytes: draw.between(1_000, 500_000),
            stage_messages_held: draw.between(64, 1_024),
            neighbour_payloads: draw.chance(300_000),
            payload_bytes: draw.between(1_000, 300_000),
            state_bytes: draw.between(300_001, 3_000_000),
            latency_us: (draw.between(100, 10_000), draw.between(10_000, 150_000)),
            jitter_us: draw.between(0, 30_000),
            bandwidth: (draw.between(500_000, 1_000_000), draw.between(1_000_000, 10_000_000)),
            bandwidth_down: (draw.between(1_000_000, 3_000_000), draw.between(3_000_000, 20_000_000)),
            skew_us_max: if draw.chance(300_000) { draw.between(0, 2_000_000) } else { 0 },
            slow: draw.index(2),
            faults,
            schedule,
            peers,
            staff,
            ..Self::calm_stages(seed, stages, replicas, rounds)
        }
    }

    /// The stage in which the host at a place begins.
    pub fn stage_of(&self, place: usize) -> usize {
        let mut before = 0;
        for (stage, members) in self.staff.iter().enumerate() {
            before += members;
            if place < before {
                return stage;
            }
        }
        place.checked_sub(self.peers).map_or(place, |liar| liar + self.adversary_stage) % self.stages.max(1)
    }

    /// Whether nothing goes wrong: no fault, no schedule, no adversary, no machine that differs.
    pub fn is_calm(&self) -> bool {
        let odd = self.adversaries.len() + self.broken + self.late + self.slow;
        odd == 0 && self.faults == Faults::default() && self.schedule.is_empty()
    }

    /// Bytes that the network counts for each byte of an output or a gradient.
    pub(crate) fn stage_scale(&self) -> u64 {
        self.stage_bytes.div_ceil(MESSAGE_BYTES as u64).max(1)
    }

    /// The same with one more adversary.
    #[must_use]
    pub fn with(mut self, adversary: Adversary) -> Self {
        self.adversaries.push(adversary);
        self
    }

    /// The command that runs this configuration, if it is one that the command line can express.
    pub fn command(&self) -> String {
        if *self == Self::stages_from_seed(self.seed) {
            return format!("cargo run --release -p sim -- --staged --seed {}", self.seed);
        }
        if self.stages > 1 {
            let (stages, replicas) = (self.stages, self.peers / self.stages);
            let calm = Self::calm_stages(self.seed, stages, replicas, self.rounds);
            let changed = if *self == calm { "" } else { " # with changed options, see the caller" };
            return format!(
                "cargo run --release -p sim -- --seed {} --stages {stages} --peers {} --rounds {}{changed}",
                self.seed, self.peers, self.rounds
            );
        }
        let plain = |config: Self| Self { adversaries: self.adversaries.clone(), ..config };
        let calm = if *self == plain(Self::from_seed(self.seed, self.peers, self.rounds)) {
            ""
        } else if *self == plain(Self::calm(self.seed, self.peers, self.rounds)) {
            " --calm"
        } else {
            " # with changed options, see the caller"
        };
        let adversaries: String = self.adversaries.iter().map(|one| format!(" --adversary {}", one.name())).collect();
        format!(
            "cargo run --release -p sim -- --seed {} --peers {} --rounds {}{adversaries}{calm}",
            self.seed, self.peers, self.rounds
        )
    }
}

//! What is simulated: sizes, links, faults. All of it follows from a seed unless a caller sets it.

use crate::adversary::Adversary;
use crate::random::Random;

/// The fixed settings of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// What every random choice follows from.
    pub seed: u64,
    /// Honest peers, at least 1. The first is the validator.
    pub peers: usize,
    /// Rounds of the run, at least 1.
    pub rounds: u64,
    /// Further peers that do not follow the protocol.
    pub adversaries: Vec<Adversary>,
    /// Units in each round; at least one per peer when there are adversaries, since the ledger does not end a round all of
    /// whose units belong to peers that never commit.
    pub units_per_round: u32,
    /// Time from a round's opening to its deadline, in microseconds.
    pub round_us_max: u64,
    /// Time that an average machine trains one unit, in microseconds.
    pub unit_us: u64,
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
}

/// What goes wrong, and how often. Rates are per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Messages delayed by retransmission.
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
            rounds,
            adversaries: Vec::new(),
            units_per_round: u32::try_from(peers).unwrap_or(u32::MAX),
            round_us_max: 20_000_000,
            unit_us: 2_000_000,
            payload_bytes: 100_000,
            state_bytes: 2_000_000,
            latency_us: (5_000, 60_000),
            jitter_us: 5_000,
            bandwidth: (10_000_000, 50_000_000),
            skew_us_max: 0,
            late: 0,
            slow: 0,
            broken: 0,
            faults: Faults::default(),
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

    /// The same with one more adversary.
    #[must_use]
    pub fn with(mut self, adversary: Adversary) -> Self {
        self.adversaries.push(adversary);
        self
    }

    /// The command that runs this configuration, if it is one that the command line can express.
    pub fn command(&self) -> String {
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

//! How long a round takes, from what its stages cost and who holds them.
//!
//! ```text
//! round = fill  +  steady  +  exchange
//! fill      the first unit's way through all stages and back: its passes, its messages, half a round trip per message
//! steady    the other units at the rate of the slowest stage: all its replicas together, each as slow as the slowest of
//!           its processor, its uplink, its downlink, and the way below divided by its window
//! exchange  the slowest replica's payloads, up and down, and its step; and the round trips of the protocol
//! ```
//!
//! Peers that share processors are bound together, besides: all their seconds, divided by the processors.

use serde::Serialize;

use super::calibration::Calibration;
use super::cost::StageCost;
use super::peers::PeerGroup;

/// Round trips at the end of a round: commitment, its payload to the peer that orders, the block, the payloads to the replicas, the
/// attestation with the block that opens the next round.
const EXCHANGE_ROUND_TRIPS: f64 = 4.5;

/// Who holds the stages: replicas by stage and group.
pub(crate) type Replicas = Vec<Vec<u32>>;

/// A round's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RoundTime {
    /// The first unit's way, in seconds.
    pub fill_s: f64,
    /// All other units, in seconds.
    pub steady_s: f64,
    /// The end of the round, in seconds.
    pub exchange_s: f64,
}

impl RoundTime {
    /// All of it, in seconds.
    pub fn total_s(&self) -> f64 {
        self.fill_s + self.steady_s + self.exchange_s
    }
}

/// What bounds a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Its processors.
    Compute,
    /// Its uplinks.
    Uplink,
    /// Its downlinks.
    Downlink,
    /// The window of units under way, while their gradients are on their way.
    Window,
}

/// A stage at work.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StageTime {
    /// Units per second of all its replicas.
    pub(crate) rate: f64,
    /// What bounds the group with the most replicas.
    pub(crate) bound: Bound,
    /// By group: the window, and whether forwards are computed again.
    pub(crate) windows: Vec<u32>,
    pub(crate) again: Vec<bool>,
    /// Units under way, by group, that keep a replica busy.
    pub(crate) needed: Vec<f64>,
    /// Seconds of the end of a round, by group.
    pub(crate) exchange: Vec<f64>,
}

/// A round, and its stages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) round: RoundTime,
    pub(crate) stages: Vec<StageTime>,
}

/// What an estimate is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    pub(crate) costs: &'a [StageCost],
    pub(crate) groups: &'a [PeerGroup],
    pub(crate) calibration: &'a Calibration,
    pub(crate) slots: usize,
    /// Rate of the downlink of the peer that orders blocks, which gets every payload; infinite when it does not count.
    pub(crate) orderer_bits_per_s: f64,
}

/// One pass of the rates: what a stage needs, by group.
struct Passes {
    /// Seconds of a unit's passes.
    busy: Vec<Vec<f64>>,
    /// Seconds between two units of a replica.
    interval: Vec<Vec<f64>>,
    /// Seconds from a forward's end to its gradient, without queues.
    below: Vec<f64>,
    fill: f64,
}

impl Work<'_> {
    /// Estimates a round of `units` units.
    pub(crate) fn estimate(&self, replicas: &Replicas, units: u32) -> Estimate {
        let none = vec![vec![false; self.groups.len()]; self.costs.len()];
        let first = self.passes(replicas, &none);
        let needed = self.needed(replicas, &first);
        let again = self.again(replicas, &first, &needed);
        let passes = self.passes(replicas, &again);
        let (rates, units) = (self.rates(replicas, &passes), f64::from(units));
        let (slowest, rate) =
            rates.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("a model has a stage");
        let most = f64::from(replicas[slowest].iter().sum::<u32>());
        let private = ((units / most).ceil() - 1.0) * most / rate;
        // Shared processors do what there is to do, whoever has it.
        let shared = units / self.shared_rate(replicas, &passes) - passes.fill;
        let exchange: Vec<Vec<f64>> = (0..self.costs.len()).map(|stage| self.exchange(replicas, stage)).collect();
        let round = RoundTime {
            fill_s: passes.fill,
            steady_s: private.max(shared).max(0.0),
            exchange_s: self.round_exchange(replicas, &exchange),
        };
        let stage = |place: usize| StageTime {
            rate: rates[place],
            bound: self.bound(replicas, &passes, place),
            windows: self.groups.iter().map(|group| self.window(place, group)).collect(),
            again: again[place].clone(),
            needed: needed[place].clone(),
            exchange: exchange[place].clone(),
        };
        Estimate { round, stages: (0..self.costs.len()).map(stage).collect() }
    }

    /// Seconds between two units of a replica of a stage, without the window: what peers are shared out by.
    pub(crate) fn link_interval(&self, stage: usize, group: usize) -> f64 {
        let (cost, peer) = (&self.costs[stage], &self.groups[group].peer);
        let busy = cost.forward_s(peer, self.calibration) + cost.backward_s(peer, self.calibration, false);
        let bits = 8.0 * (cost.message * cost.messages()) as f64 / self.calibration.link;
        busy.max(bits / peer.up_bits_per_s).max(bits / peer.down_bits_per_s)
    }

    fn window(&self, stage: usize, group: &PeerGroup) -> u32 {
        self.costs[stage].window(group.peer.memory_bytes).unwrap_or(0)
    }

    fn passes(&self, replicas: &Replicas, again: &[Vec<bool>]) -> Passes {
        let (stages, groups) = (self.costs.len(), self.groups.len());
        let busy_of = |stage: usize, group: usize| {
            let (cost, peer) = (&self.costs[stage], &self.groups[group].peer);
            cost.forward_s(peer, self.calibration) + cost.backward_s(peer, self.calibration, again[stage][group])
        };
        let busy: Vec<Vec<f64>> = (0..stages).map(|s| (0..groups).map(|g| busy_of(s, g)).collect()).collect();
        let mut below = vec![0.0; stages];
        for stage in (0..stages.saturating_sub(1)).rev() {
            let next = mean(&replicas[stage + 1], &busy[stage + 1]);
            below[stage] = below[stage + 1] + next + self.boundary_s(replicas, stage);
        }
        let interval_of = |stage: usize, group: usize| {
            let window = f64::from(self.window(stage, &self.groups[group]).max(1));
            let links = self.link_interval(stage, group);
            links.max(busy[stage][group]).max(below[stage] / window)
        };
        let interval = (0..stages).map(|s| (0..groups).map(|g| interval_of(s, g)).collect()).collect();
        Passes { fill: below[0] + mean(&replicas[0], &busy[0]), busy, interval, below }
    }

    /// A message down and one back over the boundary after a stage.
    fn boundary_s(&self, replicas: &Replicas, stage: usize) -> f64 {
        let bits = 8.0 * self.costs[stage].message as f64 / self.calibration.link;
        let of = |place: usize, value: &dyn Fn(&PeerGroup) -> f64| {
            let values: Vec<f64> = self.groups.iter().map(value).collect();
            mean(&replicas[place], &values)
        };
        let (upper, lower) = (stage, stage + 1);
        let up = |group: &PeerGroup| bits / group.peer.up_bits_per_s;
        let down = |group: &PeerGroup| bits / group.peer.down_bits_per_s;
        let forward = of(upper, &up).max(of(lower, &down));
        let backward = of(lower, &up).max(of(upper, &down));
        let trip = |group: &PeerGroup| group.peer.round_trip_s / 2.0;
        forward + backward + of(upper, &trip) + of(lower, &trip)
    }

    /// Whether forwards are computed again: more units are under way than activations are kept. A stage with time to spare has as many as
    /// its window lets it, which is [`window_bound`]; one without has what keeps it busy, and the one that it computes.
    fn again(&self, replicas: &Replicas, passes: &Passes, needed: &[Vec<f64>]) -> Vec<Vec<bool>> {
        let rates = self.rates(replicas, passes);
        let slowest = rates.iter().copied().fold(self.shared_rate(replicas, passes), f64::min);
        let of = |stage: usize, group: usize| {
            let needed = needed[stage][group];
            let spare = rates[stage] > 1.02 * slowest;
            let under_way = if spare { window_bound(needed) } else { needed + 1.0 };
            let window = f64::from(self.window(stage, &self.groups[group]));
            !self.costs[stage].last && under_way.min(window) > self.slots as f64 + 1e-6
        };
        (0..self.costs.len()).map(|s| (0..self.groups.len()).map(|g| of(s, g)).collect()).collect()
    }

    /// Units under way that keep a replica of each stage busy at the rate of the whole: Little's law.
    fn needed(&self, replicas: &Replicas, passes: &Passes) -> Vec<Vec<f64>> {
        let rates = self.rates(replicas, passes);
        let slowest = rates.iter().copied().fold(self.shared_rate(replicas, passes), f64::min);
        let of = |stage: usize, group: usize| {
            let own = slowest / rates[stage] / passes.interval[stage][group];
            let last = self.costs[stage].last;
            if last { 0.0 } else { passes.below[stage] * own }
        };
        (0..self.costs.len()).map(|s| (0..self.groups.len()).map(|g| of(s, g)).collect()).collect()
    }

    fn rates(&self, replicas: &Replicas, passes: &Passes) -> Vec<f64> {
        let of = |stage: usize| -> f64 {
            let each = replicas[stage].iter().zip(&passes.interval[stage]);
            each.map(|(count, interval)| f64::from(*count) / interval).sum()
        };
        (0..self.costs.len()).map(of).collect()
    }

    /// Units per second that the shared processors allow; infinite without any.
    fn shared_rate(&self, replicas: &Replicas, passes: &Passes) -> f64 {
        let rates = self.rates(replicas, passes);
        let of = |(group, spec): (usize, &PeerGroup)| {
            let Some(processors) = spec.processors else { return f64::INFINITY };
            // A unit's seconds on this machine: its part of every stage.
            let part = |stage: usize| {
                let own = f64::from(replicas[stage][group]) / passes.interval[stage][group];
                own / rates[stage] * passes.busy[stage][group]
            };
            let seconds: f64 = (0..self.costs.len()).map(part).sum();
            processors / seconds
        };
        self.groups.iter().enumerate().map(of).fold(f64::INFINITY, f64::min)
    }

    fn bound(&self, replicas: &Replicas, passes: &Passes, stage: usize) -> Bound {
        let group = (0..self.groups.len()).max_by_key(|group| replicas[stage][*group]).unwrap_or(0);
        let (cost, peer) = (&self.costs[stage], &self.groups[group].peer);
        let bits = 8.0 * (cost.message * cost.messages()) as f64 / self.calibration.link;
        let busy = passes.busy[stage][group];
        let bounds = [
            (Bound::Compute, busy),
            (Bound::Uplink, bits / peer.up_bits_per_s),
            (Bound::Downlink, bits / peer.down_bits_per_s),
            (Bound::Window, passes.below[stage] / f64::from(self.window(stage, &self.groups[group]).max(1))),
        ];
        bounds.into_iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).expect("four bounds").0
    }

    /// Bytes of payloads that a replica of a stage sends and gets at the end of a round: each author serves its own to all who need it.
    pub(crate) fn exchange_bytes(&self, replicas: &Replicas, stage: usize) -> (f64, f64) {
        let count = |place: usize| f64::from(replicas[place].iter().sum::<u32>());
        let others = (count(stage) - 1.0).max(0.0);
        let own = self.costs[stage].payload;
        let (mut up, mut down) = (own * others, own * others);
        if self.costs[stage].neighbours {
            let beside = [stage.checked_sub(1), Some(stage + 1).filter(|next| *next < self.costs.len())];
            for place in beside.into_iter().flatten() {
                up += own * count(place);
                down += self.costs[place].payload * count(place);
            }
        }
        (up, down)
    }

    /// Seconds of the end of a round for a replica of a stage, by group.
    pub(crate) fn exchange(&self, replicas: &Replicas, stage: usize) -> Vec<f64> {
        let (up, down) = self.exchange_bytes(replicas, stage);
        let of = |group: &PeerGroup| {
            let peer = &group.peer;
            let links = (8.0 * up / peer.up_bits_per_s).max(8.0 * down / peer.down_bits_per_s);
            links / self.calibration.link
                + self.costs[stage].step_s(peer, self.calibration)
                + EXCHANGE_ROUND_TRIPS * peer.round_trip_s
        };
        self.groups.iter().map(of).collect()
    }

    /// Of the whole round: the slowest replica, and what shared processors and the peer that orders have to do for all.
    pub(crate) fn round_exchange(&self, replicas: &Replicas, exchange: &[Vec<f64>]) -> f64 {
        let held = |stage: usize, group: usize| f64::from(replicas[stage][group]);
        let places = || (0..self.costs.len()).flat_map(|stage| (0..self.groups.len()).map(move |group| (stage, group)));
        let slowest = places().filter(|(stage, group)| held(*stage, *group) > 0.0);
        let slowest = slowest.map(|(stage, group)| exchange[stage][group]).fold(0.0, f64::max);
        let shared = |(group, spec): (usize, &PeerGroup)| {
            let processors = spec.processors.unwrap_or(f64::INFINITY);
            let step = |stage: usize| held(stage, group) * self.costs[stage].step_s(&spec.peer, self.calibration);
            (0..self.costs.len()).map(step).sum::<f64>() / processors
        };
        let shared = self.groups.iter().enumerate().map(shared).fold(0.0, f64::max);
        let ordered = 8.0 * self.payload_bytes(replicas) / self.orderer_bits_per_s / self.calibration.link;
        slowest.max(shared) + ordered
    }

    /// Bytes of all payloads of a round.
    pub(crate) fn payload_bytes(&self, replicas: &Replicas) -> f64 {
        let of = |(stage, cost): (usize, &StageCost)| cost.payload * f64::from(replicas[stage].iter().sum::<u32>());
        self.costs.iter().enumerate().map(of).sum()
    }
}

/// How far a window grows when so many units under way are needed, as in [`swarm::pipeline`].
pub(crate) fn window_bound(needed: f64) -> f64 {
    2.0 * needed.ceil() + 2.0
}

/// The mean of a value over the replicas of a stage.
fn mean(replicas: &[u32], values: &[f64]) -> f64 {
    let count: u32 = replicas.iter().sum();
    let sum: f64 = replicas.iter().zip(values).filter(|(n, _)| **n > 0).map(|(n, value)| f64::from(*n) * value).sum();
    sum / f64::from(count.max(1))
}

//! Links and connections between hosts.
//!
//! A message leaves when its sender's uplink is free, takes its size over the sender's rate, then the link's latency and
//! some jitter; messages of one direction of a connection arrive in order. A lost packet delays its message by a
//! retransmission. When a connection breaks, everything under way on it is lost, and both ends notice some time later.

use std::collections::BTreeMap;

use swarm::Time;

use crate::config::SimConfig;
use crate::random::Random;

/// Delay of a retransmission besides the link's latency, in microseconds.
const RETRANSMISSION_US: u64 = 200_000;

/// A pair of hosts.
#[derive(Debug)]
struct Pair {
    up: bool,
    /// Counts the connections that were made or broken: what was sent on an earlier one is lost.
    epoch: u32,
    /// When the last message arrives, by direction: from the lower host, from the higher host.
    last: [Time; 2],
    latency_us: u64,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    pairs: BTreeMap<(usize, usize), Pair>,
    /// Upload rate of each host, in bytes per second.
    rates: Vec<u64>,
    /// When each host's uplink is free.
    free: Vec<Time>,
    /// The hosts on one side while the network is split.
    island: Option<Vec<bool>>,
    jitter_us: u64,
}

impl Network {
    /// Draws the links of `hosts` hosts.
    pub(crate) fn new(config: &SimConfig, hosts: usize) -> Self {
        let mut draw = Random::new(config.seed, "links");
        let mut pairs = BTreeMap::new();
        for low in 0..hosts {
            for high in low + 1..hosts {
                let latency_us = draw.between(config.latency_us.0, config.latency_us.1);
                pairs.insert((low, high), Pair { up: false, epoch: 0, last: [Time::default(); 2], latency_us });
            }
        }
        let rates = (0..hosts).map(|_| draw.between(config.bandwidth.0, config.bandwidth.1)).collect();
        Self { pairs, rates, free: vec![Time::default(); hosts], island: None, jitter_us: config.jitter_us }
    }

    fn pair(&mut self, one: usize, two: usize) -> &mut Pair {
        self.pairs.get_mut(&(one.min(two), one.max(two))).expect("a pair of different hosts")
    }

    /// One-way delay between two hosts, in microseconds.
    pub(crate) fn latency_us(&mut self, one: usize, two: usize) -> u64 {
        self.pair(one, two).latency_us
    }

    /// Whether no partition lies between two hosts.
    pub(crate) fn reachable(&self, one: usize, two: usize) -> bool {
        self.island.as_ref().is_none_or(|island| island[one] == island[two])
    }

    /// Whether two hosts are connected.
    pub(crate) fn is_up(&mut self, one: usize, two: usize) -> bool {
        self.pair(one, two).up
    }

    /// The number of the current connection.
    pub(crate) fn epoch(&mut self, one: usize, two: usize) -> u32 {
        self.pair(one, two).epoch
    }

    /// Connects two hosts.
    pub(crate) fn connect(&mut self, one: usize, two: usize, now: Time) {
        let pair = self.pair(one, two);
        pair.up = true;
        pair.epoch += 1;
        pair.last = [now; 2];
    }

    /// Breaks a connection. False when there was none.
    pub(crate) fn disconnect(&mut self, one: usize, two: usize) -> bool {
        let pair = self.pair(one, two);
        let was_up = std::mem::replace(&mut pair.up, false);
        pair.epoch += u32::from(was_up);
        was_up
    }

    /// The hosts that a host is connected with.
    pub(crate) fn connected(&self, host: usize) -> Vec<usize> {
        let mine = self.pairs.iter().filter(|((low, high), pair)| pair.up && (*low == host || *high == host));
        mine.map(|((low, high), _)| if *low == host { *high } else { *low }).collect()
    }

    /// The connections that a partition cuts.
    pub(crate) fn cut(&self) -> Vec<(usize, usize)> {
        let cut = self.pairs.iter().filter(|((low, high), pair)| pair.up && !self.reachable(*low, *high));
        cut.map(|(ends, _)| *ends).collect()
    }

    /// Splits the network, or makes it whole.
    pub(crate) fn set_island(&mut self, island: Option<Vec<bool>>) {
        self.island = island;
    }

    /// Occupies a host's uplink for `bytes`, and tells when they have left.
    pub(crate) fn upload(&mut self, from: usize, bytes: u64, now: Time) -> Time {
        let left = now.max(self.free[from]).after(bytes.saturating_mul(1_000_000) / self.rates[from]);
        self.free[from] = left;
        left
    }

    /// When a message of `bytes` bytes that is sent now arrives.
    pub(crate) fn arrival(
        &mut self,
        (from, to): (usize, usize),
        bytes: u64,
        lost: bool,
        now: Time,
        draw: &mut Random,
    ) -> Time {
        let jitter_us = draw.below(self.jitter_us + 1);
        let left = self.upload(from, bytes, now);
        let pair = self.pair(from, to);
        let again_us = if lost { RETRANSMISSION_US + 2 * pair.latency_us } else { 0 };
        let last = &mut pair.last[usize::from(from > to)];
        let arrival = left.after(pair.latency_us + jitter_us + again_us).max(last.after(1));
        *last = arrival;
        arrival
    }
}

//! Links and connections between hosts.
//!
//! Every host has an access link ([`AccessLink`]): an uplink and a downlink with a queue each, some delay, jitter and loss. A message
//! leaves when its sender's uplink is free, takes its size over the rate, then the way between the two, then waits for the receiver's
//! downlink, which works while the bytes arrive. Messages of one direction of a connection arrive in order. When a connection breaks,
//! everything under way on it is lost, and both ends notice some time later.
//!
//! The transport is reliable: a lost packet is sent again, so that loss shows as delay and as use of the uplink. It is not modelled that
//! a real transport also sends more slowly after a loss, nor that many streams share a connection: one large message delays those after it.

use std::collections::{BTreeMap, BTreeSet};

use swarm::Time;

use crate::config::SimConfig;
use crate::random::Random;

/// Delay of a retransmission that only a timer can start, besides the round trip, in microseconds.
const RETRANSMISSION_US: u64 = 200_000;
/// Packets of a message after which a loss is seen from the acknowledgements of later ones.
const PACKETS_SEEN: u64 = 3;
/// Bytes of a packet.
const PACKET_BYTES: u64 = 1_200;
/// Retransmissions after which a packet arrives at last.
const RETRANSMISSIONS_MAX: u32 = 16;

/// The link between a host and everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLink {
    /// Rate from the host, in bytes per second, at least 1.
    pub up_bytes_per_s: u64,
    /// Rate towards the host, in bytes per second, at least 1.
    pub down_bytes_per_s: u64,
    /// One-way delay that it adds to the way between two hosts, in microseconds.
    pub delay_us: u64,
    /// Greatest random extra delay of a message, in microseconds: between two hosts the mean of both.
    pub jitter_us: u64,
    /// Packets lost, per million: between two hosts the mean of both.
    pub loss: u32,
}

impl AccessLink {
    /// The time that `bytes` bytes take at a rate, in microseconds.
    fn us(bytes: u64, bytes_per_s: u64) -> u64 {
        bytes.saturating_mul(1_000_000) / bytes_per_s.max(1)
    }
}

/// A pair of hosts.
#[derive(Debug)]
struct Pair {
    up: bool,
    /// Counts the connections that were made or broken: what was sent on an earlier one is lost.
    epoch: u32,
    /// When the last message reaches the other's access link, by direction: from the lower host, from the higher host.
    last: [Time; 2],
    latency_us: u64,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    seed: u64,
    latency_us: (u64, u64),
    /// The pairs that ever had to do with each other.
    pairs: BTreeMap<(usize, usize), Pair>,
    /// The hosts that each host is connected with.
    connected: Vec<BTreeSet<usize>>,
    links: Vec<AccessLink>,
    /// When each host's uplink is free.
    up_free: Vec<Time>,
    /// When each host's downlink is free.
    down_free: Vec<Time>,
    /// The hosts on one side while the network is split.
    island: Option<Vec<bool>>,
}

impl Network {
    /// Draws the links of `hosts` hosts.
    pub(crate) fn new(config: &SimConfig, hosts: usize) -> Self {
        let mut draw = Random::new(config.seed, "links");
        let jitter_us = config.jitter_us;
        let mut link = || AccessLink {
            up_bytes_per_s: draw.between(config.bandwidth.0, config.bandwidth.1),
            down_bytes_per_s: draw.between(config.bandwidth_down.0, config.bandwidth_down.1),
            delay_us: 0,
            jitter_us,
            loss: 0,
        };
        let mut links: Vec<AccessLink> = (0..hosts).map(|_| link()).collect();
        for (host, link) in config.links.iter().filter(|(host, _)| *host < hosts) {
            links[*host] = *link;
        }
        Self {
            seed: config.seed,
            latency_us: config.latency_us,
            pairs: BTreeMap::new(),
            connected: vec![BTreeSet::new(); hosts],
            links,
            up_free: vec![Time::default(); hosts],
            down_free: vec![Time::default(); hosts],
            island: None,
        }
    }

    fn pair(&mut self, one: usize, two: usize) -> &mut Pair {
        let ends = (one.min(two), one.max(two));
        let (seed, (least, most)) = (self.seed, self.latency_us);
        self.pairs.entry(ends).or_insert_with(|| {
            let mut draw = Random::new(seed, &format!("way {} {}", ends.0, ends.1));
            Pair { up: false, epoch: 0, last: [Time::default(); 2], latency_us: draw.between(least, most) }
        })
    }

    /// Changes a host's access link. What is queued keeps its time.
    pub(crate) fn set_link(&mut self, host: usize, link: AccessLink) {
        self.links[host] = link;
    }

    /// One-way delay between two hosts, in microseconds.
    pub(crate) fn latency_us(&mut self, one: usize, two: usize) -> u64 {
        let access_us = self.links[one].delay_us + self.links[two].delay_us;
        self.pair(one, two).latency_us + access_us
    }

    /// Whether no partition lies between two hosts.
    pub(crate) fn reachable(&self, one: usize, two: usize) -> bool {
        self.island.as_ref().is_none_or(|island| island[one] == island[two])
    }

    /// Whether two hosts are connected.
    pub(crate) fn is_up(&self, one: usize, two: usize) -> bool {
        self.connected[one].contains(&two)
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
        self.connected[one].insert(two);
        self.connected[two].insert(one);
    }

    /// Breaks a connection. False when there was none.
    pub(crate) fn disconnect(&mut self, one: usize, two: usize) -> bool {
        let pair = self.pair(one, two);
        let was_up = std::mem::replace(&mut pair.up, false);
        pair.epoch += u32::from(was_up);
        self.connected[one].remove(&two);
        self.connected[two].remove(&one);
        was_up
    }

    /// The hosts that a host is connected with.
    pub(crate) fn connected(&self, host: usize) -> Vec<usize> {
        self.connected[host].iter().copied().collect()
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
        let left = now.max(self.up_free[from]).after(AccessLink::us(bytes, self.links[from].up_bytes_per_s));
        self.up_free[from] = left;
        left
    }

    /// Occupies a host's downlink for `bytes` of `from` whose last one reaches it now, and tells when the host has them: now, unless other
    /// bytes are before them or the sender is faster.
    pub(crate) fn download(&mut self, from: usize, to: usize, bytes: u64, now: Time) -> Time {
        let sent_us = AccessLink::us(bytes, self.links[from].up_bytes_per_s);
        let first = Time::from_micros(now.as_micros().saturating_sub(sent_us));
        let free = first.max(self.down_free[to]).after(AccessLink::us(bytes, self.links[to].down_bytes_per_s));
        self.down_free[to] = free.max(now);
        self.down_free[to]
    }

    /// When the last byte of a message of `bytes` bytes that is sent now reaches the receiver's access link; `loss` packets per million
    /// are lost besides those that the links lose.
    pub(crate) fn arrival(
        &mut self,
        (from, to): (usize, usize),
        bytes: u64,
        loss: u32,
        now: Time,
        draw: &mut Random,
    ) -> Time {
        let jitter_us = draw.below((self.links[from].jitter_us + self.links[to].jitter_us) / 2 + 1);
        let latency_us = self.latency_us(from, to);
        let loss = u64::from(loss) + (u64::from(self.links[from].loss) + u64::from(self.links[to].loss)) / 2;
        let mut left = self.upload(from, bytes, now);
        let mut packets = bytes.div_ceil(PACKET_BYTES);
        for _ in 0..RETRANSMISSIONS_MAX {
            let expected = packets.saturating_mul(loss.min(1_000_000));
            let lost = expected / 1_000_000 + u64::from(draw.below(1_000_000) < expected % 1_000_000);
            if lost == 0 {
                break;
            }
            let timer_us = if packets <= PACKETS_SEEN { RETRANSMISSION_US } else { 0 };
            let again = self.upload(from, lost * PACKET_BYTES, now);
            left = again.max(left.after(2 * latency_us + timer_us));
            packets = lost;
        }
        let pair = self.pair(from, to);
        let last = &mut pair.last[usize::from(from > to)];
        let arrival = left.after(latency_us + jitter_us).max(last.after(1));
        *last = arrival;
        arrival
    }
}

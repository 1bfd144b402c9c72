//! All peers with their links: what was sent, what arrives when, and what is counted; in virtual microseconds.
//!
//! Whoever drives it says what is offered and when ([`Medium::offer`]), learns when to look again ([`Medium::due_us`]), and
//! takes what has arrived by then ([`Medium::poll`]). The same calls give the same answers: there is no clock inside, and
//! losses and jitter of a pair follow from the seed and the pair's own datagrams.
//!
//! Conservation, for every ordered pair: offered = delivered + lost + overflowed + cut + what is under way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::shaper::{Random, Shaper, Way};
use super::spec::LinkSpec;

/// Most bytes under way at a time, over all pairs; what is offered beyond that is dropped as if a queue were full.
pub const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;

/// Datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes, headers included where the driver includes them.
    pub bytes: u64,
}

impl Tally {
    /// Counts one more datagram.
    pub fn count(&mut self, bytes: u64) {
        self.add(Self { datagrams: 1, bytes });
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
    }
}

/// What became of the datagrams from one peer to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// All that were sent.
    pub offered: Tally,
    /// Those that arrived.
    pub delivered: Tally,
    /// Those that were lost on the way, as asked for.
    pub lost: Tally,
    /// Those that found a queue full.
    pub overflowed: Tally,
    /// Those whose sender or receiver was cut off.
    pub cut: Tally,
}

impl LinkCounts {
    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        self.offered.add(other.offered);
        self.delivered.add(other.delivered);
        self.lost.add(other.lost);
        self.overflowed.add(other.overflowed);
        self.cut.add(other.cut);
    }
}

/// A datagram that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<T> {
    /// When.
    pub at_us: u64,
    /// Who sent it.
    pub from: usize,
    /// Who gets it.
    pub to: usize,
    /// What it is.
    pub payload: T,
}

/// All links of a network, with peers named by the order in which they were added.
#[derive(Debug)]
pub struct Medium<T> {
    seed: u64,
    now_us: u64,
    ends: Vec<End>,
    pairs: BTreeMap<(usize, usize), Pair>,
    under_way: BinaryHeap<Reverse<Step<T>>>,
    steps: u64,
    in_flight_bytes: u64,
}

/// One peer's access link.
#[derive(Debug)]
struct End {
    spec: LinkSpec,
    up: Shaper,
    down: Shaper,
    cut: bool,
}

#[derive(Debug)]
struct Pair {
    way: Way,
    counts: LinkCounts,
}

/// The next thing that happens to a datagram.
#[derive(Debug)]
struct Step<T> {
    at_us: u64,
    /// Breaks ties in the order of planning.
    number: u64,
    /// Whether it is through the downlink, or only before it.
    through: bool,
    from: usize,
    to: usize,
    bytes: u64,
    payload: T,
}

impl<T> Step<T> {
    fn order(&self) -> (u64, u64) {
        (self.at_us, self.number)
    }
}

impl<T> PartialEq for Step<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<T> Eq for Step<T> {}

impl<T> PartialOrd for Step<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Step<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl<T> Medium<T> {
    /// A network without peers.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now_us: 0,
            ends: Vec::new(),
            pairs: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            steps: 0,
            in_flight_bytes: 0,
        }
    }

    /// Adds a peer, and gives its place.
    pub fn add(&mut self, spec: LinkSpec) -> usize {
        let (up, down) = (Shaper::new(spec.up_bits_per_s), Shaper::new(spec.down_bits_per_s));
        self.ends.push(End { spec, up, down, cut: false });
        self.ends.len() - 1
    }

    /// Changes a peer's link, from now on.
    ///
    /// # Panics
    /// When there is no such peer.
    pub fn set(&mut self, peer: usize, spec: LinkSpec) {
        let end = &mut self.ends[peer];
        end.spec = spec;
        end.up.set_rate(spec.up_bits_per_s);
        end.down.set_rate(spec.down_bits_per_s);
        for ((from, to), pair) in &mut self.pairs {
            if *from == peer || *to == peer {
                pair.way.set(&self.ends[*from].spec, &self.ends[*to].spec);
            }
        }
    }

    /// A peer's link.
    ///
    /// # Panics
    /// When there is no such peer.
    pub fn spec(&self, peer: usize) -> LinkSpec {
        self.ends[peer].spec
    }

    /// Cuts a peer off, with what is under way to and from it, or lets it back.
    ///
    /// # Panics
    /// When there is no such peer.
    pub fn set_cut(&mut self, peer: usize, cut: bool) {
        self.ends[peer].cut = cut;
    }

    /// Takes a datagram that a peer sends to another now. Time that seems to run backwards stands still.
    ///
    /// # Panics
    /// When there is no such peer.
    pub fn offer(&mut self, now_us: u64, (from, to): (usize, usize), bytes: u64, payload: T) {
        self.now_us = self.now_us.max(now_us);
        let cut = self.is_cut(from, to);
        let room = self.in_flight_bytes.saturating_add(bytes) <= IN_FLIGHT_BYTES_MAX;
        let (ends, seed) = (&mut self.ends, self.seed);
        let pair = self.pairs.entry((from, to)).or_insert_with(|| Pair {
            way: Way::new(&ends[from].spec, &ends[to].spec, Random::new(seed, from as u64, to as u64)),
            counts: LinkCounts::default(),
        });
        pair.counts.offered.count(bytes);
        if cut {
            return pair.counts.cut.count(bytes);
        }
        let left_us = if room { ends[from].up.offer(self.now_us, bytes) } else { None };
        let Some(left_us) = left_us else { return pair.counts.overflowed.count(bytes) };
        let Some(at_us) = pair.way.carry(left_us) else { return pair.counts.lost.count(bytes) };
        self.in_flight_bytes += bytes;
        self.plan(Step { at_us, number: 0, through: false, from, to, bytes, payload });
    }

    /// When the next thing happens; none when nothing is under way.
    pub fn due_us(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse(step)| step.at_us)
    }

    /// The next datagram that has arrived by now, in the order of arrival.
    pub fn poll(&mut self, now_us: u64) -> Option<Delivery<T>> {
        self.now_us = self.now_us.max(now_us);
        while self.due_us()? <= self.now_us {
            let Reverse(step) = self.under_way.pop()?;
            let (at_us, from, to, bytes) = (step.at_us, step.from, step.to, step.bytes);
            let cut = self.is_cut(from, to);
            let counts = &mut self.pairs.get_mut(&(from, to)).expect("the pair has sent it").counts;
            self.in_flight_bytes -= bytes;
            if cut {
                counts.cut.count(bytes);
            } else if step.through {
                counts.delivered.count(bytes);
                return Some(Delivery { at_us, from, to, payload: step.payload });
            } else if let Some(at_us) = self.ends[to].down.offer(at_us, bytes) {
                self.in_flight_bytes += bytes;
                self.plan(Step { at_us, through: true, ..step });
            } else {
                counts.overflowed.count(bytes);
            }
        }
        None
    }

    /// What became of what each pair sent, for pairs that sent anything.
    pub fn counts(&self) -> impl Iterator<Item = ((usize, usize), LinkCounts)> + '_ {
        self.pairs.iter().map(|(pair, state)| (*pair, state.counts))
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.ends[from].cut || self.ends[to].cut
    }

    fn plan(&mut self, step: Step<T>) {
        self.steps += 1;
        self.under_way.push(Reverse(Step { number: self.steps, ..step }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1_400;

    fn medium(specs: &[&str]) -> Medium<u64> {
        let mut medium = Medium::new(7);
        specs.iter().for_each(|spec| {
            medium.add(spec.parse().unwrap());
        });
        medium
    }

    /// Everything that arrives, in order.
    fn drain(medium: &mut Medium<u64>) -> Vec<Delivery<u64>> {
        let mut arrived = Vec::new();
        while let Some(due_us) = medium.due_us() {
            arrived.extend(medium.poll(due_us));
        }
        arrived
    }

    fn counts(medium: &Medium<u64>, pair: (usize, usize)) -> LinkCounts {
        medium.counts().find(|(found, _)| *found == pair).map(|(_, counts)| counts).unwrap_or_default()
    }

    fn check_conserved(medium: &Medium<u64>) {
        for (pair, counts) in medium.counts() {
            let mut ended = counts.delivered;
            [counts.lost, counts.overflowed, counts.cut].into_iter().for_each(|tally| ended.add(tally));
            assert_eq!(ended, counts.offered, "{pair:?}");
        }
    }

    #[test]
    fn a_datagram_takes_both_lines_and_the_way() {
        let mut medium = medium(&["8M/4M,50ms", "8M/4M,50ms"]);
        medium.offer(100, (0, 1), 1_000, 5);
        // 2 ms up, 25 ms on the way, 1 ms down.
        assert_eq!(medium.poll(28_099), None);
        assert_eq!(medium.poll(28_100), Some(Delivery { at_us: 28_100, from: 0, to: 1, payload: 5 }));
        assert_eq!((medium.due_us(), medium.poll(u64::MAX)), (None, None));
        let tally = Tally { datagrams: 1, bytes: 1_000 };
        assert_eq!(counts(&medium, (0, 1)), LinkCounts { offered: tally, delivered: tally, ..Default::default() });
    }

    #[test]
    fn two_receivers_share_an_uplink_and_two_senders_a_downlink() {
        let mut medium = medium(&["10M", "10M", "10M"]);
        for number in 0..80 {
            medium.offer(0, (0, 1), BYTES, number);
            medium.offer(0, (0, 2), BYTES, number);
        }
        let one_us = BYTES * 8 / 10;
        assert_eq!(drain(&mut medium).last().unwrap().at_us, 161 * one_us, "160 up, and the last one down");
        let start_us = 1_000_000;
        for number in 0..80 {
            medium.offer(start_us, (1, 0), BYTES, number);
            medium.offer(start_us, (2, 0), BYTES, number);
        }
        assert_eq!(drain(&mut medium).last().unwrap().at_us - start_us, 161 * one_us);
        check_conserved(&medium);
    }

    #[test]
    fn a_stream_arrives_at_the_slower_rate_and_in_order() {
        let mut medium = medium(&["100M/20M,50ms±10ms", "5M/100M,50ms±10ms"]);
        let mut arrived = Vec::new();
        // 10 Mbit/s for ten seconds, twice as much as the downlink takes.
        for number in 0..8_929 {
            let now_us = number * 1_120;
            arrived.extend(std::iter::from_fn(|| medium.poll(now_us)));
            medium.offer(now_us, (0, 1), BYTES, number);
        }
        arrived.extend(drain(&mut medium));
        assert!(arrived.windows(2).all(|pair| pair[0].payload < pair[1].payload && pair[0].at_us <= pair[1].at_us));
        let (first, last) = (&arrived[0], &arrived[arrived.len() - 1]);
        let rate = (arrived.len() - 1) as f64 * BYTES as f64 * 8e6 / (last.at_us - first.at_us) as f64;
        assert!((rate / 5e6 - 1.0).abs() < 0.01, "{rate}");
        let counts = counts(&medium, (0, 1));
        assert!(counts.overflowed.datagrams > 4_000, "{counts:?}");
        check_conserved(&medium);
    }

    #[test]
    fn a_link_can_get_worse_and_better() {
        let mut medium = medium(&["80M,50ms", "80M,50ms"]);
        medium.offer(0, (0, 1), BYTES, 0);
        medium.set(1, "1M,150ms".parse().unwrap());
        medium.offer(0, (0, 1), BYTES, 1);
        // 140 µs a datagram up; the first is on its way already, the second takes the mean of both; 11.2 ms each down.
        let times: Vec<u64> = drain(&mut medium).into_iter().map(|arrived| arrived.at_us).collect();
        assert_eq!(times, [140 + 25_000 + 11_200, 280 + 50_000 + 11_200]);
        assert_eq!(medium.spec(1).round_trip_us, 150_000);
    }

    #[test]
    fn a_cut_peer_neither_sends_nor_receives_until_it_is_mended() {
        let mut medium = medium(&["50ms", "50ms", "50ms"]);
        medium.offer(0, (0, 1), BYTES, 0);
        medium.set_cut(1, true);
        medium.offer(10, (1, 2), BYTES, 1);
        medium.offer(20, (0, 2), BYTES, 2);
        assert_eq!(drain(&mut medium).len(), 1, "the others go on");
        assert_eq!((counts(&medium, (0, 1)).cut.datagrams, counts(&medium, (1, 2)).cut.datagrams), (1, 1));
        medium.set_cut(1, false);
        medium.offer(100_000, (0, 1), BYTES, 3);
        assert_eq!(drain(&mut medium)[0].payload, 3);
        check_conserved(&medium);
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut medium = medium(&["60s", "60s"]);
        let offered = 2 * IN_FLIGHT_BYTES_MAX / BYTES;
        (0..offered).for_each(|number| medium.offer(0, (0, 1), BYTES, number));
        assert_eq!(counts(&medium, (0, 1)).overflowed.datagrams, offered - IN_FLIGHT_BYTES_MAX / BYTES);
        assert_eq!(drain(&mut medium).len() as u64, IN_FLIGHT_BYTES_MAX / BYTES);
        medium.offer(u64::MAX / 2, (0, 1), BYTES, 1);
        assert_eq!(drain(&mut medium).len(), 1);
        check_conserved(&medium);
    }

    #[test]
    fn the_same_calls_give_the_same_answers() {
        let run = || {
            let mut medium = medium(&["10M/2M,40ms±20ms,5%", "80M/20M,20ms,1%", "1M"]);
            for number in 0..3_000 {
                medium.offer(
                    number * 500,
                    ((number % 3) as usize, ((number + 1 + number % 2) % 3) as usize),
                    BYTES,
                    number,
                );
            }
            (drain(&mut medium), medium.counts().collect::<Vec<_>>())
        };
        assert_eq!(run(), run());
    }
}

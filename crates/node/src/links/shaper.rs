//! One direction of an access link, and the way between two links; in virtual microseconds, without a clock.
//!
//! A [`Shaper`] is a router's queue in front of a line: datagrams leave one after the other at the line's rate. It is
//! drop-tail: a datagram that would have to wait longer than [`QUEUE_US_MAX`] is dropped. A [`Way`] is what lies between
//! the two routers: delay, jitter and loss, drawn from a seed.

use super::spec::{LOSS_PPM_MAX, LinkSpec};

/// The longest wait in a queue: about what home routers hold, in microseconds.
pub const QUEUE_US_MAX: u64 = 200_000;

const US_PER_S: u64 = 1_000_000;

/// One direction of an access link.
#[derive(Clone, Debug)]
pub struct Shaper {
    bits_per_s: Option<u64>,
    /// When the line has sent all that is queued.
    free_us: u64,
    /// What rounding to microseconds owes: bits times microseconds, below the rate.
    remainder: u64,
}

impl Shaper {
    /// An idle line of a rate; none is unlimited.
    pub fn new(bits_per_s: Option<u64>) -> Self {
        Self { bits_per_s, free_us: 0, remainder: 0 }
    }

    /// Changes the rate. What is queued leaves as it was planned.
    pub fn set_rate(&mut self, bits_per_s: Option<u64>) {
        if self.bits_per_s != bits_per_s {
            (self.bits_per_s, self.remainder) = (bits_per_s, 0);
        }
    }

    /// When the last bit of a datagram that arrives now has left; none when the queue is full. `now_us` never falls.
    pub fn offer(&mut self, now_us: u64, bytes: u64) -> Option<u64> {
        if self.free_us <= now_us {
            (self.free_us, self.remainder) = (now_us, 0);
        }
        if self.free_us - now_us > QUEUE_US_MAX {
            return None;
        }
        if let Some(rate) = self.bits_per_s {
            let work = bytes.saturating_mul(8 * US_PER_S).saturating_add(self.remainder);
            self.free_us = self.free_us.saturating_add(work / rate);
            self.remainder = work % rate;
        }
        Some(self.free_us)
    }
}

/// One direction of the way between two access links. Datagrams arrive in the order in which they were sent.
#[derive(Clone, Debug)]
pub struct Way {
    delay_us: u64,
    jitter_us: u64,
    loss_ppm: u32,
    last_us: u64,
    random: Random,
}

impl Way {
    /// The way from one link to another.
    pub fn new(from: &LinkSpec, to: &LinkSpec, random: Random) -> Self {
        let mut way = Self { delay_us: 0, jitter_us: 0, loss_ppm: 0, last_us: 0, random };
        way.set(from, to);
        way
    }

    /// Changes the links at its ends. What is under way arrives as it was planned.
    pub fn set(&mut self, from: &LinkSpec, to: &LinkSpec) {
        // A direction is half of a round trip, and each end stands for half of it.
        self.delay_us = (from.round_trip_us + to.round_trip_us) / 4;
        self.jitter_us = (from.jitter_us + to.jitter_us) / 4;
        self.loss_ppm = together(from.loss_ppm, to.loss_ppm);
    }

    /// When a datagram that leaves now arrives; none when it is lost.
    pub fn carry(&mut self, now_us: u64) -> Option<u64> {
        if self.random.below(LOSS_PPM_MAX.into()) < self.loss_ppm.into() {
            return None;
        }
        // From `delay - jitter` to `delay + jitter`, all equally likely.
        let varied = self.delay_us.saturating_sub(self.jitter_us) + self.random.below(2 * self.jitter_us + 1);
        self.last_us = self.last_us.max(now_us.saturating_add(varied));
        Some(self.last_us)
    }
}

/// What is lost on a way when each end loses its half: `1 − √(1−p)·√(1−q)`, in parts per million.
fn together(from_ppm: u32, to_ppm: u32) -> u32 {
    if from_ppm == to_ppm {
        return from_ppm;
    }
    let kept = |ppm: u32| f64::from(LOSS_PPM_MAX - ppm.min(LOSS_PPM_MAX));
    LOSS_PPM_MAX - (kept(from_ppm) * kept(to_ppm)).sqrt().round() as u32
}

/// Random numbers of a seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The numbers of a seed for one direction between two peers.
    pub fn new(seed: u64, from: u64, to: u64) -> Self {
        let mut random = Self { state: seed };
        for part in [from, to] {
            random.state = random.next() ^ part;
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1. The bias is below 2^-36 for the bounds used here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM_BYTES: u64 = 1_400;

    fn spec(text: &str) -> LinkSpec {
        text.parse().unwrap()
    }

    #[test]
    fn datagrams_leave_at_the_rate() {
        for bits_per_s in [56_000, 1_000_000, 20_000_000, 80_000_000, 1_000_000_000, 7_777_777_777] {
            let mut line = Shaper::new(Some(bits_per_s));
            let (mut now_us, mut last_us, mut bytes) = (1_000, 0, 0);
            let start_us = now_us;
            for _ in 0..20_000 {
                match line.offer(now_us, DATAGRAM_BYTES) {
                    Some(left_us) => (last_us, bytes) = (left_us, bytes + DATAGRAM_BYTES),
                    // Full: offer the next when a tenth of the queue is empty.
                    None => now_us += QUEUE_US_MAX / 10,
                }
            }
            let measured = bytes as f64 * 8e6 / (last_us - start_us) as f64;
            let ratio = measured / bits_per_s as f64;
            assert!((ratio - 1.0).abs() < 0.001, "{measured} of {bits_per_s} bit/s");
        }
    }

    #[test]
    fn an_idle_line_delays_by_the_time_on_the_line_only() {
        let mut line = Shaper::new(Some(8_000_000));
        assert_eq!(line.offer(5, 1_000), Some(1_005));
        assert_eq!(line.offer(5, 1_000), Some(2_005), "one after the other");
        assert_eq!(line.offer(9_000, 1_000), Some(10_000), "time that was not used is gone");
        let mut unlimited = Shaper::new(None);
        assert_eq!(unlimited.offer(7, u64::MAX), Some(7));
    }

    #[test]
    fn a_queue_holds_a_fifth_of_a_second_and_drops_at_its_tail() {
        let mut line = Shaper::new(Some(10_000_000));
        let taken = (0..10_000).filter(|_| line.offer(0, DATAGRAM_BYTES).is_some()).count() as u64;
        let queued_us = taken * DATAGRAM_BYTES * 8 / 10;
        let one_us = DATAGRAM_BYTES * 8 / 10;
        assert!((QUEUE_US_MAX..=QUEUE_US_MAX + 2 * one_us).contains(&queued_us), "{queued_us} µs are queued");
        assert!(line.offer(QUEUE_US_MAX / 2, DATAGRAM_BYTES).is_some(), "there is room again");
        let mut slow = Shaper::new(Some(1_000));
        assert!(slow.offer(0, DATAGRAM_BYTES).is_some(), "the slowest line still takes one at a time");
        assert!(slow.offer(0, DATAGRAM_BYTES).is_none());
    }

    #[test]
    fn a_changed_rate_counts_from_the_next_datagram() {
        let mut line = Shaper::new(Some(8_000_000));
        assert_eq!(line.offer(0, 1_000), Some(1_000));
        line.set_rate(Some(800_000));
        assert_eq!(line.offer(0, 1_000), Some(11_000));
        line.set_rate(None);
        assert_eq!(line.offer(0, 1_000), Some(11_000), "nothing overtakes what is queued");
    }

    #[test]
    fn a_way_takes_half_of_the_round_trip_exactly() {
        let link = spec("50ms");
        let mut way = Way::new(&link, &link, Random::new(1, 0, 1));
        assert_eq!(way.carry(1_000), Some(26_000));
        let mut mixed = Way::new(&link, &spec("100ms"), Random::new(1, 0, 1));
        assert_eq!(mixed.carry(0), Some(37_500), "each end stands for half of it");
    }

    #[test]
    fn jitter_stays_in_its_bounds_and_reorders_nothing() {
        let link = spec("40ms±20ms");
        let mut way = Way::new(&link, &link, Random::new(3, 0, 1));
        let (mut last_us, mut sum_us) = (0, 0);
        for number in 0..10_000 {
            // Far apart, so that no datagram has to wait for the one before.
            let now_us = number * 100_000;
            let taken_us = way.carry(now_us).unwrap() - now_us;
            assert!((10_000..=30_000).contains(&taken_us), "{taken_us}");
            sum_us += taken_us;
        }
        assert!((19_800..=20_200).contains(&(sum_us / 10_000)), "{}", sum_us / 10_000);
        for number in 0..10_000 {
            let arrived_us = way.carry(2_000_000_000 + number * 10).unwrap();
            assert!(arrived_us >= last_us);
            last_us = arrived_us;
        }
    }

    #[test]
    fn losses_are_as_many_as_asked_and_follow_from_the_seed() {
        let link = spec("1%");
        let losses = |seed| {
            let mut way = Way::new(&link, &link, Random::new(seed, 0, 1));
            (0..200_000).filter(|now_us| way.carry(*now_us).is_none()).collect::<Vec<u64>>()
        };
        let lost = losses(1);
        // 2000 are expected, with a deviation of 44.
        assert!((1_800..=2_200).contains(&lost.len()), "{}", lost.len());
        assert_eq!(lost, losses(1));
        assert_ne!(lost, losses(2));
        let gone = spec("100%");
        let mut way = Way::new(&gone, &LinkSpec::default(), Random::new(1, 0, 1));
        assert!((0..1_000).all(|now_us| way.carry(now_us).is_none()));
    }

    #[test]
    fn two_ends_lose_their_halves() {
        assert_eq!(together(10_000, 10_000), 10_000);
        assert_eq!(together(0, 0), 0);
        assert_eq!(together(LOSS_PPM_MAX, 0), LOSS_PPM_MAX);
        assert_eq!(together(190_000, 0), 100_000, "a tenth at one end, nothing at the other");
    }
}

//! What a member finds out about the links to its neighbours in a round, and wishes for the next one.
//!
//! Source: training design, section 3: a boundary's codec follows from what its links carry. Deviation: the design compares the bits that
//! a link needs with its measured rate; here each member compares how long a message takes to arrive with how long its unit takes to
//! compute, since that needs no rate that a busy link never shows.
//!
//! All replicas of two neighbouring stages write the numbers between them in one precision in a round, so that any of them gives the same
//! bytes. Members commit to a wish for each of their boundaries ([`wire::LinkWishes`]), and the ledger takes the majority.

use wire::{LinkWish, LinkWishes};

use crate::Time;

/// Messages that suffice for an opinion.
const MESSAGES_MIN: usize = 4;
/// A link that is waited for so large a part of the time of work is too slow.
const IDLE_PART: u64 = 8;
/// As is one on which a message takes more than this part of a unit's computation; on others it is not the link that is waited for.
const SLOW_PART: u64 = 8;
/// No link is called slow for less: what a busy machine needs to pass a message on, in microseconds.
const SLOW_MIN_US: u64 = 1_000;
/// A link carries twice the bytes easily when a message takes less than this part of what is slow.
const FAST_PART: u64 = 4;
/// Messages of a round that are looked at, from its first on.
const MESSAGES_MAX: usize = 64;

/// What arrived over one boundary.
#[derive(Clone, Debug, Default)]
struct Arrivals {
    took_us: Vec<u64>,
}

impl Arrivals {
    fn add(&mut self, took_us: u64) {
        if self.took_us.len() < MESSAGES_MAX {
            self.took_us.push(took_us);
        }
    }

    /// How long a message takes, if so many arrived that this is known: their median, since some wait for a busy processor.
    fn message_us(&self) -> Option<u64> {
        let mut took_us = self.took_us.clone();
        took_us.sort_unstable();
        took_us.get(took_us.len() / 2).copied().filter(|_| took_us.len() >= MESSAGES_MIN)
    }
}

/// The measurements of one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge {
    before: Arrivals,
    after: Arrivals,
    /// How long tasks ran.
    busy_us: u64,
    /// When the first of them began, and the last ended.
    began: Option<Time>,
    ended: Time,
    /// When the one under way began.
    running: Option<Time>,
    /// Units whose gradients came back or were made.
    units: u64,
}

impl Gauge {
    /// Notes how long the bytes of a message took to arrive, from the stage before or the one after.
    pub(crate) fn arrived(&mut self, from_before: bool, took_us: u64) {
        let arrivals = if from_before { &mut self.before } else { &mut self.after };
        arrivals.add(took_us);
    }

    /// Notes that a task begins.
    pub(crate) fn begin(&mut self, now: Time) {
        self.began.get_or_insert(now);
        self.running = Some(now);
    }

    /// Notes that the task ended, and whether a unit is done with it.
    pub(crate) fn end(&mut self, unit_done: bool, now: Time) {
        if let Some(began) = self.running.take() {
            self.busy_us = self.busy_us.saturating_add(now.since(began));
            self.ended = now;
            self.units = self.units.saturating_add(u64::from(unit_done));
        }
    }

    /// What should change about the boundaries.
    pub(crate) fn wishes(&self) -> LinkWishes {
        LinkWishes { before: self.wish(&self.before), after: self.wish(&self.after) }
    }

    /// How large a part of the time from the first task to the end of the last one tasks ran, in percent.
    pub(crate) fn busy_percent(&self) -> u8 {
        let span_us = self.began.map_or(0, |began| self.ended.since(began)).max(1);
        u8::try_from(self.busy_us.saturating_mul(100) / span_us).map_or(100, |percent| percent.min(100))
    }

    fn wish(&self, arrivals: &Arrivals) -> LinkWish {
        let (Some(began), Some(message_us)) = (self.began.filter(|_| self.units > 0), arrivals.message_us()) else {
            return LinkWish::Keep;
        };
        let span_us = self.ended.since(began);
        let idle_us = span_us.saturating_sub(self.busy_us);
        let slow_us = (self.busy_us / self.units / SLOW_PART).max(SLOW_MIN_US);
        if idle_us > span_us / IDLE_PART && message_us > slow_us {
            LinkWish::Coarser
        } else if message_us < slow_us / FAST_PART {
            LinkWish::Finer
        } else {
            LinkWish::Keep
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of 10 units of 10 ms each, with so much time in between, whose messages took so long.
    fn wish(between_us: u64, message_us: u64, messages: u64) -> LinkWish {
        let mut gauge = Gauge::default();
        let mut now = Time::from_micros(1);
        for _ in 0..10 {
            gauge.begin(now);
            now = now.after(10_000);
            gauge.end(true, now);
            now = now.after(between_us);
        }
        (0..messages).for_each(|_| gauge.arrived(true, message_us));
        assert_eq!(gauge.wishes().after, LinkWish::Keep, "nothing arrived from there");
        gauge.wishes().before
    }

    #[test]
    fn a_member_that_waits_for_a_slow_link_wishes_for_fewer_bytes() {
        assert_eq!(wish(5_000, 4_000, 10), LinkWish::Coarser);
        assert_eq!(wish(5_000, 1_000, 10), LinkWish::Keep, "it waits for something else");
        assert_eq!(wish(500, 4_000, 10), LinkWish::Keep, "the link is slow, and nobody waits");
        assert_eq!(wish(5_000, 4_000, 3), LinkWish::Keep, "too few to know");
    }

    #[test]
    fn a_member_with_a_fast_link_allows_for_more() {
        assert_eq!(wish(500, 100, 10), LinkWish::Finer);
        assert_eq!(wish(5_000, 100, 10), LinkWish::Finer);
        assert_eq!(Gauge::default().wishes(), LinkWishes::default());
    }

    #[test]
    fn a_member_knows_how_busy_it_was() {
        assert_eq!(Gauge::default().busy_percent(), 0);
        let mut gauge = Gauge::default();
        for second in 1..=3 {
            let now = Time::from_micros(second * 1_000_000);
            gauge.begin(now);
            gauge.end(true, now.after(400_000));
        }
        assert_eq!(gauge.busy_percent(), 50, "1.2 of 2.4 s");
    }

    #[test]
    fn messages_that_waited_for_a_busy_processor_do_not_count() {
        let mut gauge = Gauge::default();
        gauge.begin(Time::from_micros(1));
        gauge.end(true, Time::from_micros(20_001));
        [100, 9_000, 80, 30_000, 120].into_iter().for_each(|took_us| gauge.arrived(true, took_us));
        assert_eq!(gauge.wishes().before, LinkWish::Finer);
    }

    #[test]
    fn no_link_is_both_too_slow_and_fast_enough_for_twice_the_bytes() {
        for message_us in (0..10_000).step_by(50) {
            if wish(5_000, message_us, 10) == LinkWish::Coarser {
                assert_ne!(wish(5_000, message_us / 2, 10), LinkWish::Finer, "{message_us} would go back and forth");
            }
        }
    }
}

//! How many units may be between forward and backward at one time.
//!
//! Source: additive increase and multiplicative decrease (Jacobson, 1988), with a bound from the measured product of
//! bandwidth and delay (BBR, 2016). The window grows by one with every reply while the trainer idles for want of room in it,
//! which at first doubles it with every turn of all calls; it halves on a time-out, at most once in a time that a call may
//! take. By Little's law, replies in a time multiplied by how long each takes *without queueing* (the least seen of that
//! replica) is how many calls need to be under way; the window does not grow beyond twice that, so that a slow stage is not
//! buried under calls that only wait there.

use crate::Time;

/// Where a window starts.
const SIZE_FIRST: u32 = 2;

/// The window of one caller.
#[derive(Debug)]
pub(crate) struct Window {
    size: u32,
    max: u32,
    /// Whether the trainer had nothing to do only because the window was full: in this measurement, and in the last.
    starved: bool,
    was_starved: bool,
    spared_until: Time,
    /// The measurement under way: when it began, replies in it, and their unqueued times.
    since: Time,
    replies: u32,
    unqueued_us: u64,
    /// Calls that need to be under way, by the last measurement.
    needed: u64,
}

impl Window {
    /// A small window that may grow to `max`.
    pub(crate) fn new(max: u32) -> Self {
        let size = SIZE_FIRST.min(max);
        Self {
            size,
            max,
            starved: false,
            was_starved: false,
            spared_until: Time::default(),
            since: Time::default(),
            replies: 0,
            unqueued_us: 0,
            needed: u64::from(SIZE_FIRST),
        }
    }

    /// The units that may be under way.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Begins to measure anew: the time before has nothing to do with the calls that follow.
    pub(crate) fn open(&mut self, now: Time) {
        (self.since, self.replies, self.unqueued_us) = (now, 0, 0);
        (self.starved, self.was_starved) = (false, false);
    }

    /// Notes that the trainer has nothing to do because the window is full.
    pub(crate) fn starve(&mut self) {
        self.starved = true;
    }

    /// Notes a reply that takes `least_us` when nothing queues.
    pub(crate) fn replied(&mut self, least_us: u64, now: Time) {
        self.replies = self.replies.saturating_add(1);
        self.unqueued_us = self.unqueued_us.saturating_add(least_us);
        let elapsed_us = now.since(self.since);
        if self.replies >= self.size && elapsed_us > 0 {
            self.needed = self.unqueued_us.div_ceil(elapsed_us);
            (self.since, self.replies, self.unqueued_us) = (now, 0, 0);
            self.was_starved = std::mem::take(&mut self.starved);
        }
        let bound = self.needed.saturating_mul(2).saturating_add(2);
        let starved = self.starved || self.was_starved;
        if starved && self.size < self.max && u64::from(self.size) < bound {
            self.size += 1;
        }
    }

    /// Halves the window, unless it was halved less than `spare_us` ago.
    pub(crate) fn shrink(&mut self, spare_us: u64, now: Time) {
        if now >= self.spared_until {
            self.size = (self.size / 2).max(1);
            self.spared_until = now.after(spare_us);
        }
    }
}

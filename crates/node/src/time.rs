//! Where a peer's time goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use swarm::Time;

use crate::view::TimeSplit;

/// Wall time as the protocol counts it.
pub fn now() -> Time {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
}

/// How long from now until a point in time; zero when it is past.
pub fn until(at: Time) -> Duration {
    Duration::from_micros(at.since(now()))
}

/// Seconds spent on each kind of activity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Training and applying.
    pub compute: f64,
    /// Waiting for bytes while not computing.
    pub communication: f64,
    /// Neither.
    pub idle: f64,
}

impl Spent {
    /// The fractions; all idle when nothing was spent.
    pub fn split(&self) -> TimeSplit {
        let total = self.compute + self.communication + self.idle;
        if total <= 0.0 {
            return TimeSplit { compute: 0.0, communication: 0.0, idle: 1.0 };
        }
        let compute = self.compute / total;
        let communication = self.communication / total;
        TimeSplit { compute, communication, idle: 1.0 - compute - communication }
    }

    /// Adds another peer's.
    pub fn add(&mut self, other: Self) {
        self.compute += other.compute;
        self.communication += other.communication;
        self.idle += other.idle;
    }
}

/// Keeps account of a peer's time. Computing goes before waiting for bytes, and that before idling. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TimeBook {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug)]
struct Entries {
    since: Instant,
    computing: u32,
    fetching: u32,
    spent: Spent,
}

impl Default for TimeBook {
    fn default() -> Self {
        let entries = Entries { since: Instant::now(), computing: 0, fetching: 0, spent: Spent::default() };
        Self { entries: Arc::new(Mutex::new(entries)) }
    }
}

impl TimeBook {
    /// Counts as computing until the guard is dropped.
    pub fn compute(&self) -> TimeGuard {
        self.settle(|entries| entries.computing += 1);
        TimeGuard { book: self.clone(), kind: Kind::Compute }
    }

    /// Counts as waiting for bytes until the guard is dropped.
    pub fn fetch(&self) -> TimeGuard {
        self.settle(|entries| entries.fetching += 1);
        TimeGuard { book: self.clone(), kind: Kind::Fetch }
    }

    /// Starts again from zero.
    pub fn reset(&self) {
        self.settle(|entries| entries.spent = Spent::default());
    }

    /// The seconds so far.
    pub fn read(&self) -> Spent {
        self.settle(|entries| entries.spent)
    }

    /// Books the time since the last change, then makes a change.
    fn settle<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> T {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seconds = now.duration_since(entries.since).as_secs_f64();
        entries.since = now;
        match (entries.computing, entries.fetching) {
            (0, 0) => entries.spent.idle += seconds,
            (0, _) => entries.spent.communication += seconds,
            _ => entries.spent.compute += seconds,
        }
        change(&mut entries)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Compute,
    Fetch,
}

/// An activity under way.
#[derive(Debug)]
pub struct TimeGuard {
    book: TimeBook,
    kind: Kind,
}

impl Drop for TimeGuard {
    fn drop(&mut self) {
        self.book.settle(|entries| match self.kind {
            Kind::Compute => entries.computing -= 1,
            Kind::Fetch => entries.fetching -= 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_sum_to_one_and_computing_goes_first() {
        let book = TimeBook::default();
        {
            let _fetching = book.fetch();
            let _computing = book.compute();
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
        }
        let spent = book.read();
        assert!(spent.compute >= 0.005, "{spent:?}");
        assert!(spent.communication < spent.compute, "{spent:?}");
        let split = spent.split();
        assert!((split.compute + split.communication + split.idle - 1.0).abs() < 1e-9, "{split:?}");
        book.reset();
        assert!(book.read().compute < 0.005);
        assert_eq!(Spent::default().split().idle, 1.0);
    }
}

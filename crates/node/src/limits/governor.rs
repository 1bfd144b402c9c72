//! Keeps the processor time of this process within a share of the machine.
//!
//! Time flows into an account at the share's rate, and what the process used flows out of it: all of it, the network's and the disk's
//! included, as the system counts it. Whoever computes asks between two steps how long to rest until the account is balanced. So the mean
//! over some seconds is kept, whatever the length of a step; a single step is not slowed. Where the system does not count (it does on
//! every Unix), the time that workers were at work counts instead.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::CpuShare;

/// Time unused for longer than this is lost: no burst follows a quiet hour.
const SAVED_SECONDS_MAX: f64 = 0.2;
/// A rest is cut into pieces of this length, so that whoever rests sees that it is to stop.
const REST_PIECE: Duration = Duration::from_millis(50);

/// Processor time that this process has used so far, in seconds, all threads together; none where the system does not say.
pub fn process_cpu_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }
    #[cfg(not(unix))]
    None
}

/// Keeps the processor time of this process within a share. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Governor {
    account: Option<Arc<Mutex<Account>>>,
    started: Option<Instant>,
}

/// A piece of work on one thread. What it takes counts, also where the system does not count.
#[derive(Debug)]
pub struct Worker {
    governor: Governor,
    since: Cell<Instant>,
}

impl Worker {
    /// Rests between two steps, as long as is owed or until `stop` says so.
    pub fn rest(&self, stop: &dyn Fn() -> bool) {
        self.governor.note(self.since.get().elapsed());
        self.governor.rest(stop);
        self.since.set(Instant::now());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.governor.note(self.since.get().elapsed());
    }
}

#[derive(Debug)]
struct Account {
    /// Seconds of processor time per second.
    cores: f64,
    balance: f64,
    at: f64,
    used: f64,
    /// Seconds that workers noted, for systems that do not count.
    noted: f64,
}

impl Account {
    /// Settles until now, at which `used` seconds of processor time were used in all; gives the seconds to rest.
    fn settle(&mut self, at: f64, used: f64) -> f64 {
        let (passed, spent) = ((at - self.at).max(0.0), (used - self.used).max(0.0));
        (self.at, self.used) = (at, used);
        self.balance = (self.balance + self.cores * passed - spent).min(self.cores * SAVED_SECONDS_MAX);
        (-self.balance / self.cores).max(0.0)
    }
}

impl Governor {
    /// One that keeps to a share of `cores` cores; without a share, to nothing.
    pub fn new(share: Option<CpuShare>, cores: usize) -> Self {
        let used = process_cpu_seconds().unwrap_or(0.0);
        let account = |share: CpuShare| Account { cores: share.cores(cores), balance: 0.0, at: 0.0, used, noted: 0.0 };
        Self { account: share.map(|share| Arc::new(Mutex::new(account(share)))), started: Some(Instant::now()) }
    }

    /// Begins a piece of work on one thread.
    pub fn worker(&self) -> Worker {
        Worker { governor: self.clone(), since: Cell::new(Instant::now()) }
    }

    fn note(&self, worked: Duration) {
        if let Some(account) = &self.account {
            account.lock().unwrap_or_else(PoisonError::into_inner).noted += worked.as_secs_f64();
        }
    }

    /// How long to rest until the account is balanced.
    pub fn owed(&self) -> Duration {
        let (Some(account), Some(started)) = (&self.account, self.started) else { return Duration::ZERO };
        let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
        let used = process_cpu_seconds().unwrap_or(account.noted);
        Duration::from_secs_f64(account.settle(started.elapsed().as_secs_f64(), used))
    }

    /// Rests on this thread until the account is balanced, or `stop` says so.
    pub fn rest(&self, stop: &dyn Fn() -> bool) {
        loop {
            let owed = self.owed();
            if owed.is_zero() || stop() {
                return;
            }
            std::thread::sleep(owed.min(REST_PIECE));
        }
    }

    /// Waits until the account is balanced.
    pub async fn ready(&self) {
        loop {
            let owed = self.owed();
            if owed.is_zero() {
                return;
            }
            tokio::time::sleep(owed.min(REST_PIECE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(cores: f64) -> Account {
        Account { cores, balance: 0.0, at: 0.0, used: 0.0, noted: 0.0 }
    }

    /// Works in steps of `step` seconds with `threads` threads for a hundred seconds, resting as told; gives the share of one core.
    fn mean(cores: f64, step: f64, threads: f64) -> f64 {
        let (mut account, mut at, mut used) = (account(cores), 0.0, 0.0);
        while at < 100.0 {
            (at, used) = (at + step, used + step * threads);
            at += account.settle(at, used);
        }
        used / at
    }

    #[test]
    fn the_mean_is_the_share_whatever_the_step() {
        for (cores, step, threads) in
            [(0.5, 0.01, 1.0), (0.5, 2.0, 1.0), (0.04, 0.3, 1.0), (1.5, 0.5, 2.0), (3.2, 0.1, 4.0)]
        {
            let got = mean(cores, step, threads);
            assert!((got / cores - 1.0).abs() < 0.05, "{got} of {cores} cores in steps of {step} s");
        }
        // Less than the share needs no rest.
        assert!((mean(2.0, 0.1, 1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_quiet_hour_is_not_made_up_for() {
        let mut account = account(0.5);
        assert_eq!(account.settle(3600.0, 0.0), 0.0);
        // Ten seconds of work at once: all but the little that was saved is owed.
        let owed = account.settle(3610.0, 10.0);
        assert!((owed - (10.0 - 0.5 * 10.0 - 0.5 * SAVED_SECONDS_MAX) / 0.5).abs() < 1e-9, "{owed}");
    }

    #[test]
    fn without_a_share_nobody_rests() {
        let governor = Governor::new(None, 4);
        governor.note(Duration::from_secs(100));
        assert_eq!(governor.owed(), Duration::ZERO);
        assert_eq!(Governor::default().owed(), Duration::ZERO);
    }

    #[test]
    #[cfg(unix)]
    fn the_system_counts_what_this_process_uses() {
        let before = process_cpu_seconds().expect("a Unix counts");
        let mut sum = 0_u64;
        while process_cpu_seconds().expect("a Unix counts") < before + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let governor = Governor::new("1%".parse().ok(), 1);
        governor.rest(&|| true);
        assert!(governor.owed() < Duration::from_secs(3600));
    }
}

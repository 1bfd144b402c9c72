//! How much of the processor other programs use.
//!
//! Source: Linux' `/proc/stat` (all cores since the machine started, in ticks) less `/proc/self/stat` and that of the own child processes.
//! Other systems have no such files: there `--when idle` is refused.
//!
//! Two thresholds with some time between them keep a machine from starting and stopping all the time: it is busy when others used more than
//! [`BUSY_ABOVE`] of all cores for [`BUSY_SECONDS`], and idle again when they used less than [`IDLE_BELOW`] for [`IDLE_SECONDS`].

use std::collections::BTreeMap;
use std::time::Instant;

/// Others use more than this part of all cores: the machine is busy.
pub const BUSY_ABOVE: f64 = 0.30;
/// Others use less than this part of all cores: the machine is idle.
pub const IDLE_BELOW: f64 = 0.15;
/// For so long others use much before the machine counts as busy.
const BUSY_SECONDS: f64 = 5.0;
/// For so long others use little before the machine counts as idle.
const IDLE_SECONDS: f64 = 20.0;

/// The system does not say what other programs use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this system does not say how busy other programs keep it")]
pub struct LoadUnknown;

impl LoadUnknown {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        "`--when 22:00-07:00` works in some hours of the day instead"
    }
}

/// Measures what other programs use.
#[derive(Debug, Default)]
pub struct LoadMeter {
    before: Option<Ticks>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ticks {
    /// All cores together since the machine started.
    all: u64,
    /// Of these, those in which something ran.
    busy: u64,
    /// Those of the own processes, by their number.
    own: BTreeMap<u32, u64>,
}

impl LoadMeter {
    /// Whether this system says what other programs use.
    ///
    /// # Errors
    /// [`LoadUnknown`] when it does not.
    pub fn check() -> Result<(), LoadUnknown> {
        Ticks::read(&[]).map(drop).ok_or(LoadUnknown)
    }

    /// The part of all cores that others used since the last call, 0 to 1; none the first time, and where the system does not say.
    /// `children` are the numbers of the own child processes.
    pub fn others(&mut self, children: &[u32]) -> Option<f64> {
        let now = Ticks::read(children)?;
        let load = self.before.as_ref().and_then(|before| now.others_since(before));
        self.before = Some(now);
        load
    }
}

impl Ticks {
    fn read(children: &[u32]) -> Option<Self> {
        let (all, busy) = machine_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
        let of = |process: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            Some((process, process_ticks(&stat)?))
        };
        let own = std::iter::once(std::process::id()).chain(children.iter().copied()).filter_map(of).collect();
        Some(Self { all, busy, own })
    }

    fn others_since(&self, before: &Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let busy = self.busy.saturating_sub(before.busy);
        // A child that is new since then has used what it has since then, too.
        let since = |(process, ticks): (&u32, &u64)| ticks.saturating_sub(*before.own.get(process).unwrap_or(&0));
        let own: u64 = self.own.iter().map(since).sum();
        Some((busy.saturating_sub(own) as f64 / all as f64).min(1.0))
    }
}

/// The first line of `/proc/stat`: all ticks, and those in which something ran.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // User, nice, system, idle, waiting for the disk, interrupts (two), stolen. Guests are in the first two already.
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let (idle, waiting) = (*ticks.get(3)?, ticks.get(4).copied().unwrap_or(0));
    let all: u64 = ticks.iter().sum();
    Some((all, all.saturating_sub(idle).saturating_sub(waiting)))
}

/// User and system ticks in `/proc/PID/stat`. The program's name, which may hold anything, is in parentheses.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

/// Ticks in a second: what Linux says to programs, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds that a child process has used; none where the system does not say, or when there is no such process.
pub(crate) fn child_cpu_seconds(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    process_ticks(&stat).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// Whether the machine counts as busy, from one load after the other.
#[derive(Debug, Default)]
pub struct IdleWatch {
    is_busy: bool,
    /// Seconds that speak for the other verdict, one after the other.
    against_seconds: f64,
    last: Option<Instant>,
}

impl IdleWatch {
    /// Whether the machine is busy by what was noted so far.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Notes the load of the time since the last call.
    pub fn note(&mut self, now: Instant, others: f64) -> bool {
        let seconds = self.last.map_or(0.0, |last| now.duration_since(last).as_secs_f64());
        self.last = Some(now);
        self.take(seconds, others)
    }

    fn take(&mut self, seconds: f64, others: f64) -> bool {
        let (speaks_against, needed) = match self.is_busy {
            false => (others > BUSY_ABOVE, BUSY_SECONDS),
            true => (others < IDLE_BELOW, IDLE_SECONDS),
        };
        self.against_seconds = if speaks_against { self.against_seconds + seconds } else { 0.0 };
        if self.against_seconds >= needed {
            (self.is_busy, self.against_seconds) = (!self.is_busy, 0.0);
        }
        self.is_busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_busy_and_idle_only_after_a_while() {
        let mut watch = IdleWatch::default();
        let mut told = |load: f64, seconds: u32| (0..seconds).fold(false, |_, _| watch.take(1.0, load));
        assert!(!told(0.9, 4), "a short peak");
        assert!(!told(0.2, 1));
        assert!(!told(0.9, 4), "it begins anew");
        assert!(told(0.9, 1));
        assert!(told(0.2, 1000), "between the thresholds nothing changes");
        assert!(told(0.1, 19));
        assert!(!told(0.1, 1));
        assert!(!told(0.29, 1000));
    }

    #[test]
    fn ticks_are_read_and_the_own_are_taken_off() {
        let stat = |user: u64, idle: u64| format!("cpu  {user} 10 90 {idle} 50 3 7 0 0 0\ncpu0 1 2 3\nintr 5\n");
        assert_eq!(machine_ticks(&stat(100, 740)), Some((1000, 210)));
        assert_eq!(machine_ticks("cpu0 1 2 3 4"), None);
        assert_eq!(machine_ticks("cpu  1 2 x 4"), None);
        assert_eq!(machine_ticks(""), None);
        let process = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 4 0 100 0 0";
        assert_eq!(process_ticks(process), Some(300));
        assert_eq!(process_ticks("42 (a) S 1"), None);
        let at = |all, busy, own: &[(u32, u64)]| Ticks { all, busy, own: own.iter().copied().collect() };
        let before = at(1000, 100, &[(1, 50)]);
        let now = at(1200, 250, &[(1, 80), (2, 20)]);
        assert_eq!(now.others_since(&before), Some(0.5), "150 less 30 less 20, of 200");
        assert_eq!(before.others_since(&before), None, "no time has passed");
        assert_eq!(at(1200, 150, &[(1, 500)]).others_since(&before), Some(0.0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_what_others_use() {
        assert_eq!(LoadMeter::check(), Ok(()));
        let mut meter = LoadMeter::default();
        assert_eq!(meter.others(&[]), None, "nothing to compare with");
        // The counters move with every tick of the system's clock, a hundredth of a second.
        let load = std::iter::repeat_with(|| meter.others(&[])).find_map(|load| load).unwrap();
        assert!((0.0..=1.0).contains(&load), "{load}");
    }
}

//! What this machine gives to the run, looked at once a second: the pauses of its peers follow from it, and what people are shown.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::limits::{IdleWatch, Limits, LoadMeter, When, child_cpu_seconds, local_minute, process_cpu_seconds};
use crate::member::Member;
use crate::memory;
use crate::pausing::Pauses;
use crate::probe;
use crate::view::{LimitsView, MachineView, UsedView};

const LOOK: Duration = Duration::from_secs(1);
/// Figures are means over so many looks.
const LOOKS: usize = 10;

/// Looks at the machine, and pauses its peers.
pub(super) struct MachineWatch {
    home: PathBuf,
    members: Arc<Vec<Member>>,
    limits: Limits,
    pauses: Pauses,
    view: watch::Sender<MachineView>,
    load: LoadMeter,
    idle: IdleWatch,
    seen: VecDeque<Seen>,
    children: BTreeMap<u32, f64>,
    /// Processor seconds of child processes that ended.
    past_children: f64,
    /// Whether the peers were started paused.
    paused_first: bool,
}

/// What was counted until a moment.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    cpu_seconds: Option<f64>,
    sent: u64,
    received: u64,
}

/// What a machine gives before anything was measured.
pub(super) fn first_view(limits: &Limits, home: &Path) -> MachineView {
    let hardware = probe::hardware();
    MachineView {
        cores: hardware.cores as u64,
        isa: hardware.isa,
        memory_bytes: hardware.memory_bytes,
        memory_free_bytes: hardware.memory_free_bytes,
        disk_free_bytes: probe::disk_free_bytes(home),
        paused: None,
        limits: LimitsView {
            cpu: limits.cpu.map(|cpu| cpu.fraction()),
            memory_bytes: limits.memory,
            up_bits_per_s: limits.up_bits_per_s,
            down_bits_per_s: limits.down_bits_per_s,
            when: limits.when.to_string(),
        },
        used: UsedView::default(),
    }
}

impl MachineWatch {
    pub(super) fn new(
        home: &Path,
        members: Arc<Vec<Member>>,
        limits: Limits,
        pauses: Pauses,
        view: watch::Sender<MachineView>,
        paused_first: bool,
    ) -> Self {
        Self {
            home: home.to_owned(),
            members,
            limits,
            pauses,
            view,
            load: LoadMeter::default(),
            idle: IdleWatch::default(),
            seen: VecDeque::new(),
            children: BTreeMap::new(),
            past_children: 0.0,
            paused_first,
        }
    }

    /// Looks until nobody holds the task any more.
    pub(super) async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut paused = self.pauses.paused();
        let mut told = self.paused_first;
        loop {
            tokio::select! {
                _ = looks.tick() => self.look(),
                // The sender is held here, so this never fails.
                _ = paused.changed() => {}
            }
            let pause = paused.borrow_and_update().clone();
            if pause.is_some() != told {
                told = pause.is_some();
                tracing::info!(?pause, "this machine pauses, or goes on");
                for member in self.members.iter() {
                    member.set_paused(told).await;
                }
            }
        }
    }

    fn look(&mut self) {
        let children: Vec<u32> =
            self.members.iter().filter_map(|member| member.status().borrow().lives.process).collect();
        let others = self.load.others(&children);
        if self.limits.when == When::Idle {
            // Where it can be read once it can be read again; until then nothing changes.
            others.map(|others| self.idle.note(Instant::now(), others));
        }
        self.pauses.note(local_minute(), self.idle.is_busy());
        let (mut sent, mut received) = (0, 0);
        for member in self.members.iter() {
            let traffic = member.status().borrow().outside;
            (sent, received) = (sent + traffic.sent, received + traffic.received);
        }
        let cpu_seconds = process_cpu_seconds().map(|own| own + self.of_children(&children));
        self.seen.push_back(Seen { at: Instant::now(), cpu_seconds, sent, received });
        if self.seen.len() > LOOKS + 1 {
            self.seen.pop_front();
        }
        let resident = std::iter::once(None).chain(children.iter().copied().map(Some)).map(memory::resident_bytes);
        let memory_bytes = resident.sum();
        let used = used(&self.seen, probe::cores());
        let (free, disk) = (probe::hardware().memory_free_bytes, probe::disk_free_bytes(&self.home));
        self.view.send_modify(|view| {
            view.used = UsedView { memory_bytes, others_cpu: others, ..used };
            (view.memory_free_bytes, view.disk_free_bytes) = (free, disk);
        });
    }

    /// Processor seconds of all child processes so far, those that ended included.
    fn of_children(&mut self, running: &[u32]) -> f64 {
        let ended: Vec<u32> = self.children.keys().copied().filter(|child| !running.contains(child)).collect();
        for child in ended {
            self.past_children += self.children.remove(&child).unwrap_or(0.0);
        }
        self.children.extend(running.iter().filter_map(|child| Some((*child, child_cpu_seconds(*child)?))));
        self.past_children + self.children.values().sum::<f64>()
    }
}

/// The means between the first and the last look.
fn used(seen: &VecDeque<Seen>, cores: usize) -> UsedView {
    let (Some(first), Some(last)) = (seen.front(), seen.back()) else { return UsedView::default() };
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    if seconds <= 0.0 {
        return UsedView::default();
    }
    let per_second = |before: u64, now: u64| now.saturating_sub(before) as f64 * 8.0 / seconds;
    let cpu = first.cpu_seconds.zip(last.cpu_seconds);
    UsedView {
        cpu: cpu.map(|(before, now)| (now - before).max(0.0) / seconds / cores as f64),
        up_bits_per_s: per_second(first.sent, last.sent),
        down_bits_per_s: per_second(first.received, last.received),
        ..UsedView::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_means_over_the_looks() {
        let began = Instant::now();
        let at = |seconds: u64, cpu: Option<f64>, sent: u64| Seen {
            at: began + Duration::from_secs(seconds),
            cpu_seconds: cpu,
            sent,
            received: 2 * sent,
        };
        let seen = VecDeque::from([at(0, Some(1.0), 1000), at(1, Some(9.0), 1000), at(10, Some(11.0), 3500)]);
        let got = used(&seen, 4);
        assert_eq!((got.cpu, got.up_bits_per_s, got.down_bits_per_s), (Some(0.25), 2000.0, 4000.0));
        assert_eq!(used(&VecDeque::from([at(0, None, 0)]), 4), UsedView::default(), "one look is no measurement");
        assert_eq!(used(&VecDeque::from([at(0, None, 0), at(1, Some(1.0), 0)]), 4).cpu, None);
    }
}

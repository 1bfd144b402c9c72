//! A replica at work: which pass is next, and what it keeps.

use std::collections::VecDeque;

use swarm::Time;

use super::super::estimate::{Work, window_bound};
use super::super::search::Found;
use super::{Event, Flow, Place, Step, micros};

/// Where a window starts, as in [`swarm::pipeline`].
const WINDOW_FIRST: u32 = 2;

/// What a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskKind {
    /// Forward; in the last stage forward and back.
    Forward,
    /// Backward.
    Backward,
}

/// A pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) place: Place,
    pub(super) kind: TaskKind,
}

/// Processors that peers of one machine share.
#[derive(Debug)]
pub(super) struct Machine {
    free: u32,
    waiting: VecDeque<u32>,
}

impl Machine {
    pub(super) fn new(processors: f64) -> Self {
        Self { free: processors.ceil() as u32, waiting: VecDeque::new() }
    }
}

/// A peer that holds a stage.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) stage: u32,
    pub(super) group: usize,
    /// Whether it takes part.
    pub(super) there: bool,
    /// Whether it is back, and takes part from the next round on.
    pub(super) ready: bool,
    /// Counts its departures.
    pub(super) life: u32,
    pub(super) forwards: VecDeque<Place>,
    pub(super) backwards: VecDeque<Place>,
    pub(super) running: bool,
    waits: bool,
    forward_next: bool,
    /// Units between forward and gradient, and how many there may be.
    pub(super) under_way: u32,
    window: u32,
    window_max: u32,
    starved: bool,
    replies: u32,
    /// Units whose activations it keeps, the oldest first.
    kept: VecDeque<u32>,
    slots: usize,
    /// Microseconds of a forward, of a backward, and of the step.
    forward_us: u64,
    backward_us: u64,
    pub(super) step_us: u64,
    /// Virtual runtimes of the replicas of the next stage, in microseconds.
    pub(super) routes: Vec<u64>,
    pub(super) up_free: Time,
    pub(super) down_free: Time,
    pub(super) busy_us: u64,
    there_us: u64,
    since: Time,
}

impl Replica {
    pub(super) fn new(work: &Work<'_>, found: &Found, stage: usize, group: usize) -> Self {
        let (cost, peer) = (&found.costs[stage], &work.groups[group].peer);
        let time = &found.estimate.stages[stage];
        let bound = window_bound(time.needed[group]);
        // Whole processors, as much slower as there are parts of them missing.
        let slow = work.groups[group].processors.map_or(1.0, |processors| processors.ceil() / processors);
        Self {
            stage: stage as u32,
            group,
            there: true,
            ready: false,
            life: 0,
            forwards: VecDeque::new(),
            backwards: VecDeque::new(),
            running: false,
            waits: false,
            forward_next: false,
            under_way: 0,
            window: WINDOW_FIRST.min(time.windows[group].max(1)),
            window_max: time.windows[group].min(bound as u32).max(1),
            starved: false,
            replies: 0,
            kept: VecDeque::new(),
            slots: work.slots,
            forward_us: micros(slow * cost.forward_s(peer, work.calibration)),
            backward_us: micros(slow * cost.backward_s(peer, work.calibration, false)),
            step_us: micros(slow * cost.step_s(peer, work.calibration)),
            routes: Vec::new(),
            up_free: Time::default(),
            down_free: Time::default(),
            busy_us: 0,
            there_us: 0,
            since: Time::default(),
        }
    }

    /// Microseconds of one unit's passes.
    pub(super) fn unit_us(&self) -> u64 {
        self.forward_us + self.backward_us
    }

    /// Forgets the times so far.
    pub(super) fn count_from(&mut self, now: Time) {
        (self.busy_us, self.there_us, self.since) = (0, 0, now);
    }

    /// Microseconds in which it computed, and in which it was there.
    pub(super) fn times(&mut self, now: Time) -> (u64, u64) {
        self.note_there(now);
        (self.busy_us, self.there_us)
    }

    pub(super) fn note_there(&mut self, now: Time) {
        if self.there {
            self.there_us += now.since(self.since);
        }
        self.since = now;
    }

    /// Loses all it has.
    pub(super) fn leave(&mut self, now: Time) {
        self.note_there(now);
        self.there = false;
        self.life += 1;
        self.forwards.clear();
        self.backwards.clear();
        self.kept.clear();
        (self.running, self.under_way, self.window) = (false, 0, WINDOW_FIRST.min(self.window_max));
    }

    /// Forgets the units of the round before.
    pub(super) fn begin_round(&mut self) {
        self.forwards.clear();
        self.backwards.clear();
        self.kept.clear();
        self.under_way = 0;
    }

    /// Takes part from now on.
    pub(super) fn enter(&mut self, now: Time) {
        self.note_there(now);
        (self.there, self.ready) = (true, false);
        (self.up_free, self.down_free) = (now, now);
    }

    /// A gradient is here: there is room for another unit, and more room if the last was full while nothing was to be done.
    pub(super) fn replied(&mut self, place: Place) {
        self.backwards.push_back(place);
        self.under_way = self.under_way.saturating_sub(1);
        self.replies += 1;
        if self.starved && self.window < self.window_max {
            self.window += 1;
        }
        if self.replies >= self.window {
            (self.replies, self.starved) = (0, false);
        }
    }

    /// Takes room for the activations of a unit.
    fn keep(&mut self, unit: u32) {
        if self.kept.len() >= self.slots {
            self.kept.pop_front();
        }
        self.kept.push_back(unit);
    }
}

impl Flow<'_> {
    /// Starts the next pass of a peer, if there is one and a processor for it.
    pub(super) fn pump(&mut self, peer: u32) {
        let replica = &self.peers[peer as usize];
        if replica.running || replica.waits || !replica.there {
            return;
        }
        self.drop_stale(peer);
        let Some(kind) = self.next_kind(peer) else { return };
        let replica = &mut self.peers[peer as usize];
        if let Some(machine) = &mut self.machines[replica.group] {
            if machine.free == 0 {
                machine.waiting.push_back(peer);
                replica.waits = true;
                return;
            }
            machine.free -= 1;
        }
        self.start(peer, kind);
    }

    /// Forgets what was given to others meanwhile.
    fn drop_stale(&mut self, peer: u32) {
        let (costs, cells, open) = (self.found.costs.len(), &self.cells, self.open);
        let current =
            |place: &Place| open && cells[place.unit as usize * costs + place.stage as usize].version == place.version;
        let replica = &mut self.peers[peer as usize];
        while replica.forwards.front().is_some_and(|place| !current(place)) {
            replica.forwards.pop_front();
        }
        while replica.backwards.front().is_some_and(|place| !current(place)) {
            replica.backwards.pop_front();
        }
    }

    /// A backward goes first, but for every second pass.
    fn next_kind(&mut self, peer: u32) -> Option<TaskKind> {
        let replica = &mut self.peers[peer as usize];
        let last = replica.stage as usize + 1 == self.found.costs.len();
        let waits = !replica.forwards.is_empty();
        let room = last || replica.under_way < replica.window;
        let backward = (!replica.backwards.is_empty()).then_some(TaskKind::Backward);
        let forward = (waits && room).then_some(TaskKind::Forward);
        if waits && !room && backward.is_none() {
            replica.starved = true;
        }
        match std::mem::take(&mut replica.forward_next) {
            true => forward.or(backward),
            false => backward.or(forward),
        }
    }

    fn start(&mut self, peer: u32, kind: TaskKind) {
        let last = self.is_last(self.peers[peer as usize].stage);
        let replica = &mut self.peers[peer as usize];
        let queue = match kind {
            TaskKind::Forward => &mut replica.forwards,
            TaskKind::Backward => &mut replica.backwards,
        };
        let place = queue.pop_front().expect("the pass was there when it was chosen");
        let us = match kind {
            TaskKind::Forward if last => replica.unit_us(),
            TaskKind::Forward => {
                replica.under_way += 1;
                replica.keep(place.unit);
                replica.forward_us
            }
            TaskKind::Backward => {
                replica.forward_next = true;
                match replica.kept.iter().position(|unit| *unit == place.unit) {
                    Some(at) => {
                        replica.kept.remove(at);
                        replica.backward_us
                    }
                    None => {
                        self.report.recomputed += 1;
                        if replica.kept.len() >= replica.slots {
                            replica.kept.pop_front();
                        }
                        replica.unit_us()
                    }
                }
            }
        };
        replica.running = true;
        replica.busy_us += us;
        let (life, task) = (replica.life, Task { place, kind });
        self.events.add(self.now.after(us), Event::Computed { peer, life, task });
    }

    /// A processor of a peer's machine is free: whoever waited longest takes it.
    pub(super) fn free_processor(&mut self, peer: u32) {
        let group = self.peers[peer as usize].group;
        let Some(machine) = &mut self.machines[group] else { return };
        machine.free += 1;
        while let Some(next) = self.machines[group].as_mut().and_then(|machine| machine.waiting.pop_front()) {
            self.peers[next as usize].waits = false;
            self.pump(next);
            if self.machines[group].as_ref().is_none_or(|machine| machine.free == 0) {
                return;
            }
        }
    }

    /// Whether somebody works on a unit in a stage, or has added it up.
    pub(super) fn is_held(&self, unit: u32, stage: u32) -> bool {
        self.cell(unit, stage).step != Step::Nowhere
    }
}

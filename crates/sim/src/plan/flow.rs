//! A plan as discrete events in virtual time: micro-batches flow over the stages, and peers come and go.
//!
//! Purpose: to check the plan's formulas, and to say what they cannot: queues, uneven shares, lost peers. What is simulated is what
//! [`swarm::pipeline`] does, without its messages about messages:
//!
//! - a replica computes one pass after the other, a backward before a forward but for every second one; peers of one machine share its
//!   processors;
//! - a message leaves when the sender's uplink is free, takes its bytes over the rate and half a round trip, and comes in when the
//!   receiver's downlink is free;
//! - a caller has as many units under way as its window, which grows while it idles, and calls the replica with the smallest virtual
//!   runtime; activations beyond the slots are computed again;
//! - a peer that leaves takes its sums and what it worked on with it: after a while its callers call another replica, and nothing
//!   upstream or downstream is done again. One that comes back fetches the state of its stage, and takes part from the next round on.
//!
//! A simulation is a pure function of the plan, the options and the seed.

mod churn;
mod links;
mod replica;
mod routing;

use serde::Serialize;
use swarm::Time;

use self::replica::{Machine, Replica, Task, TaskKind};
use super::estimate::Work;
use super::search::{Found, search};
use super::{PlanError, PlanInput};
use crate::events::Events;
use crate::random::Random;

/// Events after which a simulation is given up.
const EVENTS_MAX: u64 = 400_000_000;
/// A round may close without all of its units after so many times the planned time.
const DEADLINE: f64 = 3.0;
/// Rounds count once they no longer get faster by more than this, because windows have grown; or after so many.
const SETTLED: f64 = 0.02;
const SETTLING_ROUNDS_MAX: u64 = 24;
/// A run that takes so many times as long as planned is given up.
const PATIENCE: f64 = 50.0;

/// What is simulated besides the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowOptions {
    /// What every random choice follows from.
    pub seed: u64,
    /// Rounds that count, at least 1. Others go before them, in which windows grow.
    pub rounds: u64,
    /// Mean time that a peer stays, in seconds; none for peers that never leave.
    pub life_s: Option<f64>,
    /// Mean time that a peer is away, in seconds.
    pub away_s: f64,
}

/// What came of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowReport {
    /// Tokens per second over the rounds that count.
    pub tokens_per_s: f64,
    /// Rounds that count and were completed: fewer than asked for when a stage stayed without peers.
    pub rounds: u64,
    /// Virtual seconds that they took.
    pub seconds: f64,
    /// Part of the time in which a peer that was there did not compute.
    pub idle: f64,
    /// Peers that left.
    pub departures: u64,
    /// Units that were not done in all stages when their round closed.
    pub left_out: u64,
    /// Passes through a stage that were added up already, and done again because the peer with the sum was gone.
    pub redone: u64,
    /// Passes that another replica took over, because the one that had them was gone.
    pub rerouted: u64,
    /// Forward passes that were computed again for want of room.
    pub recomputed: u64,
    /// Events.
    pub events: u64,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// What the stage before gave is here.
    Input(Place),
    /// The gradient from the stage after is here.
    Gradient(Place),
    /// A pass ends.
    Computed { peer: u32, life: u32, task: Task },
    /// The callers of a lost unit notice.
    Noticed(Place),
    /// A peer leaves.
    Leave { peer: u32, life: u32 },
    /// A peer is back and has its stage's state.
    Back { peer: u32 },
    /// The round closes with the units that all stages have done.
    Deadline { round: u64 },
    /// Every replica has the next state.
    RoundOver { round: u64 },
}

/// A unit in a stage. What was meant for an earlier version is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    unit: u32,
    stage: u32,
    version: u32,
}

/// How far a unit is in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nobody has it.
    Nowhere,
    /// It was given to a replica.
    Called,
    /// Its forward is done.
    Forwarded,
    /// Its gradient is here.
    Returned,
    /// It is added up.
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    step: Step,
    owner: u32,
    version: u32,
}

/// Simulates the plan of an input.
///
/// # Errors
/// As [`super::Plan::of`].
pub fn simulate(input: &PlanInput, options: &FlowOptions) -> Result<FlowReport, PlanError> {
    super::check(input)?;
    let found = search(input)?;
    Ok(Flow::new(input, &found, *options).run())
}

struct Flow<'a> {
    work: Work<'a>,
    found: &'a Found,
    options: FlowOptions,
    random: Random,
    events: Events<Event>,
    now: Time,
    peers: Vec<Replica>,
    /// Peers of each stage.
    members: Vec<Vec<u32>>,
    machines: Vec<Option<Machine>>,
    /// By unit, then by stage.
    cells: Vec<Cell>,
    /// Units and stages that are not done in this round.
    left: u64,
    round: u64,
    /// Units that the round left out.
    missing: u64,
    /// Whether a round is under way, and not its end.
    open: bool,
    /// Whether a round could not begin, because a stage had nobody.
    stalled: bool,
    /// When this round began, and how long the fastest took, in microseconds.
    round_from: Time,
    fastest_us: u64,
    /// When the rounds that count began.
    counted_from: Option<Time>,
    handled: u64,
    report: FlowReport,
}

impl<'a> Flow<'a> {
    fn new(input: &'a PlanInput, found: &'a Found, options: FlowOptions) -> Self {
        let work = super::work(input, found);
        let (mut peers, mut members) = (Vec::new(), vec![Vec::new(); found.costs.len()]);
        for (stage, counts) in found.replicas.iter().enumerate() {
            for (group, count) in counts.iter().enumerate() {
                for _ in 0..*count {
                    members[stage].push(peers.len() as u32);
                    peers.push(Replica::new(&work, found, stage, group));
                }
            }
        }
        let next = |stage: usize| members.get(stage + 1).map_or(0, Vec::len);
        peers.iter_mut().for_each(|peer| peer.routes = vec![0; next(peer.stage as usize)]);
        let cell = Cell { step: Step::Nowhere, owner: 0, version: 0 };
        Self {
            random: Random::new(options.seed, "plan flow"),
            events: Events::default(),
            now: Time::default(),
            machines: input.groups.iter().map(|group| group.processors.map(Machine::new)).collect(),
            cells: vec![cell; found.units as usize * found.costs.len()],
            left: 0,
            missing: 0,
            round: 0,
            open: false,
            stalled: false,
            round_from: Time::default(),
            fastest_us: u64::MAX,
            counted_from: None,
            handled: 0,
            report: FlowReport {
                tokens_per_s: 0.0,
                rounds: 0,
                seconds: 0.0,
                idle: 0.0,
                departures: 0,
                left_out: 0,
                redone: 0,
                rerouted: 0,
                recomputed: 0,
                events: 0,
            },
            work,
            found,
            options,
            peers,
            members,
        }
    }

    fn run(mut self) -> FlowReport {
        for peer in 0..self.peers.len() as u32 {
            self.plan_departure(peer);
        }
        self.start_round();
        let planned = self.found.estimate.round.total_s() * (self.options.rounds + SETTLING_ROUNDS_MAX) as f64;
        let patience = Time::default().after(micros(PATIENCE * planned + 1000.0 * self.options.away_s));
        while self.report.rounds < self.options.rounds && self.handled < EVENTS_MAX {
            let Some((at, event)) = self.events.next() else { break };
            if at > patience {
                break;
            }
            self.now = at;
            self.handled += 1;
            self.handle(event);
        }
        self.finish()
    }

    fn finish(mut self) -> FlowReport {
        let since = self.counted_from.unwrap_or(self.now);
        let seconds = self.now.since(since) as f64 / 1e6;
        let units = self.report.rounds * u64::from(self.found.units) - self.report.left_out;
        let tokens = units as f64 * self.found.unit_tokens as f64;
        let now = self.now;
        let (busy, there) = self.peers.iter_mut().fold((0, 0), |(busy, there), peer| {
            let (own_busy, own_there) = peer.times(now);
            (busy + own_busy, there + own_there)
        });
        self.report.seconds = seconds;
        self.report.tokens_per_s = if seconds > 0.0 { tokens / seconds } else { 0.0 };
        self.report.idle = if there > 0 { 1.0 - (busy as f64 / there as f64).min(1.0) } else { 0.0 };
        self.report.events = self.handled;
        self.report
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Input(place) => self.on_input(place),
            Event::Gradient(place) => self.on_gradient(place),
            Event::Computed { peer, life, task } => self.on_computed(peer, life, task),
            Event::Noticed(place) if self.is_current(place) => self.call(place.unit, place.stage),
            Event::Noticed(_) => {}
            Event::Leave { peer, life } => self.on_leave(peer, life),
            Event::Back { peer } => self.on_back(peer),
            Event::Deadline { round } if round == self.round && self.open => self.end_round(),
            Event::Deadline { .. } => {}
            Event::RoundOver { round } if round == self.round => {
                self.close_round();
                self.round += 1;
                self.start_round();
            }
            Event::RoundOver { .. } => {}
        }
    }

    /// Counts a round, or decides that the next ones count.
    fn close_round(&mut self) {
        if self.counted_from.is_some() {
            self.report.rounds += 1;
            self.report.left_out += self.missing;
            return;
        }
        let took_us = self.now.since(self.round_from);
        let settled = self.missing == 0 && took_us as f64 > (1.0 - SETTLED) * self.fastest_us as f64;
        self.fastest_us = self.fastest_us.min(took_us);
        if settled || self.round >= SETTLING_ROUNDS_MAX {
            self.counted_from = Some(self.now);
            let now = self.now;
            self.peers.iter_mut().for_each(|peer| peer.count_from(now));
        }
    }

    /// Opens a round when every stage has somebody; otherwise whoever comes back tries again.
    fn start_round(&mut self) {
        self.admit();
        let empty = self.members.iter().any(|stage| !stage.iter().any(|peer| self.peers[*peer as usize].there));
        self.stalled = empty;
        self.open = !empty;
        if empty {
            return;
        }
        self.round_from = self.now;
        self.peers.iter_mut().for_each(Replica::begin_round);
        self.left = self.cells.len() as u64;
        for cell in &mut self.cells {
            (cell.step, cell.version) = (Step::Nowhere, cell.version.wrapping_add(1));
        }
        for unit in 0..self.found.units {
            self.call(unit, 0);
        }
        let planned = self.found.estimate.round;
        let deadline = self.now.after(micros(DEADLINE * (planned.fill_s + planned.steady_s)));
        self.events.add(deadline, Event::Deadline { round: self.round });
    }

    fn cell(&self, unit: u32, stage: u32) -> &Cell {
        &self.cells[unit as usize * self.found.costs.len() + stage as usize]
    }

    fn cell_mut(&mut self, unit: u32, stage: u32) -> &mut Cell {
        &mut self.cells[unit as usize * self.found.costs.len() + stage as usize]
    }

    fn is_current(&self, place: Place) -> bool {
        self.open && self.cell(place.unit, place.stage).version == place.version
    }

    fn is_last(&self, stage: u32) -> bool {
        stage as usize + 1 == self.found.costs.len()
    }

    fn on_input(&mut self, place: Place) {
        if !self.is_current(place) {
            return;
        }
        let owner = self.cell(place.unit, place.stage).owner;
        self.peers[owner as usize].forwards.push_back(place);
        self.pump(owner);
    }

    fn on_gradient(&mut self, place: Place) {
        if !self.is_current(place) || self.cell(place.unit, place.stage).step != Step::Forwarded {
            return;
        }
        let cell = self.cell_mut(place.unit, place.stage);
        cell.step = Step::Returned;
        let owner = cell.owner;
        self.peers[owner as usize].replied(place);
        self.pump(owner);
    }

    fn on_computed(&mut self, peer: u32, life: u32, task: Task) {
        if self.peers[peer as usize].life != life {
            return;
        }
        self.peers[peer as usize].running = false;
        self.free_processor(peer);
        let Place { unit, stage, .. } = task.place;
        if self.is_current(task.place) {
            match task.kind {
                TaskKind::Forward if !self.is_last(stage) => {
                    self.cell_mut(unit, stage).step = Step::Forwarded;
                    self.go_below(unit, stage);
                }
                TaskKind::Forward | TaskKind::Backward => self.done(unit, stage),
            }
        }
        self.pump(peer);
    }

    /// A forward is done: the next stage gets it, unless it has it already.
    fn go_below(&mut self, unit: u32, stage: u32) {
        let below = *self.cell(unit, stage + 1);
        match below.step {
            Step::Nowhere => self.call(unit, stage + 1),
            Step::Done => self.send_gradient(unit, stage, below.owner),
            Step::Called | Step::Forwarded | Step::Returned => {}
        }
    }

    /// A unit is added up: the stage before gets its gradient, if it waits for it.
    fn done(&mut self, unit: u32, stage: u32) {
        let cell = self.cell_mut(unit, stage);
        cell.step = Step::Done;
        let owner = cell.owner;
        self.left -= 1;
        if let Some(before) = stage.checked_sub(1)
            && self.cell(unit, before).step == Step::Forwarded
        {
            self.send_gradient(unit, before, owner);
        }
        if self.left == 0 {
            self.end_round();
        }
    }

    fn send_gradient(&mut self, unit: u32, to_stage: u32, from: u32) {
        let Cell { owner, version, .. } = *self.cell(unit, to_stage);
        let arrives = self.send(from, owner, self.found.costs[to_stage as usize].message);
        self.events.add(arrives, Event::Gradient(Place { unit, stage: to_stage, version }));
    }

    /// Everything is added up, or time is over: payloads, the step, the next round.
    fn end_round(&mut self) {
        self.open = false;
        let stages = self.found.costs.len();
        let whole = |unit: &&[Cell]| unit.iter().all(|cell| cell.step == Step::Done);
        self.missing = u64::from(self.found.units) - self.cells.chunks(stages).filter(whole).count() as u64;
        let there = |peer: &u32| self.peers[*peer as usize].there;
        let mut replicas = vec![vec![0; self.work.groups.len()]; self.members.len()];
        for (stage, members) in self.members.iter().enumerate() {
            for peer in members.iter().filter(|peer| there(peer)) {
                replicas[stage][self.peers[*peer as usize].group] += 1;
            }
        }
        let exchange: Vec<Vec<f64>> =
            (0..self.members.len()).map(|stage| self.work.exchange(&replicas, stage)).collect();
        let seconds = self.work.round_exchange(&replicas, &exchange);
        for peer in self.peers.iter_mut().filter(|peer| peer.there) {
            peer.busy_us += peer.step_us;
        }
        self.events.add(self.now.after(micros(seconds)), Event::RoundOver { round: self.round });
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

#[cfg(test)]
mod tests;

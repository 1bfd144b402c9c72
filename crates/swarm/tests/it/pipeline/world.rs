//! Replicas of stages in virtual time, on links with delay, with checks at every step.

use std::collections::{BTreeMap, BTreeSet};

use swarm::Time;
use swarm::pipeline::{
    Pipeline, PipelineConfig, PipelineCounts, PipelineInput, PipelineOutput, RoundView, StageFault, StageResult,
    StageTask, StageTaskId, StageTaskKind, UnitDone,
};
use wire::{Hash, Message, PeerId, UnitId, encode};

use super::trainer::{self, Reference};

/// Seeded random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let hash = Hash::derive("cairn test pipeline random", &[&seed.to_le_bytes()]);
        Self(u64::from_le_bytes(hash.0[..8].try_into().unwrap()))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Time of one forward pass of each replica, by stage.
    pub(crate) pass_us: Vec<Vec<u64>>,
    pub(crate) units: u32,
    /// Least and longest delay of a message, one way.
    pub(crate) delay_us: (u64, u64),
    pub(crate) config: PipelineConfig,
    pub(crate) seed: u64,
}

/// Settings with short times.
pub(crate) fn config() -> PipelineConfig {
    PipelineConfig {
        window_max: 16,
        calls_queued_max: 8,
        units_max: 64,
        message_bytes_max: 64,
        held_bytes_max: 64 * 200,
        timeout_us_min: 2_000_000,
        retry_us: 50_000,
        redo_us: 500_000,
        takeover_us: 1_000_000,
    }
}

impl Setup {
    /// Equal replicas on good links.
    pub(crate) fn even(stages: usize, replicas: usize, units: u32) -> Self {
        let pass_us = vec![vec![10_000; replicas]; stages];
        Self { pass_us, units, delay_us: (2_000, 10_000), config: config(), seed: 1 }
    }
}

/// One machine.
pub(crate) struct Replica {
    pub(crate) id: PeerId,
    pub(crate) stage: usize,
    pub(crate) pass_us: u64,
    pub(crate) pipeline: Option<Pipeline>,
    life: u64,
    /// The round that it knows of.
    round: u64,
    /// Until when it does nothing, without anybody noticing.
    pub(crate) frozen_until: Time,
    wake: Option<Time>,
    /// How often each unit is added up in this life and round.
    pub(crate) sums: Vec<u32>,
    running: Option<StageTaskId>,
    activations: BTreeSet<StageTaskId>,
    /// Whether it committed in this round.
    pub(crate) committed: bool,
    /// Tasks that added something up, over all lives and rounds.
    pub(crate) added: u64,
}

/// What comes at a time.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver { from: usize, to: usize, epoch: u64, message: Box<Message> },
    Computed { place: usize, life: u64, task: Box<StageTask> },
    Connect(usize, usize),
    Kill(usize),
    Boot(usize),
    Cut(usize, usize),
    Mend(usize, usize),
    Freeze(usize, u64),
    Slow(usize, u64),
    Seal(usize),
    Round(usize),
}

#[derive(Debug, Default)]
struct Link {
    up: bool,
    cut: bool,
    epoch: u64,
}

/// Changes what a liar says: `None` drops the message.
pub(crate) type Lie = Box<dyn FnMut(&Reference, Message) -> Vec<Message>>;

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) now: Time,
    pub(crate) random: Random,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    links: BTreeMap<(usize, usize), Link>,
    pub(crate) view: RoundView,
    pub(crate) references: Vec<Reference>,
    /// Commitments of the open round, in order.
    pub(crate) ledger: Vec<(PeerId, u16, Vec<u32>)>,
    pub(crate) faults: Vec<(PeerId, PeerId, StageFault, Option<Hash>)>,
    pub(crate) lies: BTreeMap<usize, Lie>,
    /// Counts of lives that are over.
    past: PipelineCounts,
    /// Calls with bytes that were sent, by receiver.
    pub(crate) calls_to: BTreeMap<PeerId, u64>,
    pub(crate) trace: Hash,
    pub(crate) handled: u64,
}

pub(crate) fn id(stage: usize, replica: usize) -> PeerId {
    let mut bytes = Hash::derive("cairn test replica", &[&[stage as u8, replica as u8]]).0;
    bytes[0] = replica as u8;
    PeerId(bytes)
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let now = Time::from_micros(1_000_000);
        let mut replicas = Vec::new();
        for (stage, passes) in setup.pass_us.iter().enumerate() {
            for (place, pass_us) in passes.iter().enumerate() {
                replicas.push(Replica {
                    id: id(stage, place),
                    stage,
                    pass_us: *pass_us,
                    pipeline: None,
                    life: 0,
                    round: 0,
                    frozen_until: Time::default(),
                    wake: None,
                    sums: Vec::new(),
                    running: None,
                    activations: BTreeSet::new(),
                    committed: false,
                    added: 0,
                });
            }
        }
        let view = RoundView {
            coarser: Vec::new(),
            round: 0,
            stage: 0,
            state_root: Hash::default(),
            units: Vec::new(),
            assignment: Vec::new(),
            members: Vec::new(),
            unit_tokens: 1000,
            sealed: false,
        };
        let mut world = Self {
            random: Random::new(setup.seed),
            setup,
            replicas,
            now,
            events: BTreeMap::new(),
            sequence: 0,
            links: BTreeMap::new(),
            view,
            references: Vec::new(),
            ledger: Vec::new(),
            faults: Vec::new(),
            lies: BTreeMap::new(),
            past: PipelineCounts::default(),
            calls_to: BTreeMap::new(),
            trace: Hash::default(),
            handled: 0,
        };
        world.make_round(0);
        for place in 0..world.replicas.len() {
            world.boot(place);
        }
        world
    }

    pub(crate) fn stages(&self) -> usize {
        self.setup.pass_us.len()
    }

    /// The place of a replica in the list of all.
    pub(crate) fn place(&self, stage: usize, replica: usize) -> usize {
        self.replicas.iter().position(|other| other.id == id(stage, replica)).unwrap()
    }

    fn make_round(&mut self, round: u64) {
        let stages = self.stages();
        let number = round.to_le_bytes();
        let units = 0..self.setup.units;
        let name = |index: u32| UnitId(Hash::derive("cairn test unit", &[&number, &index.to_le_bytes()]));
        let members: Vec<Vec<PeerId>> = self
            .setup
            .pass_us
            .iter()
            .enumerate()
            .map(|(stage, passes)| (0..passes.len()).map(|replica| id(stage, replica)).collect())
            .collect();
        self.view.assignment = members[0].iter().cycle().take(units.len()).copied().collect();
        (self.view.round, self.view.members) = (round, members);
        self.view.units = units.map(name).collect();
        self.view.state_root = Hash::derive("cairn test state", &[&number]);
        self.references = self.view.units.iter().map(|unit| Reference::new(stages, *unit)).collect();
        self.ledger.clear();
    }

    /// Begins the next round: the replicas learn of it one after the other.
    pub(crate) fn next_round(&mut self) {
        self.make_round(self.view.round + 1);
        for place in 0..self.replicas.len() {
            self.replicas[place].committed = false;
            let delay_us = self.random.between(0, 100_000);
            self.after(delay_us, Event::Round(place));
        }
    }

    pub(crate) fn after(&mut self, micros: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now.after(micros), self.sequence), event);
    }

    pub(crate) fn delay_us(&mut self) -> u64 {
        let (low, high) = self.setup.delay_us;
        self.random.between(low, high)
    }

    // --- what the machines do

    pub(crate) fn boot(&mut self, place: usize) {
        if self.replicas[place].pipeline.is_some() {
            return;
        }
        let pipeline = Pipeline::new(self.replicas[place].id, self.setup.config.clone(), self.now);
        let replica = &mut self.replicas[place];
        replica.life += 1;
        (replica.pipeline, replica.running, replica.wake) = (Some(pipeline), None, None);
        replica.frozen_until = Time::default();
        self.enter_round(place);
        for other in 0..self.replicas.len() {
            self.plan_connection(place, other);
        }
    }

    /// Tells a replica of the open round, and of all that is in blocks.
    fn enter_round(&mut self, place: usize) {
        let replica = &mut self.replicas[place];
        replica.sums = vec![0; self.setup.units as usize];
        replica.activations.clear();
        replica.round = self.view.round;
        let view = RoundView { stage: replica.stage as u16, sealed: replica.committed, ..self.view.clone() };
        self.give(place, PipelineInput::Round(view));
        for (peer, stage, units) in self.ledger.clone() {
            self.give(place, PipelineInput::Claimed { peer, stage, units });
        }
    }

    pub(crate) fn kill(&mut self, place: usize) {
        let Some(pipeline) = self.replicas[place].pipeline.take() else { return };
        self.past = add(self.past, pipeline.counts());
        let replica = &mut self.replicas[place];
        replica.sums.fill(0);
        replica.activations.clear();
        (replica.wake, replica.running) = (None, None);
        for other in 0..self.replicas.len() {
            self.break_link(place, other);
        }
    }

    fn pair(&mut self, one: usize, other: usize) -> &mut Link {
        self.links.entry((one.min(other), one.max(other))).or_default()
    }

    fn plan_connection(&mut self, one: usize, other: usize) {
        if one != other {
            let delay_us = self.delay_us() + 10_000;
            self.after(delay_us, Event::Connect(one, other));
        }
    }

    fn connect(&mut self, one: usize, other: usize) {
        let alive = self.replicas[one].pipeline.is_some() && self.replicas[other].pipeline.is_some();
        let link = self.pair(one, other);
        if !alive || link.cut || link.up {
            return;
        }
        link.up = true;
        link.epoch += 1;
        let ids = (self.replicas[one].id, self.replicas[other].id);
        self.give(one, PipelineInput::Up(ids.1));
        self.give(other, PipelineInput::Up(ids.0));
    }

    fn break_link(&mut self, one: usize, other: usize) {
        if one == other || !std::mem::take(&mut self.pair(one, other).up) {
            return;
        }
        let ids = (self.replicas[one].id, self.replicas[other].id);
        self.give(one, PipelineInput::Down(ids.1));
        self.give(other, PipelineInput::Down(ids.0));
    }

    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        self.break_link(one, other);
        self.pair(one, other).cut = true;
    }

    pub(crate) fn mend(&mut self, one: usize, other: usize) {
        self.pair(one, other).cut = false;
        self.plan_connection(one, other);
    }

    /// Mends all links, starts all machines, and lets them run at their speed.
    pub(crate) fn heal(&mut self) {
        for place in 0..self.replicas.len() {
            self.replicas[place].frozen_until = Time::default();
            self.boot(place);
        }
        let pairs: Vec<(usize, usize)> = self.links.keys().copied().collect();
        for (one, other) in pairs {
            self.mend(one, other);
        }
    }

    pub(crate) fn give(&mut self, place: usize, input: PipelineInput) -> Vec<PipelineOutput> {
        let mut out = Vec::new();
        let now = self.now;
        let Some(pipeline) = &mut self.replicas[place].pipeline else { return out };
        self.handled += 1;
        pipeline.handle(now, input, &mut out);
        self.replicas[place].wake = pipeline.poll_timeout();
        self.check(place);
        for output in &out {
            self.carry_out(place, output.clone());
        }
        out
    }

    fn carry_out(&mut self, place: usize, output: PipelineOutput) {
        let from = self.replicas[place].id;
        match output {
            PipelineOutput::Send { to, message } => self.send(place, to, message),
            PipelineOutput::Compute(task) => self.start(place, task),
            PipelineOutput::Cancel(task) => {
                assert_eq!(self.replicas[place].running.take(), Some(task), "only the running task is cancelled");
            }
            PipelineOutput::Release(task) => {
                self.replicas[place].activations.remove(&task);
            }
            PipelineOutput::Fault { peer, kind, evidence } => self.faults.push((from, peer, kind, evidence)),
            PipelineOutput::Done(done) => self.on_done(place, &done),
            PipelineOutput::Sealed { round, units } => self.commit(place, round, &units),
        }
    }

    pub(crate) fn send(&mut self, place: usize, to: PeerId, message: Message) {
        let Some(to) = self.replicas.iter().position(|other| other.id == to) else { return };
        let index = match &message {
            Message::StageCall(call) => call.index,
            Message::StageReply(reply) => reply.index,
            Message::StageRefusal(refusal) => refusal.index,
            other => panic!("no stage says this: {other:?}"),
        };
        let messages = match (self.lies.get_mut(&place), self.references.get(index as usize)) {
            (Some(lie), Some(reference)) => lie(reference, message),
            _ => vec![message],
        };
        let link = self.pair(place, to);
        let (up, epoch) = (link.up, link.epoch);
        for message in messages.into_iter().filter(|_| up) {
            if let Message::StageCall(call) = &message
                && !call.input.is_empty()
            {
                *self.calls_to.entry(self.replicas[to].id).or_default() += 1;
            }
            let delay_us = self.delay_us();
            let message = Box::new(message);
            self.after(delay_us, Event::Deliver { from: place, to, epoch, message });
        }
    }

    fn start(&mut self, place: usize, task: StageTask) {
        let replica = &mut self.replicas[place];
        assert_eq!(replica.running.replace(task.id), None, "one task at a time");
        let pipeline = replica.pipeline.as_ref().unwrap();
        match &task.kind {
            StageTaskKind::Forward { .. } => {
                assert!(pipeline.under_way() <= pipeline.window(), "activations beyond the window");
                replica.activations.insert(task.id);
                assert!(replica.activations.len() <= self.setup.config.window_max as usize, "activations not released");
            }
            StageTaskKind::Backward { forward, .. } => {
                assert!(replica.activations.contains(forward), "backward of activations that are gone");
            }
            StageTaskKind::Turn { .. } => {}
        }
        let micros = trainer::cost(&task) * replica.pass_us;
        let life = replica.life;
        self.after(micros, Event::Computed { place, life, task: Box::new(task) });
    }

    fn on_computed(&mut self, place: usize, life: u64, task: &StageTask) {
        let replica = &mut self.replicas[place];
        if replica.life != life || replica.pipeline.is_none() || replica.running != Some(task.id) {
            return;
        }
        replica.running = None;
        let result = trainer::compute(replica.stage, task);
        if let (StageTaskKind::Backward { forward, .. }, StageResult::Backward { .. }) = (&task.kind, &result) {
            replica.activations.remove(forward);
        }
        if matches!(result, StageResult::Turn { .. } | StageResult::Backward { .. }) && task.counted {
            replica.sums[task.index as usize] += 1;
            replica.added += 1;
        }
        self.give(place, PipelineInput::Computed { task: task.id, result });
    }

    /// What is listed is what an honest replica computes, bit for bit, unless somebody lies.
    fn on_done(&self, place: usize, done: &UnitDone) {
        let replica = &self.replicas[place];
        assert_eq!(replica.sums[done.index as usize], 1, "listed once what was added up once");
        if self.lies.is_empty() && replica.round == self.view.round {
            let reference = &self.references[done.index as usize];
            let hash = |bytes: &[u8]| if bytes.is_empty() { Hash::default() } else { Hash::of(bytes) };
            let stage = replica.stage;
            assert_eq!(done.input, hash(reference.inputs[stage].as_deref().unwrap_or_default()));
            assert_eq!(done.gradient_in, hash(&reference.gradients[stage + 1]));
            let out = if stage == 0 { Hash::default() } else { hash(&reference.gradients[stage]) };
            assert_eq!(done.gradient_out, out);
        }
    }

    fn commit(&mut self, place: usize, round: u64, units: &[UnitDone]) {
        assert_eq!(round, self.view.round);
        let replica = &mut self.replicas[place];
        let mut listed: Vec<u32> = units.iter().map(|done| done.index).collect();
        listed.sort_unstable();
        let summed = (0u32..).zip(&replica.sums).filter(|(_, count)| **count > 0).map(|(index, _)| index);
        assert_eq!(listed, summed.collect::<Vec<u32>>(), "the list is what was added up");
        replica.committed = true;
        let (peer, stage) = (replica.id, replica.stage as u16);
        self.ledger.push((peer, stage, listed.clone()));
        for other in 0..self.replicas.len() {
            self.give(other, PipelineInput::Claimed { peer, stage, units: listed.clone() });
        }
    }

    /// What holds after every input.
    fn check(&self, place: usize) {
        let replica = &self.replicas[place];
        let (Some(pipeline), config) = (&replica.pipeline, &self.setup.config) else { return };
        assert!(pipeline.held_bytes() <= config.held_bytes_max, "{} bytes held", pipeline.held_bytes());
        assert!(pipeline.queued() <= config.calls_queued_max, "{} calls wait", pipeline.queued());
        assert!(pipeline.under_way() <= config.window_max.max(1), "{} units under way", pipeline.under_way());
        let twice = replica.sums.iter().position(|count| *count > 1);
        assert_eq!(twice, None, "added up twice by {:?}, seed {}, at {}", replica.id, self.setup.seed, self.now);
    }

    // --- time

    /// Lets the next thing happen. False when nothing will happen any more.
    pub(crate) fn step(&mut self) -> bool {
        let thawed = |replica: &Replica| Some(replica.wake?.max(replica.frozen_until));
        let wakes = self.replicas.iter().enumerate().filter_map(|(place, replica)| Some((thawed(replica)?, place)));
        let wake = wakes.min();
        let event = self.events.keys().next().copied();
        match (event, wake) {
            (None, None) => return false,
            (Some((at, _)), wake) if wake.is_none_or(|(other, _)| at <= other) => {
                let event = self.events.remove(&event.unwrap()).unwrap();
                self.now = at;
                self.happen(event);
            }
            (_, Some((at, place))) => {
                self.now = self.now.after(1).max(at);
                self.replicas[place].wake = None;
                self.give(place, PipelineInput::Tick);
            }
            (Some(_), None) => unreachable!("taken above"),
        }
        true
    }

    fn note(&mut self, event: &Event) {
        let parts = format!("{event:?}");
        let now = self.now.as_micros().to_le_bytes();
        self.trace = Hash::derive("cairn test trace", &[&self.trace.0, &now, parts.as_bytes()]);
    }

    fn happen(&mut self, event: Event) {
        let frozen = match &event {
            Event::Deliver { to: place, .. } | Event::Computed { place, .. } => self.replicas[*place].frozen_until,
            _ => Time::default(),
        };
        if frozen > self.now {
            let micros = frozen.since(self.now);
            self.after(micros, event);
            return;
        }
        self.note(&event);
        match event {
            Event::Deliver { from, to, epoch, message } => {
                let link = self.pair(from, to);
                if link.up && link.epoch == epoch {
                    let from = self.replicas[from].id;
                    self.deliver(from, to, *message);
                }
            }
            Event::Computed { place, life, task } => self.on_computed(place, life, &task),
            Event::Connect(one, other) => self.connect(one, other),
            Event::Kill(place) => self.kill(place),
            Event::Boot(place) => self.boot(place),
            Event::Cut(one, other) => self.cut(one, other),
            Event::Mend(one, other) => self.mend(one, other),
            Event::Freeze(place, micros) => self.replicas[place].frozen_until = self.now.after(micros),
            Event::Slow(place, pass_us) => self.replicas[place].pass_us = pass_us,
            Event::Seal(place) => {
                self.give(place, PipelineInput::Seal);
            }
            Event::Round(place) if self.replicas[place].pipeline.is_some() => self.enter_round(place),
            Event::Round(_) => {}
        }
    }

    pub(crate) fn deliver(&mut self, from: PeerId, to: usize, message: Message) -> Vec<PipelineOutput> {
        let decoded = wire::decode(&encode(&message)).expect("what is sent is well formed");
        let input = match decoded {
            Message::StageCall(call) => PipelineInput::Call { from, call },
            Message::StageReply(reply) => PipelineInput::Reply { from, reply },
            Message::StageRefusal(refusal) => PipelineInput::Refused { from, refusal },
            other => panic!("no stage says this: {other:?}"),
        };
        self.give(to, input)
    }

    pub(crate) fn run_for(&mut self, micros: u64) {
        let end = self.now.after(micros);
        while self.events.keys().next().is_some_and(|(at, _)| *at <= end)
            || self.replicas.iter().any(|replica| replica.wake.is_some_and(|at| at.max(replica.frozen_until) <= end))
        {
            self.step();
        }
        self.now = end;
    }

    /// Runs until `done`, or panics when that takes longer than a virtual time.
    pub(crate) fn run_until(&mut self, what: &str, micros: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now.after(micros);
        while !done(self) {
            let more = self.now < end && self.step();
            assert!(more, "never: {what}; seed {}, at {}\n{}", self.setup.seed, self.now, self.report());
        }
    }

    // --- what came of it

    /// How often a unit is added up in a stage: in blocks, and by those that live and have not committed.
    pub(crate) fn sums(&self, stage: usize, index: u32) -> u32 {
        let blocks = self.ledger.iter().filter(|(_, at, units)| usize::from(*at) == stage && units.contains(&index));
        let current = |replica: &&Replica| replica.round == self.view.round && !replica.committed;
        let live = self.replicas.iter().filter(|replica| replica.stage == stage).filter(current);
        blocks.count() as u32 + live.map(|replica| replica.sums[index as usize]).sum::<u32>()
    }

    pub(crate) fn all_sums(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.stages()).flat_map(move |stage| (0..self.setup.units).map(move |index| self.sums(stage, index)))
    }

    /// Whether every unit is added up in every stage.
    pub(crate) fn is_complete(&self) -> bool {
        self.all_sums().all(|count| count >= 1)
    }

    /// Additions beyond one per unit and stage.
    pub(crate) fn excess(&self) -> u32 {
        self.all_sums().map(|count| count.saturating_sub(1)).sum()
    }

    pub(crate) fn counts(&self) -> PipelineCounts {
        let live = self.replicas.iter().filter_map(|replica| replica.pipeline.as_ref());
        live.fold(self.past, |sum, pipeline| add(sum, pipeline.counts()))
    }

    /// Commits all replicas, and lets the next round begin.
    pub(crate) fn close_round(&mut self) {
        for place in 0..self.replicas.len() {
            let micros = self.random.between(0, 50_000);
            self.after(micros, Event::Seal(place));
        }
        self.run_until("all commit", 10_000_000, |world| world.replicas.iter().all(|replica| replica.committed));
        let all = (0..self.stages()).flat_map(|stage| (0..self.setup.units).map(move |index| (stage, index)));
        for (stage, index) in all {
            assert!(self.sums(stage, index) >= 1, "unit {index} of stage {stage} is in no block");
        }
        self.next_round();
        self.run_for(150_000);
    }

    fn report(&self) -> String {
        let mut lines = vec![format!("{:?}", self.counts())];
        for stage in 0..self.stages() {
            let sums: Vec<u32> = (0..self.setup.units).map(|index| self.sums(stage, index)).collect();
            lines.push(format!("stage {stage}: {sums:?}"));
        }
        for replica in self.replicas.iter().filter(|replica| replica.pipeline.is_some()) {
            lines.push(format!("{:?} of stage {}: {:?}", replica.id, replica.stage, replica.pipeline));
        }
        lines.join("\n")
    }
}

fn add(one: PipelineCounts, other: PipelineCounts) -> PipelineCounts {
    PipelineCounts {
        calls: one.calls + other.calls,
        questions: one.questions + other.questions,
        replies: one.replies + other.replies,
        refused: one.refused + other.refused,
        timeouts: one.timeouts + other.timeouts,
        redone: one.redone + other.redone,
        duplicates: one.duplicates + other.duplicates,
        taken_over: one.taken_over + other.taken_over,
        lost: one.lost + other.lost,
    }
}

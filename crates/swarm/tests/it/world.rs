//! A few peers on a perfect network, with a shell that a test can make worse.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarm::{
    Fault, HaltReason, Input, Job, JobId, JobResult, ModelPoint, Output, Peer, PeerConfig, Record, Restored, Time,
    UnitResult,
};
use wire::{
    Action, Block, Charter, Hash, Identity, Message, NumericProfile, OperatorCertificate, PeerId, Release, Signed,
    StageTerms, Transaction, Verified,
};

pub(crate) const STATE_BYTES: u64 = 100_000;
pub(crate) const PAYLOAD_BYTES: u64 = 1_000;
pub(crate) const ROUND_US: u64 = 10_000_000;

pub(crate) fn identity(place: usize) -> Identity {
    Identity::from_secret(Hash::derive("cairn test identity", &[&(place as u64).to_le_bytes()]).0)
}

/// A charter of `rounds` rounds for `peers` peers, of which the first is the validator.
pub(crate) fn charter(peers: usize, rounds: u64) -> Charter {
    Charter {
        name: "test".to_owned(),
        validators: vec![identity(0).id()],
        recipe: Hash::default(),
        data: Hash::default(),
        tokenizer: Hash::default(),
        stages: vec![StageTerms {
            genesis_state: Hash::of(b"genesis"),
            state_bytes: STATE_BYTES,
            weight: 1,
            coarser_max: 0,
        }],
        profile: NumericProfile::F32Fma,
        rounds,
        units_per_round: u32::try_from(peers).unwrap(),
        unit_tokens: 100,
        start_members: u32::try_from(peers).unwrap(),
        quorum: 1,
        round_us_first: ROUND_US,
        round_us_max: ROUND_US,
        shares_per_round: 1_000,
        release: Release::OpenNow,
        parent: None,
    }
}

pub(crate) fn verified(charter: Charter) -> Verified<Charter> {
    identity(0).sign(charter).verify().unwrap()
}

pub(crate) fn step(state: Hash, set: &swarm::CommittedSet) -> Hash {
    let payloads: Vec<&[u8]> = set.entries.iter().map(|entry| &entry.payload.0[..]).collect();
    Hash::derive("cairn test state", &[&state.0, &payloads.concat()])
}

/// The honest result of a job.
pub(crate) fn result(place: usize, job: &Job, model: Option<ModelPoint>) -> JobResult {
    match job {
        Job::Work { round, state_root, units } => {
            let parts: [&[u8]; 3] = [&state_root.0, &round.to_le_bytes(), &(place as u64).to_le_bytes()];
            let payload = Hash::derive("cairn test payload", &parts);
            let unit = |index| UnitResult {
                index,
                data_root: Hash::of(b"data"),
                trace_root: Hash::of(b"trace"),
                output_root: payload,
                tokens: 100,
                loss_micronats: 1,
            };
            let units = units.iter().map(|assignment| unit(assignment.index)).collect();
            let residual_root = Hash::of(&payload.0);
            JobResult::Worked { round: *round, units, payload, payload_bytes: PAYLOAD_BYTES, residual_root }
        }
        Job::Stage(_) | Job::Contribute { .. } => panic!("these runs have one stage: {job:?}"),
        Job::OuterStep { round, committed, .. } => {
            let model = model.expect("a step needs a state");
            JobResult::Stepped { round: round + 1, state_root: step(model.state_root, committed) }
        }
        Job::LoadState { round, state_root, .. } => JobResult::Loaded { round: *round, state_root: *state_root },
    }
}

/// Peers, their disks, and what they said.
pub(crate) struct World {
    pub(crate) charter: Verified<Charter>,
    /// The stage of each peer.
    pub(crate) stages: Vec<u16>,
    /// Who runs a peer, from its next boot on.
    pub(crate) operators: BTreeMap<usize, Identity>,
    pub(crate) peers: Vec<Option<Peer>>,
    pub(crate) disks: Vec<Restored>,
    pub(crate) now: Time,
    /// All outputs of each peer, oldest first.
    pub(crate) log: Vec<Vec<Output>>,
    /// Peers whose work jobs, and tasks of the pipeline, are not answered.
    pub(crate) busy: BTreeSet<usize>,
    /// Jobs that were started and not answered, by peer.
    pub(crate) jobs: BTreeMap<usize, (JobId, Job)>,
    /// Peers that are connected with nobody.
    pub(crate) cut: BTreeSet<usize>,
    /// Blobs that nobody gives.
    pub(crate) withheld: BTreeSet<Hash>,
    /// Peers whose steps go wrong.
    pub(crate) broken: BTreeSet<usize>,
    queue: VecDeque<(usize, Input)>,
}

impl World {
    pub(crate) fn new(peers: usize, rounds: u64) -> Self {
        Self::with(peers, charter(peers, rounds))
    }

    pub(crate) fn with(peers: usize, charter: Charter) -> Self {
        Self::staged(&vec![0; peers], charter)
    }

    /// Peers of these stages.
    pub(crate) fn staged(stages: &[u16], charter: Charter) -> Self {
        let peers = stages.len();
        let mut world = Self {
            charter: verified(charter),
            stages: stages.to_vec(),
            operators: BTreeMap::new(),
            peers: (0..peers).map(|_| None).collect(),
            disks: vec![Restored::default(); peers],
            now: Time::from_micros(1_000_000),
            log: vec![Vec::new(); peers],
            busy: BTreeSet::new(),
            jobs: BTreeMap::new(),
            cut: BTreeSet::new(),
            withheld: BTreeSet::new(),
            broken: BTreeSet::new(),
            queue: VecDeque::new(),
        };
        for place in 0..peers {
            world.boot(place);
        }
        world
    }

    pub(crate) fn id(&self, place: usize) -> PeerId {
        identity(place).id()
    }

    pub(crate) fn peer(&self, place: usize) -> &Peer {
        self.peers[place].as_ref().unwrap()
    }

    fn place(&self, id: PeerId) -> Option<usize> {
        (0..self.peers.len()).find(|place| self.id(*place) == id)
    }

    /// Makes a peer from its disk and starts it; connections come by dialling.
    pub(crate) fn boot(&mut self, place: usize) {
        let known = (0..self.peers.len()).map(|place| self.id(place)).collect();
        let certificate = OperatorCertificate { run: self.charter.body.run_id(), peer: self.id(place) };
        let operator = self.operators.get(&place).map(|operator| operator.sign(certificate));
        let config = PeerConfig { stage: self.stages[place], operator, ..PeerConfig::new(self.charter.clone(), known) };
        self.jobs.remove(&place);
        self.peers[place] = Some(Peer::new(config, identity(place), self.disks[place].clone(), self.now));
        self.queue.push_back((place, Input::Start));
    }

    /// Takes a peer away; the others notice.
    pub(crate) fn kill(&mut self, place: usize) {
        self.peers[place] = None;
        self.jobs.remove(&place);
        self.queue.retain(|(to, _)| *to != place);
        self.disconnect_all(place);
    }

    /// Cuts a peer off; both sides notice.
    pub(crate) fn cut_off(&mut self, place: usize) {
        self.cut.insert(place);
        self.disconnect_all(place);
        for other in 0..self.peers.len() {
            let other = self.id(other);
            self.queue.push_back((place, Input::Disconnected(other)));
        }
    }

    fn disconnect_all(&mut self, place: usize) {
        let id = self.id(place);
        let from_it = |input: &Input| matches!(input, Input::Received { from, .. } if *from == id);
        self.queue.retain(|(_, input)| !from_it(input));
        for other in (0..self.peers.len()).filter(|other| *other != place) {
            self.queue.push_back((other, Input::Disconnected(id)));
        }
    }

    /// Gives a peer an input now, carries out what follows from it, and returns its outputs.
    pub(crate) fn give(&mut self, place: usize, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let now = self.now;
        let Some(peer) = &mut self.peers[place] else { return out };
        peer.handle(now, input, &mut out);
        for output in &out {
            self.carry_out(place, output.clone());
        }
        self.log[place].extend(out.iter().cloned());
        out
    }

    /// Delivers a message as if `from` had sent it.
    pub(crate) fn tell(&mut self, place: usize, from: PeerId, message: Message) -> Vec<Output> {
        self.give(place, Input::Received { from, message })
    }

    /// Runs until `done`, or panics after many events.
    pub(crate) fn run(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.event();
        }
        panic!("never: {what}");
    }

    /// Runs for a time.
    pub(crate) fn run_for(&mut self, micros: u64) {
        let end = self.now.after(micros);
        while self.now < end {
            if self.queue.is_empty() && self.next_timeout().is_none_or(|(at, _)| at > end) {
                self.now = end;
                return;
            }
            self.event();
        }
    }

    fn next_timeout(&self) -> Option<(Time, usize)> {
        let places = (0..self.peers.len()).filter_map(|place| Some((self.peers[place].as_ref()?, place)));
        places.filter_map(|(peer, place)| Some((peer.poll_timeout()?.0, place))).min()
    }

    fn event(&mut self) {
        if let Some((place, input)) = self.queue.pop_front() {
            self.now = self.now.after(100);
            self.give(place, input);
            return;
        }
        let (at, place) = self.next_timeout().expect("nothing will ever happen");
        self.now = self.now.after(1).max(at);
        self.give(place, Input::Tick);
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        let id = self.id(place);
        match output {
            Output::Connect(peer) => {
                let other = self.place(peer).filter(|other| self.peers[*other].is_some());
                match other.filter(|other| !self.cut.contains(other) && !self.cut.contains(&place)) {
                    Some(other) => {
                        self.queue.push_back((other, Input::Connected(id)));
                        self.queue.push_back((place, Input::Connected(peer)));
                    }
                    None => self.queue.push_back((place, Input::Disconnected(peer))),
                }
            }
            Output::Send { to, message } => {
                let open = !self.cut.contains(&place);
                if let Some(to) = self.place(to).filter(|to| open && !self.cut.contains(to)) {
                    self.queue.push_back((to, Input::Received { from: id, message }));
                }
            }
            Output::Compute { job, work } => {
                if matches!(work, Job::Work { .. } | Job::Stage(_)) && self.busy.contains(&place) {
                    self.jobs.insert(place, (job, work));
                } else {
                    let answer = self.compute(place, &work);
                    self.queue.push_back((place, Input::Computed { job, result: answer }));
                }
            }
            Output::Cancel(job) => {
                self.jobs.retain(|owner, (running, _)| (*owner, *running) != (place, job));
                let answers =
                    |input: &Input| matches!(input, Input::Computed { job: answered, .. } if *answered == job);
                self.queue.retain(|(to, input)| *to != place || !answers(input));
            }
            Output::Fetch { hash, bytes, providers } => {
                if self.withheld.contains(&hash) {
                    for from in providers {
                        self.queue.push_back((place, Input::FetchFailed { hash, from }));
                    }
                } else {
                    self.queue.push_back((place, Input::Fetched { hash, bytes }));
                }
            }
            Output::Persist(Record::Block(block)) => self.disks[place].blocks.push(block),
            Output::Persist(Record::Outgoing(transaction)) => self.disks[place].outbox.push(transaction),
            Output::Move { .. } => unreachable!("no peer here has another stage to move to"),
            Output::Disconnect(_) | Output::Forget { .. } | Output::Event(_) | Output::Fault(_) | Output::Halt(_) => {}
        }
    }

    /// Does a job and stores its outcome.
    pub(crate) fn compute(&mut self, place: usize, work: &Job) -> JobResult {
        let mut answer = result(place, work, self.disks[place].model);
        if let JobResult::Stepped { state_root, .. } = &mut answer
            && self.broken.contains(&place)
        {
            *state_root = Hash::of(&state_root.0);
        }
        if let JobResult::Stepped { round, state_root } | JobResult::Loaded { round, state_root } = answer {
            self.disks[place].model = Some(ModelPoint { round, state_root });
        }
        answer
    }

    /// Answers the job that a busy peer has.
    pub(crate) fn finish_job(&mut self, place: usize) -> Vec<Output> {
        let (job, work) = self.jobs.remove(&place).expect("a job was started");
        let result = self.compute(place, &work);
        self.give(place, Input::Computed { job, result })
    }

    pub(crate) fn round(&self, place: usize) -> Option<u64> {
        self.peer(place).ledger().round().map(|open| open.round)
    }

    pub(crate) fn faults(&self, place: usize) -> Vec<Fault> {
        let faults = self.log[place].iter();
        faults.filter_map(|output| if let Output::Fault(fault) = output { Some(fault.clone()) } else { None }).collect()
    }

    pub(crate) fn halts(&self, place: usize) -> Vec<HaltReason> {
        let halts = self.log[place].iter();
        halts.filter_map(|output| if let Output::Halt(reason) = output { Some(reason.clone()) } else { None }).collect()
    }

    pub(crate) fn all_finished(&self) -> bool {
        self.peers.iter().flatten().all(Peer::is_finished)
    }
}

pub(crate) fn sends(out: &[Output]) -> Vec<(PeerId, &Message)> {
    let sends = out.iter().filter_map(|output| match output {
        Output::Send { to, message } => Some((*to, message)),
        _ => None,
    });
    sends.collect()
}

pub(crate) fn submits(out: &[Output]) -> Vec<&Signed<Transaction>> {
    let submits = sends(out).into_iter().filter_map(|(_, message)| match message {
        Message::Submit(transaction) => Some(transaction),
        _ => None,
    });
    submits.collect()
}

pub(crate) fn sent_blocks(out: &[Output]) -> Vec<&Block> {
    let blocks = sends(out).into_iter().filter_map(|(_, message)| match message {
        Message::Block(block) => Some(block),
        _ => None,
    });
    blocks.collect()
}

pub(crate) fn position(out: &[Output], test: impl Fn(&Output) -> bool) -> usize {
    out.iter().position(test).expect("the output is there")
}

pub(crate) fn commits(transaction: &Signed<Transaction>) -> bool {
    matches!(transaction.body.action, Action::Commit(_))
}

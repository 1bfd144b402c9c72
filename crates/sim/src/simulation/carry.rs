//! The shell of the simulated hosts: carries out outputs, and brings their effects back as inputs.

use std::collections::VecDeque;

use swarm::{Input, Job, JobId, JobResult, Output, Record};
use wire::{Hash, Message, PeerId, decode};

use super::Simulation;
use crate::adversary::Liar;
use crate::checks::{Checks, Violation};
use crate::events::{Event, Parcel};
use crate::host::Transfer;
use crate::trace::detail;
use crate::trainer::Pending;

/// Time after which a dial to a host that is not there fails, in microseconds.
const DIAL_US_MAX: u64 = 1_000_000;
/// Bytes of a connection's framing per message.
const FRAME_BYTES: u64 = 60;

impl Simulation {
    /// Carries out one output of a host.
    pub(super) fn carry_out(&mut self, place: usize, output: Output) -> Result<(), Violation> {
        let host = &mut self.hosts[place];
        match output {
            Output::Connect(peer) => self.dial(place, peer),
            Output::Disconnect(peer) => {
                if let Some(other) = self.places.get(&peer).copied() {
                    self.break_link(place, other);
                }
            }
            Output::Send { to, message } => {
                for parcel in self.parcels(place, message) {
                    self.send(place, to, parcel);
                }
            }
            Output::Compute { job, work } => {
                host.start_job(job, work)?;
                let (us, life) = (host.job_us(&host.job.as_ref().expect("started just now").1), host.life);
                self.events.add(self.now.after(us), Event::JobDone { host: place, life, job });
            }
            Output::Cancel(job) => {
                if let Some((id, work)) = host.job.take_if(|(running, _)| *running == job) {
                    host.cancelled.insert(id, work);
                }
            }
            Output::Fetch { hash, bytes, providers } => self.fetch(place, hash, bytes, providers),
            Output::Forget { hashes } => {
                for hash in hashes {
                    host.disk.blobs.remove(&hash);
                }
            }
            Output::Persist(record) => {
                if let (0, Record::Block(block)) = (place, &record) {
                    Checks::ordered(block, |payload| host.disk.blobs.contains_key(payload))?;
                }
                host.disk.persist(record);
            }
            Output::Move { stage } => {
                self.trace.add(self.now, place, "move", [u64::from(stage), 0]);
                self.counts.moves += 1;
                self.hosts[place].move_to(stage);
                self.stop(place);
                self.events.add(self.now, Event::Start { host: place });
            }
            Output::Event(_) => {}
            Output::Fault(fault) => {
                let (by, honest) = (host.identity.id(), host.is_honest());
                let accused_honest = self.places.get(&fault.peer).is_some_and(|place| *place < self.config.peers);
                if honest {
                    let liars = !self.config.adversaries.is_empty();
                    Checks::fault(by, accused_honest, liars, &fault)?;
                    *self.faults.entry((fault.peer, kind_name(&fault.kind))).or_insert(0) += 1;
                }
            }
            Output::Halt(reason) => {
                if host.is_honest() {
                    return Err(Violation::Halted { peer: host.identity.id(), reason });
                }
            }
        }
        Ok(())
    }

    /// What a host sends: the message, unless it is an adversary's.
    fn parcels(&mut self, place: usize, message: Message) -> Vec<Parcel> {
        let host = &mut self.hosts[place];
        match (host.adversary, &host.peer) {
            (Some(adversary), Some(peer)) => {
                let liar = Liar { identity: &host.identity, ledger: peer.ledger() };
                adversary.twist(&liar, message, &mut host.memory, &mut self.draw)
            }
            _ => vec![Parcel::Message(Box::new(message))],
        }
    }

    fn dial(&mut self, place: usize, peer: PeerId) {
        let Some(to) = self.places.get(&peer).copied() else { return };
        if to == place || self.network.is_up(place, to) {
            return;
        }
        let life = self.hosts[place].life;
        let there = self.hosts[to].is_awake(self.now) && self.network.reachable(place, to);
        let us = if there { 3 * self.network.latency_us(place, to) } else { DIAL_US_MAX };
        self.events.add(self.now.after(us), Event::Dialled { from: place, to, life });
    }

    pub(super) fn dialled(&mut self, from: usize, to: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[from].life != life || self.network.is_up(from, to) {
            return Ok(());
        }
        let ids = [self.hosts[from].identity.id(), self.hosts[to].identity.id()];
        if !self.hosts[to].is_awake(self.now) || !self.network.reachable(from, to) {
            return self.handle(from, Input::Disconnected(ids[1]));
        }
        self.network.connect(from, to, self.now);
        self.handle(to, Input::Connected(ids[0]))?;
        self.handle(from, Input::Connected(ids[1]))
    }

    pub(super) fn broken(&mut self, host: usize, other: usize, life: u32, epoch: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life || self.network.epoch(host, other) != epoch {
            return Ok(());
        }
        let other = self.hosts[other].identity.id();
        self.handle(host, Input::Disconnected(other))
    }

    fn send(&mut self, from: usize, to: PeerId, parcel: Parcel) {
        let Some(to) = self.places.get(&to).copied() else { return };
        if !self.network.is_up(from, to) {
            return;
        }
        let bytes = FRAME_BYTES + self.bytes(&parcel);
        self.counts.messages += 1;
        self.counts.message_bytes += bytes;
        let faulty = self.healed.is_none();
        let loss = if faulty { self.config.faults.loss } else { 0 };
        let at = self.network.arrival((from, to), bytes, loss, self.now, &mut self.draw);
        let epoch = self.network.epoch(from, to);
        self.events.add(at, Event::Deliver { from, to, epoch, bytes, passed: false, parcel });
        if faulty && self.draw.chance(self.config.faults.breaks) {
            self.break_link(from, to);
        }
    }

    /// The size of a parcel on the network: outputs and gradients of stages count as what they stand for.
    fn bytes(&self, parcel: &Parcel) -> u64 {
        let message = match parcel {
            Parcel::Message(message) => message,
            Parcel::Bytes(bytes) => return bytes.len() as u64,
        };
        let stands_for = match &**message {
            Message::StageCall(call) => call.input.len() as u64,
            Message::StageReply(reply) => reply.gradient.len() as u64,
            _ => 0,
        };
        let written = match &**message {
            // Many get the same block.
            Message::Block(block) => 1 + length(&block.header) + block.transactions.encoded_len(),
            Message::PassedBlock { block, .. } => 5 + length(&block.header) + block.transactions.encoded_len(),
            other => length(other),
        };
        written + stands_for * (self.config.stage_scale() - 1)
    }

    pub(super) fn deliver(&mut self, event: Event) -> Result<(), Violation> {
        let Event::Deliver { from, to, epoch, bytes, passed, parcel } = event else { return Ok(()) };
        if !self.network.is_up(from, to) || self.network.epoch(from, to) != epoch {
            return Ok(());
        }
        if !passed {
            let at = self.network.download(from, to, bytes, self.now);
            if at > self.now || !self.hosts[to].is_awake(self.now) {
                self.events.add(at, Event::Deliver { from, to, epoch, bytes, passed: true, parcel });
                return Ok(());
            }
        }
        let from = self.hosts[from].identity.id();
        let input = match parcel {
            Parcel::Message(message) => Input::Received { from, message: *message },
            Parcel::Bytes(bytes) => match decode(&bytes) {
                Ok(message) => Input::Received { from, message },
                Err(error) => Input::Undecodable { from, error: error.to_string() },
            },
        };
        self.handle(to, input)
    }

    pub(super) fn job_done(&mut self, place: usize, life: u32, job: JobId) -> Result<(), Violation> {
        let host = &mut self.hosts[place];
        if host.life != life {
            return Ok(());
        }
        if let Some(work) = host.cancelled.remove(&job) {
            return self.stale_result(place, job, &work);
        }
        let Some((_, work)) = host.job.take_if(|(running, _)| *running == job) else { return Ok(()) };
        let fails = self.healed.is_none() && self.draw.chance(self.config.faults.job_failures);
        let result = if fails {
            JobResult::Failed { reason: "the machine is out of memory for a moment".to_owned(), fatal: false }
        } else {
            self.counts.snapshots += u64::from(matches!(&work, Job::LoadState { round, .. } if *round > 0));
            let (checks, peer) = (&self.checks, host.identity.id());
            let sent = |pending: &Pending| checks.is_committed(peer, pending.round, pending.payload);
            host.do_job(&work, self.config.payload_bytes, sent)?
        };
        let crashes = self.healed.is_none() && self.draw.chance(self.config.faults.crash_outputs);
        if crashes && self.hosts[place].is_honest() {
            self.crash(place, None);
            return Ok(());
        }
        self.handle(place, Input::Computed { job, result })
    }

    /// A cancelled job may still be answered, with a result that was never stored.
    fn stale_result(&mut self, place: usize, job: JobId, work: &Job) -> Result<(), Violation> {
        let Job::Work { round, .. } = work else { return Ok(()) };
        if self.draw.chance(500_000) {
            return Ok(());
        }
        self.counts.stale_results += 1;
        let (payload, residual_root) = (Hash::of(b"stale payload"), Hash::of(b"stale residual"));
        let result = JobResult::Worked { round: *round, units: Vec::new(), payload, payload_bytes: 1, residual_root };
        self.handle(place, Input::Computed { job, result })
    }

    fn fetch(&mut self, place: usize, hash: Hash, bytes: u64, providers: Vec<PeerId>) {
        let host = &mut self.hosts[place];
        let empty = || Transfer { bytes, providers: VecDeque::new(), busy: false };
        let transfer = host.transfers.entry(hash).or_insert_with(empty);
        for provider in providers {
            if !transfer.providers.contains(&provider) {
                transfer.providers.push_back(provider);
            }
        }
        if !transfer.busy {
            transfer.busy = true;
            self.events.add(self.now, Event::FetchNext { host: place, life: host.life, hash });
        }
    }

    pub(super) fn fetch_next(&mut self, place: usize, life: u32, hash: Hash) -> Result<(), Violation> {
        let host = &mut self.hosts[place];
        if host.life != life {
            return Ok(());
        }
        if let Some(bytes) = host.disk.blobs.get(&hash).copied() {
            host.transfers.remove(&hash);
            return self.handle(place, Input::Fetched { hash, bytes });
        }
        let Some(transfer) = host.transfers.get_mut(&hash) else { return Ok(()) };
        let Some(provider) = transfer.providers.pop_front() else {
            host.transfers.remove(&hash);
            return Ok(());
        };
        let bytes = transfer.bytes;
        let Some(from) = self.places.get(&provider).copied() else {
            self.events.add(self.now, Event::FetchNext { host: place, life, hash });
            return self.handle(place, Input::FetchFailed { hash, from: provider });
        };
        let there = self.hosts[from].is_awake(self.now) && self.network.reachable(place, from);
        let has = there && self.hosts[from].disk.blobs.contains_key(&hash);
        let latency_us = self.network.latency_us(place, from);
        let at = match (there, has) {
            (false, _) => self.now.after(DIAL_US_MAX),
            (true, false) => self.now.after(4 * latency_us),
            (true, true) => self.network.upload(from, bytes, self.now).after(4 * latency_us),
        };
        let from_life = self.hosts[from].life;
        let passed = !has;
        self.events.add(at, Event::FetchEnd { host: place, life, hash, from, from_life, bytes, passed });
        Ok(())
    }

    pub(super) fn fetch_end(&mut self, event: Event) -> Result<(), Violation> {
        let Event::FetchEnd { host: place, life, hash, from, from_life, bytes, passed } = event else { return Ok(()) };
        if self.hosts[place].life != life {
            return Ok(());
        }
        if !passed {
            let at = self.network.download(from, place, bytes, self.now);
            let passed = Event::FetchEnd { host: place, life, hash, from, from_life, bytes, passed: true };
            self.events.add(at, passed);
            return Ok(());
        }
        let provider = &self.hosts[from];
        let there = provider.life == from_life && provider.is_awake(self.now) && self.network.reachable(place, from);
        let got = provider.disk.blobs.get(&hash).copied().filter(|_| there);
        let from = provider.identity.id();
        if let Some(bytes) = got {
            self.counts.transfers += 1;
            self.hosts[place].disk.blobs.insert(hash, bytes);
            self.hosts[place].transfers.remove(&hash);
            return self.handle(place, Input::Fetched { hash, bytes });
        }
        self.counts.transfers_failed += 1;
        self.trace.add(self.now, place, "no blob", [detail(&hash), 0]);
        self.events.add(self.now, Event::FetchNext { host: place, life, hash });
        self.handle(place, Input::FetchFailed { hash, from })
    }
}

fn kind_name(kind: &swarm::FaultKind) -> &'static str {
    use swarm::FaultKind;
    use swarm::pipeline::StageFault;
    match kind {
        FaultKind::WrongVersion { .. } => "wrong version",
        FaultKind::WrongRun => "wrong run",
        FaultKind::BadSignature => "bad signature",
        FaultKind::BadBlock { .. } => "bad block",
        FaultKind::RejectedTransaction { .. } => "rejected transaction",
        FaultKind::UnavailablePayload => "unavailable payload",
        FaultKind::Divergent { .. } => "divergent",
        FaultKind::Undecodable { .. } => "undecodable",
        FaultKind::Equivocation => "equivocation",
        FaultKind::Stage(kind) => match kind {
            StageFault::WrongCall { .. } => "wrong call",
            StageFault::StaleState { .. } => "stale state",
            StageFault::BadBytes { .. } => "bad bytes",
            StageFault::Flood => "flood",
            StageFault::Unasked => "unasked",
            StageFault::BadPath => "bad path",
            StageFault::Mismatch { .. } => "mismatch",
        },
    }
}

/// Bytes of an encoded value.
fn length(value: &impl borsh::BorshSerialize) -> u64 {
    borsh::object_length(value).map_or(0, |bytes| bytes as u64)
}

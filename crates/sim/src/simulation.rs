//! The loop: takes events in the order of time, lets hosts handle them, and carries out what they want done.

mod build;
mod carry;
mod faults;

use std::collections::BTreeMap;
use std::fmt;

use swarm::pipeline::PipelineCounts;
use swarm::{Input, Peer, Time};
use wire::{Hash, PeerId};

use crate::checks::{Checks, RoundReport, Violation};
use crate::config::SimConfig;
use crate::events::{Event, Events};
use crate::host::{self, Host};
use crate::network::Network;
use crate::random::Random;
use crate::trace::{Trace, detail};

/// Rounds, in deadlines, that the run may take after the faults end, besides those that are left.
const SLACK_ROUNDS: u64 = 12;
/// Hosts that are described when a run gets stuck.
const HOSTS_DESCRIBED_MAX: usize = 16;
/// Events after which a simulation is given up.
const EVENTS_MAX: u64 = 200_000_000;

/// A whole network in virtual time.
#[derive(Debug)]
pub struct Simulation {
    config: SimConfig,
    hosts: Vec<Host>,
    places: BTreeMap<PeerId, usize>,
    /// Heights up to which each host was checked.
    checked: Vec<u64>,
    network: Network,
    events: Events,
    now: Time,
    draw: Random,
    checks: Checks,
    trace: Trace,
    /// Acts of the schedule that were done.
    acts_done: usize,
    /// When the faults ended, once they have.
    healed: Option<Time>,
    counts: Counts,
    faults: BTreeMap<(PeerId, &'static str), u64>,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Crashes of honest hosts.
    pub crashes: u64,
    /// Connections broken by loss or partition.
    pub breaks: u64,
    /// Partitions.
    pub partitions: u64,
    /// Messages sent.
    pub messages: u64,
    /// Bytes of messages sent.
    pub message_bytes: u64,
    /// Blobs transferred.
    pub transfers: u64,
    /// Transfers that failed.
    pub transfers_failed: u64,
    /// States loaded instead of replayed.
    pub snapshots: u64,
    /// Peers that moved to another stage.
    pub moves: u64,
    /// Results of cancelled jobs that were given nevertheless.
    pub stale_results: u64,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Hash over all events.
    pub trace: Hash,
    /// How many there were.
    pub events: u64,
    /// Virtual time at the end.
    pub end: Time,
    /// Blocks.
    pub blocks: u64,
    /// Root of the ledger.
    pub ledger_root: Hash,
    /// Root of the final state.
    pub state_root: Hash,
    /// Shares minted.
    pub supply: u64,
    /// Receipts paid.
    pub receipts: u64,
    /// Shares of each honest peer, the validator first.
    pub shares: Vec<u64>,
    /// Shares of each adversary, in the order of the configuration.
    pub adversary_shares: Vec<u64>,
    /// Kinds of faults that honest peers recorded against each adversary, with how often.
    pub adversary_faults: Vec<BTreeMap<&'static str, u64>>,
    /// The closed rounds, in their order.
    pub rounds: Vec<RoundReport>,
    /// What the honest peers' pipelines counted, over all their lives.
    pub pipeline: PipelineCounts,
    /// Other numbers.
    pub counts: Counts,
}

impl Report {
    /// Units, in all stages together, that no commitment claimed.
    pub fn units_lost(&self) -> u64 {
        self.rounds.iter().map(|round| round.lost).sum()
    }

    /// Units, in all stages together, that a second commitment claimed: paid once, but in the sum of gradients twice.
    pub fn units_twice(&self) -> u64 {
        self.rounds.iter().map(|round| round.twice).sum()
    }
}

/// A run that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The rule.
    pub violation: Violation,
    /// When, in virtual time.
    pub at: Time,
    /// After how many events.
    pub events: u64,
    /// The command that reproduces it.
    pub command: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} (event {}): {}\n\nhint: {}", self.at, self.events, self.violation, self.command)
    }
}

impl std::error::Error for Failure {}

impl Simulation {
    /// Builds the network of a configuration.
    pub fn new(config: SimConfig) -> Self {
        build::simulation(config)
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`Failure`] when a check fails, or when the run does not end in time after the faults ended.
    pub fn run(mut self) -> Result<Report, Box<Failure>> {
        match self.run_to_end() {
            Ok(()) => Ok(self.report()),
            Err(violation) => Err(Box::new(Failure {
                violation,
                at: self.now,
                events: self.trace.events(),
                command: self.config.command(),
            })),
        }
    }

    fn run_to_end(&mut self) -> Result<(), Violation> {
        while !self.is_done() {
            let late = self.healed.is_some_and(|healed| self.now > healed.after(self.rest_us()));
            let next = if late || self.trace.events() > EVENTS_MAX { None } else { self.events.next() };
            let Some((at, event)) = next else {
                return Err(Violation::Stuck { state: self.describe() });
            };
            self.now = at;
            self.step(event)?;
            if self.healed.is_none() && self.faults_end() {
                self.heal()?;
            }
        }
        self.check_residuals()
    }

    /// Time that the rest of the run may take after the faults end, in microseconds.
    fn rest_us(&self) -> u64 {
        let rounds = self.config.rounds.saturating_add(SLACK_ROUNDS);
        let longest_us = self.config.schedule.iter().map(|one| one.act.us()).max().unwrap_or(0);
        rounds.saturating_mul(self.config.round_us_max).saturating_add(120_000_000 + longest_us)
    }

    /// Whether three quarters of the rounds and the whole schedule are over, or all rounds, or more time than all of it should take.
    fn faults_end(&self) -> bool {
        let closed = self.checks.rounds_closed();
        let rounds = closed.saturating_mul(4) >= self.config.rounds.saturating_mul(3);
        let acts = self.acts_done >= self.config.schedule.len();
        let schedule_us = self.config.schedule.iter().map(|one| one.at_us + one.act.us()).max().unwrap_or(0);
        let time_us = self.config.rounds.saturating_mul(self.config.round_us_max).saturating_mul(2);
        rounds && acts
            || closed >= self.config.rounds
            || self.now >= Time::from_micros(time_us.saturating_add(schedule_us))
    }

    fn is_done(&self) -> bool {
        self.healed.is_some()
            && self.hosts.iter().filter(|host| host.is_honest()).all(|host| {
                host.peer
                    .as_ref()
                    .is_some_and(|peer| peer.is_finished() && peer.ledger().height() == self.checks.height())
            })
    }

    fn step(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(host) = event.host()
            && self.hosts[host].asleep_until > self.now
        {
            self.postpone(host, event);
            return Ok(());
        }
        match event {
            Event::Start { host } => self.start(host),
            Event::Tick { host, life } => self.tick(host, life),
            Event::Dialled { from, to, life } => self.dialled(from, to, life),
            Event::Broken { host, other, life, epoch } => self.broken(host, other, life, epoch),
            event @ Event::Deliver { .. } => self.deliver(event),
            Event::JobDone { host, life, job } => self.job_done(host, life, job),
            Event::FetchNext { host, life, hash } => self.fetch_next(host, life, hash),
            event @ Event::FetchEnd { .. } => self.fetch_end(event),
            Event::Crash { host, life } => {
                if self.hosts[host].life == life && self.healed.is_none() {
                    self.crash(host, None);
                }
                Ok(())
            }
            Event::Silent { host, life } => {
                self.silence(host, life);
                Ok(())
            }
            Event::Act(place) => self.act(place),
            Event::Split => self.split(),
            Event::Rejoin => {
                self.network.set_island(None);
                Ok(())
            }
        }
    }

    /// Lets a host handle an input, carries out what it wants, and checks it.
    fn handle(&mut self, place: usize, input: Input) -> Result<(), Violation> {
        let (kind, details) = describe(&input);
        self.trace.add(self.now, place, kind, details);
        let host = &mut self.hosts[place];
        let clock = host.clock(self.now);
        let Some(peer) = &mut host.peer else { return Ok(()) };
        let mut outputs = Vec::new();
        peer.handle(clock, input, &mut outputs);
        let faulty = self.healed.is_none() && host.is_honest() && !outputs.is_empty();
        let crash_at =
            (faulty && self.draw.chance(self.config.faults.crash_outputs)).then(|| self.draw.index(outputs.len()));
        for (index, output) in outputs.into_iter().enumerate() {
            if crash_at == Some(index) {
                self.crash(place, None);
                return Ok(());
            }
            self.carry_out(place, output)?;
        }
        self.plan_tick(place);
        let host = &self.hosts[place];
        match &host.peer {
            Some(peer) if host.is_honest() => {
                Checks::bounds(peer, &host.config.pipeline)?;
                self.checks.peer(peer, host.stage(), self.now, &mut self.checked[place])
            }
            _ => Ok(()),
        }
    }

    fn plan_tick(&mut self, place: usize) {
        let host = &mut self.hosts[place];
        let Some((at, _)) = host.peer.as_ref().and_then(Peer::poll_timeout) else { return };
        let at = host.true_time(at).max(self.now.after(1));
        if host.tick_at.is_none_or(|planned| at < planned || planned <= self.now) {
            host.tick_at = Some(at);
            self.events.add(at, Event::Tick { host: place, life: host.life });
        }
    }

    fn start(&mut self, place: usize) -> Result<(), Violation> {
        let host = &mut self.hosts[place];
        if host.peer.is_some() {
            return Ok(());
        }
        host.skew_us = self.draw.below(self.config.skew_us_max + 1);
        host.boot(self.now);
        let (life, mean) = (host.life, self.config.faults.crash_us_mean);
        if mean > 0 && self.healed.is_none() && host.is_honest() {
            let at = self.now.after(self.draw.between(mean / 10, mean * 2));
            self.events.add(at, Event::Crash { host: place, life });
        }
        self.handle(place, Input::Start)
    }

    fn tick(&mut self, place: usize, life: u32) -> Result<(), Violation> {
        let host = &mut self.hosts[place];
        if host.life != life || host.tick_at != Some(self.now) {
            return Ok(());
        }
        host.tick_at = None;
        let reason = host.peer.as_ref().and_then(Peer::poll_timeout).map(|(_, reason)| reason);
        host.count_tick(self.now, reason)?;
        self.handle(place, Input::Tick)
    }

    fn check_residuals(&self) -> Result<(), Violation> {
        for host in self.hosts.iter().filter(|host| host.is_honest()) {
            let tokens = host.disk.residual.lost();
            if tokens != 0 {
                return Err(Violation::ResidualLost { peer: host.identity.id(), tokens });
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let of = |host: &Host| match &host.peer {
            None => format!("{:?} is down", host.identity.id()),
            Some(peer) => {
                let (activity, height) = (peer.activity(), peer.ledger().height());
                let (model, job) = (peer.model().map(|model| model.round), &host.job);
                let timeout = peer.poll_timeout();
                let claimed = peer.ledger().round().map(|open| {
                    let claimed =
                        (0..self.config.stages).map(|stage| u16::try_from(stage).map(|stage| open.claimed_len(stage)));
                    (open.round, open.units, claimed.flatten().collect::<Vec<u32>>())
                });
                let pipeline = peer.pipeline().map(|pipeline| {
                    (
                        pipeline.round(),
                        pipeline.done().len(),
                        pipeline.queued(),
                        pipeline.under_way(),
                        pipeline.is_idle(),
                    )
                });
                format!(
                    "{:?} of stage {} has {height} blocks, model {model:?}, is {activity:?}, job {job:?}, timeout {timeout:?}, round, \
                     units and claims {claimed:?}, pipeline's round, done, queued, under way, idle {pipeline:?}",
                    peer.id(),
                    host.stage(),
                )
            }
        };
        let hosts: Vec<String> = self.hosts.iter().take(HOSTS_DESCRIBED_MAX).map(of).collect();
        let more = self.hosts.len() - hosts.len();
        format!("{} rounds closed; {}\nand {more} more", self.checks.rounds_closed(), hosts.join("\n"))
    }

    fn report(&self) -> Report {
        let validator = self.hosts[0].peer.as_ref().expect("the run is done: all honest hosts are up");
        let ledger = validator.ledger();
        let shares = |host: &Host| ledger.account(&host.identity.id()).map_or(0, |account| account.shares);
        let faults = |host: &Host| {
            let mine = self.faults.iter().filter(|((peer, _), _)| *peer == host.identity.id());
            mine.map(|((_, kind), times)| (*kind, *times)).collect()
        };
        let (honest, liars) = self.hosts.split_at(self.config.peers);
        Report {
            trace: self.trace.hash(),
            events: self.trace.events(),
            end: self.now,
            blocks: ledger.height(),
            ledger_root: ledger.root(),
            state_root: validator.model().map_or_else(Hash::default, |model| model.state_root),
            supply: ledger.supply(),
            receipts: ledger.totals().receipts,
            rounds: self.checks.rounds().to_vec(),
            pipeline: honest.iter().map(Host::pipeline_counts).fold(PipelineCounts::default(), host::add),
            shares: honest.iter().map(shares).collect(),
            adversary_shares: liars.iter().map(shares).collect(),
            adversary_faults: liars.iter().map(faults).collect(),
            counts: self.counts,
        }
    }
}

/// An input in the trace.
fn describe(input: &Input) -> (&'static str, [u64; 2]) {
    use wire::Message;
    let peer = |peer: &PeerId| detail(&Hash(peer.0));
    match input {
        Input::Start => ("start", [0, 0]),
        Input::Pause => ("pause", [0, 0]),
        Input::Resume => ("resume", [0, 0]),
        Input::Connected(other) => ("connected", [peer(other), 0]),
        Input::Disconnected(other) => ("disconnected", [peer(other), 0]),
        Input::Received { from, message } => match message {
            Message::Hello { height, .. } => ("hello", [peer(from), *height]),
            Message::Submit(transaction) => ("submit", [peer(from), u64::from(transaction.signature.0[0])]),
            Message::Block(block) => ("block", [peer(from), detail(&block.header.body.ledger_root)]),
            Message::PassedBlock { block, reach } => {
                ("passed block", [detail(&block.header.body.ledger_root), u64::from(*reach)])
            }
            Message::BlocksWanted { from_height } => ("blocks wanted", [peer(from), *from_height]),
            Message::Blocks(blocks) => ("blocks", [peer(from), blocks.len() as u64]),
            Message::Charter(_) => ("charter", [peer(from), 0]),
            Message::StageCall(call) => ("stage call", [peer(from), u64::from(call.index)]),
            Message::StageReply(reply) => ("stage reply", [peer(from), u64::from(reply.index)]),
            Message::StageRefusal(refusal) => ("stage refusal", [peer(from), u64::from(refusal.index)]),
            Message::Addresses(all) => ("addresses", [peer(from), all.len() as u64]),
            Message::PayloadMade(made) => ("payload made", [peer(from), detail(&made.payload)]),
            Message::StageSealed(sealed) => ("stage sealed", [peer(from), sealed.units.len() as u64]),
        },
        Input::Carried { stage, took_us } => ("carried", [u64::from(*stage), *took_us]),
        Input::Undecodable { from, error } => ("undecodable", [peer(from), error.len() as u64]),
        Input::Computed { job, .. } => ("computed", [job.0, 0]),
        Input::Fetched { hash, bytes } => ("fetched", [detail(hash), *bytes]),
        Input::FetchFailed { hash, from } => ("fetch failed", [detail(hash), peer(from)]),
        Input::Stop => ("stop", [0, 0]),
        Input::Tick => ("tick", [0, 0]),
    }
}

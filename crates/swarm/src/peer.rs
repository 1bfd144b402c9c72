//! The peer: one state machine made of the protocol's parts.
//!
//! | part | file |
//! |---|---|
//! | connections | `links.rs` |
//! | blocks, and catching up on them | `blocks.rs`, `spreading.rs` |
//! | joining, attesting, training, committing, applying | `rounds.rs` |
//! | replay or snapshot, and which blobs that needs | `catchup.rs`, `fetches.rs` |
//! | units that pass through the stages of a model | `stages.rs`, `pipeline.rs` |
//! | own transactions on their way into a block | `outbox.rs` |
//! | the validator's duty | `ordering.rs` |
//! | what may be held where the weights are split | `split.rs` |
//! | payloads that are fetched before their commitments are in a block | `announced.rs` |
//!
//! A peer may be dropped at any moment and made again from what it stored ([`Restored`]): nothing else is lost that it does
//! not find again by itself.

use std::cell::Cell;

use ledger::Ledger;
use wire::{Action, Block, Hash, Identity, Message, PeerId, RunId, VerifiedBlock};

use crate::announced::Announced;
use crate::backoff::Pace;
use crate::blocks::Chain;
use crate::fetches::Fetches;
use crate::limits::ERROR_TEXT_BYTES_MAX;
use crate::links::Links;
use crate::ordering::Ordering;
use crate::outbox::Outbox;
use crate::pipeline::{Pipeline, PipelineInput};
use crate::rounds::Jobs;
use crate::split::Vouching;
use crate::stages::Stages;
use crate::{
    Event, Fault, FaultKind, HaltReason, Input, Job, ModelPoint, Output, PeerConfig, Restored, Time, TimeoutReason,
};

/// Blocks that one input can make a validator propose: the interval between blocks allows one.
const PROPOSALS_PER_INPUT_MAX: usize = 4;

/// What a peer is doing, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It waits for members to join before round 0 opens.
    WaitingForMembers {
        /// Members so far.
        joined: u32,
        /// Members needed.
        needed: u32,
    },
    /// It fetches or replays rounds that it missed.
    CatchingUp {
        /// The round of the own model, when there is one.
        round: Option<u64>,
        /// The open round.
        target: u64,
    },
    /// It trains its units.
    Training {
        /// The round.
        round: u64,
        /// How many units.
        units: u32,
    },
    /// Its work for the round is done, or it has none; it waits for the round to close.
    WaitingForRound {
        /// The round.
        round: u64,
    },
    /// It fetches the payloads of the round that closed last, and applies them.
    Applying {
        /// The round.
        round: u64,
    },
    /// It was told to pause, and takes no part meanwhile.
    Paused,
    /// The run is complete.
    Finished,
    /// It stopped taking part: [`Output::Halt`] said why.
    Halted,
}

/// A peer of a run.
#[derive(Debug)]
pub struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) identity: Identity,
    pub(crate) id: PeerId,
    pub(crate) run: RunId,
    pub(crate) pace: Pace,
    pub(crate) ledger: Ledger,
    pub(crate) chain: Chain,
    pub(crate) links: Links,
    pub(crate) fetches: Fetches,
    pub(crate) outbox: Outbox,
    pub(crate) jobs: Jobs,
    /// The part in the pipeline, in a run of several stages.
    pub(crate) stages: Option<Stages>,
    pub(crate) model: Option<ModelPoint>,
    /// The state that was chosen instead of replaying, until it is here.
    pub(crate) load: Option<ModelPoint>,
    /// The state that nobody gave when it was asked for.
    pub(crate) unavailable: Option<Hash>,
    /// Whether a committee's word on the open round, or its state from somebody, is waited for.
    pub(crate) waits: bool,
    /// Bytes of the payloads of the round that was asked about last.
    pub(crate) payload_bytes: Cell<Option<(u64, u64)>>,
    /// The ordering duty of the charter's first validator.
    pub(crate) ordering: Option<Ordering>,
    /// Payloads of the own stage that are to have a second holder, where the weights are split.
    pub(crate) vouching: Vouching,
    /// Payloads that members of the open round say they made.
    pub(crate) announced: Announced,
    pub(crate) member: bool,
    pub(crate) needs_changed: bool,
    pub(crate) stopping: bool,
    pub(crate) paused: bool,
    /// Whether the shell was told that this peer is a member of another stage.
    pub(crate) moves: bool,
    pub(crate) halted: Option<HaltReason>,
    pub(crate) told_finished: bool,
    pub(crate) last_failure: Option<String>,
    told_behind: bool,
    damaged: Option<HaltReason>,
    started: bool,
    pub(crate) clock: Time,
}

impl Peer {
    /// Makes a peer, replaying what it stored. It does nothing until [`Input::Start`].
    ///
    /// A stored block that does not follow from those before it, and all after it, are got from others again; a validator,
    /// which must never make a second block for a height, halts instead.
    pub fn new(config: PeerConfig, identity: Identity, restored: Restored, now: Time) -> Self {
        let charter = &config.charter.body;
        let (id, run) = (identity.id(), charter.run_id());
        let pace = Pace::new(config.retry_us, config.retry_us_max, id);
        let links = Links::new(id, &charter.validators, &config.peers, pace, now);
        let orders = charter.validators.first() == Some(&id);
        let several = charter.stages.len() > 1 && config.trains;
        let stages = several.then(|| Stages::new(Pipeline::new(id, config.pipeline.clone(), now)));
        let ledger = Ledger::new(&config.charter);
        let mut peer = Self {
            identity,
            id,
            run,
            pace,
            ledger,
            chain: Chain::default(),
            links,
            fetches: Fetches::new(id, pace),
            outbox: Outbox::default(),
            jobs: Jobs::default(),
            stages,
            model: restored.model,
            load: None,
            unavailable: None,
            waits: false,
            payload_bytes: Cell::new(None),
            ordering: orders.then(Ordering::default),
            vouching: Vouching::default(),
            announced: Announced::default(),
            member: false,
            needs_changed: true,
            stopping: false,
            paused: config.paused,
            moves: false,
            halted: None,
            told_finished: false,
            last_failure: None,
            told_behind: false,
            damaged: None,
            started: false,
            clock: now,
            config,
        };
        peer.replay(restored.blocks);
        peer.restore_outbox(restored.outbox);
        let resumed = peer.round_of_earlier_life();
        if let Some(stages) = &mut peer.stages {
            stages.resume(resumed);
        }
        peer
    }

    /// Tells the peer what happened at `now`, and appends what it wants done. Nothing happens before [`Input::Start`].
    /// Time does not run backwards: a `now` before the last one counts as the last one.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        let now = now.max(self.clock);
        self.clock = now;
        match input {
            Input::Start if !self.started => self.start(out),
            Input::Pause if !self.started => return self.set_paused(true),
            Input::Resume if !self.started => return self.set_paused(false),
            _ if !self.started => return,
            Input::Connected(peer) => self.on_connected(peer, now, out),
            Input::Disconnected(peer) => {
                self.links.disconnected(peer, now);
                self.chain.disconnected(peer);
                self.wake_ordering();
                self.feed_pipeline(PipelineInput::Down(peer), now, out);
            }
            Input::Received { from, message } => self.on_message(from, message, now, out),
            Input::Carried { stage, took_us } => {
                self.feed_pipeline(PipelineInput::Carried { stage, took_us }, now, out);
            }
            Input::Undecodable { from, error } => self.on_undecodable(from, &error, now, out),
            Input::Computed { job, result } => self.on_computed(job, result, now, out),
            Input::Fetched { hash, bytes } => {
                self.fetches.hold(hash);
                self.check_payload_size(hash, bytes, now, out);
                self.tell_holding(hash, Some(bytes), now, out);
            }
            Input::FetchFailed { hash, from } => self.on_fetch_failed(hash, from, now, out),
            Input::Pause => self.set_paused(true),
            Input::Resume => self.set_paused(false),
            Input::Stop => self.stop(now, out),
            Input::Start | Input::Tick => {}
        }
        self.progress(now, out);
    }

    /// When the peer wants [`Input::Tick`] next, and why: the earliest of all its deadlines.
    pub fn poll_timeout(&self) -> Option<(Time, TimeoutReason)> {
        if !self.started {
            return None;
        }
        let ordering = self.ordering.as_ref();
        let deadline = || {
            let (at, opened_us) = (self.ledger.closes_at_us()?, self.ledger.round()?.opened_us);
            Some(ordering?.next_deadline(Time::from_micros(at), at.saturating_sub(opened_us)))
        };
        let timeouts = [
            (self.links.next_dial(), TimeoutReason::Dial),
            (self.chain.next_announce(), TimeoutReason::Announce),
            (self.chain.next_ask(), TimeoutReason::AskBlocks),
            (self.outbox.next_due(), TimeoutReason::Submit),
            (self.fetches.next_due(), TimeoutReason::Fetch),
            (self.jobs.next_retry(), TimeoutReason::Job),
            (ordering.and_then(Ordering::next_proposal), TimeoutReason::Propose),
            (deadline(), TimeoutReason::RoundDeadline),
            (self.stages.as_ref().and_then(Stages::next_due), TimeoutReason::Stage),
            (self.seal_deadline(), TimeoutReason::Stage),
            (self.next_fold(), TimeoutReason::Job),
        ];
        timeouts.into_iter().filter_map(|(at, reason)| Some((at?, reason))).min()
    }

    /// The peer's name.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The ledger as far as this peer has blocks.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All blocks, by height.
    pub fn blocks(&self) -> &[Block] {
        &self.chain.blocks
    }

    /// The stored model, as the shell reported it.
    pub fn model(&self) -> Option<ModelPoint> {
        self.model
    }

    /// The peers whose connections are up, ascending.
    pub fn connected(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.links.up()
    }

    /// The own part in the pipeline of stages, in a run of several, for people and checkers.
    pub fn pipeline(&self) -> Option<&Pipeline> {
        self.stages.as_ref().map(|stages| &stages.pipeline)
    }

    /// The round in whose pipeline this peer takes part, in a run of several stages: its sums are in memory only.
    pub fn counts(&self) -> Option<u64> {
        self.pipeline().and_then(Pipeline::round)
    }

    /// Why the last job failed that was to be tried again, for people.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// Whether the run is complete and its final state is here. The peer goes on serving.
    pub fn is_finished(&self) -> bool {
        self.ledger.finished() && self.model.is_some_and(|model| model.round == self.ledger.charter().rounds)
    }

    /// What the peer is doing, for people.
    pub fn activity(&self) -> Activity {
        let target = self.target_round();
        let round = self.model.map(|model| model.round);
        match (self.jobs.running(), self.ledger.round()) {
            _ if self.halted.is_some() => Activity::Halted,
            _ if self.is_finished() => Activity::Finished,
            _ if self.paused => Activity::Paused,
            (Some(Job::Work { round, units, .. }), _) => {
                Activity::Training { round: *round, units: u32::try_from(units.len()).unwrap_or(u32::MAX) }
            }
            (_, Some(open)) if self.is_in_pipeline(open.round) => {
                Activity::Training { round: open.round, units: open.units }
            }
            (_, None) if round.is_some() => self.waiting_for_members(),
            _ if round.is_none_or(|round| round + 1 < target) => Activity::CatchingUp { round, target },
            _ if round.is_some_and(|round| round < target) => Activity::Applying { round: target - 1 },
            _ => Activity::WaitingForRound { round: target },
        }
    }

    fn waiting_for_members(&self) -> Activity {
        let joining = |account: &&ledger::Account| account.standing == ledger::Standing::Joining;
        let joined = self.ledger.accounts().iter().filter(joining).count();
        let joined = u32::try_from(joined).unwrap_or(u32::MAX);
        Activity::WaitingForMembers { joined, needed: self.ledger.charter().start_members }
    }

    /// Whether units of a round are passed through the own stage.
    fn is_in_pipeline(&self, round: u64) -> bool {
        self.stages.as_ref().is_some_and(|stages| stages.pipeline.round() == Some(round) && !stages.is_sealed(round))
    }

    fn replay(&mut self, blocks: Vec<Block>) {
        for (height, block) in (0..).zip(blocks) {
            let block = VerifiedBlock::trusted(block);
            if let Err(error) = self.ledger.apply_verified(&block) {
                self.damaged = Some(HaltReason::DamagedStore { height, reason: error.to_string() });
                break;
            }
            self.chain.blocks.push(block.into_block());
        }
        self.member = self.ledger.round().is_some_and(|open| open.is_member(&self.id));
    }

    fn restore_outbox(&mut self, outbox: Vec<wire::Signed<wire::Transaction>>) {
        for transaction in outbox {
            if transaction.signer == self.id && transaction.body.run == self.run {
                self.outbox.push(transaction);
                self.outbox.settle(&self.id, &self.ledger);
            }
        }
    }

    fn start(&mut self, out: &mut Vec<Output>) {
        self.started = true;
        if let Some(reason) = self.damaged.take().filter(|_| self.ordering.is_some()) {
            self.ordering = None;
            self.halt(reason, out);
        }
        for transaction in self.outbox.waiting() {
            if let Action::Commit(commitment) = &transaction.body.action {
                self.fetches.hold(commitment.payload);
            }
        }
        self.submit_all(self.clock, out);
        self.wake_ordering();
    }

    /// Notes that something changed that may make a block, where this peer orders them.
    fn wake_ordering(&mut self) {
        if let Some(ordering) = &mut self.ordering {
            ordering.wake();
        }
    }

    fn set_paused(&mut self, paused: bool) {
        let counts = self.counts();
        assert!(!paused || counts.is_none(), "a peer that counts in round {counts:?} is made anew to pause");
        self.needs_changed |= self.paused != paused;
        self.paused = paused;
    }

    fn stop(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.cancel(out);
        let standing = self.ledger.account(&self.id).map(|account| account.standing);
        if matches!(standing, Some(ledger::Standing::Joining | ledger::Standing::Member)) && !self.ledger.finished() {
            self.act(Action::Leave { sequence: self.ledger.next_sequence(&self.id) }, now, out);
        }
    }

    fn on_connected(&mut self, peer: PeerId, now: Time, out: &mut Vec<Output>) {
        if peer == self.id || !self.links.connected(peer, now) {
            out.push(Output::Disconnect(peer));
            return;
        }
        self.greet(peer, out);
        self.feed_pipeline(PipelineInput::Up(peer), now, out);
        if self.ordering.is_none() && self.ledger.is_validator(&peer) {
            self.submit_all(now, out);
        }
    }

    fn on_message(&mut self, from: PeerId, message: Message, now: Time, out: &mut Vec<Output>) {
        if !self.links.is_up(from) {
            return;
        }
        if let Some(stages) = &mut self.stages {
            stages.note_sign(from);
        }
        match message {
            Message::Hello { version, run, height, open } => {
                self.on_hello(from, (version, run, height, open), now, out);
            }
            Message::Submit(transaction) => self.collect(from, transaction, now, out),
            Message::Block(block) => self.on_blocks(from, vec![(block, 0)], now, out),
            Message::PassedBlock { block, reach } => self.on_blocks(from, vec![(block, reach)], now, out),
            Message::BlocksWanted { from_height } => self.on_blocks_wanted(from, from_height, out),
            Message::Blocks(blocks) => self.on_answer(from, blocks, now, out),
            Message::Charter(charter) if charter.body.run_id() == self.run => {}
            Message::Charter(_) => self.fault(from, FaultKind::WrongRun, None, now, out),
            Message::StageCall(call) => self.feed_pipeline(PipelineInput::Call { from, call }, now, out),
            Message::StageReply(reply) => self.feed_pipeline(PipelineInput::Reply { from, reply }, now, out),
            Message::StageRefusal(refusal) => self.feed_pipeline(PipelineInput::Refused { from, refusal }, now, out),
            Message::StageSealed(sealed) => self.note_sealed(from, sealed),
            Message::PayloadMade(made) => self.note_made(from, made, now),
            // The shell knows addresses.
            Message::Addresses(_) => {}
        }
    }

    fn on_undecodable(&mut self, from: PeerId, error: &str, now: Time, out: &mut Vec<Output>) {
        let mut end = error.len().min(ERROR_TEXT_BYTES_MAX);
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        self.fault(from, FaultKind::Undecodable { error: error[..end].to_owned() }, None, now, out);
    }

    fn on_fetch_failed(&mut self, hash: Hash, from: PeerId, now: Time, out: &mut Vec<Output>) {
        let times = self.fetches.provider_failed(hash, from, now);
        self.note_unavailable_payload(hash, times, now, out);
        self.note_unavailable_state(hash, times);
    }

    /// Records a fault; the connection of a peer with too many is closed.
    pub(crate) fn fault(
        &mut self,
        peer: PeerId,
        kind: FaultKind,
        evidence: Option<Hash>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let round = self.target_round();
        out.push(Output::Fault(Fault { peer, kind, round, evidence }));
        if self.links.is_up(peer) && self.links.note_fault(peer, now) {
            self.drop_link(peer, now, out);
        }
    }

    /// Closes a connection that was barred.
    pub(crate) fn drop_link(&mut self, peer: PeerId, now: Time, out: &mut Vec<Output>) {
        out.push(Output::Disconnect(peer));
        self.links.disconnected(peer, now);
        self.chain.disconnected(peer);
        self.feed_pipeline(PipelineInput::Down(peer), now, out);
    }

    /// Does all that is due.
    fn progress(&mut self, now: Time, out: &mut Vec<Output>) {
        self.links.dial_due(now, out);
        self.ask_blocks(now, out);
        self.submit_due(now, out);
        for _ in 0..PROPOSALS_PER_INPUT_MAX {
            self.advance(now, out);
            if !self.order(now, out) {
                break;
            }
        }
        if self.fetches.next_due().is_some_and(|at| at <= now) {
            let others: Vec<PeerId> = self.links.up().filter(|peer| self.may_give(peer)).collect();
            self.fetches.ask_due(&others, now, out);
        }
        self.announce(now, out);
        self.tell_behind(out);
    }

    fn tell_behind(&mut self, out: &mut Vec<Output>) {
        let (target, from_round) = (self.target_round(), self.model.map(|model| model.round));
        let behind = from_round.is_none_or(|round| round + 1 < target) && target > 0;
        if behind && !self.told_behind {
            out.push(Output::Event(Event::CatchingUp { from_round, to_round: target }));
        }
        self.told_behind = behind;
    }
}

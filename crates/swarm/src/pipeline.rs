//! The pipeline of stages: how replicas of a model's parts work on the units of a round together.
//!
//! Purpose: every unit of the round passes forward and backward through one replica of every stage, whoever comes and goes,
//! and is added up once in each.
//!
//! Source: section 3 of the training design; SWARM parallelism (Ryabinin et al., 2023) for the routing.
//!
//! Message sequence: stage 0 starts its units. A replica runs forward, *calls* a replica of the next stage with its output,
//! waits for the gradient, runs backward and *replies* to its own caller; the last stage answers at once. Calls nest, so that
//! each replica deals with its two neighbours only:
//!
//! ```text
//! stage 0  forward ──StageCall──► stage 1  forward ──StageCall──► stage 2  turn
//! stage 0  backward ◄─StageReply─ stage 1  backward ◄─StageReply─────┘
//! ```
//!
//! | part | file |
//! |---|---|
//! | which replica is called | `routing.rs` |
//! | how many units are under way | `window.rs` |
//! | calls from the stage before | `calls.rs` |
//! | calls to the next stage, and looking after units there | `custody.rs` |
//! | the own trainer | `work.rs` |
//! | what the links to the neighbours carry | `gauge.rs` |
//! | stage 0: starting units, taking them over | `takeover.rs` |
//!
//! **Custody.** Whatever a stage computes is a pure function of state, unit and bytes, so a lost call is made to another
//! replica. A caller keeps its output until the unit is in blocks in all stages below: when the replica that answered is gone
//! before, its sum is lost and the unit is done anew, upstream of which nothing changes. A replica that is only disconnected
//! for a moment is asked whether it still knows the unit. One that starts again has lost its sums; it says so by not knowing.
//!
//! **No double counting.** A replica keeps its replies, and answers a repeated call from there. A call that may be a repeated
//! one says so (`again`), and names who served the unit in the stages after (`hint`): whoever takes it asks them, or all
//! replicas that it can reach, whether they know the unit, before it calls one anew. Units that nobody waits for are given up
//! unless they are added up. A unit that is in a block is worked on for a neighbour that lost it, but not counted.
//!
//! Deviations: the design's replicas of the next stage are told of a repeated call by the path only; `again` and calls
//! without bytes are ours, since the path dies with the caller that knew it.
//!
//! Safety: no unit is counted twice by one replica; two count the same only after a connection broke or a call timed out.
//! Bytes held, calls that wait and units under way are bounded. Liveness: a unit that is not done is in the queue of the
//! trainer, runs, or waits for an answer with a deadline, after which it is called elsewhere; so it is done while one
//! replica of every stage can be reached from one of the stage before.
//!
//! What it does not do: it does not check others' results beyond comparing them; it signs nothing and stores nothing. It
//! decides when nothing is counted any more only by being told ([`PipelineInput::Seal`]).

mod calls;
mod claims;
mod config;
mod custody;
mod fault;
mod gauge;
mod item;
mod open;
mod routing;
mod signals;
mod takeover;
mod task;
mod window;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, LinkWishes, Message, PeerId, RefusalReason, StageRefusal};

use self::item::Step;
use self::open::{Kept, Open};
use self::routing::Routes;
use self::window::Window;
use crate::Time;

pub use self::config::{
    CALLS_PER_UNIT_MAX, INPUTS_PER_UNIT_MAX, PipelineConfig, QUESTIONS_MAX, REFUSALS_PER_WINDOW_MAX, ROUTES_MAX,
    WATCHED_MAX,
};
pub use self::fault::StageFault;
pub use self::signals::{PipelineCounts, PipelineInput, PipelineOutput, RoundView};
pub use self::task::{StageResult, StageTask, StageTaskId, StageTaskKind, UnitDone};

/// A replica's part in the pipeline of its run.
#[derive(Debug)]
pub struct Pipeline {
    kept: Kept,
    open: Option<Open>,
    /// Whether a round was opened in this life.
    lived: bool,
    clock: Time,
}

impl Pipeline {
    /// A pipeline that knows no round and no connection yet.
    ///
    /// # Panics
    /// When the settings allow no work at all.
    pub fn new(own: PeerId, config: PipelineConfig, now: Time) -> Self {
        config.check();
        let window = Window::new(config.window_max);
        let kept = Kept {
            own,
            config,
            up: BTreeSet::new(),
            down: BTreeMap::new(),
            routes: Routes::default(),
            window,
            counts: PipelineCounts::default(),
            tasks: 0,
        };
        Self { kept, open: None, lived: false, clock: now }
    }

    /// Tells the pipeline what happened at `now`, and appends what it wants done. A `now` before the last one counts as
    /// the last one.
    ///
    /// # Panics
    /// When a round's view does not fit together: the own stage has no members, or they are not sorted.
    pub fn handle(&mut self, now: Time, input: PipelineInput, out: &mut Vec<PipelineOutput>) {
        let now = now.max(self.clock);
        self.clock = now;
        match input {
            PipelineInput::Round(view) => self.open_round(view, now, out),
            PipelineInput::RoundOver => self.close_round(out),
            PipelineInput::Up(peer) => self.on_up(peer, now, out),
            PipelineInput::Down(peer) => self.on_down(peer, now, out),
            other => self.on_round_input(other, now, out),
        }
        let Some(open) = &mut self.open else { return };
        open.take_over(&mut self.kept, now);
        open.look_below(&mut self.kept, now, out);
        open.start_task(&mut self.kept, now, out);
        open.tell_sealed(out);
    }

    /// When the pipeline wants [`PipelineInput::Tick`] next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let open = self.open.as_ref()?;
        let now = self.clock;
        [open.next_below(&self.kept, now), open.next_retry(now), open.next_takeover(&self.kept, now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// The open round.
    pub fn round(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.view.round)
    }

    /// The units counted in the open round so far, in the order in which they were added up.
    pub fn done(&self) -> &[UnitDone] {
        self.open.as_ref().map_or(&[], |open| &open.done)
    }

    /// Whether nothing is to be done here at present: no unit waits, runs, or has to be looked after below.
    pub fn is_idle(&self) -> bool {
        let busy = |item: &item::Item| item.step != Step::Done || !item.below.is_settled();
        self.open.as_ref().is_none_or(|open| !open.items.values().any(busy))
    }

    /// Peers that it should be connected with: replicas of the next stage, and members of its own, in stage 0 those whose units it may
    /// have to take over. At most [`ROUTES_MAX`] and [`WATCHED_MAX`]; of more, those that a hash of both ids draws.
    pub fn neighbours(&self) -> Vec<PeerId> {
        let Some(open) = &self.open else { return Vec::new() };
        let own = self.kept.own;
        let drawn = |mut peers: Vec<PeerId>, most: usize| {
            peers.sort_by_key(|peer| Hash::derive("cairn v1 stage neighbour", &[&own.0, &peer.0]));
            peers.truncate(most);
            peers
        };
        let mut peers = drawn(open.replicas().to_vec(), ROUTES_MAX);
        match open.view.stage {
            0 => peers.extend(open.watched(own)),
            stage => {
                let mates = open.members(usize::from(stage)).iter().copied().filter(|peer| *peer != own);
                peers.extend(drawn(mates.collect(), WATCHED_MAX));
            }
        }
        peers
    }

    /// What the open round showed about the links to the neighbouring stages.
    pub fn wishes(&self) -> LinkWishes {
        self.open.as_ref().map_or_else(LinkWishes::default, |open| open.gauge.wishes())
    }

    /// How large a part of the time of the open round's tasks they ran, in percent.
    pub fn busy_percent(&self) -> u8 {
        self.open.as_ref().map_or(0, |open| open.gauge.busy_percent())
    }

    /// What happened so far, for people and tests.
    pub fn counts(&self) -> PipelineCounts {
        self.kept.counts
    }

    /// How many units may be between forward and backward at present.
    pub fn window(&self) -> u32 {
        self.kept.window.size()
    }

    /// How many units are between forward and backward.
    pub fn under_way(&self) -> u32 {
        self.open.as_ref().map_or(0, Open::under_way)
    }

    /// Calls of others that wait for a task.
    pub fn queued(&self) -> u32 {
        let waits = |item: &&item::Item| item.step == Step::Ready && item.sender.is_some();
        let count = self.open.as_ref().map_or(0, |open| open.items.values().filter(waits).count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Bytes held, and kept free for units under way: never more than [`PipelineConfig::held_bytes_max`].
    pub fn held_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.bytes(&self.kept.config))
    }

    fn open_round(&mut self, view: RoundView, now: Time, out: &mut Vec<PipelineOutput>) {
        let same = |open: &&mut Open| {
            let before = &open.view;
            (before.round, before.stage) == (view.round, view.stage) && before.units.len() <= view.units.len()
        };
        if let Some(open) = self.open.as_mut().filter(same) {
            open.change_members(&mut self.kept, view, now);
            return;
        }
        self.close_round(out);
        let members = view.members.get(usize::from(view.stage)).map_or(&[][..], Vec::as_slice);
        assert!(members.binary_search(&self.kept.own).is_ok(), "no member of stage {}: {members:?}", view.stage);
        assert!(view.unit_tokens >= 1, "{} tokens in a unit", view.unit_tokens);
        let mut open = Open::new(view);
        self.kept.routes.open(open.replicas());
        self.kept.window.open(now);
        open.note_down(&mut self.kept, now);
        open.add_own(self.kept.own, !self.lived);
        self.lived = true;
        self.open = Some(open);
    }

    fn close_round(&mut self, out: &mut Vec<PipelineOutput>) {
        let Some(open) = self.open.take() else { return };
        if let Some((task, _, _)) = open.running {
            out.push(PipelineOutput::Cancel(task));
        }
        if open.view.stage == 0 {
            let lost = |(key, item): &(&item::Key, &item::Item)| item.step != Step::Done && !open.claims.has(0, key.0);
            self.kept.counts.lost += open.items.iter().filter(lost).count() as u64;
        }
    }

    fn on_up(&mut self, peer: PeerId, now: Time, out: &mut Vec<PipelineOutput>) {
        if peer == self.kept.own {
            return;
        }
        if self.kept.up.contains(&peer) {
            self.on_down(peer, now, out);
        }
        self.kept.up.insert(peer);
        self.kept.down.remove(&peer);
        self.kept.routes.returned(peer);
        if let Some(open) = &mut self.open {
            open.forgive(peer);
            open.hand_back(peer, out);
            open.replica_up(&mut self.kept, peer, now, out);
        }
    }

    fn on_down(&mut self, peer: PeerId, now: Time, out: &mut Vec<PipelineOutput>) {
        self.kept.up.remove(&peer);
        let Some(open) = &mut self.open else { return };
        open.note_down(&mut self.kept, now);
        open.caller_down(peer, out);
        open.replica_down(peer, now);
    }

    /// What means something only in a round, and only from peers that are connected.
    fn on_round_input(&mut self, input: PipelineInput, now: Time, out: &mut Vec<PipelineOutput>) {
        let kept = &mut self.kept;
        let (open, input) = match (&mut self.open, input) {
            (_, PipelineInput::Call { from, .. } | PipelineInput::Reply { from, .. }) if !kept.up.contains(&from) => {
                return;
            }
            (None, PipelineInput::Call { from, call }) => {
                let (round, stage, index, reason) = (call.round, call.stage, call.index, RefusalReason::WrongRound);
                let message = Message::StageRefusal(StageRefusal { round, stage, index, reason });
                out.push(PipelineOutput::Send { to: from, message });
                return;
            }
            (None, _) => return,
            (Some(open), input) => (open, input),
        };
        match input {
            PipelineInput::Call { from, call } => open.on_call(kept, from, call, now, out),
            PipelineInput::Reply { from, reply } => open.on_reply(kept, from, reply, now, out),
            PipelineInput::Refused { from, refusal } if kept.up.contains(&from) => {
                open.on_refusal(kept, from, &refusal, now, out);
            }
            PipelineInput::Computed { task, result } => open.on_computed(kept, task, result, now, out),
            PipelineInput::Carried { stage, took_us } => open.gauge.arrived(stage == open.view.stage, took_us),
            PipelineInput::Claimed { peer, stage, units } => {
                open.claims.note(peer, stage, &units);
                open.let_go(out);
                open.add_own(kept.own, true);
            }
            PipelineInput::Seal => open.seal(kept, now, out),
            _ => {}
        }
    }
}

//! Getting blocks, checking them, and giving them to others.
//!
//! Purpose: every peer holds the validator's chain, whoever it got it from.
//!
//! Message sequence: on connecting both sides say `Hello { height }` → who is behind says `BlocksWanted` → `Blocks`, and so
//! on until level. The validator sends each new `Block` to everybody whom it knows to be level, and a `Hello` to the others.
//! A peer whose height grew tells its neighbours by a `Hello` at the next announcement, so that blocks reach those too that
//! cannot reach the validator.
//!
//! Safety: a block is applied only on top of its parent, with all signatures checked and the stated root reached; it is made
//! durable before anything follows from it. Liveness: a request that is not answered goes to another peer. Whoever answers
//! without use comes last in the next choice, so a liar delays, it does not stop.
//!
//! Among many members a new block is passed on from one to the next instead (`spreading.rs`), and a height is announced to a few.
//!
//! What it does not do: it keeps all blocks in memory, since a peer that joins replays the ledger from the first block.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{Applied, BlockError, CommittedSet};
use wire::message::BLOCKS_PER_ANSWER_MAX;
use wire::{Action, Block, Hash, Message, PROTOCOL_VERSION, PeerId, RoundTime, RunId, Signable, VerifiedBlock};

use crate::backoff::Backoff;
use crate::limits::{
    ANNOUNCE_DELAYS, ANNOUNCED_TO_MAX, BLOCKS_AHEAD_MAX, BLOCKS_ANSWER_BYTES_MAX, EXCHANGE_MAX,
    PAYLOADS_LOOKED_FOR_MAX, STATE_ROUNDS_MAX,
};
use crate::{Event, FaultKind, Output, Peer, Record, Time};

/// The chain and what is on its way to it.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// All blocks applied, by height.
    pub(crate) blocks: Vec<Block>,
    /// Blocks that arrived before their predecessors, who sent them, and how far to pass them on.
    ahead: BTreeMap<u64, (PeerId, Block, u32)>,
    /// Whom blocks were asked of, and when to ask another.
    asked: Option<(PeerId, Time)>,
    backoff: Backoff,
    announce_at: Option<Time>,
}

impl Chain {
    /// When the request under way is given up.
    pub(crate) fn next_ask(&self) -> Option<Time> {
        self.asked.map(|(_, until)| until)
    }

    /// When neighbours are told the own height.
    pub(crate) fn next_announce(&self) -> Option<Time> {
        self.announce_at
    }

    /// Gives up a request to a peer whose connection is gone.
    pub(crate) fn disconnected(&mut self, peer: PeerId) {
        if self.asked.is_some_and(|(asked, _)| asked == peer) {
            self.asked = None;
        }
    }
}

impl Peer {
    /// Says hello with the own height.
    pub(crate) fn greet(&mut self, to: PeerId, out: &mut Vec<Output>) {
        let height = self.ledger.height();
        self.links.told(to, height);
        let open = self.ordering.as_ref().zip(self.ledger.round()).map(|(ordering, open)| ordering.round_time(open));
        let message = Message::Hello { version: PROTOCOL_VERSION, run: self.run, height, open };
        out.push(Output::Send { to, message });
    }

    /// Takes the other end's greeting.
    pub(crate) fn on_hello(
        &mut self,
        from: PeerId,
        (version, run, height, open): (u16, RunId, u64, Option<RoundTime>),
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let wrong = if version != PROTOCOL_VERSION {
            FaultKind::WrongVersion { version }
        } else if run != self.run {
            FaultKind::WrongRun
        } else {
            let newcomer = height == 0 && self.ledger.height() > 0;
            self.links.greeted(from);
            self.links.note_height(from, height);
            if let (Some(stages), Some(open), true) = (&mut self.stages, open, self.ledger.is_validator(&from)) {
                stages.note_round_time(open);
            }
            if newcomer {
                let charter = self.ledger.signed_charter().clone();
                out.push(Output::Send { to: from, message: Message::Charter(charter) });
            }
            return;
        };
        self.fault(from, wrong, None, now, out);
        self.links.bar(from, now);
        self.drop_link(from, now, out);
    }

    /// Answers a request for blocks.
    pub(crate) fn on_blocks_wanted(&mut self, from: PeerId, from_height: u64, out: &mut Vec<Output>) {
        let start = usize::try_from(from_height).unwrap_or(usize::MAX);
        let Some(rest) = self.chain.blocks.get(start..).filter(|rest| !rest.is_empty()) else { return };
        let mut bytes = 0_usize;
        let fitting = rest.iter().take(BLOCKS_PER_ANSWER_MAX).take_while(|block| {
            let room = bytes < BLOCKS_ANSWER_BYTES_MAX;
            bytes = bytes.saturating_add(borsh::object_length(*block).unwrap_or(usize::MAX));
            room
        });
        let blocks: Vec<Block> = fitting.cloned().collect();
        self.links.raise_height(from, from_height.saturating_add(blocks.len() as u64));
        out.push(Output::Send { to: from, message: Message::Blocks(blocks) });
    }

    /// Takes an answer to a request for blocks.
    pub(crate) fn on_answer(&mut self, from: PeerId, blocks: Vec<Block>, now: Time, out: &mut Vec<Output>) {
        if self.chain.asked.is_some_and(|(asked, _)| asked == from) {
            self.chain.asked = None;
            self.links.note_answer(from, !blocks.is_empty());
        }
        self.on_blocks(from, blocks.into_iter().map(|block| (block, 0)).collect(), now, out);
    }

    /// Takes blocks, each with the number of members up to which to pass it on: those that come next are applied, those that come later are
    /// kept for a while.
    pub(crate) fn on_blocks(&mut self, from: PeerId, blocks: Vec<(Block, u32)>, now: Time, out: &mut Vec<Output>) {
        let before = self.ledger.height();
        for (block, reach) in blocks {
            let height = block.header.body.height;
            if height < self.ledger.height() {
                self.compare_with_own(&block, now, out);
            } else if height > self.ledger.height() {
                self.keep_ahead(from, block, reach);
            } else if !self.take_block(from, block, reach, now, out) {
                break;
            }
        }
        while let Some((sender, block, reach)) = self.chain.ahead.remove(&self.ledger.height()) {
            self.take_block(sender, block, reach, now, out);
        }
        let height = self.ledger.height();
        self.chain.ahead.retain(|ahead, _| *ahead > height);
        if height > before {
            self.chain.backoff.reset();
        }
    }

    /// Asks for blocks when somebody has more, and for them elsewhere when the request under way took too long.
    pub(crate) fn ask_blocks(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some((asked, until)) = self.chain.asked {
            if now < until {
                return;
            }
            self.links.note_answer(asked, false);
            self.chain.asked = None;
        }
        let from_height = self.ledger.height();
        let Some(to) = self.links.best_source(from_height) else { return };
        self.chain.asked = Some((to, now.after(self.chain.backoff.next_us(&self.pace))));
        out.push(Output::Send { to, message: Message::BlocksWanted { from_height } });
    }

    /// Tells neighbours the own height when it grew, at most once per retry delay; among many members, who pass blocks on, a few of them and
    /// less often.
    pub(crate) fn announce(&mut self, now: Time, out: &mut Vec<Output>) {
        let height = self.ledger.height();
        let many = self.ledger.round().is_some_and(|open| open.members.len() > EXCHANGE_MAX + 1);
        match self.chain.announce_at {
            Some(at) if at <= now => {
                self.chain.announce_at = None;
                for peer in self.links.take_untold(height, if many { ANNOUNCED_TO_MAX } else { usize::MAX }) {
                    self.greet(peer, out);
                }
            }
            None if self.links.any_untold(height) => {
                let delay_us = self.pace.first_us().saturating_mul(if many { ANNOUNCE_DELAYS } else { 1 });
                self.chain.announce_at = Some(now.after(delay_us));
            }
            Some(_) | None => {}
        }
    }

    /// Adds a checked block that fits, makes it durable, and draws the conclusions.
    pub(crate) fn adopt(&mut self, block: VerifiedBlock, now: Time, out: &mut Vec<Output>) -> Result<(), BlockError> {
        let oldest = self.ledger.recent().next().cloned();
        let applied = self.config.checked.apply(&mut self.ledger, &block)?;
        let block = block.into_block();
        out.push(Output::Persist(Record::Block(block.clone())));
        out.push(Output::Event(Event::BlockApplied { height: self.ledger.height() }));
        self.tell_commitments(&block, &applied, out);
        self.note_claims(&block, now, out);
        self.chain.blocks.push(block);
        self.tell_rounds(&applied, out);
        if let Some(open) = self.ledger.round().filter(|open| applied.opened.is_some() && open.stages_len() == 1) {
            let members = if open.is_member(&self.id) { &open.members[..] } else { &[] };
            self.links.seek_members(self.id, members, now);
        }
        if let Some(closed) = &applied.closed {
            let first = self.ledger.recent().next().map_or(0, |set| set.round);
            self.forget_old(oldest.filter(|set| set.round < first), closed.round, out);
        }
        self.forget_vouched(out);
        self.forget_announced(out);
        for peer in &applied.divergent {
            self.tell_divergent(*peer, now, out);
        }
        self.outbox.settle(&self.id, &self.ledger);
        self.needs_changed = true;
        Ok(())
    }

    fn take_block(&mut self, from: PeerId, block: Block, reach: u32, now: Time, out: &mut Vec<Output>) -> bool {
        let (height, digest) = (block.header.body.height, block.header.body.digest());
        // Clones share their transactions.
        let checked = self.config.checked.verify(block.clone()).map_err(BlockError::from);
        let Err(error) = checked.and_then(|block| self.adopt(block, now, out)) else {
            self.links.raise_height(from, height.saturating_add(1));
            self.pass_on(&block, reach, out);
            return true;
        };
        let kind = match error {
            BlockError::WrongRun { .. } => FaultKind::WrongRun,
            BlockError::Signature(_) => FaultKind::BadSignature,
            other => FaultKind::BadBlock { height, reason: other.to_string() },
        };
        self.links.note_height(from, 0);
        self.links.note_answer(from, false);
        self.fault(from, kind, Some(digest), now, out);
        false
    }

    fn keep_ahead(&mut self, from: PeerId, block: Block, reach: u32) {
        let height = block.header.body.height;
        self.links.raise_height(from, height.saturating_add(1));
        let near = height - self.ledger.height() <= BLOCKS_AHEAD_MAX as u64;
        if near && self.ledger.is_validator(&block.header.signer) {
            self.chain.ahead.entry(height).or_insert((from, block, reach));
        }
    }

    /// A second block for a height that is settled, signed by a validator, is that validator's fault.
    fn compare_with_own(&mut self, block: &Block, now: Time, out: &mut Vec<Output>) {
        let height = usize::try_from(block.header.body.height).expect("below the own height");
        let (header, own) = (&block.header, &self.chain.blocks[height].header);
        let foreign = header.body.run != self.run || !self.ledger.is_validator(&header.signer);
        if header.body == own.body || foreign || header.check().is_err() {
            return;
        }
        self.fault(header.signer, FaultKind::Equivocation, Some(header.body.digest()), now, out);
    }

    fn tell_commitments(&self, block: &Block, applied: &Applied, out: &mut Vec<Output>) {
        let open = self.ledger.round().map_or(0, |open| open.round);
        let round = applied.closed.as_ref().map_or(open, |set| set.round);
        for transaction in &block.transactions {
            if matches!(transaction.body.action, Action::Commit(_)) {
                out.push(Output::Event(Event::Committed { round, peer: transaction.signer }));
            }
        }
    }

    fn tell_rounds(&mut self, applied: &Applied, out: &mut Vec<Output>) {
        let was_member = self.member;
        if let Some(set) = &applied.closed {
            let own_committed = set.has_entry_of(self.config.stage, &self.id);
            out.push(Output::Event(Event::RoundClosed { committed: Arc::clone(set), own_committed }));
        }
        if let (Some(round), Some(open)) = (applied.opened, self.ledger.round()) {
            self.member = open.is_member(&self.id);
            let members = u32::try_from(open.members.len()).unwrap_or(u32::MAX);
            let own_units = u32::try_from(open.units_of(&self.id).len()).unwrap_or(u32::MAX);
            out.push(Output::Event(Event::RoundOpened { round, members, own_units, deadline_us: open.deadline_us }));
            match (was_member, self.member) {
                (false, true) => out.push(Output::Event(Event::Joined { round })),
                (true, false) => out.push(Output::Event(Event::Left { round })),
                _ => {}
            }
        }
        for agreed in applied.canonical.iter().filter(|agreed| agreed.stage == self.config.stage) {
            out.push(Output::Event(Event::StateAgreed { round: agreed.round, state_root: agreed.root }));
        }
    }

    fn tell_divergent(&mut self, peer: PeerId, now: Time, out: &mut Vec<Output>) {
        let Some(open) = self.ledger.round() else { return };
        let canonical = open.stage_of(&peer).and_then(|stage| open.state_root_of(stage));
        if let (Some(got), Some(expected)) = (open.attestation(&peer), canonical) {
            self.fault(peer, FaultKind::Divergent { expected, got }, None, now, out);
        }
    }

    /// Gives up payloads of the round that the ledger no longer lists, and states that nobody needs to join from.
    fn forget_old(&mut self, dropped: Option<Arc<CommittedSet>>, closed: u64, out: &mut Vec<Output>) {
        let all = dropped.iter().flat_map(|set| set.entries.iter()).map(|entry| entry.payload);
        // Of many payloads most peers have none.
        let many = dropped.as_ref().is_some_and(|set| set.entries.len() > PAYLOADS_LOOKED_FOR_MAX);
        let mut hashes: Vec<Hash> = all.filter(|payload| !many || self.fetches.holds(payload)).collect();
        let state_of = |round: u64| self.ledger.state_root(self.config.stage, round);
        hashes.extend(closed.checked_sub(STATE_ROUNDS_MAX).and_then(state_of));
        self.forget_unless_kept(hashes, out);
    }

    /// Gives up those of the blobs that no listed round, and no state of the newest rounds, refers to.
    pub(crate) fn forget_unless_kept(&mut self, mut hashes: Vec<Hash>, out: &mut Vec<Output>) {
        if hashes.is_empty() {
            return;
        }
        let round = self.ledger.round().map_or(0, |open| open.round);
        let state_of = |round: u64| self.ledger.state_root(self.config.stage, round);
        let states: Vec<Hash> = (round.saturating_sub(STATE_ROUNDS_MAX)..=round)
            .filter_map(state_of)
            .chain(self.model.map(|model| model.state_root))
            .collect();
        let is_open = |hash: &Hash| {
            self.ledger.round().is_some_and(|open| open.commitments().any(|entry| entry.payload == *hash))
        };
        hashes.retain(|hash| !states.contains(hash) && !self.ledger.lists_payload(hash) && !is_open(hash));
        if !hashes.is_empty() {
            self.fetches.forget(&hashes);
            out.push(Output::Forget { hashes });
        }
    }
}

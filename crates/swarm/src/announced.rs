//! Payloads that members of the open round made, before a block holds their commitments.
//!
//! Purpose: at the end of a round everybody waits for the last payload. Who made it says so to those who will need it, and they fetch it while
//! its commitment is still on its way into a block: three ways through the network fewer (to the validator, which fetches it too, and
//! back) in which nobody trains.
//!
//! Source: "commit (hash) before body" of the training design (section 2); here the body follows at once.
//!
//! Message sequence: a commitment is made → `PayloadMade` to the connected members of the round that will apply it → each fetches it from who
//! said so.
//!
//! Safety: an announcement is only a hint about what to fetch early. What counts is what the round's blocks hold; a payload that they do
//! not hold is given up when the round closes. A liar can have each member fetch one blob of at most a state's size from itself, once a
//! round. Liveness: without announcements payloads are fetched as their commitments appear in blocks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use wire::{Commitment, Hash, Message, PayloadMade, PeerId};

use crate::fetches::Need;
use crate::{Output, Peer, Time};

/// What members of a round said that they made.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    round: u64,
    made: BTreeMap<PeerId, (Hash, u64)>,
}

impl Announced {
    /// Adds the payloads that are to be fetched.
    pub(crate) fn add_needs(&self, needs: &mut BTreeMap<Hash, Need>) {
        for (peer, (payload, bytes)) in &self.made {
            needs.entry(*payload).or_insert(Need { bytes: *bytes, providers: vec![*peer] });
        }
    }
}

impl Peer {
    /// Tells those who will apply an own payload that it is made. A validator learns it from the commitment.
    pub(crate) fn announce_payload(&self, commitment: &Commitment, out: &mut Vec<Output>) {
        let Some(open) = self.ledger.round().filter(|open| open.round == commitment.round) else { return };
        let Commitment { round, payload, payload_bytes, .. } = *commitment;
        let stage = self.config.stage;
        let needs =
            |peer: &PeerId| open.stage_of(peer) == Some(stage) && open.folds(peer) && !self.ledger.is_validator(peer);
        let message = Message::PayloadMade(PayloadMade { round, payload, payload_bytes });
        out.extend(self.links.up().filter(needs).map(|to| Output::Send { to, message: message.clone() }));
    }

    /// Takes a member's word for what it made in the open round; it may say so once. What is here already is not its to give.
    pub(crate) fn note_made(&mut self, from: PeerId, made: PayloadMade, now: Time) {
        let Some(open) = self.ledger.round().filter(|open| open.round == made.round) else { return };
        let near = !self.paused && self.model.is_some_and(|model| model.round + 1 >= open.round);
        let fits = made.payload_bytes <= self.stage_terms().state_bytes;
        if self.fetches.holds(&made.payload)
            || !near
            || !fits
            || !open.folds(&self.id)
            || open.stage_of(&from) != Some(self.config.stage)
            || open.commitment(&from).is_some()
        {
            return;
        }
        if self.announced.round != made.round {
            self.announced = Announced { round: made.round, made: BTreeMap::new() };
        }
        if let Entry::Vacant(first) = self.announced.made.entry(from) {
            first.insert((made.payload, made.payload_bytes));
            self.fetches.add_need(made.payload, Need { bytes: made.payload_bytes, providers: vec![from] }, now);
        }
    }

    /// Gives up what was announced for rounds that are over, unless it is in a block.
    pub(crate) fn forget_announced(&mut self, out: &mut Vec<Output>) {
        if self.announced.round < self.target_round() {
            let made = std::mem::take(&mut self.announced.made);
            self.forget_unless_kept(made.into_values().map(|(payload, _)| payload).collect(), out);
        }
    }
}

//! A peer's change to another stage.
//!
//! Purpose: stages that are waited for get members from stages that wait.
//!
//! Message sequence: a round closes → the ledger advises one member of a little loaded stage to move ([`ledger::Ledger::advised_stage`]) →
//! the member commits what it does in this round → it joins the other stage → the next round opens with it there → the shell is told
//! ([`Output::Move`]), drops what belonged to the old stage, and makes the peer anew → the peer fetches the stage's state, and takes part.
//!
//! Deviations: what error feedback had kept back of the old stage's gradients goes with the old stage: it is of no use in another.
//!
//! Safety: units of the open round stay where they are, since a member keeps its stage until the round ends. Liveness: who cannot move
//! ignores the advice, and the next round's goes to another.

use ledger::RoundOpen;
use wire::Action;

use crate::limits::STATE_ROUNDS_MAX;
use crate::{Output, Peer, Time};

impl Peer {
    /// Follows the ledger's advice to move, once this peer's part of the open round is committed, or on the way into a block: that block may be the
    /// one that closes the round.
    pub(crate) fn move_if_advised(&mut self, now: Time, out: &mut Vec<Output>) {
        let done = |open: &&RoundOpen| open.commitment(&self.id).is_some() || self.outbox_commits(open.round);
        let Some(open) = self.ledger.round().filter(done) else { return };
        if open.stage_of(&self.id) != Some(self.config.stage) || !self.takes_part() {
            return;
        }
        let advised = self.ledger.advised_stage(&self.id).filter(|stage| self.config.other_stages.contains(stage));
        let waits = || self.outbox.any(|action| matches!(action, Action::Join { .. }));
        let Some(stage) = advised.filter(|_| !waits()) else { return };
        let (sequence, operator) = (self.ledger.next_sequence(&self.id), self.config.operator.clone());
        self.act(Action::Join { sequence, stage, operator }, now, out);
    }

    /// Tells the shell, once, that this peer is a member of another stage now.
    pub(crate) fn tell_move(&mut self, out: &mut Vec<Output>) {
        let Some(open) = self.ledger.round().filter(|_| !self.moves && self.config.trains) else { return };
        let Some(stage) = open.stage_of(&self.id).filter(|stage| *stage != self.config.stage) else { return };
        let state_of = |round: u64| self.ledger.state_root(self.config.stage, round);
        let mut hashes: Vec<_> =
            (open.round.saturating_sub(STATE_ROUNDS_MAX)..=open.round).filter_map(state_of).collect();
        hashes.extend(self.model.map(|model| model.state_root));
        self.moves = true;
        self.cancel(out);
        out.push(Output::Forget { hashes });
        out.push(Output::Move { stage });
    }
}

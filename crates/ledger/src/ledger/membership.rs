//! Membership: who takes part from when on.
//!
//! A join takes effect when the next round opens, a leave too; a member that missed [`MISSED_ROUNDS_MAX`] rounds in a row
//! is dropped when a round closes. Joins and leaves carry the signer's sequence number, so an old one is worthless.
//! A round of which every member has left before anybody committed opens again with those that joined since.
//!
//! [`MISSED_ROUNDS_MAX`]: crate::MISSED_ROUNDS_MAX

use wire::charter::MEMBERS_MAX;
use wire::{Hash, PeerId};

use crate::accounts::{Account, Standing};
use crate::error::Rejection;
use crate::ledger::round::{Opening, RoundOpen};
use crate::ledger::state::{Applied, State, Terms};

impl State {
    pub(crate) fn check_join(&self, terms: &Terms<'_>, signer: &PeerId, sequence: u64) -> Result<(), Rejection> {
        if self.is_finished(terms.charter) {
            return Err(Rejection::Finished);
        }
        let account = self.accounts.get(signer).copied().unwrap_or(Account::new(*signer));
        if matches!(account.standing, Standing::Joining | Standing::Member) {
            return Err(Rejection::AlreadyJoined);
        }
        check_sequence(&account, sequence)?;
        self.check_room(signer)?;
        let members = self.round.as_ref().map_or(0, |round| round.members.len());
        let returns = account.standing == Standing::Leaving;
        if members + self.joining >= MEMBERS_MAX as usize && !returns {
            return Err(Rejection::MembersFull { max: MEMBERS_MAX as usize });
        }
        Ok(())
    }

    pub(crate) fn check_leave(&self, terms: &Terms<'_>, signer: &PeerId, sequence: u64) -> Result<(), Rejection> {
        if self.is_finished(terms.charter) {
            return Err(Rejection::Finished);
        }
        let account = self.accounts.get(signer).ok_or(Rejection::NotJoined)?;
        if matches!(account.standing, Standing::Out | Standing::Leaving) {
            return Err(Rejection::NotJoined);
        }
        check_sequence(account, sequence)
    }

    pub(crate) fn join(&mut self, peer: PeerId) {
        let account = self.accounts.entry(peer);
        account.sequence += 1;
        if account.standing == Standing::Leaving {
            account.standing = Standing::Member;
            self.set_leaving(&peer, false);
        } else {
            account.standing = Standing::Joining;
            self.joining += 1;
        }
    }

    pub(crate) fn leave(&mut self, peer: PeerId) {
        let account = self.accounts.entry(peer);
        account.sequence += 1;
        if account.standing == Standing::Member {
            account.standing = Standing::Leaving;
            self.set_leaving(&peer, true);
        } else {
            account.standing = Standing::Out;
            self.joining -= 1;
        }
    }

    fn set_leaving(&mut self, peer: &PeerId, leaving: bool) {
        let round = self.round.as_mut().expect("there are members only in a round");
        let rank = round.rank(peer).expect("a member is in the round");
        round.set_leaving(rank, leaving);
    }

    /// Opens a round with the members that stay and those that join, and makes the changes of standing final.
    pub(crate) fn open_round_with(&mut self, terms: &Terms<'_>, opening: NextRound, applied: &mut Applied) {
        let NextRound { round, beacon, state_root, time_us } = opening;
        let standings: Vec<(PeerId, Standing)> =
            self.accounts.all().iter().map(|account| (account.peer, account.standing)).collect();
        let mut members = Vec::with_capacity(standings.len());
        for (peer, standing) in standings {
            match standing {
                Standing::Out => {}
                Standing::Leaving => self.accounts.entry(peer).standing = Standing::Out,
                Standing::Member => members.push((peer, true)),
                Standing::Joining => {
                    let account = self.accounts.entry(peer);
                    account.standing = Standing::Member;
                    account.missed = 0;
                    members.push((peer, false));
                }
            }
        }
        self.joining = 0;
        let flat: Vec<u8> =
            members.iter().flat_map(|(peer, voter)| [&peer.0[..], &[u8::from(*voter)]].concat()).collect();
        self.members_root = Hash::derive("cairn v1 members", &[&flat]);
        let units = if round < terms.charter.rounds { terms.charter.units_per_round } else { 0 };
        let deadline_us = time_us.saturating_add(terms.charter.round_us_max);
        let opening =
            Opening { run: terms.run, round, beacon, opened_us: time_us, deadline_us, state_root, units, members };
        self.round = Some(RoundOpen::new(opening));
        applied.opened = Some(round);
    }
}

/// What a round is opened with besides its members.
pub(crate) struct NextRound {
    pub(crate) round: u64,
    pub(crate) beacon: Hash,
    pub(crate) state_root: Option<Hash>,
    pub(crate) time_us: u64,
}

fn check_sequence(account: &Account, got: u64) -> Result<(), Rejection> {
    let expected = account.sequence;
    if got == expected { Ok(()) } else { Err(Rejection::WrongSequence { expected, got }) }
}

//! Membership: who takes part in which stage from when on.
//!
//! A join takes effect when the next round opens, a leave too, and a move: a member's join of another stage. A member that
//! missed [`MISSED_ROUNDS_MAX`] rounds in a row is dropped when a round closes. Joins and leaves carry the signer's
//! sequence number, so an old one is worthless.
//! A round of which every member of a stage has left before anybody of it committed opens again with those that joined
//! and moved since; of several stages, also one in which a stage let the deadline pass. What was committed and attested
//! before stays. Who had not even attested by then, where the root is not known yet, is dropped: it would keep the vote.
//!
//!
//! A peer's operator is fixed by its first join. Where the charter splits the weights, an operator is bound to the stage of the first join
//! of any of its peers for the whole run, also after they left: what a machine has seen of a stage it may have kept.
//!
//! [`MISSED_ROUNDS_MAX`]: crate::MISSED_ROUNDS_MAX

use wire::charter::MEMBERS_MAX;
use wire::{Hash, OperatorCertificate, PeerId, Signed};

use crate::accounts::{Account, Standing};
use crate::error::Rejection;
use crate::ledger::round::{Opening, RoundOpen, Seat, boundaries};
use crate::ledger::state::{Applied, State, Terms};

impl State {
    pub(crate) fn check_join(&self, terms: &Terms<'_>, signer: &PeerId, join: &Join<'_>) -> Result<(), Rejection> {
        let Join { sequence, stage, .. } = *join;
        if self.is_finished(terms.charter) {
            return Err(Rejection::Finished);
        }
        if terms.charter.stage(stage).is_none() {
            return Err(Rejection::NoStage { stages: terms.charter.stages_len(), got: stage });
        }
        let account = self.accounts.get(signer).copied().unwrap_or(Account::new(*signer));
        if matches!(account.standing, Standing::Joining | Standing::Member) && account.stage == stage {
            return Err(Rejection::AlreadyJoined);
        }
        check_sequence(&account, sequence)?;
        self.check_operator(terms, signer, join)?;
        self.check_room(signer)?;
        let members = self.round.as_ref().map_or(0, |round| round.members.len());
        let comes = account.standing == Standing::Out;
        if members + self.joining >= MEMBERS_MAX as usize && comes {
            return Err(Rejection::MembersFull { max: MEMBERS_MAX as usize });
        }
        Ok(())
    }

    /// Checks that the operator of a join runs the signer, always did and, in a split run, has nobody in another stage.
    fn check_operator(&self, terms: &Terms<'_>, signer: &PeerId, join: &Join<'_>) -> Result<(), Rejection> {
        if join
            .operator
            .is_some_and(|certificate| certificate.body != OperatorCertificate { run: terms.run, peer: *signer })
        {
            return Err(Rejection::ForeignCertificate);
        }
        let operator = join.operator(signer);
        if let Some(expected) = self.accounts.get(signer).map(|account| account.operator).filter(|of| *of != operator) {
            return Err(Rejection::OperatorChanged { expected, got: operator });
        }
        self.check_stage_of(terms, operator, join.stage)
    }

    /// Checks that an operator may have a member in a stage.
    pub(crate) fn check_stage_of(&self, terms: &Terms<'_>, operator: PeerId, got: u16) -> Result<(), Rejection> {
        let bound = self.operators.get(&operator).filter(|_| terms.charter.release.is_split());
        match bound {
            Some(stage) if *stage != got => Err(Rejection::OperatorElsewhere { operator, stage: *stage, got }),
            _ => Ok(()),
        }
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

    pub(crate) fn join(&mut self, terms: &Terms<'_>, peer: PeerId, join: &Join<'_>) {
        let (stage, operator) = (join.stage, join.operator(&peer));
        if terms.charter.release.is_split() {
            self.operators.insert(operator, stage);
        }
        let account = self.accounts.entry(peer);
        account.operator = operator;
        account.sequence += 1;
        account.stage = stage;
        match account.standing {
            Standing::Out => {
                account.standing = Standing::Joining;
                self.joining += 1;
            }
            Standing::Leaving => {
                account.standing = Standing::Member;
                self.set_leaving(&peer, false);
            }
            Standing::Joining | Standing::Member => {}
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

    /// Whether enough have joined for round 0, and somebody in every stage.
    pub(crate) fn may_start(&self, terms: &Terms<'_>) -> bool {
        let mut staffed = vec![false; terms.charter.stages.len()];
        if self.joining < terms.charter.start_members as usize {
            return false;
        }
        for account in self.accounts.all().iter().filter(|account| account.standing == Standing::Joining) {
            staffed[usize::from(account.stage)] = true;
        }
        staffed.into_iter().all(|staffed| staffed)
    }

    /// The deserted stages of the open round, when somebody has joined or moved to one of them; none otherwise.
    pub(crate) fn relieved(&self, terms: &Terms<'_>, time_us: u64) -> Vec<u16> {
        let Some(round) = &self.round else { return Vec::new() };
        if round.stages_len() == 1 && self.joining == 0 {
            return Vec::new();
        }
        let deserted = round.deserted(time_us, terms.charter.rounds);
        if deserted.is_empty() {
            return deserted;
        }
        let comes = |account: &Account| match account.standing {
            Standing::Joining => true,
            Standing::Member => round.stage_of(&account.peer) != Some(account.stage),
            Standing::Out | Standing::Leaving => false,
        };
        let mut accounts = self.accounts.all().iter();
        if accounts.any(|account| deserted.contains(&account.stage) && comes(account)) { deserted } else { Vec::new() }
    }

    /// Opens the open round once more, because somebody came for its `deserted` stages.
    pub(crate) fn open_again(&mut self, terms: &Terms<'_>, deserted: &[u16], time_us: u64, applied: &mut Applied) {
        let before = self.round.take().expect("a round is open");
        let members = before.members.iter().zip(before.stages.iter()).zip(&before.slots);
        let silent = members.filter(|((_, stage), slot)| {
            slot.attested.is_none() && deserted.contains(stage) && before.state_root_of(**stage).is_none()
        });
        for ((peer, stage), _) in silent {
            let account = self.accounts.get_mut(peer).expect("a member has an account");
            if account.standing == Standing::Member && account.stage == *stage {
                account.standing = Standing::Out;
                applied.dropped.push(*peer);
            }
        }
        let (round, beacon, state_roots) = (before.round, before.beacon, before.state_roots.clone());
        let next = NextRound { round, beacon, state_roots, time_us, before: Some(&before) };
        self.open_round_with(terms, next, applied);
        self.round.as_mut().expect("opened just now").resume(before);
    }

    /// Opens a round with the members that stay and those that join, and makes the changes of standing and stage final.
    pub(crate) fn open_round_with(&mut self, terms: &Terms<'_>, opening: NextRound<'_>, applied: &mut Applied) {
        let NextRound { round, beacon, state_roots, time_us, before } = opening;
        let standings: Vec<(PeerId, Standing, u16)> =
            self.accounts.all().iter().map(|account| (account.peer, account.standing, account.stage)).collect();
        let mut members = Vec::with_capacity(standings.len());
        for (peer, standing, stage) in standings {
            match standing {
                Standing::Out => {}
                Standing::Leaving => self.accounts.entry(peer).standing = Standing::Out,
                Standing::Member => {
                    let voter = before.is_some_and(|before| before.makes_voter(&peer, stage, round));
                    let drawn = before.is_some_and(|before| before.draws(&peer, stage, round));
                    members.push(Seat { peer, stage, voter, drawn });
                }
                Standing::Joining => {
                    let account = self.accounts.entry(peer);
                    account.standing = Standing::Member;
                    account.missed = 0;
                    members.push(Seat { peer, stage, voter: false, drawn: false });
                }
            }
        }
        self.joining = 0;
        let mut flat = Vec::with_capacity(members.len() * 35);
        for Seat { peer, stage, voter, drawn } in &members {
            let roles = u8::from(*voter) | u8::from(*drawn) << 1;
            flat.extend([&peer.0[..], &stage.to_le_bytes(), &[roles]].concat());
        }
        self.members_root = Hash::derive("cairn v1 members", &[&flat]);
        let units = if round < terms.charter.rounds { terms.charter.units_per_round } else { 0 };
        let deadline_us = time_us.saturating_add(self.pace.round_us(terms.charter));
        let stages = &terms.charter.stages;
        let coarser = match before {
            None => boundaries::first(stages.len()),
            Some(before) if before.round == round => before.coarser.to_vec(),
            Some(before) => before.next_coarser(stages),
        };
        let (run, opened_us) = (terms.run, time_us);
        let speed = |seat: &Seat| match before {
            None => 0,
            Some(before) if before.round == round => before.speed_of(&seat.peer),
            Some(before) => before.speed_after(&seat.peer),
        };
        let speeds = members.iter().map(speed).collect();
        let opening =
            Opening { run, round, beacon, opened_us, deadline_us, state_roots, coarser, units, members, speeds };
        let mut opened = RoundOpen::new(opening);
        if let Some(before) = before.filter(|before| before.round < round && !terms.charter.release.is_split()) {
            opened.advise(before, &terms.charter.validators);
        }
        self.round = Some(opened);
        applied.opened = Some(round);
    }
}

/// What a join says.
#[derive(Clone, Copy)]
pub(crate) struct Join<'a> {
    pub(crate) sequence: u64,
    pub(crate) stage: u16,
    pub(crate) operator: Option<&'a Signed<OperatorCertificate>>,
}

impl Join<'_> {
    /// Who runs the signer.
    fn operator(&self, signer: &PeerId) -> PeerId {
        self.operator.map_or(*signer, |certificate| certificate.signer)
    }
}

/// What a round is opened with besides its members.
pub(crate) struct NextRound<'a> {
    pub(crate) round: u64,
    pub(crate) beacon: Hash,
    pub(crate) state_roots: Vec<Option<Hash>>,
    pub(crate) time_us: u64,
    /// The round before, or the same when it opens again; none for the first.
    pub(crate) before: Option<&'a RoundOpen>,
}

fn check_sequence(account: &Account, got: u64) -> Result<(), Rejection> {
    let expected = account.sequence;
    if got == expected { Ok(()) } else { Err(Rejection::WrongSequence { expected, got }) }
}

//! What the own model needs next.
//!
//! Purpose: a peer that is any number of rounds behind reaches the open round's state, by the cheaper way.
//!
//! Source: section 2 of the training design. The next round's state follows from the stored one and the committed set, so a
//! peer that is one round behind always replays: until somebody has done so there is no state to fetch. A peer that is
//! further behind replays while the payloads of the missing rounds are fewer bytes than one state, and are still listed;
//! otherwise it fetches the newest state whose root a majority attested. That choice is kept until the state is here, or
//! could not be got from anybody, so that a slow transfer is not restarted with every round. A state that nobody gives, since all who had it
//! moved to other stages, is replayed after all.
//!
//! Where a round has so many payloads that a state is fewer bytes, and a committee folds them ([`RoundOpen::folds`]), the others wait for its
//! word and fetch the state. When it does not come they fold, too.
//!
//! Safety: a replayed state is compared with the canonical root as soon as there is one, and a fetched one is named by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{CommittedSet, RoundOpen};
use wire::{Hash, PeerId, StageTerms};

use crate::fetches::Need;
use crate::limits::PROVIDERS_MAX;
use crate::{Job, ModelPoint, Peer, Time, UnitAssignment};

/// Complete failures of a state's providers after which the choice is made anew.
const STATE_FETCHES_MAX: u32 = 3;

/// What the own model needs next.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Nothing.
    Rest,
    /// The state of this point.
    Load(ModelPoint),
    /// This set applied.
    Step(Arc<CommittedSet>),
    /// These units trained.
    Work {
        /// The open round.
        round: u64,
        /// The root of its starting state.
        state_root: Hash,
        /// The own units.
        units: Vec<UnitAssignment>,
    },
}

impl Peer {
    /// The round whose starting state the peer should hold: the open one, or 0 before the first opens.
    pub(crate) fn target_round(&self) -> u64 {
        self.ledger.round().map_or(0, |open| open.round)
    }

    /// The terms of the own stage.
    pub(crate) fn stage_terms(&self) -> &StageTerms {
        self.ledger.charter().stage(self.config.stage).expect("a peer is made for a stage of the charter")
    }

    /// Decides what the model needs next.
    pub(crate) fn plan(&mut self) -> Plan {
        let target = self.target_round();
        let behind = self.model.is_none_or(|model| model.round < target);
        if behind { self.plan_behind(target) } else { self.plan_work() }
    }

    fn plan_work(&self) -> Plan {
        let (Some(open), Some(model)) = (self.ledger.round(), self.model) else { return Plan::Rest };
        let done = open.commitment(&self.id).is_some() || self.outbox_commits(open.round);
        if self.has_stages() || !self.takes_part() || done || model.round != open.round {
            return Plan::Rest;
        }
        let units = open.units_of(&self.id).into_iter();
        let units: Vec<UnitAssignment> =
            units.map(|index| UnitAssignment { index, unit: open.unit_id(index) }).collect();
        if units.is_empty() || open.round >= self.ledger.charter().rounds {
            return Plan::Rest;
        }
        Plan::Work { round: open.round, state_root: model.state_root, units }
    }

    fn plan_behind(&mut self, target: u64) -> Plan {
        let genesis = ModelPoint { round: 0, state_root: self.stage_terms().genesis_state };
        if target == 0 {
            return Plan::Load(genesis);
        }
        if let Some(load) = self.load.filter(|load| self.model.is_none_or(|model| model.round < load.round)) {
            return Plan::Load(load);
        }
        let from = self.model.map_or(0, |model| model.round);
        let snapshot = self.ledger.newest_state(self.config.stage).filter(|(round, _)| *round > from);
        let nobody_has_it = snapshot.is_some_and(|(_, state_root)| self.unavailable == Some(state_root));
        let chosen = match (self.replay_bytes(from, target), snapshot) {
            (Some(bytes), _) if self.model.is_some() && from + 1 == target => {
                if snapshot.is_none() && self.waits_for_committee(bytes) {
                    self.waits = true;
                    return Plan::Rest;
                }
                let left = snapshot.filter(|_| self.leaves_folding_to_others(bytes) && !nobody_has_it);
                left.map(|(round, state_root)| ModelPoint { round, state_root })
            }
            (Some(_), None) => None,
            (Some(_), _) if nobody_has_it => None,
            (Some(bytes), Some(_)) if bytes < self.stage_terms().state_bytes => None,
            (_, Some((round, state_root))) => Some(ModelPoint { round, state_root }),
            (None, None) => return Plan::Rest,
        };
        self.load = chosen;
        match (chosen, self.model) {
            (Some(load), _) => Plan::Load(load),
            (None, None) => Plan::Load(genesis),
            (None, Some(model)) => {
                self.ledger.committed(model.round).map_or(Plan::Rest, |set| Plan::Step(Arc::clone(set)))
            }
        }
    }

    /// Whether others fold the payloads of the round before the open one, `bytes` of them, and fetching what they get is cheaper.
    fn leaves_folding_to_others(&self, bytes: u64) -> bool {
        let drawn = |open: &RoundOpen| open.has_committee(self.config.stage) && !open.is_in_committee(&self.id);
        self.ordering.is_none() && bytes > self.stage_terms().state_bytes && self.ledger.round().is_some_and(drawn)
    }

    /// Whether others fold those payloads and have time left to say what they got.
    fn waits_for_committee(&self, bytes: u64) -> bool {
        self.leaves_folding_to_others(bytes) && self.committee_until().is_some_and(|until| self.clock < until)
    }

    /// Until when a committee's word on the open round is waited for.
    fn committee_until(&self) -> Option<Time> {
        self.ledger.round().map(|open| Time::from_micros(open.committee_until_us()))
    }

    /// Who gives this peer the state that the open round starts from, where a committee says which that is.
    fn giver_of(&self, point: &ModelPoint) -> Option<PeerId> {
        let open = self.ledger.round().filter(|open| open.round == point.round)?;
        if open.has_committee(self.config.stage) { open.giver(&self.id) } else { None }
    }

    /// Whether that one does not have it yet, as far as is known, and is still waited for.
    fn waits_for_giver(&self, point: &ModelPoint) -> bool {
        let (Some(open), Some(giver)) = (self.ledger.round(), self.giver_of(point)) else { return false };
        open.attestation(&giver) != Some(point.state_root)
            && self.committee_until().is_some_and(|until| self.clock < until)
    }

    /// When to fold, or to fetch a state, without those who are waited for.
    pub(crate) fn next_fold(&self) -> Option<Time> {
        let open = self.ledger.round()?;
        if self.load.is_some_and(|load| self.waits_for_giver(&load)) {
            return self.committee_until();
        }
        let waits = open.state_root_of(self.config.stage).is_none()
            && self.model.is_some_and(|model| model.round + 1 == open.round);
        let bytes = || self.replay_bytes(open.round.saturating_sub(1), open.round);
        let is_left = waits
            && open.has_committee(self.config.stage)
            && bytes().is_some_and(|bytes| self.waits_for_committee(bytes));
        self.committee_until().filter(|_| is_left)
    }

    /// Bytes of all payloads of the rounds from `from` until `target`; `None` when one is no longer listed.
    fn replay_bytes(&self, from: u64, target: u64) -> Option<u64> {
        (from..target).try_fold(0_u64, |bytes, round| Some(bytes.saturating_add(self.payload_bytes(round)?)))
    }

    /// Bytes of all payloads of a closed round that this peer needs; none when it is no longer listed. The newest answer is kept: the question
    /// comes with every input while the payloads are on the way.
    fn payload_bytes(&self, round: u64) -> Option<u64> {
        if let Some((_, bytes)) = self.payload_bytes.get().filter(|(of, _)| *of == round) {
            return Some(bytes);
        }
        let set = self.ledger.committed(round)?;
        let needed = set.entries.iter().filter(|entry| self.needs_stage(entry.stage));
        let bytes = needed.fold(0_u64, |bytes, entry| bytes.saturating_add(entry.payload_bytes));
        self.payload_bytes.set(Some((round, bytes)));
        Some(bytes)
    }

    /// The newest closed round, among those listed, in whose set an own payload is.
    pub(crate) fn own_committed_round(&self) -> Option<u64> {
        let mine = |set: &&Arc<CommittedSet>| set.has_entry_of(self.config.stage, &self.id);
        self.ledger.recent().rev().find(mine).map(|set| set.round)
    }

    /// The job of a plan, once its blobs are here.
    pub(crate) fn job_of(&self, plan: &Plan) -> Option<Job> {
        match plan {
            Plan::Rest => None,
            Plan::Work { round, state_root, units } => {
                Some(Job::Work { round: *round, state_root: *state_root, units: units.clone() })
            }
            Plan::Load(point) => {
                let ready = point.round == 0 || self.fetches.holds(&point.state_root);
                let own_committed_round = self.own_committed_round();
                ready.then_some(Job::LoadState {
                    round: point.round,
                    state_root: point.state_root,
                    own_committed_round,
                })
            }
            Plan::Step(set) => {
                let mut needed = set.entries.iter().filter(|entry| self.needs_stage(entry.stage));
                let ready = needed.all(|entry| self.fetches.holds(&entry.payload));
                let own_committed = set.has_entry_of(self.config.stage, &self.id);
                ready.then(|| Job::OuterStep { round: set.round, committed: Arc::clone(set), own_committed })
            }
        }
    }

    /// Makes the wanted blobs those that the plan needs, those that the open round will need, and, for a validator, those
    /// of the commitments that wait for a block.
    pub(crate) fn update_needs(&mut self, plan: &Plan, now: Time) {
        let waited = self.waits && self.committee_until().is_none_or(|until| now >= until);
        if !std::mem::take(&mut self.needs_changed) && !waited {
            return;
        }
        self.waits &= !waited;
        let mut needs = BTreeMap::new();
        match plan {
            Plan::Load(point) if point.round > 0 && !self.waits_for_giver(point) => {
                let bytes = self.stage_terms().state_bytes;
                needs.insert(point.state_root, Need { bytes, providers: self.state_providers(point) });
            }
            Plan::Step(set) => {
                self.need_payloads(set, &mut needs);
                if let Some(next) = self.ledger.committed(set.round + 1) {
                    self.need_payloads(next, &mut needs);
                }
            }
            Plan::Load(point) => self.waits |= point.round > 0,
            Plan::Work { .. } | Plan::Rest => {}
        }
        let near = !self.paused && self.model.is_some_and(|model| model.round + 1 >= self.target_round());
        let folds = |open: &&RoundOpen| self.ordering.is_some() || open.folds(&self.id);
        if let Some(open) = self.ledger.round().filter(|_| near).filter(folds) {
            for entry in open.commitments().filter(|entry| self.needs_stage(entry.stage)) {
                let need = Need { bytes: entry.payload_bytes, providers: self.payload_providers(entry.peer) };
                needs.insert(entry.payload, need);
            }
        }
        if let Some(ordering) = &self.ordering {
            ordering.add_needs(|stage| self.may_hold(stage), &mut needs);
        }
        self.vouching.add_needs(&mut needs);
        self.announced.add_needs(&mut needs);
        self.fetches.set_needs(needs, now);
    }

    /// Notes that all providers of a blob failed `times` times: a state that nobody has is given up for a newer one, or for the payloads that
    /// lead to it.
    pub(crate) fn note_unavailable_state(&mut self, hash: Hash, times: u32) {
        if times >= STATE_FETCHES_MAX && self.load.is_some_and(|load| load.state_root == hash) {
            self.load = None;
            self.unavailable = Some(hash);
            self.needs_changed = true;
        }
    }

    fn need_payloads(&self, set: &CommittedSet, needs: &mut BTreeMap<Hash, Need>) {
        for entry in set.entries.iter().filter(|entry| self.needs_stage(entry.stage)) {
            let need = Need { bytes: entry.payload_bytes, providers: self.payload_providers(entry.peer) };
            needs.insert(entry.payload, need);
        }
    }

    /// A committed payload is held by its peer and by the validators; where the weights are split, by members of its stage only.
    fn payload_providers(&self, peer: PeerId) -> Vec<PeerId> {
        let mut providers = vec![peer];
        let others = self.ledger.charter().validators.iter().filter(|validator| **validator != peer);
        providers.extend(others.filter(|validator| self.may_give(validator)));
        // Who is gone may be found out only after a while. Among many hardly anybody is connected, and a validator could not give them all.
        if self.many_members().is_none() {
            providers.sort_by_key(|provider| !self.links.is_up(*provider));
        }
        providers.truncate(PROVIDERS_MAX);
        providers
    }

    /// A canonical state is held by who attested it or worked from it; the beacon-free hash order spreads the load.
    fn state_providers(&self, point: &ModelPoint) -> Vec<PeerId> {
        let giver = self.giver_of(point);
        let mut providers: Vec<PeerId> = match self.ledger.committed(point.round) {
            // Of many members each is given it by one, and where that one is gone by the committee.
            None if giver.is_some() => self.ledger.round().map_or_else(Vec::new, |open| {
                let has = |peer: &PeerId| open.attestation(peer) == Some(point.state_root);
                let committee = open.committee(self.config.stage).copied();
                giver.into_iter().chain(committee).filter(has).collect()
            }),
            Some(set) => set.entries_of(self.config.stage).iter().map(|entry| entry.peer).collect(),
            None => self.ledger.round().map_or_else(Vec::new, |open| {
                let agrees = |peer: &&PeerId| open.attestation(peer) == Some(point.state_root);
                open.members_of(self.config.stage).filter(agrees).copied().collect()
            }),
        };
        let order =
            |peer: &PeerId| Hash::derive("cairn v1 provider order", &[&self.id.0, &peer.0, &point.state_root.0]);
        providers.sort_by_cached_key(|peer| (Some(*peer) != giver, order(peer)));
        providers.truncate(PROVIDERS_MAX - 1);
        let validators = self.ledger.charter().validators.iter();
        let validator =
            validators.copied().find(|validator| !providers.contains(validator) && self.may_give(validator));
        providers.extend(validator);
        providers
    }
}

//! Builds the hosts, the charter and the first events of a configuration.

use std::collections::BTreeMap;

use swarm::{CheckedBlocks, PeerConfig, Time};
use wire::{Charter, Hash, Identity, NumericProfile, PeerId, Release, StageTerms, Verified};

use super::{Counts, Simulation};
use crate::checks::Checks;
use crate::config::SimConfig;
use crate::events::{Event, Events};
use crate::host::Host;
use crate::network::Network;
use crate::random::Random;
use crate::trace::Trace;
use crate::trainer;
use crate::trainer::stage::MESSAGE_BYTES;

/// Hosts up to which everybody knows all others at first.
const ALL_KNOWN_MAX: usize = 64;
/// Shares per round: a number that no number of units divides evenly.
const SHARES_PER_ROUND: u64 = 1_000_003;

pub(super) fn simulation(config: SimConfig) -> Simulation {
    let total = config.peers + config.adversaries.len();
    let identities: Vec<Identity> = (0..total).map(|place| identity(config.seed, place)).collect();
    let ids: Vec<PeerId> = identities.iter().map(Identity::id).collect();
    let charter = charter(&config, &identities[0]);
    let mut draw = Random::new(config.seed, "run");
    let checked = CheckedBlocks::default();
    let mut hosts = Vec::with_capacity(total);
    for (place, identity) in identities.into_iter().enumerate() {
        let adversary = place.checked_sub(config.peers).map(|liar| config.adversaries[liar]);
        let mut peer = PeerConfig::new(charter.clone(), known_to(place, &ids));
        peer.checked = checked.clone();
        peer.stage = u16::try_from(config.stage_of(place)).expect("a simulated number of stages");
        if config.moves {
            peer.other_stages = (0..u16::try_from(config.stages).unwrap_or(u16::MAX)).collect();
        }
        peer.neighbour_payloads = config.neighbour_payloads && config.stages > 1;
        peer.pipeline.message_bytes_max = MESSAGE_BYTES as u64;
        peer.pipeline.held_bytes_max = config.stage_messages_held.max(5) * MESSAGE_BYTES as u64;
        let mut host = Host::new(identity, adversary, peer);
        let slow = place > 0 && place <= config.slow;
        host.unit_us = draw.between(config.unit_us / 2, config.unit_us * 2) * if slow { 5 } else { 1 };
        host.broken = place + config.broken >= config.peers && host.is_honest();
        hosts.push(host);
    }
    let mut simulation = Simulation {
        network: Network::new(&config, total),
        places: ids.into_iter().zip(0..).collect(),
        checked: vec![0; total],
        hosts,
        events: Events::default(),
        now: Time::default(),
        draw,
        checks: Checks::new(&config),
        trace: Trace::new(),
        acts_done: 0,
        healed: None,
        counts: Counts::default(),
        faults: BTreeMap::new(),
        config,
    };
    simulation.plan_starts();
    simulation
}

/// Whom a host knows at first: all others, or a few of many.
fn known_to(place: usize, ids: &[PeerId]) -> Vec<PeerId> {
    if ids.len() <= ALL_KNOWN_MAX {
        return ids.to_vec();
    }
    let distances = (0..usize::BITS).map(|bit| 1_usize << bit).take_while(|distance| *distance < ids.len());
    distances.map(|distance| ids[(place + distance) % ids.len()]).collect()
}

fn identity(seed: u64, place: usize) -> Identity {
    let parts: [&[u8]; 2] = [&seed.to_le_bytes(), &(place as u64).to_le_bytes()];
    Identity::from_secret(Hash::derive("cairn v1 sim identity", &parts).0)
}

fn charter(config: &SimConfig, validator: &Identity) -> Verified<Charter> {
    let everybody = u32::try_from(config.peers + config.adversaries.len()).expect("a simulated number of peers");
    let units_least = if config.adversaries.is_empty() || config.stages > 1 { 1 } else { everybody };
    let punctual = config.peers.saturating_sub(config.late).max(1);
    let terms = |stage| {
        let genesis_state = trainer::genesis_state(config.seed, stage);
        StageTerms { genesis_state, state_bytes: config.state_bytes, weight: 1, coarser_max: 0 }
    };
    let charter = Charter {
        name: "simulated".to_owned(),
        validators: vec![validator.id()],
        recipe: Hash::of(b"recipe"),
        data: Hash::of(b"data"),
        tokenizer: Hash::of(b"tokenizer"),
        stages: (0..config.stages as u64).map(terms).collect(),
        profile: NumericProfile::F32Fma,
        rounds: config.rounds,
        units_per_round: config.units_per_round.max(units_least),
        unit_tokens: 1024,
        start_members: u32::try_from(punctual).expect("a simulated number of peers"),
        quorum: 1,
        round_us_first: config.round_us_max,
        round_us_max: config.round_us_max,
        shares_per_round: SHARES_PER_ROUND,
        release: Release::OpenNow,
        parent: None,
    };
    validator.sign(charter).verify().expect("signed just now")
}

impl Simulation {
    fn plan_starts(&mut self) {
        let span = self.config.rounds.saturating_mul(self.config.unit_us);
        for place in 0..self.hosts.len() {
            let from_end = self.config.peers.checked_sub(place);
            let late = place > 0 && from_end.is_some_and(|rest| rest <= self.config.late && rest > 0);
            let at = if late { self.draw.between(0, span) } else { self.draw.between(0, 100_000) };
            self.events.add(Time::from_micros(at), Event::Start { host: place });
        }
        for (place, scheduled) in self.config.schedule.iter().enumerate() {
            self.events.add(Time::from_micros(scheduled.at_us), Event::Act(place));
        }
        if self.config.faults.partition_us_mean > 0 {
            let at = self.draw.between(0, self.config.faults.partition_us_mean * 2);
            self.events.add(Time::from_micros(at), Event::Split);
        }
    }
}

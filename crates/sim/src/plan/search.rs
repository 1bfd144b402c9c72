//! Which stages, which codec, and who holds what.
//!
//! Tried are: every number of layers of a stage with as few stages as that needs, every codec, and fewer peers than there are (every
//! further replica is one more payload for all others of its stage). Peers are shared out one by one, those with the least memory first,
//! each to the stage with the lowest rate so far among those that it can hold.
//!
//! Of the codecs, the most exact one is taken whose tokens per second are within [`EXACTNESS`] of the best.

use learn::boundary::{BASIS_RATE, Codec, Precision, Space};
use model::Config;

use super::cost::{Shape, StageCost};
use super::estimate::{Estimate, Replicas, Work};
use super::peers::PeerGroup;
use super::{PlanError, PlanInput};

/// What tokens per second may be given up for a more exact codec, as a fraction.
pub(crate) const EXACTNESS: f64 = 0.03;

/// Units of one replica in a round: as many as its commitment has receipts.
const UNITS_PER_REPLICA: u32 = wire::transaction::RECEIPTS_PER_COMMITMENT_MAX as u32;

/// Parts of the peers that are tried.
const PARTS: [f64; 12] = [1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.14, 0.1, 0.05, 0.025];

/// A plan that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) codec: Codec,
    pub(crate) costs: Vec<StageCost>,
    pub(crate) replicas: Replicas,
    pub(crate) units: u32,
    pub(crate) unit_tokens: u64,
    pub(crate) estimate: Estimate,
    pub(crate) tokens_per_s: f64,
}

/// The codecs that are tried, the most exact first. Learned bases have an eighth of the width.
pub(crate) fn codecs(model: &Config) -> Vec<Codec> {
    let full = [Precision::F32, Precision::Bf16, Precision::Int8, Precision::Int4];
    let full = full.map(|precision| Codec { space: Space::Full, precision, coarsest: None });
    let space = Space::Projector { rank: (model.width / 8).max(1), rate: BASIS_RATE };
    let learned = [Precision::Int8, Precision::Int4].map(|precision| Codec { space, precision, coarsest: None });
    full.into_iter().chain(learned).collect()
}

/// Finds the best plan.
///
/// # Errors
/// [`PlanError`] when nothing fits, or the input does not fit together.
pub(crate) fn search(input: &PlanInput) -> Result<Found, PlanError> {
    let tried = match input.codec {
        Some(codec) => vec![codec],
        None => codecs(&input.model),
    };
    let mut best: Vec<Found> = Vec::new();
    let mut lacking: Option<PlanError> = None;
    for codec in tried {
        let mut found: Option<Found> = None;
        for stages in stage_counts(input) {
            match best_of(input, codec, stages) {
                Ok(other) if found.as_ref().is_none_or(|found| better(&other, found)) => found = Some(other),
                Ok(_) => {}
                Err(error @ PlanError::TooLittleMemory { .. }) => lacking = Some(least(lacking, error)),
                Err(PlanError::TooFewPeers { .. }) if lacking.is_some() => {}
                Err(error @ PlanError::TooFewPeers { .. }) => lacking = Some(error),
                Err(error) => return Err(error),
            }
        }
        best.extend(found);
    }
    let fastest = best.iter().map(|found| found.tokens_per_s).fold(0.0, f64::max);
    let exact = best.into_iter().find(|found| found.tokens_per_s >= (1.0 - EXACTNESS) * fastest);
    exact.ok_or_else(|| lacking.expect("something was tried"))
}

/// A little faster does not make up for more stages.
fn better(other: &Found, found: &Found) -> bool {
    let margin = if other.costs.len() > found.costs.len() { 1.001 } else { 1.0 };
    other.tokens_per_s > margin * found.tokens_per_s
}

/// Of two refusals, the one that asks for less.
fn least(one: Option<PlanError>, other: PlanError) -> PlanError {
    match (one, other) {
        (Some(one @ PlanError::TooLittleMemory { .. }), other) => match (&one, &other) {
            (PlanError::TooLittleMemory { needed: a, .. }, PlanError::TooLittleMemory { needed: b, .. }) if a <= b => {
                one
            }
            _ => other,
        },
        (_, other) => other,
    }
}

/// For every number of layers that the largest stage may have, the fewest stages.
fn stage_counts(input: &PlanInput) -> Vec<usize> {
    if let Some(stages) = input.stages {
        return vec![stages];
    }
    let layers = input.model.layers;
    let mut counts: Vec<usize> = (1..=layers).map(|most| layers.div_ceil(most)).collect();
    counts.dedup();
    counts.retain(|count| *count <= wire::STAGES_MAX && (*count == 1 || !input.model.tied_head));
    counts.reverse();
    counts
}

fn best_of(input: &PlanInput, codec: Codec, stages: usize) -> Result<Found, PlanError> {
    let shape = Shape { model: input.model, batch: input.batch, keep: input.keep, slots: input.slots, codec, stages };
    let costs = shape.costs()?;
    let work = Work {
        costs: &costs,
        groups: &input.groups,
        calibration: &input.calibration,
        slots: input.slots,
        orderer_bits_per_s: input.orderer_bits_per_s,
    };
    let mut found: Option<(f64, Replicas, u32, Estimate)> = None;
    for part in PARTS {
        let counts: Vec<u32> = input.groups.iter().map(|group| (f64::from(group.count) * part).ceil() as u32).collect();
        let replicas = match assign(&work, &counts) {
            Ok(replicas) => replicas,
            Err(error) if part == 1.0 => return Err(error),
            Err(_) => break,
        };
        let units = units(input, &replicas);
        let estimate = work.estimate(&replicas, units);
        let rate = f64::from(units) * input.unit_tokens() as f64 / estimate.round.total_s();
        // With fewer peers only when that is faster.
        if found.as_ref().is_none_or(|(best, ..)| rate > *best) {
            found = Some((rate, replicas, units, estimate));
        }
        if input.all_peers {
            break;
        }
    }
    let (tokens_per_s, replicas, units, estimate) = found.expect("the whole of the peers was tried first");
    Ok(Found { codec, costs, replicas, units, unit_tokens: input.unit_tokens(), estimate, tokens_per_s })
}

/// Units of a round: what was asked for, as far as commitments have room.
fn units(input: &PlanInput, replicas: &Replicas) -> u32 {
    let fewest = replicas.iter().map(|stage| stage.iter().sum::<u32>()).min().unwrap_or(1);
    let asked = input.round_tokens.div_ceil(input.unit_tokens());
    let asked = u32::try_from(asked).unwrap_or(u32::MAX);
    asked.min(fewest.saturating_mul(UNITS_PER_REPLICA)).clamp(1, learn::recipe::UNITS_MAX)
}

/// Shares the peers out.
fn assign(work: &Work<'_>, counts: &[u32]) -> Result<Replicas, PlanError> {
    let (costs, groups) = (work.costs, work.groups);
    let mut order: Vec<usize> = (0..groups.len()).collect();
    let key = |group: &PeerGroup| (group.peer.memory_bytes, std::cmp::Reverse(group.peer.flops as u64));
    order.sort_by_key(|group| key(&groups[*group]));
    let mut replicas = vec![vec![0; groups.len()]; costs.len()];
    let mut rates = vec![0.0; costs.len()];
    for group in order {
        let memory = groups[group].peer.memory_bytes;
        let fits: Vec<usize> = (0..costs.len()).filter(|stage| costs[*stage].window(memory).is_some()).collect();
        let each: Vec<f64> = fits.iter().map(|stage| 1.0 / work.link_interval(*stage, group)).collect();
        for _ in 0..counts[group] {
            let lowest = (0..fits.len()).min_by(|a, b| f64::total_cmp(&rates[fits[*a]], &rates[fits[*b]]));
            let Some(lowest) = lowest else { break };
            replicas[fits[lowest]][group] += 1;
            rates[fits[lowest]] += each[lowest];
        }
    }
    let empty = (0..costs.len()).filter(|stage| rates[*stage] == 0.0);
    match empty.max_by_key(|stage| costs[*stage].memory.total()) {
        None => Ok(replicas),
        Some(stage) => Err(refusal(work, stage)),
    }
}

/// Why nobody holds a stage.
fn refusal(work: &Work<'_>, stage: usize) -> PlanError {
    let cost = &work.costs[stage];
    let largest = work.groups.iter().map(|group| group.peer.memory_bytes).max().unwrap_or(0);
    let peers = work.groups.iter().map(|group| u64::from(group.count)).sum();
    let needed = cost.memory.total();
    let holders = work.groups.iter().filter(|group| group.peer.memory_bytes >= needed).map(|group| group.count).sum();
    match needed > largest {
        true => PlanError::TooLittleMemory {
            needed,
            largest,
            stages: work.costs.len(),
            layers: cost.layers,
            ends: cost.first || cost.last,
        },
        false => PlanError::TooFewPeers { peers, stages: work.costs.len(), needed, holders },
    }
}

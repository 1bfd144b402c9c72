//! The fake trainer: hashes instead of tensors.
//!
//! Every result is a hash of what the real one would be computed from, so equal inputs give equal results and nothing else
//! does. In place of the residual's values it counts *mass*: tokens trained but not yet in a committed payload. A payload
//! takes all of it along; when the payload misses its round the mass comes back. [`Residual::lost`] is what error feedback
//! forbids: it must stay 0.

pub mod stage;

use swarm::pipeline::UnitDone;
use swarm::{Entry, UnitAssignment, UnitResult};
use wire::Hash;

/// A payload that was made and whose fate is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The round it is for.
    pub round: u64,
    /// The state that it was trained from.
    pub state_root: Hash,
    /// The units in it.
    pub units: Vec<UnitAssignment>,
    /// Its hash.
    pub payload: Hash,
    /// Root of the residual that is left when it is committed.
    pub residual_root: Hash,
    /// The mass in it.
    pub mass: u64,
}

/// A peer's residual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residual {
    /// Stands for the values.
    pub root: Hash,
    /// Tokens trained that no committed payload holds.
    pub mass: u64,
    /// The payload that was made last, until its round is applied.
    pub pending: Option<Pending>,
    /// Tokens trained in all.
    pub trained: u64,
    /// Tokens that went out in committed payloads.
    pub sent: u64,
}

impl Residual {
    /// Trains units, or gives the payload that was made of them before.
    pub fn work(&mut self, round: u64, state_root: Hash, units: &[UnitAssignment], unit_tokens: u64) -> Pending {
        let outputs: Vec<Hash> = units.iter().map(|unit| output_root(unit, state_root)).collect();
        self.pay_in(round, state_root, units, &outputs, unit_tokens)
    }

    /// Pays in what was computed, `outputs` by unit, or gives the payload that was made of the units before.
    pub fn pay_in(
        &mut self,
        round: u64,
        state_root: Hash,
        units: &[UnitAssignment],
        outputs: &[Hash],
        unit_tokens: u64,
    ) -> Pending {
        if let Some(pending) = &self.pending {
            if pending.round == round && pending.state_root == state_root && pending.units == units {
                return pending.clone();
            }
            self.trained -= pending.mass - self.mass;
        }
        let mut parts: Vec<&[u8]> = vec![&self.root.0];
        parts.extend(outputs.iter().map(|output| &output.0[..]));
        let payload = Hash::derive("cairn v1 sim payload", &parts);
        let residual_root = Hash::derive("cairn v1 sim residual", &[&self.root.0, &payload.0]);
        let tokens = unit_tokens * units.len() as u64;
        self.trained += tokens;
        let mass = self.mass + tokens;
        let pending = Pending { round, state_root, units: units.to_vec(), payload, residual_root, mass };
        self.pending = Some(pending.clone());
        pending
    }

    /// Settles the pending payload: it is in its round's committed set, or not.
    pub fn settle(&mut self, committed: bool) {
        let Some(pending) = self.pending.take() else { return };
        if committed {
            self.root = pending.residual_root;
            self.sent += pending.mass;
            self.mass = 0;
        } else {
            self.root = Hash::derive("cairn v1 sim residual kept", &[&self.root.0, &pending.payload.0]);
            self.mass = pending.mass;
        }
    }

    /// Tokens that are neither sent nor here: always 0 unless the protocol settles payloads wrongly.
    pub fn lost(&self) -> u64 {
        let here = self.pending.as_ref().map_or(self.mass, |pending| pending.mass);
        self.trained.abs_diff(self.sent + here)
    }
}

fn output_root(unit: &UnitAssignment, state_root: Hash) -> Hash {
    Hash::derive("cairn v1 sim unit output", &[&unit.unit.0.0, &state_root.0])
}

/// What the trainer states about a unit.
pub fn unit_result(unit: &UnitAssignment, state_root: Hash, tokens: u64) -> UnitResult {
    UnitResult {
        index: unit.index,
        data_root: Hash::derive("cairn v1 sim unit data", &[&unit.unit.0.0]),
        trace_root: Hash::derive("cairn v1 sim unit trace", &[&unit.unit.0.0, &state_root.0]),
        output_root: output_root(unit, state_root),
        tokens,
        loss_micronats: 2_000_000,
    }
}

/// What the trainer of a stage states about a unit.
pub fn stage_unit_result(done: &UnitDone, tokens: u64) -> UnitResult {
    UnitResult {
        index: done.index,
        data_root: Hash::derive("cairn v1 sim unit data", &[&done.unit.0.0]),
        trace_root: done.trace_root(),
        output_root: done.output_root(),
        tokens,
        loss_micronats: done.loss_micronats,
    }
}

/// The state of a stage before round 0.
pub fn genesis_state(seed: u64, stage: u64) -> Hash {
    Hash::derive("cairn v1 sim genesis", &[&seed.to_le_bytes(), &stage.to_le_bytes()])
}

/// The state after the payloads of a committed set are applied, in their order.
pub fn step<'a>(state_root: Hash, entries: impl Iterator<Item = &'a Entry>) -> Hash {
    let entries: Vec<&Entry> = entries.collect();
    let mut parts: Vec<&[u8]> = vec![&state_root.0];
    for entry in entries {
        parts.extend([&entry.peer.0[..], &entry.payload.0[..]]);
    }
    Hash::derive("cairn v1 sim state", &parts)
}

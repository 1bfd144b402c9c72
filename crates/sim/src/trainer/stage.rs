//! The fake trainer of one stage: hashes instead of tensors, in messages of one fixed shape.
//!
//! A message is [`MESSAGE_BYTES`] bytes, a mark and a hash, which stand for as many bytes as the configuration says: the network counts
//! those. What a stage gives is a pure function of its state's root, the unit and what came in, so that every replica gives the same and
//! [`reference`] knows what a run without liars must have in its receipts.

use swarm::pipeline::{StageResult, StageTask, StageTaskKind, UnitDone};
use wire::{Hash, UnitId};

/// Bytes of every message.
pub const MESSAGE_BYTES: usize = 64;
/// The first byte of a message that holds numbers.
pub const NUMBERS: u8 = 1;
/// The first byte of a message that holds something that is no number.
pub const NO_NUMBERS: u8 = 0xff;
/// The mean loss that every unit is said to have, in millionths of a nat per token.
const LOSS_MICRONATS: u64 = 2_000_000;

fn message(context: &'static str, root: Hash, unit: UnitId, parts: [&[u8]; 2]) -> Vec<u8> {
    let hash = Hash::derive(context, &[&root.0, &unit.0.0, parts[0], parts[1]]);
    let mut bytes = vec![NUMBERS];
    bytes.extend(hash.0);
    bytes.resize(MESSAGE_BYTES, 0);
    bytes
}

/// What a stage with the state `root` gives to the next; `input` is empty in stage 0.
fn output(root: Hash, unit: UnitId, input: &[u8]) -> Vec<u8> {
    message("cairn v1 sim stage output", root, unit, [input, &[]])
}

/// What a stage gives to the one before; `gradient` is empty in the last stage.
fn gradient(root: Hash, unit: UnitId, input: &[u8], gradient: &[u8]) -> Vec<u8> {
    message("cairn v1 sim stage gradient", root, unit, [input, gradient])
}

fn invalid(bytes: &[u8]) -> Option<StageResult> {
    let what = match bytes.first() {
        _ if bytes.len() != MESSAGE_BYTES => format!("{} bytes instead of {MESSAGE_BYTES}", bytes.len()),
        Some(&NUMBERS) => return None,
        Some(&NO_NUMBERS) => "no numbers".to_owned(),
        _ => "another codec".to_owned(),
    };
    Some(StageResult::Invalid { what })
}

/// Does a task in the stage `stage`, whose state has the root `root`.
pub(crate) fn compute(stage: u16, root: Hash, task: &StageTask) -> StageResult {
    let unit = task.unit;
    let for_before = |bytes| (stage > 0).then_some(bytes);
    match &task.kind {
        StageTaskKind::Forward { input } => input.as_deref().and_then(invalid).unwrap_or_else(|| {
            StageResult::Forward { output: output(root, unit, input.as_deref().unwrap_or_default()) }
        }),
        StageTaskKind::Turn { input } => input.as_deref().and_then(invalid).unwrap_or_else(|| {
            let gradient = gradient(root, unit, input.as_deref().unwrap_or_default(), &[]);
            StageResult::Turn { loss_micronats: LOSS_MICRONATS, gradient: for_before(gradient) }
        }),
        StageTaskKind::Backward { input, gradient: below, .. } => invalid(below).unwrap_or_else(|| {
            let gradient = gradient(root, unit, input.as_deref().unwrap_or_default(), below);
            StageResult::Backward { gradient: for_before(gradient) }
        }),
    }
}

/// How long a task takes, in thirds of a unit's whole time in a stage.
pub(crate) fn thirds(task: &StageTask) -> u64 {
    match task.kind {
        StageTaskKind::Forward { .. } => 1,
        StageTaskKind::Backward { .. } => 2,
        StageTaskKind::Turn { .. } => 3,
    }
}

/// What the receipts of one unit must say in every stage, given the roots of the stages' states: the hash over what came in, and over
/// what went out.
pub(crate) fn reference(roots: &[Hash], unit: UnitId) -> Vec<(Hash, Hash)> {
    let mut inputs: Vec<Vec<u8>> = vec![Vec::new()];
    for root in &roots[..roots.len().saturating_sub(1)] {
        let next = output(*root, unit, inputs.last().expect("one was put in"));
        inputs.push(next);
    }
    let hash = |bytes: &[u8]| if bytes.is_empty() { Hash::default() } else { Hash::of(bytes) };
    let (mut below, mut receipts) = (Vec::new(), Vec::new());
    for (stage, (root, input)) in roots.iter().zip(&inputs).enumerate().rev() {
        let given = gradient(*root, unit, input, &below);
        let done = UnitDone {
            index: 0,
            unit,
            input: hash(input),
            output: inputs.get(stage + 1).map_or_else(Hash::default, |output| hash(output)),
            gradient_in: hash(&below),
            gradient_out: if stage > 0 { hash(&given) } else { Hash::default() },
            loss_micronats: 0,
        };
        receipts.push((done.trace_root(), done.output_root()));
        below = given;
    }
    receipts.reverse();
    receipts
}

/// The gradients that a replica added up since its state was made: in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    root: Hash,
    units: Vec<(u32, UnitId)>,
}

impl Sum {
    /// Adds a unit's gradient. False when it is there already.
    pub(crate) fn add(&mut self, root: Hash, index: u32, unit: UnitId) -> bool {
        if self.root != root {
            *self = Self { root, units: Vec::new() };
        }
        let new = !self.units.contains(&(index, unit));
        self.units.push((index, unit));
        new
    }

    /// Whether it is exactly the sum of these units, added up in this order.
    pub(crate) fn is_of(&self, root: Hash, units: &[UnitDone]) -> bool {
        let same = |(one, other): (&(u32, UnitId), &UnitDone)| *one == (other.index, other.unit);
        self.root == root && self.units.len() == units.len() && self.units.iter().zip(units).all(same)
    }
}

//! The fake trainer: hashes instead of tensors, in messages of one fixed shape.

use swarm::pipeline::{StageResult, StageTask, StageTaskKind};
use wire::{Hash, UnitId};

/// Bytes of every message.
pub(crate) const MESSAGE_BYTES: usize = 40;
/// The first byte of a message that holds numbers.
const NUMBERS: u8 = 1;
/// The first byte of a message that holds something that is no number.
pub(crate) const NO_NUMBERS: u8 = 0xff;

fn message(context: &'static str, stage: usize, unit: UnitId, parts: [&[u8]; 2]) -> Vec<u8> {
    let stage = (stage as u64).to_le_bytes();
    let hash = Hash::derive(context, &[&stage, &unit.0.0, parts[0], parts[1]]);
    let mut bytes = vec![NUMBERS];
    bytes.extend(hash.0);
    bytes.resize(MESSAGE_BYTES, 0);
    bytes
}

/// What a stage gives to the next.
pub(crate) fn output(stage: usize, unit: UnitId, input: Option<&[u8]>) -> Vec<u8> {
    message("cairn test stage output", stage, unit, [input.unwrap_or_default(), &[]])
}

/// What a stage gives to the one before; `gradient` is empty in the last stage.
pub(crate) fn gradient(stage: usize, unit: UnitId, input: Option<&[u8]>, gradient: &[u8]) -> Vec<u8> {
    message("cairn test stage gradient", stage, unit, [input.unwrap_or_default(), gradient])
}

/// The hashes of input and gradient of one unit at every stage, as all replicas must compute them.
pub(crate) struct Reference {
    pub(crate) inputs: Vec<Option<Vec<u8>>>,
    /// The gradient that each stage gives to the one before.
    pub(crate) gradients: Vec<Vec<u8>>,
}

impl Reference {
    pub(crate) fn new(stages: usize, unit: UnitId) -> Self {
        let mut inputs = vec![None];
        for stage in 0..stages - 1 {
            let next = output(stage, unit, inputs[stage].as_deref());
            inputs.push(Some(next));
        }
        let mut gradients = vec![Vec::new(); stages + 1];
        for stage in (0..stages).rev() {
            gradients[stage] = gradient(stage, unit, inputs[stage].as_deref(), &gradients[stage + 1]);
        }
        Self { inputs, gradients }
    }
}

fn invalid(bytes: &[u8]) -> Option<StageResult> {
    let what = match bytes.first() {
        _ if bytes.len() != MESSAGE_BYTES => format!("{} bytes instead of {MESSAGE_BYTES}", bytes.len()),
        Some(&NUMBERS) => return None,
        Some(&NO_NUMBERS) => "NaN".to_owned(),
        _ => "another codec".to_owned(),
    };
    Some(StageResult::Invalid { what })
}

/// Does a task.
pub(crate) fn compute(stage: usize, task: &StageTask) -> StageResult {
    let unit = task.unit;
    let for_before = |bytes| (stage > 0).then_some(bytes);
    match &task.kind {
        StageTaskKind::Forward { input } => {
            let bad = input.as_deref().and_then(invalid);
            bad.unwrap_or_else(|| StageResult::Forward { output: output(stage, unit, input.as_deref()) })
        }
        StageTaskKind::Turn { input } => input.as_deref().and_then(invalid).unwrap_or_else(|| StageResult::Turn {
            loss_micronats: 2_000_000,
            gradient: for_before(gradient(stage, unit, input.as_deref(), &[])),
        }),
        StageTaskKind::Backward { input, gradient: below, .. } => invalid(below).unwrap_or_else(|| {
            StageResult::Backward { gradient: for_before(gradient(stage, unit, input.as_deref(), below)) }
        }),
    }
}

/// How long a task takes, in units of a forward pass.
pub(crate) fn cost(task: &StageTask) -> u64 {
    match task.kind {
        StageTaskKind::Forward { .. } => 1,
        StageTaskKind::Backward { .. } => 2,
        StageTaskKind::Turn { .. } => 3,
    }
}

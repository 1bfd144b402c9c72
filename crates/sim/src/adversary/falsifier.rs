//! Gives other outputs and gradients than its stage has: of the right shape, the same lie for the same bytes, and consistent with itself.
//!
//! Caught by: nothing at once. When a unit is done again by another replica, the bytes differ, and that is recorded; which of the two lied
//! an audit would find. The lie passes into the states, which stay equal everywhere.

use swarm::pipeline::StageResult;

pub(super) fn falsify(mut result: StageResult) -> StageResult {
    let bytes = match &mut result {
        StageResult::Forward { output } => Some(output),
        StageResult::Turn { gradient, .. } | StageResult::Backward { gradient } => gradient.as_mut(),
        StageResult::Invalid { .. } | StageResult::Failed { .. } => None,
    };
    if let Some(last) = bytes.and_then(|bytes| bytes.last_mut()) {
        *last ^= 1;
    }
    result
}

//! The jobs of a member of one of several stages: passes of micro-batches, and the payload of their sum.
//!
//! The replica and its sum are in memory only: a process that starts again has lost the sum of its round, and its callers see that it
//! knows their units no more. What was paid in is stored as other work is.

use std::time::Instant;

use learn::boundary::{BoundaryError, Precision, precision_of};
use learn::pipeline::{MicroBatch, STAGE_SLOTS, StageWorker};
use swarm::JobResult;
use swarm::pipeline::{StageResult, StageTask, StageTaskKind, UnitDone};
use wire::Hash;

use super::Effort;
use super::machine::{JobError, Machine};
use crate::state::ModelState;
use crate::store::PendingUnit;

/// What the tasks of a round work on.
#[derive(Debug, Default)]
pub(super) struct StageJobs {
    /// The replica, with the root of the state whose weights it has.
    replica: Option<(Hash, Box<StageWorker>)>,
}

impl StageJobs {
    /// Forgets the sum so far: the state is another one now.
    pub(super) fn forget(&mut self) {
        if let Some((root, _)) = &mut self.replica {
            *root = Hash::default();
        }
    }
}

impl Machine {
    /// Runs one task. What the task says of other peers' bytes is a result, not an error.
    pub(super) async fn stage_task(&mut self, task: StageTask, effort: &mut Effort) -> Result<JobResult, JobError> {
        let mut replica = self.replica().await?;
        let (workload, start) = (self.means.workload.clone(), Instant::now());
        let (replica, result) = self
            .on_core(move || {
                let recipe = &workload.recipe;
                let batch = MicroBatch::derive(recipe, &workload.corpus, task.unit.0.0);
                let finest = recipe.pipeline.map_or(Precision::F32, |pipeline| pipeline.precision);
                let (before, after) = (finest.coarser(task.coarser_before), finest.coarser(task.coarser_after));
                let result = run(&mut replica.1, &batch, &task, (before, after));
                Ok((replica, result))
            })
            .await?;
        self.stage.replica = Some(replica);
        effort.seconds = start.elapsed().as_secs_f64();
        if matches!(result, StageResult::Turn { .. } | StageResult::Backward { gradient: None }) {
            effort.tokens = self.means.workload.recipe.step_tokens();
        }
        Ok(JobResult::Stage(result))
    }

    /// Makes the payload of what was added up in this round.
    pub(super) async fn contribute(
        &mut self,
        round: u64,
        state_root: Hash,
        units: &[UnitDone],
    ) -> Result<JobResult, JobError> {
        let same = |(kept, unit): (&PendingUnit, &UnitDone)| kept.index == unit.index && kept.unit == unit.unit.0;
        let stored = self.stored_work(|pending| {
            pending.round == round
                && pending.state_root == state_root
                && pending.units.len() == units.len()
                && pending.units.iter().zip(units).all(same)
        });
        if let Some(stored) = stored {
            return Ok(stored);
        }
        let (root, replica) = self.replica().await?;
        let contribution = replica.contribution().filter(|sum| sum.micro_batches == units.len() as u64);
        self.stage.replica = Some((root, replica));
        let Some(contribution) = contribution else { return Err(JobError::LostSum { round }) };
        let recipe = &self.means.workload.recipe;
        let result = |unit: &UnitDone| PendingUnit {
            index: unit.index,
            unit: unit.unit.0,
            data_root: Hash(MicroBatch::derive(recipe, &self.means.workload.corpus, unit.unit.0.0).data_root),
            trace_root: unit.trace_root(),
            output_root: unit.output_root(),
            tokens: recipe.unit_tokens(),
            loss_micronats: unit.loss_micronats,
        };
        let results = units.iter().map(result).collect();
        self.pay_in(round, state_root, results, move || contribution.gradient).await
    }

    /// The replica with the weights of the stored state; its sum is that of the tasks since the state was made.
    async fn replica(&mut self) -> Result<(Hash, Box<StageWorker>), JobError> {
        let root =
            self.state_root().ok_or(JobError::WrongState { held: "none".to_owned(), wanted: Hash::default() })?;
        let kept = match self.stage.replica.take() {
            Some(kept) if kept.0 == root => return Ok(kept),
            kept => kept.map(|(_, replica)| replica),
        };
        let (state, workload, stage) = (self.state(root)?, self.means.workload.clone(), self.means.stage);
        let replica = self
            .on_core(move || {
                let ModelState::Stage(state) = state.as_ref() else {
                    unreachable!("only members of one of several stages have tasks")
                };
                if let Some(mut kept) = kept {
                    kept.load(state);
                    return Ok(kept);
                }
                let shape = workload.shape(stage).expect("a stage's state is made for a run with stages");
                let recipe = &workload.recipe;
                let parts = shape.token_parts();
                Ok(Box::new(StageWorker::new(recipe.context(1), recipe, shape.clone(), parts, state, STAGE_SLOTS)))
            })
            .await?;
        Ok((root, replica))
    }
}

/// Runs a task on a replica. Messages from and to the stages before and after have these precisions.
fn run(
    replica: &mut StageWorker,
    batch: &MicroBatch,
    task: &StageTask,
    (before, after): (Precision, Precision),
) -> StageResult {
    let outcome = match &task.kind {
        StageTaskKind::Forward { input } => check(input.as_deref(), before)
            .and_then(|input| replica.forward(batch, input, after).map(|output| StageResult::Forward { output })),
        StageTaskKind::Turn { input } => check(input.as_deref(), before).and_then(|input| {
            let turn = replica.turn(batch, input, before, task.counted)?;
            let loss_micronats = (turn.loss * 1e6).round() as u64;
            Ok(StageResult::Turn { loss_micronats, gradient: turn.gradient })
        }),
        StageTaskKind::Backward { input, gradient, .. } => check(Some(gradient), after).and_then(|_| {
            let gradient = replica.backward(batch, input.as_deref(), gradient, before, task.counted)?;
            Ok(StageResult::Backward { gradient })
        }),
    };
    outcome.unwrap_or_else(|error: BoundaryError| StageResult::Invalid { what: error.to_string() })
}

/// Checks that a message has the precision of its boundary in this round.
fn check(message: Option<&[u8]>, expected: Precision) -> Result<Option<&[u8]>, BoundaryError> {
    let Some(bytes) = message else { return Ok(None) };
    match precision_of(bytes)? {
        got if got == expected => Ok(message),
        got => Err(BoundaryError::WrongPrecision { expected, got }),
    }
}

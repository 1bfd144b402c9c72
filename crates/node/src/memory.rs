//! The memory of a peer: planned before it starts, kept by the size of its in-flight window, and measured.
//!
//! The plan of a stage has what the replica takes ([`StageBudget`]), what serving the stage to consumers may take, the inputs, outputs and gradients of
//! the units under way, the blocks of the whole run, which every peer holds ([`swarm::Peer::blocks`]), and the program with its data. Only
//! the window can be made smaller; a limit below the rest is refused. That of a peer with the whole model is [`WholeMemory`].

mod whole;

use std::fmt;

use learn::Recipe;
use learn::pipeline::{MESSAGES_PER_UNIT, PROGRAM_BYTES, STAGE_SLOTS, StageBudget, TOKENIZER_BYTES};
use model::ConfigError;
use swarm::pipeline::PipelineConfig;
use wire::{Receipt, Signed, Transaction};

use crate::inference::serving_bytes;
use crate::workload::Workload;
pub use whole::WholeMemory;

/// Transactions of a member in a round: its commitment and its attestation.
const TRANSACTIONS_PER_ROUND: u64 = 2;
/// Messages that a pipeline needs to get on.
const MESSAGES_MIN: u64 = 5;

/// Bytes that a member of a stage takes, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberMemory {
    /// The replica.
    pub stage: StageBudget,
    /// States and sequences of consumers, when there are any.
    pub serving: u64,
    /// Inputs, outputs and gradients of the units under way: all that it may have.
    pub window: u64,
    /// The run's blocks at its end: their receipts, and the transactions that hold them.
    pub records: u64,
    /// The program, the tokenizer and the corpus.
    pub program: u64,
    message: u64,
}

/// A peer does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TooLittleMemory {
    /// Its stage; none when it holds the whole model.
    pub stage: Option<u16>,
    /// Bytes that it needs at least.
    pub needed: u64,
    /// Bytes that it may take.
    pub limit: u64,
}

impl fmt::Display for TooLittleMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let Self { stage, needed, limit } = self;
        let of = stage.map_or_else(String::new, |stage| format!(" of stage {stage}"));
        write!(f, "a peer{of} needs {} MB of memory, and may take {} MB", megabytes(*needed), limit / 1_000_000)
    }
}

impl MemberMemory {
    /// Plans a member of a stage that has `replicas` of them. None for a model that every peer holds as a whole.
    ///
    /// # Errors
    /// The recipe's batch does not suit its model.
    pub fn of(workload: &Workload, stage: u16, replicas: usize) -> Result<Option<Self>, ConfigError> {
        let Some(shape) = workload.shape(stage) else { return Ok(None) };
        let recipe = &workload.recipe;
        let settings = workload.pipeline();
        let units = u64::from(recipe.units_per_round.min(settings.units_max));
        // Another replica's units may come here, too, when that one is lost.
        let units = if replicas > 1 { units } else { u64::from(settings.window_max).min(units) };
        let message = settings.message_bytes_max;
        let corpus = &workload.corpus;
        let tokens = (corpus.train.len() + corpus.heldout.len()) * size_of::<u32>();
        Ok(Some(Self {
            stage: StageBudget::of(recipe, shape, STAGE_SLOTS, 1)?,
            serving: serving_bytes(workload, stage),
            window: MESSAGES_PER_UNIT * units * message,
            records: records_bytes(recipe, replicas, workload.stages_len()),
            program: PROGRAM_BYTES + TOKENIZER_BYTES * recipe.model.vocab as u64 + tokens as u64,
            message,
        }))
    }

    /// What it takes at most.
    pub fn total(&self) -> u64 {
        self.without_window() + self.window
    }

    /// The least that it can do with.
    pub fn least(&self) -> u64 {
        self.without_window() + MESSAGES_MIN * self.message
    }

    fn without_window(&self) -> u64 {
        self.stage.total() + self.serving + self.records + self.program
    }

    /// The settings of a pipeline that keeps to a limit.
    ///
    /// # Errors
    /// [`TooLittleMemory`] when even the smallest window is too large.
    pub fn pipeline(
        &self,
        workload: &Workload,
        stage: u16,
        limit: Option<u64>,
    ) -> Result<PipelineConfig, TooLittleMemory> {
        let needed = self.least();
        let Some(limit) = limit else { return Ok(workload.pipeline()) };
        if needed > limit {
            return Err(TooLittleMemory { stage: Some(stage), needed, limit });
        }
        let window = (limit - self.without_window()).min(self.window.max(MESSAGES_MIN * self.message));
        Ok(PipelineConfig { held_bytes_max: window, ..workload.pipeline() })
    }
}

/// What the blocks of a whole run take: a receipt for each unit in every stage, and a commitment and an attestation of each member.
fn records_bytes(recipe: &Recipe, replicas: usize, stages: u16) -> u64 {
    let stages = u64::from(stages);
    let receipts = u64::from(recipe.units_per_round) * stages * size_of::<Signed<Receipt>>() as u64;
    let transactions = TRANSACTIONS_PER_ROUND * replicas as u64 * stages * size_of::<Signed<Transaction>>() as u64;
    recipe.rounds * (receipts + transactions)
}

/// The most memory that this process had so far, in bytes, where the system says so.
pub fn peak_bytes() -> Option<u64> {
    status_bytes("self", "VmHWM:")
}

/// The memory that a process has now, in bytes, where the system says so; this one's without a number.
pub(crate) fn resident_bytes(process: Option<u32>) -> Option<u64> {
    status_bytes(&process.map_or_else(|| "self".to_owned(), |process| process.to_string()), "VmRSS:")
}

fn status_bytes(process: &str, field: &str) -> Option<u64> {
    let report = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = report.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use learn::boundary::{Precision, Space};
    use learn::data::Corpus;

    use super::*;

    fn workload(stages: usize) -> Arc<Workload> {
        let text = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/austen/northanger-abbey.txt");
        let recipe = Recipe::tiny().in_stages(stages, Space::Full, Precision::F32);
        Arc::new(Workload::new(recipe, Corpus::from_path(&text).unwrap()).unwrap())
    }

    #[test]
    fn a_limit_makes_the_window_smaller_and_at_last_is_refused() {
        let workload = workload(2);
        let memory = MemberMemory::of(&workload, 1, 2).unwrap().unwrap();
        let held = |limit| memory.pipeline(&workload, 1, limit).map(|settings| settings.held_bytes_max);
        assert_eq!(held(None), Ok(workload.pipeline().held_bytes_max));
        assert_eq!(held(Some(memory.total())), Ok(memory.window));
        assert_eq!(held(Some(memory.total() - 1000)), Ok(memory.window - 1000));
        assert_eq!(held(Some(memory.least())), Ok(MESSAGES_MIN * memory.message));
        let (needed, limit) = (memory.least(), memory.least() - 1);
        assert_eq!(held(Some(limit)), Err(TooLittleMemory { stage: Some(1), needed, limit }));
    }

    #[test]
    fn a_whole_model_has_no_plan_of_this_kind() {
        assert_eq!(MemberMemory::of(&workload(1), 0, 4), Ok(None));
    }

    #[test]
    fn a_whole_model_is_refused_where_it_does_not_fit() {
        let workload = workload(1);
        let alone = WholeMemory::of(&workload, 1, 1).unwrap().unwrap();
        let (many, shared) =
            (WholeMemory::of(&workload, 1, 4).unwrap().unwrap(), WholeMemory::of(&workload, 4, 4).unwrap().unwrap());
        assert!(alone.total() < many.total() && shared.total() < many.total(), "{alone:?} {many:?} {shared:?}");
        assert_eq!(alone.check(None), Ok(()));
        assert_eq!(alone.check(Some(alone.total())), Ok(()));
        let (needed, limit) = (alone.total(), alone.total() - 1);
        let refused = alone.check(Some(limit)).unwrap_err();
        assert_eq!(refused, TooLittleMemory { stage: None, needed, limit });
        assert!(refused.to_string().starts_with("a peer needs "), "{refused}");
        assert_eq!(WholeMemory::of(&self::workload(2), 1, 1), Ok(None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_is_this_process_own() {
        let before = peak_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; before as usize]);
        assert!(peak_bytes().unwrap() >= before + block.len() as u64 / 2);
        assert!(resident_bytes(None).is_some_and(|now| now > 0 && now <= peak_bytes().unwrap()));
        assert_eq!(resident_bytes(Some(std::process::id())).is_some(), resident_bytes(None).is_some());
        assert_eq!(resident_bytes(Some(u32::MAX)), None);
    }
}

//! Computes recorded units again, and compares with what their receipts say.
//!
//! Purpose: the check behind everything else. A receipt names its unit, the hashes of what went in and came out, and the round; the state
//! that the round started from is named by the ledger. So anybody who has that state and the corpus can do the unit again, on any
//! machine, and must get the same bits.
//!
//! A unit of a whole model is some inner steps. A unit of a model in stages is one micro-batch, which passes all stages forward and back;
//! every stage has a receipt of its own for it.
//!
//! What it does not do: decide what follows from a difference (audits and disputes are the protocol's), or compute payloads again, which
//! depend on residuals.

use std::collections::BTreeMap;
use std::sync::Arc;

use learn::boundary::{BoundaryError, Precision};
use learn::pipeline::{MicroBatch, StageWorker, Turn};
use learn::unit::{self, UnitError};
use ledger::CommittedSet;
use swarm::pipeline::UnitDone;
use wire::{Action, Hash, PeerId, Receipt, UnitId};

use crate::observe::{blob_paths, read_states};
use crate::offline::{Saved, check_open};
use crate::state::ModelState;
use crate::status::AgreedState;
use crate::store::StoreError;
use crate::workload::Workload;

/// Why units cannot be computed again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Stored files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The corpus or the recipe is not the run's.
    #[error("this corpus is not the one that the run was trained on")]
    ForeignCorpus,
    /// No round is closed yet.
    #[error("the run has no finished round yet")]
    NoRound,
    /// The state of the round is not held any more, or the round is not closed yet.
    #[error("round {round} cannot be computed again: its state is not held")]
    NoState {
        /// The round.
        round: u64,
        /// Rounds whose states are held.
        held: Vec<u64>,
    },
    /// The round has no receipt of the unit.
    #[error("round {round} has no receipt of unit {index}")]
    NoUnit {
        /// The round.
        round: u64,
        /// The unit's place in the round.
        index: u32,
    },
    /// A unit of the model diverges, which no recorded one does.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Hidden states of a unit are not finite, which no recorded ones are.
    #[error(transparent)]
    Boundary(#[from] BoundaryError),
}

/// Something in a receipt that came out differently.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What: a hash, or the loss in micronats per token.
    pub what: &'static str,
    /// What the receipt says.
    pub recorded: String,
    /// What came of it here.
    pub computed: String,
}

/// A receipt that was checked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Who was paid for it.
    pub peer: PeerId,
    /// The stage.
    pub stage: u16,
    /// The unit's place in the round.
    pub index: u32,
    /// The unit.
    pub unit: UnitId,
    /// What is not as it was recorded: nothing, if the receipt is true.
    pub differences: Vec<Difference>,
}

/// A recorded round of a run at rest.
#[derive(Debug)]
pub struct RecordedRound {
    round: u64,
    workload: Arc<Workload>,
    states: Vec<ModelState>,
    /// How the numbers between each stage and the next are written.
    precisions: Vec<Precision>,
    /// The receipts by unit.
    receipts: BTreeMap<u32, Vec<(PeerId, Receipt)>>,
}

impl RecordedRound {
    /// Reads a closed round with the states that it started from: the newest whose states are held, unless one is named.
    ///
    /// # Errors
    /// [`ReplayError`] when it is not there, or the workload is not the run's, or the charter does not open the weights of its stages, all
    /// of which a unit passes.
    pub fn open(saved: &Saved, workload: Arc<Workload>, round: Option<u64>) -> Result<Self, ReplayError> {
        let run = saved.run();
        if !workload.matches(&run.charter().body) {
            return Err(ReplayError::ForeignCorpus);
        }
        let (ledger, blocks) = saved.records()?;
        let (parts, stages) = (workload.parts(), workload.stages_len());
        if stages > 1 {
            check_open(&ledger)?;
        }
        let peers = (1..).take_while(|&number| run.peer_path(number).is_dir()).count();
        let blobs: Vec<_> = (0..stages).map(|stage| blob_paths(run, stage, stages, peers)).collect();
        let states_of = |set: &CommittedSet| -> Result<Vec<ModelState>, StoreError> {
            if set.round == 0 {
                return Ok((0..stages).map(|stage| ModelState::genesis(parts, stage)).collect());
            }
            let state = AgreedState { round: set.round, roots: set.state_in.clone() };
            read_states(parts, &blobs, &state)
        };
        let closed: Vec<_> = ledger.recent().cloned().collect();
        let newest = closed.last().ok_or(ReplayError::NoRound)?;
        let chosen = match round {
            Some(round) => {
                closed.iter().find(|set| set.round == round).and_then(|set| Some((set, states_of(set).ok()?)))
            }
            None => closed.iter().rev().find_map(|set| Some((set, states_of(set).ok()?))),
        };
        let Some((set, states)) = chosen else {
            let held = closed.iter().filter(|set| states_of(set).is_ok()).map(|set| set.round).collect();
            return Err(ReplayError::NoState { round: round.unwrap_or(newest.round), held });
        };
        let mut receipts: BTreeMap<u32, Vec<(PeerId, Receipt)>> = BTreeMap::new();
        for transaction in blocks.iter().flat_map(|block| &block.transactions) {
            let Action::Commit(commitment) = &transaction.body.action else { continue };
            let signer = transaction.signer;
            let paid = set.entries.iter().any(|entry| entry.peer == signer && entry.payload == commitment.payload);
            if commitment.round != set.round || !paid {
                continue;
            }
            for receipt in &commitment.receipts {
                let receipt = receipt.body.clone();
                receipts.entry(receipt.index).or_default().push((signer, receipt));
            }
        }
        let round = set.round;
        let precisions = workload.precisions(&set.coarser);
        Ok(Self { round, workload: workload.clone(), states, precisions, receipts })
    }

    /// The round.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The places of the units that have receipts.
    pub fn units(&self) -> Vec<u32> {
        self.receipts.keys().copied().collect()
    }

    /// Computes units again, and gives each receipt that was checked to `on_receipt`.
    ///
    /// # Errors
    /// [`ReplayError`] when a unit has no receipt, or cannot be computed.
    pub fn replay(&self, units: &[u32], mut on_receipt: impl FnMut(Replayed)) -> Result<(), ReplayError> {
        let mut workers = self.workers();
        for &index in units {
            let no_unit = || ReplayError::NoUnit { round: self.round, index };
            let receipts = self.receipts.get(&index).ok_or_else(no_unit)?;
            // A unit that was given anew within a round keeps its name.
            let Some((_, first)) = receipts.first() else { continue };
            let seed = first.unit.0.0;
            let computed = match &self.states[..] {
                [ModelState::Whole(state)] => self.whole(&state.theta, seed)?,
                _ => self.in_stages(&mut workers, seed)?,
            };
            for (peer, receipt) in receipts {
                let differences = computed
                    .get(usize::from(receipt.stage))
                    .map_or_else(Vec::new, |computed| computed.differences(receipt));
                let Receipt { stage, unit, .. } = *receipt;
                on_receipt(Replayed { peer: *peer, stage, index, unit, differences });
            }
        }
        Ok(())
    }

    /// A replica of every stage.
    fn workers(&self) -> Vec<StageWorker> {
        let (recipe, parts) = (&self.workload.recipe, self.workload.parts());
        let mut shared = None;
        let worker = |(stage, state): (u16, &ModelState)| {
            let (ModelState::Stage(state), Some(shape)) = (state, parts.shape(stage)) else { return None };
            let token_parts = shared.get_or_insert_with(|| shape.token_parts()).clone();
            Some(StageWorker::new(recipe.context(1), recipe, shape.clone(), token_parts, state, 1))
        };
        (0..).zip(&self.states).filter_map(worker).collect()
    }

    fn whole(&self, theta: &[f32], seed: [u8; 32]) -> Result<Vec<Computed>, ReplayError> {
        let (recipe, corpus) = (&self.workload.recipe, &self.workload.corpus);
        let ctx = recipe.context(crate::probe::cores());
        let output = unit::train(&ctx, recipe, corpus, theta, seed, self.round * recipe.inner_steps, &|| false)?;
        Ok(vec![Computed {
            data: Hash(output.data_root),
            trace: Hash(output.trace_root),
            output: Hash(output.output_root),
            loss_micronats: micronats(output.mean_loss),
        }])
    }

    /// Passes a micro-batch through all stages and back.
    fn in_stages(&self, workers: &mut [StageWorker], seed: [u8; 32]) -> Result<Vec<Computed>, ReplayError> {
        let recipe = &self.workload.recipe;
        let batch = MicroBatch::derive(recipe, &self.workload.corpus, seed);
        let hash = |bytes: Option<&Vec<u8>>| bytes.map_or_else(Hash::default, |bytes| Hash::of(bytes));
        let Some((last, before)) = workers.split_last_mut() else { return Ok(Vec::new()) };
        // What came into each stage.
        let mut inputs: Vec<Option<Vec<u8>>> = vec![None];
        // The one-stage model hands nothing on.
        let precision_after = |stage: usize| self.precisions.get(stage).copied().unwrap_or(Precision::F32);
        let precision_before = |stage: usize| stage.checked_sub(1).map_or(Precision::F32, precision_after);
        for (place, worker) in before.iter_mut().enumerate() {
            let output = worker.forward(&batch, inputs[place].as_deref(), precision_after(place))?;
            inputs.push(Some(output));
        }
        let Turn { loss, gradient } =
            last.turn(&batch, inputs[before.len()].as_deref(), precision_before(before.len()), true)?;
        let mut gradient = gradient;
        let mut done = UnitDone {
            index: 0,
            unit: UnitId(Hash(seed)),
            input: hash(inputs[before.len()].as_ref()),
            output: Hash::default(),
            gradient_in: Hash::default(),
            gradient_out: hash(gradient.as_ref()),
            loss_micronats: micronats(loss),
        };
        let mut computed = vec![Computed::of(&batch, &done)];
        for (place, worker) in before.iter_mut().enumerate().rev() {
            let Some(from) = gradient.take() else { break };
            let to = worker.backward(&batch, inputs[place].as_deref(), &from, precision_before(place), true)?;
            done = UnitDone {
                input: hash(inputs[place].as_ref()),
                output: hash(inputs[place + 1].as_ref()),
                gradient_in: Hash::of(&from),
                gradient_out: hash(to.as_ref()),
                loss_micronats: 0,
                ..done
            };
            computed.push(Computed::of(&batch, &done));
            gradient = to;
        }
        computed.reverse();
        Ok(computed)
    }
}

/// What a receipt of a unit must say.
struct Computed {
    data: Hash,
    trace: Hash,
    output: Hash,
    loss_micronats: u64,
}

fn micronats(loss: f64) -> u64 {
    (loss * 1e6).round() as u64
}

impl Computed {
    fn of(batch: &MicroBatch, done: &UnitDone) -> Self {
        let UnitDone { loss_micronats, .. } = *done;
        Self { data: Hash(batch.data_root), trace: done.trace_root(), output: done.output_root(), loss_micronats }
    }

    fn differences(&self, receipt: &Receipt) -> Vec<Difference> {
        let pairs = [
            ("data", receipt.data_root.to_string(), self.data.to_string()),
            ("trace", receipt.trace_root.to_string(), self.trace.to_string()),
            ("output", receipt.output_root.to_string(), self.output.to_string()),
            ("loss", receipt.loss_micronats.to_string(), self.loss_micronats.to_string()),
        ];
        let different = pairs.into_iter().filter(|(_, recorded, computed)| recorded != computed);
        different.map(|(what, recorded, computed)| Difference { what, recorded, computed }).collect()
    }
}

#[cfg(test)]
mod tests {
    use learn::Recipe;
    use learn::boundary::Space;
    use learn::data::Corpus;
    use wire::RunId;

    use super::*;

    /// A round with a true receipt of unit 0 in every stage.
    fn recorded(recipe: Recipe) -> RecordedRound {
        let text = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/austen/northanger-abbey.txt");
        let workload = Arc::new(Workload::new(recipe, Corpus::from_path(&text).unwrap()).unwrap());
        let stages = workload.stages_len();
        let states = (0..stages).map(|stage| ModelState::genesis(workload.parts(), stage)).collect();
        let precisions = workload.precisions(&[]);
        let mut round = RecordedRound { round: 0, workload, states, precisions, receipts: BTreeMap::new() };
        let seed = [9; 32];
        let computed = match &round.states[..] {
            [ModelState::Whole(state)] => round.whole(&state.theta, seed).unwrap(),
            _ => round.in_stages(&mut round.workers(), seed).unwrap(),
        };
        let receipt = |(stage, computed): (u16, &Computed)| {
            let receipt = Receipt {
                run: RunId(Hash::default()),
                round: 0,
                index: 0,
                stage,
                unit: UnitId(Hash(seed)),
                state_in: Hash::default(),
                data_root: computed.data,
                trace_root: computed.trace,
                output_root: computed.output,
                tokens: 1,
                loss_micronats: computed.loss_micronats,
                counter: 0,
            };
            (PeerId([1; 32]), receipt)
        };
        let receipts = (0..).zip(&computed).map(receipt).collect();
        round.receipts.insert(0, receipts);
        round
    }

    fn replayed(round: &RecordedRound) -> Vec<Vec<&'static str>> {
        let mut all = Vec::new();
        let whats = |replayed: Replayed| replayed.differences.iter().map(|difference| difference.what).collect();
        round.replay(&round.units(), |replayed| all.push(whats(replayed))).unwrap();
        all
    }

    #[test]
    fn a_true_receipt_has_no_difference_and_a_false_one_names_it() {
        let staged = Recipe::tiny().in_stages(2, Space::Full, Precision::Int8);
        for (recipe, stages) in [(Recipe::tiny(), 1), (staged, 2)] {
            let mut round = recorded(recipe);
            assert_eq!(replayed(&round), vec![Vec::<&str>::new(); stages]);
            let last = &mut round.receipts.get_mut(&0).unwrap()[stages - 1].1;
            last.output_root.0[0] ^= 1;
            last.loss_micronats += 1;
            assert_eq!(replayed(&round)[stages - 1], ["output", "loss"]);
            // The first numbers embed a token that no unit needs to have.
            let theta = match &mut round.states[0] {
                ModelState::Whole(state) => &mut state.theta,
                ModelState::Stage(state) => &mut state.theta,
            };
            *theta.last_mut().unwrap() += 1e-3;
            assert!(replayed(&round)[0].contains(&"output"), "other weights give other bits");
            assert!(matches!(round.replay(&[7], |_| {}), Err(ReplayError::NoUnit { round: 0, index: 7 })));
        }
    }
}

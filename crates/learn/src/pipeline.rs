//! Training by stages: no peer needs the whole model.
//!
//! Purpose: the arithmetic of a model that is cut into stages, each held by several replicas; what a replica computes for a micro-batch,
//! what it sends at the end of a round, and how every replica of a stage gets the same next state.
//!
//! Source: training design, sections 1 to 3. A **round** is one step of the optimiser on `units_per_round` micro-batches:
//!
//! ```text
//! state of each stage, canonical: its root names the weights that every replica computes with
//!   micro-batch u (tokens follow from the unit's name)
//!     stage 0: forward ─► bytes ─► stage 1: forward ─► … ─► last stage: loss, backward
//!     stage 0: backward ◄─ bytes ◄─ stage 1: backward ◄─ … ◄─┘
//!   replica: mean gradient over its micro-batches, e = β·e + g, payload = sparseloco(e)
//! every replica of the stage: the payloads in the ledger's order ─► one gradient ─► one step ─► the next state
//! ```
//!
//! | part | file |
//! |---|---|
//! | where the model is cut, and what a stage holds | `shape.rs` |
//! | the canonical state of a stage, its bytes and its root | `state.rs` |
//! | one micro-batch in one stage, forward and backward | `worker.rs` |
//! | a round's payloads become the next state | `step.rs` |
//! | all stages and replicas in one process | `local.rs` |
//! | decoding in one stage | `inference.rs` |
//! | the memory of a replica | `budget.rs` |
//!
//! A micro-batch's forward and backward in a stage are pure functions of the stage's state and of the bytes that came: any replica gives
//! the same bytes. A gradient's sum over micro-batches is a left fold in the order in which a replica took them.
//!
//! Deviations: gradients are clipped tensor by tensor, since no stage sees the norm over all. The optimiser's moments are part of the
//! state, because a round is a single step.
//!
//! What it deliberately does not do: it knows no peers, links or time.

mod budget;
mod inference;
mod local;
mod shape;
mod state;
mod step;
mod worker;

pub use budget::{MESSAGES_PER_UNIT, PROGRAM_BYTES, STAGE_SLOTS, StageBudget, TOKENIZER_BYTES};
pub use inference::{InferenceError, InferenceFeed, StageInference, read_logits, reads_tokens};
pub use local::{LocalPipeline, Setting, evaluate};
pub use shape::{StageShape, TokenParts};
pub use state::{StageState, StageStateError};
pub use step::{Neighbours, Payloads, step};
pub use worker::{Contribution, MicroBatch, StageWorker, Turn};

#[cfg(test)]
mod tests;

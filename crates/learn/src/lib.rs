//! Optimisers, data, pseudo-gradient compression and the outer step.
//!
//! A unit of work is a pure function of public inputs ([`unit`]): some inner steps from the round's canonical state, whose
//! difference is the pseudo-gradient. A peer compresses its pseudo-gradient ([`sparseloco`]) and every peer applies the same
//! payloads in the same order ([`outer`]), so that all end a round with the same bytes. This crate knows no peers, no keys
//! and no sockets.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod baseline;
pub mod boundary;
pub mod conformance;
pub mod data;
pub mod evaluation;
pub mod finetune;
pub mod inner;
pub mod local;
pub mod outer;
pub mod pipeline;
pub mod progress;
pub mod recipe;
pub mod schedule;
pub mod solo;
pub mod sparseloco;
pub mod unit;

pub use data::{Corpus, CorpusError};
pub use evaluation::evaluate;
pub use progress::Progress;
pub use recipe::{Recipe, RecipeError};

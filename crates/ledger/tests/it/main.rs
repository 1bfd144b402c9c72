//! The ledger, by its laws and by scenarios.

mod support;

mod committee;
mod golden;
mod laws;
mod membership;
mod operators;
mod piece;
mod rejections;
mod release;
mod rounds;
mod stages;

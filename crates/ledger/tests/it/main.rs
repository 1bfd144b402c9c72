//! The ledger, by its laws and by scenarios.

mod support;

mod golden;
mod laws;
mod membership;
mod piece;
mod rejections;
mod rounds;
mod stages;

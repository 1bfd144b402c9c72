//! The peer by scenario: what it does when a given thing happens.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod announced;
mod blocks;
mod links;
mod ordering;
mod pause;
mod pipeline;
mod restart;
mod rounds;
mod split;
mod world;

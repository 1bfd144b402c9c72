//! Runs a whole network in one process, with bad links, crashes and liars.
//!
//! Purpose: the peers of `swarm`, exactly as `node` runs them, in virtual time: an event queue, links with latency, bandwidth
//! and jitter, connections that break, machines that crash between any two steps and come back with their disks, partitions,
//! clocks that disagree, slow and late machines, and adversaries. Training is faked by hashes ([`trainer`]).
//!
//! Source: the simulator of TigerBeetle (safety under faults first, then heal and demand progress) and the seeded Byzantine
//! simulations of commonware.
//!
//! A run is a pure function of its [`SimConfig`], which follows from a seed: the same seed gives the same trace hash. Checks
//! run at every event ([`checks`]); what they find is a [`Failure`], whose text ends with the command that reproduces it.
//!
//! Deviations from real networks: a lost packet is a delay, since the transport retransmits; a message is lost only when its
//! connection breaks. A blob is its name and its size.

pub mod adversary;
pub mod checks;
pub mod config;
mod disk;
mod events;
mod host;
mod network;
pub mod plan;
mod random;
mod simulation;
mod trace;
pub mod trainer;

pub use adversary::Adversary;
pub use checks::Violation;
pub use config::SimConfig;
pub use simulation::{Counts, Failure, Report, Simulation};

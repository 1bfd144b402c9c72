//! Runs a whole network in one process, with bad links, crashes and liars.
//!
//! Purpose: the peers of `swarm`, exactly as `node` runs them, in virtual time: an event queue, access links with rates in both
//! directions, queues, delay, jitter and loss, connections that break, machines that crash between any two steps and come back with their
//! disks, machines that are suspended, partitions, clocks that disagree, slow and late machines, and adversaries. A run has one stage or
//! several; what happens when is drawn from the seed or stands in a [`schedule`]. Training is faked by hashes ([`trainer`]), of a stage by
//! messages that are a pure function of its state, the unit and what came in ([`trainer::stage`]).
//!
//! Source: the simulator of TigerBeetle (safety under faults first, then heal and demand progress) and the seeded Byzantine
//! simulations of commonware.
//!
//! A run is a pure function of its [`SimConfig`], which follows from a seed: the same seed gives the same trace hash. Checks
//! run at every event ([`checks`]); what they find is a [`Failure`], whose text ends with the command that reproduces it. Units that are
//! lost or counted twice because of faults are no failure: the [`Report`] counts them. Without faults they are one.
//!
//! Deviations from real networks: a lost packet is a delay, since the transport retransmits; a message is lost only when its
//! connection breaks; a connection sends no more slowly after a loss. A blob is its name and its size, and 64 bytes stand for a whole
//! output or gradient of a stage. A pass takes as long however many others run on the machine.

pub mod adversary;
pub mod checks;
pub mod config;
mod disk;
mod events;
mod host;
mod network;
pub mod plan;
mod random;
pub mod schedule;
mod simulation;
mod trace;
pub mod trainer;

pub use adversary::Adversary;
pub use checks::{RoundReport, Violation};
pub use config::SimConfig;
pub use network::AccessLink;
pub use schedule::{Act, Scheduled};
pub use simulation::{Counts, Failure, Report, Simulation};

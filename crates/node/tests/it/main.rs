//! What a peer does on a real machine: real endpoints on loopback, real files, real processes.

#![allow(clippy::unwrap_used)]

mod blobs;
mod cluster;
mod common;
mod disk;
mod export;
mod faults;
mod inference;
mod join;
mod limits;
mod links;
mod pause;
mod processes;
mod runs;
mod split;
mod stages;
mod texts;
mod transport;

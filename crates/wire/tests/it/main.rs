//! What peers say: frozen bytes, round trips, hostile bytes, signatures and Merkle trees.

mod corpus;
mod golden;
mod hostile;
mod merkle;
mod roundtrip;
mod rules;
mod samples;
mod signatures;
mod strategies;

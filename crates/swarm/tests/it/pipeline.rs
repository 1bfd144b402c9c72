//! The pipeline of stages, under virtual time: a mini-simulator with its own trainer, links and faults.

mod faults;
mod trainer;
mod world;

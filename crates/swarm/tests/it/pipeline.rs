//! The pipeline of stages, under virtual time: a mini-simulator with its own trainer, links, faults and liars.

mod bounds;
mod custody;
mod faults;
mod liars;
mod routing;
mod trainer;
mod world;

//! Puts a peer on a real machine and a real network.
//!
//! | part | module |
//! |---|---|
//! | QUIC connections and messages | [`transport`] |
//! | bad links between the peers of one machine | [`links`] |
//! | content-addressed blobs | [`blobs`] |
//! | what a peer keeps on disk | [`store`], [`identity`] |
//! | jobs on threads | [`compute`], [`workload`], [`time`] |
//! | one peer: the protocol with all of the above around it | [`peer`], [`status`] |
//! | a peer in a process of its own | [`child`] |
//! | the peers of one machine, and their data directory | [`cluster`], [`member`], [`home`], [`offline`] |
//! | recorded units, computed again | [`replay`] |
//! | texts that runs are trained on | [`texts`] |
//! | what a person writes to found a run, and the runs of a data directory | [`description`], [`estimate`], [`runs`] |
//! | models that others trained | [`models`] |
//! | a model in stages, to be used | [`inference`] |
//! | what a peer of a stage takes | [`memory`] |
//! | what people see | [`observe`], [`view`] |
//! | machines that join, how they find a run nearby, and relays through which they meet | [`join`], [`lan`], [`reach`], [`relay`] |
//! | the machine itself | [`probe`] |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod blobs;
mod checkpoint;
pub mod child;
pub mod cluster;
pub mod compute;
pub mod description;
pub mod estimate;
mod frames;
pub mod home;
pub mod identity;
pub mod inference;
pub mod join;
pub mod lan;
pub mod limits;
pub mod links;
pub mod member;
pub mod memory;
pub mod models;
pub mod observe;
pub mod offline;
pub mod pausing;
pub mod peer;
pub mod probe;
pub mod reach;
pub mod relay;
pub mod replay;
pub mod role;
pub mod runs;
pub mod speed;
mod state;
pub mod status;
pub mod store;
pub mod texts;
pub mod time;
pub mod transport;
pub mod view;
pub mod workload;

pub use checkpoint::{Checkpoint, TextFormat, Weights};
pub use cluster::{Cluster, ClusterConfig};
pub use iroh::RelayUrl;
pub use limits::Limits;
pub use links::{LinkSpec, ShapedNetwork};
pub use member::{Failure, FailureKind};
pub use models::{Manifest, Models, ModelsError};
pub use observe::{Observer, Outcome, Summary};
pub use workload::{Cores, Workload};

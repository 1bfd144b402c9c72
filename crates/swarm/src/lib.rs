//! Decides, without input or output, what every peer does next.
//!
//! One type, [`Peer`]: the shell tells it what happened ([`Input`]) and when ([`Time`]), and executes what it wants done
//! ([`Output`]). The same type runs in `node` on real machines and in `sim` under virtual time. There are no clocks, no
//! sockets, no threads, no floats and no random iteration order in here: equal inputs give equal outputs.

pub mod limits;
pub mod pipeline;

mod announced;
mod backoff;
mod blocks;
mod catchup;
mod checked;
mod config;
mod fault;
mod fetches;
mod input;
mod job;
mod links;
mod moves;
mod ordering;
mod outbox;
mod output;
mod peer;
mod rounds;
mod split;
mod spreading;
mod stages;
mod time;

pub use checked::CheckedBlocks;
pub use config::{PeerConfig, Restored};
pub use fault::{Fault, FaultKind, HaltReason};
pub use input::Input;
pub use job::{Job, JobId, JobResult, ModelPoint, UnitAssignment, UnitResult};
pub use ledger::{CommittedSet, Entry};
pub use output::{Event, Output, Record};
pub use peer::{Activity, Peer};
pub use time::{Time, TimeoutReason};

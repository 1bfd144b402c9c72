//! Serves models and pages over HTTP.
//!
//! One server on loopback: the embedded pages, the network's state and its events, and an OpenAI-compatible API that
//! decodes from the newest committed checkpoint while training goes on, and from models that others trained. It reads what [`GatewayState`] gives it and
//! decides nothing about the protocol. Prompts and completions are never logged.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod assets;
mod error;
mod guard;
mod imported;
mod net;
mod openai;
mod private;
mod scheduler;
pub mod server;
pub mod state;

pub use server::{BindError, Options, PORT, ServeError, Server};
pub use state::{Asked, Control, GatewayState, NoPiece, NoRuns, Refused, Verify};

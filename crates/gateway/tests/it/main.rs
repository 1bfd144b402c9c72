//! The server as its clients see it: bytes over loopback.

#![allow(clippy::unwrap_used)]

mod checkpoint;
mod completions;
mod gateway;
mod http;
mod imported;
mod network;
mod openai_client;
mod pages;
mod refusals;
mod scheduling;
mod streaming;

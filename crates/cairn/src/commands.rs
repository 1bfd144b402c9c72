//! One file per command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod conformance;
pub(crate) mod control;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod finetune;
pub(crate) mod join;
pub(crate) mod models;
pub(crate) mod peer;
pub(crate) mod piece;
pub(crate) mod plan;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod train;
pub(crate) mod up;
pub(crate) mod verify;

//! Integration tests of the model.

#![allow(missing_docs, clippy::unwrap_used)]

mod corpus;
mod decoding;
mod formats;
mod gguf;
mod golden;
mod gradients;
mod lora;
mod masking;
mod pipeline;
mod pretrained;
mod same_bits;
mod support;

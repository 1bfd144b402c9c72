//! Llama-family transformer by stage: forward, backward, decoding, tokenizers, files.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod compute;
pub mod config;
pub mod decoder;
pub mod files;
mod generate;
pub mod gguf;
mod init;
pub mod lora;
pub mod pretrained;
pub mod sampler;
pub mod stage;
pub mod template;
#[cfg(test)]
mod testing;
pub mod tokenizer;
pub mod trainer;

pub use compute::{CpuStage, StageCompute};
pub use config::{Attention, Config, ConfigError, RopeScaling};
pub use decoder::{Cache, CachePool, DecodeError, Decoder, Feed, StageDecoder, StageFeed, Weight};
pub use files::{Checkpoint, FileError};
pub use generate::{Finish, Request, generate};
pub use gguf::{Gguf, GgufError};
pub use init::{init, init_tensor};
pub use lora::{AdapterLayout, LinearMap, Lora};
pub use pretrained::{Pretrained, PretrainedError, decoder_from_gguf};
pub use sampler::{Sampler, Sampling, SamplingError};
pub use stage::{Kind, Layout, Stage, TensorInfo};
pub use template::{ChatTemplate, Message, TemplateError};
pub use tokenizer::{END, END_ID, TextStream, Tokenizer, TokenizerError};
pub use trainer::{BackwardOutput, IGNORED, StageGradient, StageInput, Trainer, TrainerMemory, TrainerOptions};

//! Tokens per second of a full fine-tuning step of SmolLM2-135M (batch 2 × 512) beside PyTorch eager; both programs take 7 GB.
//!
//! `cargo bench -p model --bench finetune_step [-- TURNS] [alone] [threads=N]`. Needs `benches/peers/setup.sh` once for the comparison.

mod step;

use model::{Attention, Config};

use crate::step::Case;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // The time of a step does not depend on the values.
    let config = Config {
        vocab: 49_152,
        width: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        ff: 1536,
        context: 8192,
        rope_theta: 100_000.0,
        norm_eps: 1e-5,
        tied_head: true,
        attention: Attention::PLAIN,
    };
    Case { shape: "SmolLM2-135M", config, batch: 2, tokens: 512, steps: 1, turns: 5, burn: false }.run();
}

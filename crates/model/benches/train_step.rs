//! Tokens per second of a 10M-parameter training step beside PyTorch eager and burn-flex.
//!
//! `cargo bench -p model --bench train_step [-- TURNS] [alone] [threads=N]`. Needs `benches/peers/setup.sh` once for the comparison.

mod step;

use model::{Attention, Config};

use crate::step::Case;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let config = Config {
        vocab: 8192,
        width: 256,
        layers: 6,
        heads: 8,
        kv_heads: 8,
        head_dim: 32,
        ff: 768,
        context: 256,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: false,
        attention: Attention::PLAIN,
    };
    Case { shape: "10M", config, batch: 8, tokens: 256, steps: 2, turns: 9, burn: true }.run();
}

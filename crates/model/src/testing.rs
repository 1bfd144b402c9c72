//! What the unit tests of this crate share.

use crate::config::{Attention, Config};

/// A config with every part of the family (grouped heads, `heads * head_dim != width`) that is quick to run.
pub(crate) fn tiny() -> Config {
    Config {
        vocab: 23,
        width: 12,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
        ff: 20,
        context: 16,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: false,
        attention: Attention::PLAIN,
    }
}

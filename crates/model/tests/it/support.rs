//! Small models and their batches.

use model::{Attention, Config, RopeScaling, Stage};
use tensor::random::Stream;

pub(crate) fn config() -> Config {
    Config {
        vocab: 29,
        width: 20,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        ff: 36,
        context: 24,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: false,
        attention: Attention::PLAIN,
    }
}

/// The shapes that the family allows: grouped heads, all heads alike, one shared head, tied, biases, norms of heads, and
/// both with scaled rotations.
pub(crate) fn configs() -> [Config; 7] {
    let base = config();
    let plain = Attention::PLAIN;
    let linear = Some(RopeScaling::Linear { factor: 2.0 });
    let llama3 = Some(RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 16,
    });
    [
        base,
        Config { kv_heads: 4, ..base },
        Config { kv_heads: 1, head_dim: 4, tied_head: true, ..base },
        Config { heads: 3, kv_heads: 3, head_dim: 8, tied_head: true, ..base },
        Config { attention: Attention { bias: true, rope_scaling: linear, ..plain }, ..base },
        Config { attention: Attention { query_key_norm: true, ..plain }, tied_head: true, ..base },
        Config { attention: Attention { bias: true, query_key_norm: true, rope_scaling: llama3 }, ..base },
    ]
}

/// Parameters larger than the initial ones, and gains that are not 1, so that every term counts.
pub(crate) fn params(stage: &Stage) -> Vec<f32> {
    let mut params = model::init(stage, [5; 32]);
    let mut noise = Stream::new([6; 32], "noise");
    for value in &mut params {
        *value += 0.15 * noise.normal();
    }
    params
}

/// Random tokens, and each one's successor.
pub(crate) fn batch(config: &Config, sequences: usize, tokens: usize) -> (Vec<u32>, Vec<u32>) {
    let mut stream = Stream::new([9; 32], "batch");
    let mut draw = || (0..sequences * tokens).map(|_| stream.below(config.vocab as u64) as u32).collect();
    (draw(), draw())
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

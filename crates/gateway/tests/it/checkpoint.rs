//! A tiny model with random weights: it writes nonsense, and always the same.

use std::sync::{Arc, LazyLock};

use model::{Attention, Config, Kind, Stage, Tokenizer};
use node::{Checkpoint, TextFormat, Weights};
use wire::Hash;

pub(crate) const NAME: &str = "pebble";

/// Tokens of the model's context.
pub(crate) const CONTEXT: usize = 96;

const VOCAB: usize = 768;

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let novel = include_str!("../../../../data/austen/persuasion.txt");
    let start = &novel[..novel.floor_char_boundary(60_000)];
    Arc::new(Tokenizer::train([start], VOCAB).unwrap())
});

/// The model after a round; every round has other weights.
pub(crate) fn at_round(round: u8) -> Arc<Checkpoint> {
    with_context(round, CONTEXT)
}

/// The same with room for more text.
pub(crate) fn with_context(round: u8, context: usize) -> Arc<Checkpoint> {
    let config = Config {
        vocab: VOCAB,
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        ff: 64,
        context,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: false,
        attention: Attention::PLAIN,
    };
    let layout = Stage::whole(config).unwrap().layout();
    let mut params = vec![0.0; layout.len()];
    let mut random = u64::from(round);
    for tensor in layout.tensors() {
        let norm = tensor.kind == Kind::Vector;
        // Large enough that some tokens are much likelier than others.
        let mut weight = || (splitmix(&mut random) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        params[tensor.range()].iter_mut().for_each(|x| *x = if norm { 1.0 } else { weight() });
    }
    // The logit of the end is 0, and there is always a larger one: a greedy answer never ends by itself.
    let head = layout.get("lm_head.weight").unwrap().range();
    params[head][..config.width].fill(0.0);
    Arc::new(Checkpoint {
        round: round.into(),
        state_root: Hash([round; 32]),
        name: NAME.to_owned(),
        config,
        weights: Weights::Values(Arc::new(params)),
        tokenizer: Arc::clone(&TOKENIZER),
        format: Arc::new(TextFormat::trained()),
    })
}

/// Numbers of our own, so that no other crate's change changes what the model writes. Source: Steele, Lea and Flood 2014.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

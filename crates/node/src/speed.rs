//! How fast this machine computes: products against the peak, memory, training, prefill and decoding.
//!
//! Every figure is the best of a few short measurements, because other programs can only make one slower. The models are
//! synthetic: random parameters and tokens, which take as long as any.

use std::hint::black_box;
use std::time::{Duration, Instant};

use model::{Attention, Config, Decoder, Stage, Trainer, init};
use serde::{Deserialize, Serialize};
use tensor::gemm::multiply_add_burst;
use tensor::{Context, matmul_nt};

/// How long one figure is measured.
const MEASURED: Duration = Duration::from_millis(400);

/// Values of each of the two arrays whose sum shows the memory's bandwidth: far more than any cache holds.
const STREAMED: usize = 1 << 25;

/// Rows, columns and depth of the timed products: a large square, and those of a 10M-parameter model and of SmolLM2-135M.
pub const PRODUCTS: [(&str, [usize; 3]); 5] = [
    ("1024 cubed", [1024, 1024, 1024]),
    ("10M: queries", [2048, 256, 256]),
    ("10M: gate", [2048, 768, 256]),
    ("135M: gate", [1024, 1536, 576]),
    ("135M: head", [256, 49_152, 576]),
];

/// The model whose training and decoding are timed: 10.5 M parameters.
pub const MODEL: Config = Config {
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

/// What one number of threads reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Threads that computed.
    pub threads: usize,
    /// Fused multiply-adds in registers, GFLOP/s of all threads: what no product can exceed.
    pub peak_gflops: f64,
    /// Bytes read and written per second by a sum of long arrays.
    pub memory_bytes_per_second: f64,
    /// GFLOP/s of the products in [`PRODUCTS`], with their names.
    pub products: Vec<(String, f64)>,
    /// Tokens per second of a training step (forward and backward) of [`MODEL`], with sequences of 256 tokens.
    pub training_tokens_per_second: f64,
    /// Tokens per second of a prompt of 255 tokens through [`MODEL`] in f32.
    pub prefill_tokens_per_second: f64,
    /// Tokens per second of [`MODEL`] in f32 one by one, after 32 others.
    pub decode_tokens_per_second: f64,
}

/// Measures with `threads` threads; takes about six seconds.
pub fn measure(threads: usize) -> Figures {
    let ctx = Context::new(threads);
    let peak = peak_gflops();
    let params = init(&Stage::whole(MODEL).expect("the model is sound"), [0; 32]);
    let (prefill, decode) = decoding(&ctx, &params);
    Figures {
        threads,
        peak_gflops: peak * threads as f64,
        memory_bytes_per_second: memory(&ctx),
        products: PRODUCTS.iter().map(|&(name, sizes)| (name.to_owned(), product_gflops(&ctx, sizes))).collect(),
        training_tokens_per_second: training(&ctx, &params),
        prefill_tokens_per_second: prefill,
        decode_tokens_per_second: decode,
    }
}

/// GFLOP/s of `C = A·Bᵀ` with `[rows, columns, depth]`.
pub fn product_gflops(ctx: &Context, [m, n, k]: [usize; 3]) -> f64 {
    let (a, b, mut c) = (vec![0.5; m * k], vec![0.25; n * k], vec![0.0; m * n]);
    let seconds = best(MEASURED / 2, || {
        matmul_nt(ctx, m, n, k, black_box(&a), black_box(&b), black_box(&mut c), false);
    });
    let expected = 0.125 * k as f32;
    assert!((c[0] - expected).abs() < 1e-3 * expected, "the product is {}, not {expected}", c[0]);
    2.0 * (m * n * k) as f64 / seconds / 1e9
}

/// Fused multiply-adds in registers of one core.
fn peak_gflops() -> f64 {
    const STEPS: usize = 2_000_000;
    let (ctx, mut flops) = (Context::single(), 0);
    let seconds = best(MEASURED, || flops = multiply_add_burst(&ctx, black_box(STEPS)));
    flops as f64 / seconds / 1e9
}

fn memory(ctx: &Context) -> f64 {
    let (x, mut sum) = (vec![1.0f32; STREAMED], vec![0.0f32; STREAMED]);
    let seconds = best(MEASURED, || tensor::add_assign(ctx, black_box(&mut sum), black_box(&x)));
    (3 * STREAMED * size_of::<f32>()) as f64 / seconds
}

fn training(ctx: &Context, params: &[f32]) -> f64 {
    const SEQUENCES: usize = 2;
    let stage = Stage::whole(MODEL).expect("the model is sound");
    let mut trainer = Trainer::new(stage, SEQUENCES, MODEL.context).expect("the batch fits the context");
    let (tokens, mut grads) = (tokens(SEQUENCES * MODEL.context), vec![0.0; params.len()]);
    let seconds = best(2 * MEASURED, || {
        black_box(trainer.loss_and_grads(ctx, params, &tokens, &tokens, &mut grads));
    });
    tokens.len() as f64 / seconds
}

/// Tokens per second of a prompt, and one by one.
fn decoding(ctx: &Context, params: &[f32]) -> (f64, f64) {
    const SINGLE: usize = 32;
    let mut decoder = Decoder::new(MODEL, params).expect("parameters of this model");
    let tokens = tokens(MODEL.context - 1);
    let prefill = best(MEASURED, || {
        let mut cache = decoder.cache();
        black_box(decoder.feed(ctx, &mut cache, &tokens).expect("it fits the context"));
    });
    let mut cache = decoder.cache();
    decoder.feed(ctx, &mut cache, &tokens[..SINGLE]).expect("it fits the context");
    let decode = best(MEASURED, || {
        cache.truncate(SINGLE);
        for token in &tokens[SINGLE..2 * SINGLE] {
            black_box(decoder.feed(ctx, &mut cache, &[*token]).expect("it fits the context"));
        }
    });
    (tokens.len() as f64 / prefill, SINGLE as f64 / decode)
}

fn tokens(count: usize) -> Vec<u32> {
    let mut stream = tensor::random::Stream::new([0; 32], "speed");
    (0..count).map(|_| stream.below(MODEL.vocab as u64) as u32).collect()
}

/// Seconds of the fastest of as many calls as fit into `time`, after one that warms up; at least one.
fn best(time: Duration, mut work: impl FnMut()) -> f64 {
    work();
    let (start, mut fastest) = (Instant::now(), f64::INFINITY);
    while fastest.is_infinite() || start.elapsed() < time {
        let call = Instant::now();
        work();
        fastest = fastest.min(call.elapsed().as_secs_f64());
    }
    fastest.max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_measured_and_no_product_exceeds_the_peak() {
        let figures = measure(1);
        let rates = [figures.training_tokens_per_second, figures.prefill_tokens_per_second];
        assert!(rates.iter().all(|rate| *rate > 1.0), "{figures:?}");
        assert!(figures.decode_tokens_per_second > 1.0 && figures.memory_bytes_per_second > 1e6, "{figures:?}");
        assert_eq!(figures.products.len(), PRODUCTS.len());
        // Clocks of virtual machines jump: a fifth is allowed.
        assert!(figures.products.iter().all(|(_, rate)| *rate < 1.2 * figures.peak_gflops), "{figures:?}");
    }
}

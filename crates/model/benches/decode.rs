//! Tokens per second of decoding with a 2.5M-parameter model: one sequence, eight at once, and a prompt; beside decoding
//! without a cache, which runs the training forward over the whole sequence for every token.
//!
//! `cargo bench -p model --bench decode`. The programs take turns, and each figure is the median over the turns.

use std::time::Instant;

use model::{Attention, Cache, Config, Decoder, Feed, Stage, Trainer, init};
use tensor::Context;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: Config = Config {
    vocab: 2048,
    width: 160,
    layers: 6,
    heads: 5,
    kv_heads: 5,
    head_dim: 32,
    ff: 432,
    context: 256,
    rope_theta: 10_000.0,
    norm_eps: 1e-5,
    tied_head: false,
    attention: Attention::PLAIN,
};
const LENGTH: usize = 256;
const SEQUENCES: usize = 8;
const ROUNDS: usize = 7;

fn main() {
    for threads in [1, 2] {
        let mut bench = Bench::new(threads);
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            times[0].push(bench.one());
            times[1].push(bench.many());
            times[2].push(bench.prompt());
            times[3].push(bench.without_cache());
        }
        let [one, many, prompt, without] = times.map(median);
        println!("{threads} thread(s), {} parameters, {LENGTH} tokens", CONFIG.parameters());
        println!("  one sequence:   {one:8.0} tokens/s");
        println!("  {SEQUENCES} sequences:    {many:8.0} tokens/s");
        println!("  a prompt:       {prompt:8.0} tokens/s");
        println!("  without cache:  {without:8.0} tokens/s; ratio of one sequence to it {:.1}", one / without);
    }
}

struct Bench {
    ctx: Context,
    decoder: Decoder,
    params: Vec<f32>,
    tokens: Vec<u32>,
}

impl Bench {
    fn new(threads: usize) -> Bench {
        let stage = Stage::whole(CONFIG).expect("the benchmark's config is sound");
        let params = init(&stage, [0; 32]);
        let decoder = Decoder::new(CONFIG, &params).expect("the parameters are the stage's");
        let tokens = (0..LENGTH as u32).map(|i| i * 37 % CONFIG.vocab as u32).collect();
        Bench { ctx: Context::new(threads), decoder, params, tokens }
    }

    fn one(&mut self) -> f64 {
        let mut cache = self.decoder.cache();
        let start = Instant::now();
        for token in &self.tokens {
            self.decoder.feed(&self.ctx, &mut cache, &[*token]).expect("the sequence fits");
        }
        LENGTH as f64 / start.elapsed().as_secs_f64()
    }

    fn many(&mut self) -> f64 {
        let mut caches: Vec<Cache> = (0..SEQUENCES).map(|_| self.decoder.cache()).collect();
        let start = Instant::now();
        for token in &self.tokens {
            let mut feeds: Vec<Feed<'_>> =
                caches.iter_mut().map(|cache| Feed { cache, tokens: std::slice::from_ref(token) }).collect();
            self.decoder.feed_batch(&self.ctx, &mut feeds).expect("the sequences fit");
        }
        (LENGTH * SEQUENCES) as f64 / start.elapsed().as_secs_f64()
    }

    fn prompt(&mut self) -> f64 {
        let mut cache = self.decoder.cache();
        let start = Instant::now();
        self.decoder.feed(&self.ctx, &mut cache, &self.tokens).expect("the prompt fits");
        LENGTH as f64 / start.elapsed().as_secs_f64()
    }

    /// The last token only: the dearest one.
    fn without_cache(&mut self) -> f64 {
        let stage = Stage::whole(CONFIG).expect("the benchmark's config is sound");
        let mut trainer = Trainer::new(stage, 1, LENGTH).expect("the sequence fits the context");
        let start = Instant::now();
        trainer.logits(&self.ctx, &self.params, &self.tokens);
        1.0 / start.elapsed().as_secs_f64()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! Products at the shapes of a 10M-parameter training step, as a share of the machine's measured multiply-add peak.
//!
//! `cargo bench -p tensor --bench gemm [-- THREADS] [avx2 | avx512]`.

use std::hint::black_box;
use std::time::Instant;

use tensor::gemm::multiply_add_burst;
use tensor::{Context, Isa, matmul_nn, matmul_nt, matmul_tn};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Matmul = fn(&Context, usize, usize, usize, &[f32], &[f32], &mut [f32], bool);

const SHAPES: [(&str, Matmul, usize, usize, usize); 12] = [
    ("nt  q,o        ", matmul_nt, 2048, 256, 256),
    ("nn  dx of q,o  ", matmul_nn, 2048, 256, 256),
    ("tn  dw of q,o  ", matmul_tn, 256, 256, 2048),
    ("nt  gate, up   ", matmul_nt, 2048, 768, 256),
    ("nt  down       ", matmul_nt, 2048, 256, 768),
    ("nn  dx of gate ", matmul_nn, 2048, 256, 768),
    ("nn  dx of down ", matmul_nn, 2048, 768, 256),
    ("tn  dw of gate ", matmul_tn, 768, 256, 2048),
    ("nt  head       ", matmul_nt, 256, 8192, 256),
    ("nn  dx of head ", matmul_nn, 256, 256, 8192),
    ("tn  dw of head ", matmul_tn, 8192, 256, 256),
    ("nt  decode     ", matmul_nt, 1, 768, 256),
];

fn main() {
    let threads = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1);
    let one = Context::single();
    let peak = median((0..9).map(|_| burst(&one)).collect());
    println!(
        "fused multiply-adds in registers: {peak:.1} GFLOP/s per core on {}; shares are of that",
        one.isa().name()
    );
    let chosen = std::env::args().find_map(|arg| arg.strip_prefix("shape=").map(str::to_owned));
    let only = std::env::args().find(|arg| arg.starts_with("avx"));
    for isa in Isa::available() {
        if isa == Isa::Scalar || isa == Isa::Generic || only.as_ref().is_some_and(|only| only != isa.name()) {
            continue;
        }
        let ctx = Context::new(threads).with_isa(isa);
        println!("{} on {threads} thread(s)", isa.name());
        for (name, matmul, m, n, k) in
            SHAPES.into_iter().filter(|shape| chosen.as_ref().is_none_or(|c| shape.0.trim().ends_with(c.as_str())))
        {
            let repeats = (8_000_000_000 / (m * n * k)).clamp(2, 10_000);
            let got = median((0..9).map(|_| rate(&ctx, matmul, m, n, k, repeats)).collect());
            let share = 100.0 * got / (peak * threads as f64);
            println!("  {name} {m:5} x {n:5} x {k:5}: {got:7.1} GFLOP/s, {share:5.1} %");
        }
    }
}

fn burst(ctx: &Context) -> f64 {
    const STEPS: usize = 30_000_000;
    let start = Instant::now();
    let flops = multiply_add_burst(ctx, black_box(STEPS));
    flops as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rate(ctx: &Context, matmul: Matmul, m: usize, n: usize, k: usize, repeats: usize) -> f64 {
    let a = vec![0.5f32; m * k];
    let b = vec![0.25f32; n * k];
    let mut c = vec![0.0f32; m * n];
    matmul(ctx, m, n, k, &a, &b, &mut c, false);
    let start = Instant::now();
    for _ in 0..repeats {
        matmul(ctx, m, n, k, black_box(&a), black_box(&b), black_box(&mut c), false);
    }
    2.0 * (m * n * k * repeats) as f64 / start.elapsed().as_secs_f64() / 1e9
}

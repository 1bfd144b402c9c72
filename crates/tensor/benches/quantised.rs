//! Products with quantised weights: weights read per second for one row, multiply-adds per second for many.
//!
//! `cargo bench -p tensor --bench quantised`. One thread, every instruction set of the machine but the scalar reference.

use std::time::Instant;

use tensor::{
    Context, Isa, QuantisedBlock, QuantisedFormat, QuantisedMatrix, QuantisedRows, matmul_quantised, quantise_rows,
};

const OUTPUTS: usize = 1536;
const INPUTS: usize = 576;

fn main() {
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
        let ctx = Context::single().with_isa(isa);
        for format in [QuantisedFormat::Q8_0, QuantisedFormat::Q4_0, QuantisedFormat::Q4_1, QuantisedFormat::Q6K] {
            let code = |row: usize, at: usize| ((row * 31 + at * 7) % 16) as u8;
            let block = |row, at| QuantisedBlock { codes: [code(row, at); 32], scales: [0.5; 2], minimum: -1.0 };
            let w = QuantisedMatrix::new(format, OUTPUTS, INPUTS, block).expect("finite scales");
            print!("{:8} {format:?}:", isa.name());
            for rows in [1, 2, 4, 16, 128] {
                let seconds = seconds(&ctx, &w, rows);
                let products = (rows * OUTPUTS * INPUTS) as f64 / seconds / 1e9;
                print!("  {rows} rows {products:6.1} G/s");
                if rows == 1 {
                    print!(" ({:.1} GB/s)", w.bytes() as f64 / seconds / 1e9);
                }
            }
            println!();
        }
    }
}

/// The median time of a product, activations quantised before.
fn seconds(ctx: &Context, w: &QuantisedMatrix, rows: usize) -> f64 {
    let x: Vec<f32> = (0..rows * INPUTS).map(|i| (i % 251) as f32 - 125.0).collect();
    let mut quantised = QuantisedRows::default();
    quantise_rows(ctx, rows, INPUTS, &x, &mut quantised);
    let mut out = vec![0.0; rows * OUTPUTS];
    let repeat = (256 / rows).max(4);
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..repeat {
                matmul_quantised(ctx, &quantised, vec![(w, &mut out)], false);
            }
            start.elapsed().as_secs_f64() / repeat as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

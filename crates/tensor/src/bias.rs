//! A vector added to every row, as the biases of linear layers.

use crate::Context;
use crate::arch::{LANES, lanes_kernel};
use crate::fault::slip;

/// Rows that one forward task handles.
const TASK_ROWS: usize = 32;

/// Row chunks of the gradient: the contract's fixed split of a sum across rows.
const SUM_CHUNKS: usize = 32;

/// Computes `x += bias` for each of `rows` rows of `d` values: one rounded addition each.
///
/// # Panics
/// When a size does not match.
pub fn bias_forward(ctx: &Context, rows: usize, d: usize, bias: &[f32], x: &mut [f32]) {
    assert!(x.len() == rows * d && bias.len() == d, "bias_forward: {} values for {rows} × {d}", x.len());
    if d > 0 {
        ctx.threads().for_each(x.chunks_mut(TASK_ROWS * d).collect(), |x| add_rows(ctx.variant(), bias, x));
    }
    slip("bias_forward", x);
}

/// Computes `dbias += Σ_rows dx`: 32 fixed chunks of rows, each summed in order from zero, then the chunks in order.
///
/// # Panics
/// When a size does not match.
pub fn bias_backward(ctx: &Context, rows: usize, d: usize, dx: &[f32], dbias: &mut [f32]) {
    assert!(dx.len() == rows * d && dbias.len() == d, "bias_backward: {} values for {rows} × {d}", dx.len());
    if dx.is_empty() {
        return;
    }
    let chunk = rows.div_ceil(SUM_CHUNKS);
    let mut partial = vec![0.0f32; rows.div_ceil(chunk) * d];
    let work = partial.chunks_mut(d).zip(dx.chunks(chunk * d)).collect();
    ctx.threads().for_each(work, |(sum, rows): (&mut [f32], &[f32])| {
        for row in rows.chunks_exact(d) {
            add_rows(ctx.variant(), row, sum);
        }
    });
    for partial in partial.chunks(d) {
        add_rows(ctx.variant(), partial, dbias);
    }
    slip("bias_backward", dbias);
}

lanes_kernel! {
    fn add_rows<'a>(s; bias: &'a [f32], x: &'a mut [f32]) {
        for x in x.chunks_exact_mut(bias.len()) {
            for (x, bias) in x.chunks_mut(LANES).zip(bias.chunks(LANES)) {
                s.store_some(s.add(s.load_or(x, 0.0), s.load_or(bias, 0.0)), x);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn rows_take_the_bias_and_its_gradient_is_their_sum_on_every_path() {
        for (rows, d) in [(1, 1), (7, 5), (33, 16), (100, 37)] {
            let mut stream = Stream::new([3; 32], "bias");
            let mut draw = |n| (0..n).map(|_| stream.normal()).collect::<Vec<f32>>();
            let (bias, x, start) = (draw(d), draw(rows * d), draw(d));
            let run = |ctx: &Context| {
                let (mut out, mut dbias) = (x.clone(), start.clone());
                bias_forward(ctx, rows, d, &bias, &mut out);
                bias_backward(ctx, rows, d, &x, &mut dbias);
                (out, dbias)
            };
            let (out, dbias) = run(&Context::scalar());
            assert_eq!(out[(rows - 1) * d], x[(rows - 1) * d] + bias[0]);
            for (i, sum) in dbias.iter().enumerate() {
                let exact: f64 = (0..rows).map(|row| f64::from(x[row * d + i])).sum::<f64>() + f64::from(start[i]);
                assert!((f64::from(*sum) - exact).abs() < 1e-5, "{sum} instead of {exact}");
            }
            for isa in crate::Isa::available() {
                for threads in [1, 2] {
                    assert_eq!(
                        run(&Context::new(threads).with_isa(isa)),
                        (out.clone(), dbias.clone()),
                        "{}",
                        isa.name()
                    );
                }
            }
        }
    }
}

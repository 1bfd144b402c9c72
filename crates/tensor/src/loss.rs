//! Softmax cross entropy, alone and fused with the output head.

use crate::Context;
use crate::arch::{LANES, Lanes, lanes_kernel};
use crate::fault::{slip, slip_f64};
use crate::gemm::{matmul_nn, matmul_nt, matmul_tn};
use crate::math::{exp_lanes, ln_f64};
use crate::reduce::max_lanes;
use crate::scratch::Scratch;

/// Rows that one task handles.
const TASK_ROWS: usize = 16;

/// Replaces logits `[rows, vocab]` by their gradient `(softmax − onehot(target)) · scale` and returns the sum of the rows' losses.
///
/// Per row: the largest logit, e^(x − max) summed by the row reduction, then the loss `ln Σ + max − x[target]` in f64. The losses are
/// added in f64, in row order. `scale` is usually 1 / rows of the whole batch.
///
/// # Panics
/// When a size does not match or a target is not below `vocab`.
pub fn cross_entropy(ctx: &Context, rows: usize, vocab: usize, logits: &mut [f32], targets: &[u32], scale: f32) -> f64 {
    let mut losses = vec![0.0f64; rows];
    row_losses(ctx, vocab, logits, targets, Some(scale), &mut losses);
    losses.into_iter().fold(0.0, |sum, loss| sum + loss)
}

/// Computes the sum of the losses of `hidden · weightᵀ` against `targets`, and the gradients of hidden (overwritten) and
/// weight (accumulated), holding at most `chunk` rows of logits. `weight` is `[vocab, d]`.
///
/// The result does not depend on `chunk`: rows are independent and the weight's gradient is one fold over rows.
/// Cost: 6·rows·d·vocab FLOPs.
///
/// # Panics
/// When a size does not match or a target is not below `vocab`.
#[allow(clippy::too_many_arguments)]
pub fn head_loss(
    ctx: &Context,
    rows: usize,
    d: usize,
    vocab: usize,
    hidden: &[f32],
    weight: &[f32],
    targets: &[u32],
    scale: f32,
    dhidden: &mut [f32],
    dweight: &mut [f32],
    chunk: usize,
) -> f64 {
    check_head(rows, d, vocab, hidden, weight, targets, chunk);
    assert!(dhidden.len() == rows * d && dweight.len() == vocab * d, "head_loss: sizes of the gradients");
    head(ctx, Head { rows, d, vocab, hidden, weight, targets, scale, chunk }, dhidden, Some(dweight))
}

/// Computes the same as [`head_loss`], bit for bit, for a weight that is not trained: without its gradient.
///
/// Cost: 4·rows·d·vocab FLOPs.
///
/// # Panics
/// When a size does not match or a target is not below `vocab`.
#[allow(clippy::too_many_arguments)]
pub fn head_loss_frozen(
    ctx: &Context,
    rows: usize,
    d: usize,
    vocab: usize,
    hidden: &[f32],
    weight: &[f32],
    targets: &[u32],
    scale: f32,
    dhidden: &mut [f32],
    chunk: usize,
) -> f64 {
    check_head(rows, d, vocab, hidden, weight, targets, chunk);
    assert_eq!(dhidden.len(), rows * d, "head_loss_frozen: size of the gradient");
    head(ctx, Head { rows, d, vocab, hidden, weight, targets, scale, chunk }, dhidden, None)
}

struct Head<'a> {
    rows: usize,
    d: usize,
    vocab: usize,
    hidden: &'a [f32],
    weight: &'a [f32],
    targets: &'a [u32],
    scale: f32,
    chunk: usize,
}

fn head(ctx: &Context, head: Head<'_>, dhidden: &mut [f32], mut dweight: Option<&mut [f32]>) -> f64 {
    let Head { rows, d, vocab, hidden, weight, targets, scale, chunk } = head;
    let mut losses = vec![0.0f64; rows];
    let mut logits = Scratch::new(chunk.min(rows) * vocab);
    let inputs = hidden.chunks(chunk * d).zip(targets.chunks(chunk));
    for ((hidden, targets), (dhidden, losses)) in
        inputs.zip(dhidden.chunks_mut(chunk * d).zip(losses.chunks_mut(chunk)))
    {
        let rows = targets.len();
        let logits = &mut logits[..rows * vocab];
        matmul_nt(ctx, rows, vocab, d, hidden, weight, logits, false);
        row_losses(ctx, vocab, logits, targets, Some(scale), losses);
        matmul_nn(ctx, rows, d, vocab, logits, weight, dhidden, false);
        if let Some(dweight) = &mut dweight {
            matmul_tn(ctx, vocab, d, rows, logits, hidden, dweight, true);
        }
    }
    slip_f64("head_loss", losses.into_iter().fold(0.0, |sum, loss| sum + loss))
}

/// Computes the same loss as [`head_loss`], bit for bit, without gradients.
///
/// # Panics
/// When a size does not match or a target is not below `vocab`.
#[allow(clippy::too_many_arguments)]
pub fn head_loss_forward(
    ctx: &Context,
    rows: usize,
    d: usize,
    vocab: usize,
    hidden: &[f32],
    weight: &[f32],
    targets: &[u32],
    chunk: usize,
) -> f64 {
    check_head(rows, d, vocab, hidden, weight, targets, chunk);
    let mut losses = vec![0.0f64; rows];
    let mut logits = Scratch::new(chunk.min(rows) * vocab);
    for ((hidden, targets), losses) in hidden.chunks(chunk * d).zip(targets.chunks(chunk)).zip(losses.chunks_mut(chunk))
    {
        let logits = &mut logits[..targets.len() * vocab];
        matmul_nt(ctx, targets.len(), vocab, d, hidden, weight, logits, false);
        row_losses(ctx, vocab, logits, targets, None, losses);
    }
    slip_f64("head_loss_forward", losses.into_iter().fold(0.0, |sum, loss| sum + loss))
}

fn check_head(rows: usize, d: usize, vocab: usize, hidden: &[f32], weight: &[f32], targets: &[u32], chunk: usize) {
    assert!(chunk > 0 && d > 0, "head_loss: empty chunk or width");
    assert!(hidden.len() == rows * d && weight.len() == vocab * d, "head_loss: sizes of hidden and weight");
    assert_eq!(targets.len(), rows, "head_loss: one target per row");
}

/// Per-row losses; with a scale the logits become their gradient.
fn row_losses(
    ctx: &Context,
    vocab: usize,
    logits: &mut [f32],
    targets: &[u32],
    scale: Option<f32>,
    losses: &mut [f64],
) {
    assert_eq!(logits.len(), targets.len() * vocab, "cross_entropy: size of logits");
    assert_eq!(targets.len(), losses.len(), "cross_entropy: one target per row");
    if let Some(target) = targets.iter().find(|target| **target as usize >= vocab) {
        panic!("target {target} outside a vocabulary of {vocab}");
    }
    if vocab == 0 {
        return;
    }
    let work = logits.chunks_mut(TASK_ROWS * vocab).zip(targets.chunks(TASK_ROWS)).zip(losses.chunks_mut(TASK_ROWS));
    ctx.threads().for_each(work.collect(), |((logits, targets), losses)| {
        loss_rows(ctx.variant(), vocab, logits, targets, scale, losses);
    });
    slip("cross_entropy", logits);
}

lanes_kernel! {
    fn loss_rows<'a>(
        s; vocab: usize, logits: &'a mut [f32], targets: &'a [u32], scale: Option<f32>, losses: &'a mut [f64]
    ) {
        for ((row, target), loss) in logits.chunks_exact_mut(vocab).zip(targets).zip(losses) {
            let target = *target as usize;
            let max = max_lanes(s, row);
            let logit = row[target];
            let sum = exponentials(s, row, max);
            *loss = ln_f64(f64::from(sum)) + f64::from(max) - f64::from(logit);
            if let Some(scale) = scale {
                let inv = s.splat(1.0 / sum);
                let at_target = row[target] * (1.0 / sum);
                for x in row.chunks_mut(LANES) {
                    s.store_some(s.mul(s.mul(s.load_or(x, 0.0), inv), s.splat(scale)), x);
                }
                row[target] = (at_target - 1.0) * scale;
            }
        }
    }
}

/// Replaces a row by e^(x − max) and returns its sum.
#[inline(always)]
fn exponentials<S: Lanes>(s: S, row: &mut [f32], max: f32) -> f32 {
    let max = s.splat(max);
    let mut lanes = s.splat(0.0);
    for x in row.chunks_mut(LANES) {
        let value = exp_lanes(s, s.sub(s.load_or(x, f32::NEG_INFINITY), max));
        s.store_some(value, x);
        lanes = s.add(lanes, value);
    }
    s.sum_lanes(lanes)
}

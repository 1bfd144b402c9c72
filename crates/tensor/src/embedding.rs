//! Embedding look-up and its gradient.

use crate::Context;
use crate::fault::slip;

/// Copies row `tokens[i]` of `table` `[vocab, d]` to row `i` of `out` `[tokens, d]`.
///
/// # Panics
/// When a token is outside the table or `out` has another size.
pub fn embedding_gather(_ctx: &Context, tokens: &[u32], table: &[f32], d: usize, out: &mut [f32]) {
    assert_eq!(out.len(), tokens.len() * d, "embedding_gather: rows of out");
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(d.max(1))) {
        out.copy_from_slice(row(table, *token, d));
    }
    slip("embedding_gather", out);
}

/// Adds row `i` of `dout` `[tokens, d]` to row `tokens[i]` of `dtable` `[vocab, d]`, sequentially in token order.
///
/// # Panics
/// When a token is outside the table or `dout` has another size.
pub fn embedding_scatter_add(_ctx: &Context, tokens: &[u32], dout: &[f32], d: usize, dtable: &mut [f32]) {
    assert_eq!(dout.len(), tokens.len() * d, "embedding_scatter_add: rows of dout");
    for (token, dout) in tokens.iter().zip(dout.chunks_exact(d.max(1))) {
        let start = *token as usize * d;
        assert!(start + d <= dtable.len(), "token {token} outside a table of {} rows", dtable.len() / d);
        for (sum, x) in dtable[start..start + d].iter_mut().zip(dout) {
            *sum += x;
        }
    }
    slip("embedding_scatter_add", dtable);
}

fn row(table: &[f32], token: u32, d: usize) -> &[f32] {
    let start = token as usize * d;
    assert!(start + d <= table.len(), "token {token} outside a table of {} rows", table.len() / d);
    &table[start..start + d]
}

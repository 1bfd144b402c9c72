//! `cairn peer`: one peer in a process of its own, told what to do on standard input.

use crate::exit::Outcome;

/// Runs until the input ends.
pub(crate) async fn run() -> Outcome {
    Ok(node::child::run(tokio::io::stdin(), tokio::io::stdout()).await?)
}

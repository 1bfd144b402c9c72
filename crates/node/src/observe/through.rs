//! Measures a model through the peers that hold its stages, where its weights may not be put together.
//!
//! Purpose: the held-out loss of [`learn::pipeline::evaluate`], from the logits that the last stage gives: a call gives those of one token
//! of each sequence, so that windows are fed token by token, some at a time.
//!
//! What it does not do: it does not give the loss the last bits of the other's, since it sums in another order.

use learn::data::evaluation_windows;

use crate::inference::{INTERRUPTIONS_MAX, PAUSE, StagedFeed, StagedModel};
use crate::workload::Workload;

/// Windows that are fed at once, at first; fewer when the peers have no room for them.
const WINDOWS_AT_ONCE: usize = 16;

/// The held-out loss in nats per token; none when the peers failed too often or a logit is not finite.
pub(super) fn heldout_loss(workload: &Workload, model: &StagedModel) -> Option<f64> {
    let recipe = &workload.recipe;
    let (windows, length) = (recipe.evaluation.windows, recipe.batch.tokens);
    let mut pairs: Vec<(Vec<u32>, Vec<u32>)> = Vec::with_capacity(windows);
    for batch in evaluation_windows(&workload.corpus, windows, recipe.batch) {
        let rows = batch.tokens.chunks(length).zip(batch.targets.chunks(length));
        pairs.extend(rows.map(|(tokens, targets)| (tokens.to_vec(), targets.to_vec())));
    }
    let (mut sum, mut done, mut at_once, mut interruptions) = (0.0, 0, WINDOWS_AT_ONCE, 0);
    while done < pairs.len() {
        let group = &pairs[done..pairs.len().min(done + at_once)];
        match loss_of(model, group) {
            Some(loss) => {
                sum += loss;
                done += group.len();
            }
            None if interruptions < INTERRUPTIONS_MAX => {
                interruptions += 1;
                at_once = (at_once / 2).max(1);
                std::thread::sleep(PAUSE);
            }
            None => return None,
        }
    }
    let tokens = pairs.iter().map(|(tokens, _)| tokens.len()).sum::<usize>();
    let loss = sum / tokens as f64;
    loss.is_finite().then_some(loss)
}

/// The sum of the losses of some windows; none when a peer failed.
fn loss_of(model: &StagedModel, windows: &[(Vec<u32>, Vec<u32>)]) -> Option<f64> {
    let mut sequences: Vec<_> = windows.iter().map(|_| model.sequence()).collect();
    let (length, mut sum) = (windows.first().map_or(0, |(tokens, _)| tokens.len()), 0.0);
    for at in 0..length {
        let mut feeds: Vec<StagedFeed<'_>> = Vec::with_capacity(windows.len());
        for (sequence, (tokens, _)) in sequences.iter_mut().zip(windows) {
            feeds.push(StagedFeed { sequence, tokens: &tokens[at..=at] });
        }
        let logits =
            model.feed(&mut feeds).inspect_err(|error| tracing::debug!(%error, "windows are measured anew")).ok()?;
        let rows = logits.chunks(logits.len() / windows.len());
        sum += rows.zip(windows).map(|(row, (_, targets))| cross_entropy(row, targets[at])).sum::<f64>();
    }
    Some(sum)
}

/// The negative logarithm of a token's probability.
fn cross_entropy(logits: &[f32], target: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    sum.ln() - f64::from(logits[target as usize] - largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_equal_logits_is_that_of_a_fair_die() {
        assert!((cross_entropy(&[2.5; 6], 3) - 6_f64.ln()).abs() < 1e-12);
        let certain = cross_entropy(&[0.0, 1000.0], 1);
        assert!((0.0..1e-12).contains(&certain), "{certain}");
        assert!((cross_entropy(&[0.0, 1000.0], 0) - 1000.0).abs() < 1e-9);
    }
}

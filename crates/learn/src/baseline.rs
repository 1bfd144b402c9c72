//! The recorded curve of the centralised baseline, for people to compare a run with.

use serde::{Deserialize, Serialize};

use crate::progress::Progress;
use crate::recipe::Recipe;

/// A recorded centralised run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`Recipe::hash`] of the recipe that was run, in hexadecimal.
    pub recipe_hash: String,
    /// What was run, in one line.
    pub label: String,
    /// Its curve.
    pub points: Vec<BaselinePoint>,
}

/// One point of a recorded curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselinePoint {
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Mean training loss since the point before, nats per token.
    pub training_loss: Option<f64>,
    /// Held-out loss, nats per token.
    pub heldout_loss: Option<f64>,
}

const BUNDLED: &str = include_str!("../../../data/baseline/default.json");

impl Baseline {
    /// Describes a finished run by the rounds in which the held-out loss was measured.
    pub fn record(recipe: &Recipe, rounds: &[Progress]) -> Self {
        let mut points = Vec::new();
        let mut since = Vec::new();
        for progress in rounds {
            since.push(progress.training_loss);
            if progress.heldout_loss.is_some() {
                let mean = since.iter().sum::<f64>() / since.len() as f64;
                points.push(BaselinePoint {
                    tokens: progress.tokens,
                    training_loss: Some(mean),
                    heldout_loss: progress.heldout_loss,
                });
                since.clear();
            }
        }
        let global = u64::from(recipe.units_per_round) * recipe.step_tokens();
        let label = format!("centralised, same recipe and global batch of {global} tokens, no network");
        Self { recipe_hash: hex(&recipe.hash()), label, points }
    }
}

/// The bundled baseline when it was recorded with the recipe of this hash on the bundled corpus; none for any other recipe.
pub fn bundled(recipe_hash: [u8; 32]) -> Option<Baseline> {
    let baseline: Baseline = serde_json::from_str(BUNDLED).ok()?;
    (baseline.recipe_hash == hex(&recipe_hash)).then_some(baseline)
}

fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_baseline_is_that_of_the_default_recipe() {
        let recipe = Recipe::default_run();
        let baseline =
            bundled(recipe.hash()).expect("recorded with the default recipe; record it again after a change");
        let last = baseline.points.last().unwrap();
        assert_eq!(last.tokens, recipe.total_tokens());
        assert!(baseline.points.windows(2).all(|pair| pair[0].tokens < pair[1].tokens));
        assert!(last.heldout_loss < baseline.points[0].heldout_loss);
        assert_eq!(bundled(Recipe::tiny().hash()), None);
    }

    #[test]
    fn training_losses_between_two_points_are_averaged() {
        let progress = |round: u64, training_loss, heldout_loss| Progress {
            round,
            tokens: 10 * round,
            training_loss,
            heldout_loss,
            payload_bytes: 0,
        };
        let rounds = [progress(1, 4.0, None), progress(2, 2.0, Some(3.5)), progress(3, 1.0, Some(3.0))];
        let points = Baseline::record(&Recipe::tiny(), &rounds).points;
        assert_eq!(points.iter().map(|point| point.tokens).collect::<Vec<_>>(), [20, 30]);
        assert_eq!(points.iter().map(|point| point.training_loss).collect::<Vec<_>>(), [Some(3.0), Some(1.0)]);
    }
}

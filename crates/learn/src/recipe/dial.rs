//! The dial: one number, the parameters that are wanted, from which a whole recipe follows.
//!
//! Deliberately one function, [`Recipe::of_size`], that shows every rule; whoever wants another value than it gives changes that field
//! ([`Recipe::with_settings`]). The idea is that of nanochat's depth. The rules pass through the recipes that were tuned
//! ([`Recipe::default_run`] is `1M` with fewer tokens, which is also where its learning rates come from); above some ten million
//! parameters they are the field's customs, and have not been measured here.

use std::fmt;
use std::str::FromStr;

use model::{Attention, Config};
use tensor::Profile;

use super::presets::{VOCAB, inner};
use super::{BatchShape, Compression, Evaluation, Outer, PARAMETERS_MAX, ROUNDS_MAX, Recipe, keep_for_rounds};
use crate::schedule::{Decay, Schedule};

/// Tokens that a recipe trains on for each parameter, unless its rounds are given: about where loss for a fixed amount of compute is
/// least (Hoffmann et al., arXiv:2203.15556).
pub const TOKENS_PER_PARAMETER: u64 = 20;
/// Fewest rounds that follow from a size.
pub const ROUNDS_MIN: u64 = 16;

/// Most layers that are tried.
const LAYERS_MAX: usize = 64;

/// How many parameters a model should have: the position of the dial.
///
/// Written as a number (`350k`, `1M`, `1.5B`) or as one of [`Size::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// A text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no size: write a number of parameters such as `350k`, `1M` or `1.5B` (up to 4B), or {}", names())]
pub struct SizeError {
    /// What was written.
    pub text: String,
}

fn names() -> String {
    let names: Vec<String> = Size::NAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
    names.join(", ")
}

impl Size {
    /// Sizes with names.
    pub const NAMES: [(&'static str, u64); 4] =
        [("tiny", 80_000), ("small", 1_000_000), ("medium", 10_000_000), ("large", 100_000_000)];

    /// So many parameters; none when that is no size of a model here.
    pub fn of(parameters: u64) -> Option<Self> {
        (1..=PARAMETERS_MAX).contains(&parameters).then_some(Self(parameters))
    }

    /// The parameters that are wanted.
    pub fn parameters(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError { text: text.to_owned() };
        let lower = text.trim().to_ascii_lowercase();
        if let Some((_, parameters)) = Self::NAMES.iter().find(|(name, _)| *name == lower) {
            return Ok(Self(*parameters));
        }
        let units = [("k", 1e3), ("m", 1e6), ("b", 1e9), ("g", 1e9)];
        let unit = units.iter().find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, *factor)));
        let (digits, factor) = unit.unwrap_or((&lower, 1.0));
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit());
        let value = digits.parse::<f64>().ok().filter(|_| is_number).ok_or_else(wrong)? * factor;
        // A cast of a float ends at the ends of its target's range.
        Self::of(value.round() as u64).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("B", 1e9), ("M", 1e6), ("k", 1e3)];
        let value = self.0 as f64;
        match units.iter().find(|(_, factor)| value >= *factor) {
            Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Recipe {
    /// The recipe of a model with about so many parameters. `rounds` replaces the rounds that follow from the size; what depends on their
    /// number follows then.
    ///
    /// Everything but the layers follows in one line each; the number of layers is that whose model comes closest.
    pub fn of_size(size: Size, rounds: Option<u64>) -> Self {
        let distance = |layers: &usize| (shape(*layers).parameters() as f64 / size.0 as f64).ln().abs();
        let layers = (1..=LAYERS_MAX).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("there are some");
        let model = shape(layers);
        let parameters = model.parameters();

        // A step sees more as the model grows: its sequences are half a context, and one comes with each 64 entries of width.
        let batch = BatchShape { sequences: (model.width / 64).max(2), tokens: model.context / 2 };
        // Longer units for large models, whose payloads take longer (SparseLoCo, arXiv:2508.15706).
        let inner_steps = if parameters < 100_000_000 { 15 } else { 30 };
        let units_per_round = 4;
        let round_tokens = (batch.sequences * batch.tokens) as u64 * inner_steps * units_per_round;
        let rounds =
            rounds.unwrap_or_else(|| (parameters * TOKENS_PER_PARAMETER / round_tokens).clamp(ROUNDS_MIN, ROUNDS_MAX));
        let steps = inner_steps * rounds.min(ROUNDS_MAX);

        // Peak rates fall with the root of the width from where they were tuned; narrower models take the tuned ones.
        let scale = (128.0 / model.width as f32).sqrt().min(1.0);
        let rate = |tuned: f32| (tuned * scale * 1e5).round() / 1e5;
        Self {
            name: size.to_string(),
            seed: 1,
            rounds,
            inner_steps,
            units_per_round: units_per_round as u32,
            model,
            batch,
            inner: inner(rate(0.014), rate(0.06), rate(0.004)),
            schedule: Schedule {
                warmup_steps: (steps / 100).clamp(4, 2000),
                decay_fraction: 0.5,
                final_fraction: 0.0,
                decay: Decay::Linear,
            },
            // As sparse as the number of rounds allows, with the residual's decay of the paper.
            compression: Compression { chunk: 4096, keep: keep_for_rounds(rounds), beta: 0.95 },
            outer: Outer { lr: 1.0, momentum: 0.6, nesterov: true },
            evaluation: Evaluation { windows: 64, every_rounds: rounds.div_ceil(30).max(1) },
            profile: Profile::default(),
            pipeline: None,
        }
    }
}

/// The model with so many layers: 32 entries of width for each, and 64 from the ninth on, as in larger models.
fn shape(layers: usize) -> Config {
    let width = 32 * layers + 32 * layers.saturating_sub(8);
    let head_dim = match width {
        ..512 => 32,
        512..2048 => 64,
        _ => 128,
    };
    let heads = width / head_dim;
    Config {
        vocab: VOCAB,
        width: heads * head_dim,
        layers,
        heads,
        // Grouped queries: half as many heads for keys and values, or the next fewer that the heads can be shared out over.
        kv_heads: (1..=(heads / 2).max(1)).rev().find(|groups| heads.is_multiple_of(*groups)).unwrap_or(1),
        head_dim,
        ff: 3 * heads * head_dim,
        // Twice as many tokens as there are entries of width, as a power of two.
        context: (2 * width).next_power_of_two().clamp(64, 4096),
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: true,
        attention: Attention::PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gives_a_sound_recipe_of_about_that_size() {
        let mut before = 0;
        for size in
            ["80k", "tiny", "200k", "500k", "1M", "3M", "small", "12M", "40M", "large", "124M", "350M", "1B", "4B"]
        {
            let size: Size = size.parse().unwrap();
            let recipe = Recipe::of_size(size, None);
            assert_eq!(recipe.validate(), Ok(()), "{size}");
            let ratio = recipe.model.parameters() as f64 / size.parameters() as f64;
            assert!((0.7..1.4).contains(&ratio), "{size} gives {} parameters", recipe.model.parameters());
            let tokens = recipe.total_tokens() as f64 / recipe.model.parameters() as f64;
            assert!(tokens < 1.01 * TOKENS_PER_PARAMETER as f64, "{size}: {tokens} tokens for each parameter");
            assert!(tokens > 18.0 || recipe.rounds == ROUNDS_MIN, "{size}: {tokens} tokens for each parameter");
            assert_eq!(Recipe::from_toml(&recipe.to_toml()), Ok(recipe.clone()), "rates are short numbers");
            before = before.max(recipe.inner_steps);
        }
        assert_eq!(before, 30, "large models have longer units");
    }

    #[test]
    fn a_million_parameters_are_the_default_model() {
        let (dialled, default) = (Recipe::of_size(Size(1_000_000), Some(176)), Recipe::default_run());
        assert_eq!(dialled.model, default.model);
        assert_eq!((dialled.inner, dialled.batch, dialled.outer), (default.inner, default.batch, default.outer));
        assert_eq!(dialled.total_tokens(), default.total_tokens());
    }

    #[test]
    fn what_depends_on_the_rounds_follows_them() {
        for rounds in [1, 4, 100, 5000] {
            let recipe = Recipe::of_size(Size(80_000), Some(rounds));
            // A single round cannot send everything four times.
            assert_eq!(recipe.validate().is_ok(), rounds >= 4, "{rounds}");
            assert_eq!((recipe.rounds, recipe.compression.keep), (rounds, keep_for_rounds(rounds)));
        }
        assert!(Recipe::of_size(Size(80_000), Some(u64::MAX)).validate().is_err());
    }

    #[test]
    fn larger_models_learn_more_slowly_and_see_more_at_a_time() {
        let recipes = [1_000_000, 30_000_000, 1_000_000_000].map(|size| Recipe::of_size(Size(size), None));
        assert!(recipes.windows(2).all(|pair| pair[0].inner.adamw.lr > pair[1].inner.adamw.lr));
        assert!(recipes.windows(2).all(|pair| pair[0].step_tokens() < pair[1].step_tokens()));
        assert!(recipes.windows(2).all(|pair| pair[0].compression.keep >= pair[1].compression.keep));
    }

    #[test]
    fn sizes_are_read_and_written() {
        let read = |text: &str| text.parse::<Size>().map(Size::parameters);
        assert_eq!(read("1M"), Ok(1_000_000));
        assert_eq!(read(" 1.5b "), Ok(1_500_000_000));
        assert_eq!(read("350k"), Ok(350_000));
        assert_eq!(read("Small"), Ok(1_000_000));
        assert_eq!(read("123456"), Ok(123_456));
        for bad in ["", "M", "-1M", "0", "huge", "1T", "99B", "inf", "nan", "1e99", "+1M"] {
            let said = read(bad).unwrap_err().to_string();
            assert!(said.contains("no size") && said.contains("`medium`"), "{bad}: {said}");
        }
        for (size, text) in [(1_500_000, "1.5M"), (80_000, "80k"), (999, "999"), (2_000_000_000, "2B")] {
            assert_eq!(Size(size).to_string(), text);
            assert_eq!(read(text), Ok(size));
        }
    }
}

//! Choosing the next token from logits.
//!
//! The filters are applied in the order of Hugging Face transformers: repetition penalty, temperature, top-k, top-p,
//! min-p. Everything is deterministic: the random numbers come from the seed, ties go to the lowest token id, and sums are
//! taken in a fixed order. A logit that is NaN counts as minus infinity.

use serde::{Deserialize, Serialize};
use tensor::random::Stream;
use tensor::{Profile, math};

/// How to choose tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keeps only this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens until their probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens below this fraction of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that were already there; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Decides the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// A setting is out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("sampling: `{field}` is {value}, and must be {expected}")]
pub struct SamplingError {
    /// The setting.
    pub field: &'static str,
    /// Its value.
    pub value: f32,
    /// The permitted range in words.
    pub expected: &'static str,
}

impl Sampling {
    /// Always takes the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let checks = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "between 0 and 100"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                (0.01..=100.0).contains(&self.repetition_penalty),
                "between 0.01 and 100",
            ),
        ];
        match checks.into_iter().find(|(_, _, sound, _)| !sound) {
            Some((field, value, _, expected)) => Err(SamplingError { field, value, expected }),
            None => Ok(()),
        }
    }
}

/// Chooses tokens one after the other; the same settings, logits and history give the same tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    stream: Stream,
    candidates: Vec<Candidate>,
    penalised: Vec<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    /// The logit, later the probability relative to the likeliest token.
    weight: f32,
}

impl Sampler {
    /// Takes the settings.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub fn new(sampling: Sampling) -> Result<Self, SamplingError> {
        sampling.validate()?;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&sampling.seed.to_le_bytes());
        let stream = Stream::new(key, "sample");
        Ok(Self { sampling, stream, candidates: Vec::new(), penalised: Vec::new() })
    }

    /// Chooses a token. `history` is what the repetition penalty applies to.
    ///
    /// # Panics
    /// When `logits` is empty.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> u32 {
        assert!(!logits.is_empty(), "no logits to choose from");
        if self.sampling.temperature == 0.0 && self.sampling.repetition_penalty == 1.0 {
            return largest(logits);
        }
        self.take(logits);
        self.penalise(history);
        if self.sampling.temperature == 0.0 {
            return self.likeliest().token;
        }
        self.keep_top_k();
        self.weigh();
        self.keep_top_p();
        self.drop_below_min_p();
        self.draw()
    }

    fn take(&mut self, logits: &[f32]) {
        // Adding zero makes zeros equal, as they are where nothing but the largest is looked for.
        let finite = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x + 0.0 };
        self.candidates.clear();
        let candidates = logits.iter().enumerate();
        self.candidates.extend(candidates.map(|(token, &x)| Candidate { token: token as u32, weight: finite(x) }));
    }

    fn penalise(&mut self, history: &[u32]) {
        let penalty = self.sampling.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        self.penalised.clear();
        self.penalised.resize(self.candidates.len(), false);
        for &token in history {
            let Some(done) = self.penalised.get_mut(token as usize) else { continue };
            if !std::mem::replace(done, true) {
                let weight = &mut self.candidates[token as usize].weight;
                *weight = if *weight > 0.0 { *weight / penalty } else { *weight * penalty };
            }
        }
    }

    /// The candidate with the largest weight; of several the one with the lowest id.
    fn likeliest(&self) -> Candidate {
        let better = |a: Candidate, b: Candidate| match order(&a, &b) {
            std::cmp::Ordering::Greater => b,
            _ => a,
        };
        self.candidates.iter().copied().reduce(better).expect("at least one candidate, which was checked")
    }

    fn keep_top_k(&mut self) {
        let k = self.sampling.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, order);
            self.candidates.truncate(k);
        }
    }

    /// Turns logits into probabilities relative to the likeliest token, likeliest first.
    fn weigh(&mut self) {
        self.candidates.sort_unstable_by(order);
        let largest = self.candidates[0].weight;
        for candidate in &mut self.candidates {
            // A weight that equals the largest has probability 1 even where both are infinite.
            let below = if candidate.weight == largest { 0.0 } else { candidate.weight - largest };
            candidate.weight = math::exp(Profile::default(), below / self.sampling.temperature);
        }
    }

    fn total(&self) -> f64 {
        self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
    }

    fn keep_top_p(&mut self) {
        let enough = self.total() * f64::from(self.sampling.top_p);
        if self.sampling.top_p < 1.0 {
            let mut sum = 0.0;
            let kept = self.candidates.iter().position(|candidate| {
                sum += f64::from(candidate.weight);
                sum >= enough
            });
            self.candidates.truncate(kept.map_or(self.candidates.len(), |last| last + 1));
        }
    }

    fn drop_below_min_p(&mut self) {
        // The likeliest has weight 1, so a weight is the fraction of its probability.
        let min_p = self.sampling.min_p;
        let kept = self.candidates.partition_point(|candidate| candidate.weight >= min_p);
        self.candidates.truncate(kept.max(1));
    }

    fn draw(&mut self) -> u32 {
        let mut left = f64::from(self.stream.uniform()) * self.total();
        for candidate in &self.candidates {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return candidate.token;
            }
        }
        // Only rounding leads here: the draw was at the very end of the sum.
        self.candidates[self.candidates.len() - 1].token
    }
}

/// The position of the largest number, of several the first; NaN counts as minus infinity.
fn largest(logits: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (group, logits) in logits.chunks(64).enumerate() {
        // Most groups have nothing larger, which takes less to see than where it would be.
        if logits.iter().fold(f32::NEG_INFINITY, |max, x| if *x > max { *x } else { max }) > best.0 {
            for (i, x) in logits.iter().enumerate() {
                if *x > best.0 {
                    best = (*x, group * 64 + i);
                }
            }
        }
    }
    best.1 as u32
}

/// Larger weights first, then lower ids.
fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
}

#[cfg(test)]
mod tests;

//! How the inner learning rates change over a run: a function of the global inner step alone.

use serde::{Deserialize, Serialize};

use crate::recipe::{RecipeError, within};

/// Linear warm-up from near zero, a constant part, then a decay that reaches its end with the run's last step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Inner steps of warm-up.
    pub warmup_steps: u64,
    /// Fraction of the run, counted from its end, over which the rate decays.
    pub decay_fraction: f32,
    /// Rate at the end, as a fraction of the peak.
    pub final_fraction: f32,
    /// The shape of the decay.
    pub decay: Decay,
}

/// The shape of a decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// A straight line.
    Linear,
    /// Half a period of the cosine.
    Cosine,
}

impl Schedule {
    /// The rate of step `step` of `total`, as a fraction of the peak, from 0 to 1.
    pub fn factor(&self, step: u64, total: u64) -> f32 {
        let warmup = match step < self.warmup_steps {
            true => (step + 1) as f64 / self.warmup_steps as f64,
            false => 1.0,
        };
        let decaying = (f64::from(self.decay_fraction) * total as f64).max(1.0);
        let left = total.saturating_sub(step) as f64 / decaying;
        let shape = match self.decay {
            _ if left >= 1.0 => 1.0,
            Decay::Linear => left,
            Decay::Cosine => 0.5 * (1.0 - f64::from(tensor::math::cos((std::f64::consts::PI * left) as f32))),
        };
        let floor = f64::from(self.final_fraction);
        (warmup * (floor + (1.0 - floor) * shape)) as f32
    }

    pub(crate) fn validate(&self) -> Result<(), RecipeError> {
        within("schedule.warmup_steps", self.warmup_steps as f64, 0.0, 4_294_967_296.0, "0 to 2^32")?;
        within("schedule.decay_fraction", f64::from(self.decay_fraction), 0.0, 1.0, "between 0 and 1")?;
        within("schedule.final_fraction", f64::from(self.final_fraction), 0.0, 1.0, "between 0 and 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> Schedule {
        Schedule { warmup_steps: 10, decay_fraction: 0.5, final_fraction: 0.1, decay }
    }

    #[test]
    fn the_rate_rises_holds_and_falls_to_its_floor() {
        for decay in [Decay::Linear, Decay::Cosine] {
            let rates: Vec<f32> = (0..100).map(|step| schedule(decay).factor(step, 100)).collect();
            assert_eq!(rates[0], 0.1);
            assert!(rates[..10].windows(2).all(|pair| pair[0] < pair[1]));
            assert!(rates[9..=50].iter().all(|&rate| rate == 1.0));
            assert!(rates[50..].windows(2).all(|pair| pair[0] > pair[1]), "{decay:?}: {rates:?}");
            assert!(rates[99] >= 0.1 && rates[99] < 0.12, "{}", rates[99]);
        }
    }

    #[test]
    fn the_middle_of_a_decay_is_half_way() {
        let halves: Vec<f32> =
            [Decay::Linear, Decay::Cosine].iter().map(|&decay| schedule(decay).factor(75, 100)).collect();
        assert!(halves.iter().all(|half| (half - 0.55).abs() < 1e-6), "{halves:?}");
    }

    #[test]
    fn a_step_past_the_end_has_the_last_rate() {
        assert_eq!(schedule(Decay::Linear).factor(1000, 100), 0.1);
    }
}

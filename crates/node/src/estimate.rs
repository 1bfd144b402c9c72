//! What a run would take, before it starts: numbers of its recipe, bytes by the codecs' formulas, and a time from a few steps on this machine.
//!
//! `cairn plan` says more, for peers that are not here; this is for a run that this machine founds.

use std::time::Instant;

use learn::boundary::encoded_bytes;
use learn::pipeline::StageShape;
use learn::sparseloco::payload_bytes_mean;
use learn::{Recipe, unit};
use serde::Serialize;
use wire::Charter;

use crate::probe::cores;
use crate::workload::Workload;

/// Models with more parameters are not tried out: that would take long.
pub const TRIED_PARAMETERS_MAX: u64 = 20_000_000;

/// Inner steps that are timed.
const STEPS: u64 = 2;

/// What a run would take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Trained parameters of the whole model.
    pub parameters: u64,
    /// Tokens that it is trained on.
    pub tokens: u64,
    /// Rounds.
    pub rounds: u64,
    /// Bytes of a peer's payload, in the mean; of the largest stage.
    pub payload_bytes: f64,
    /// Bytes that a peer gets in a round when as many peers take part as start it; it sends about as many.
    pub round_bytes: f64,
    /// Bytes of a state, which a peer that joins gets first; of the largest stage.
    pub state_bytes: u64,
    /// Seconds of computing when all peers are on this machine; none for models that were not tried out.
    pub seconds: Option<f64>,
}

impl Estimate {
    /// Estimates; takes a second or two where the model is tried out.
    pub fn of(workload: &Workload, charter: &Charter) -> Self {
        let recipe = &workload.recipe;
        let stages = workload.stages_len();
        let replicas = f64::from(charter.start_members.div_ceil(u32::from(stages)));
        let payload =
            (0..stages).map(|stage| payload_bytes_mean(workload.layout(stage), recipe.compression)).fold(0.0, f64::max);
        // Whoever did units of a round sends one payload.
        let senders = replicas.min(f64::from(recipe.units_per_round));
        let passes = f64::from(recipe.units_per_round) / replicas;
        let boundary = recipe.pipeline.zip(workload.shape(0)).map_or(0.0, |(pipeline, shape): (_, &StageShape)| {
            let rows = recipe.batch.sequences * recipe.batch.tokens;
            encoded_bytes(pipeline.precision, rows, shape.columns()) as f64
        });
        Self {
            parameters: workload.parameters(),
            tokens: recipe.total_tokens(),
            rounds: recipe.rounds,
            payload_bytes: payload,
            // Between stages a unit comes forward and back.
            round_bytes: (senders - 1.0).max(0.0) * payload + 2.0 * passes * boundary,
            state_bytes: charter.stages.iter().map(|stage| stage.state_bytes).max().unwrap_or(0),
            seconds: seconds(workload),
        }
    }
}

/// Seconds of all units, when every core takes one at a time.
fn seconds(workload: &Workload) -> Option<f64> {
    if workload.recipe.model.parameters() > TRIED_PARAMETERS_MAX {
        return None;
    }
    let recipe = Recipe { inner_steps: STEPS, pipeline: None, ..workload.recipe.clone() };
    let theta = model::init(&recipe.stage(), recipe.init_seed());
    let mut fastest = f64::INFINITY;
    for attempt in 0..2 {
        let start = Instant::now();
        let seed = unit::local_seed(&recipe, 0, attempt);
        let trained = unit::train(&recipe.context(1), &recipe, &workload.corpus, &theta, seed, 0, &|| false);
        // What diverges at its first steps took as long as any.
        drop(trained);
        fastest = fastest.min(start.elapsed().as_secs_f64() / STEPS as f64);
    }
    let units = f64::from(workload.recipe.units_per_round);
    let at_once = (cores() as f64).min(units);
    Some(fastest * workload.recipe.total_steps() as f64 * units / at_once)
}

#[cfg(test)]
mod tests {
    use learn::Corpus;
    use learn::boundary::{Precision, Space};

    use super::*;

    fn estimate(recipe: Recipe, peers: u32) -> (Estimate, Workload) {
        let workload = Workload::new(recipe, Corpus::bundled().unwrap()).unwrap();
        let charter = workload.charter(wire::PeerId([1; 32]), peers, 1..=2, 1);
        (Estimate::of(&workload, &charter), workload)
    }

    #[test]
    fn a_run_takes_what_its_recipe_says() {
        let (four, workload) = estimate(Recipe::tiny(), 4);
        assert_eq!((four.parameters, four.rounds), (workload.parameters(), 8));
        assert_eq!(four.tokens, workload.recipe.total_tokens());
        assert_eq!(four.round_bytes, 3.0 * four.payload_bytes);
        let dense = 4.0 * four.parameters as f64;
        assert!(four.payload_bytes > dense / 50.0 && four.payload_bytes < dense / 4.0, "{four:?}");
        assert!(four.state_bytes >= 8 * four.parameters, "{four:?}");
        assert!(four.seconds.is_some_and(|seconds| seconds > 0.001 && seconds < 600.0), "{four:?}");
        assert_eq!(estimate(Recipe::tiny(), 1).0.round_bytes, 0.0, "one peer hears nothing");
    }

    #[test]
    fn stages_have_smaller_payloads_and_talk_about_every_unit() {
        let (staged, workload) = estimate(Recipe::tiny().in_stages(2, Space::Full, Precision::F32), 2);
        let whole = payload_bytes_mean(&workload.recipe.layout(), workload.recipe.compression);
        assert!(staged.payload_bytes < whole, "{staged:?}");
        let message = 4 * workload.recipe.step_tokens() * workload.recipe.model.width as u64;
        let floor = (2 * u64::from(workload.recipe.units_per_round) * message) as f64;
        assert!(staged.round_bytes >= floor && staged.round_bytes < 1.5 * floor, "{staged:?}");
    }
}

//! The recipes that the program brings along.

use model::{Attention, Config};
use tensor::Profile;

use super::{
    Adamw, BatchShape, Compression, Evaluation, Inner, Muon, Outer, Pipeline, Recipe, SENDS_MIN, keep_for_rounds,
};
use crate::boundary::{Precision, Space};
use crate::schedule::{Decay, Schedule};

/// Tokens of the vocabulary that the bundled corpus and users' texts are cut into.
pub const VOCAB: usize = 2048;

/// Micro-batches of a round of a model in stages: so many that filling and emptying the pipeline costs little.
pub const STAGED_UNITS: u32 = 16;

impl Recipe {
    /// The recipe of a run without flags: about three minutes on two cores.
    pub fn default_run() -> Self {
        let rounds = 176;
        Self {
            name: "default".to_owned(),
            seed: 1,
            rounds,
            inner_steps: 15,
            units_per_round: 4,
            model: shape(128, 4, 384),
            batch: BatchShape { sequences: 2, tokens: 128 },
            inner: inner(0.014, 0.06, 0.004),
            schedule: Schedule { warmup_steps: 30, decay_fraction: 0.5, final_fraction: 0.0, decay: Decay::Linear },
            // Denser than `keep_for_rounds` asks for: what still leaves payloads 60 times smaller than f32.
            compression: Compression { chunk: 4096, keep: 292, beta: 0.8 },
            outer: Outer { lr: 1.0, momentum: 0.6, nesterov: true },
            evaluation: Evaluation { windows: 64, every_rounds: 6 },
            profile: Profile::default(),
            pipeline: None,
        }
    }

    /// This recipe with its model in `stages` stages: a round is one step of the optimiser on [`STAGED_UNITS`] micro-batches, and there are as
    /// many rounds as half of the tokens need. The head gets a table of its own, and the model a layer for each stage.
    pub fn in_stages(self, stages: usize, space: Space, precision: Precision) -> Self {
        let tokens = self.total_tokens() / 2;
        let model = Config { tied_head: false, layers: self.model.layers.max(stages), ..self.model };
        let units_per_round = STAGED_UNITS;
        let rounds = (tokens / (self.step_tokens() * u64::from(units_per_round))).max(4);
        let sends = (SENDS_MIN * 4096.0 / rounds as f64).ceil() as u32;
        Self {
            name: format!("{}-in-stages", self.name),
            rounds,
            inner_steps: 1,
            units_per_round,
            model,
            outer: Outer { lr: 1.0, momentum: 0.0, nesterov: false },
            compression: Compression { chunk: 4096, keep: self.compression.keep.max(sends).min(4096), beta: 0.95 },
            pipeline: Some(Pipeline { stages, space, precision, coarsest: None }),
            ..self
        }
    }

    /// A recipe for long runs: payloads more than 200 times smaller than the parameters.
    pub fn long_run() -> Self {
        let rounds = 320;
        Self {
            name: "long".to_owned(),
            rounds,
            compression: Compression { chunk: 4096, keep: keep_for_rounds(rounds), beta: 0.95 },
            batch: BatchShape { sequences: 2, tokens: 64 },
            model: shape(96, 3, 288),
            evaluation: Evaluation { windows: 64, every_rounds: 20 },
            ..Self::default_run()
        }
    }

    /// A recipe for tests: seconds, and a loss that falls.
    pub fn tiny() -> Self {
        let rounds = 8;
        Self {
            name: "tiny".to_owned(),
            rounds,
            inner_steps: 4,
            model: shape(32, 1, 64),
            batch: BatchShape { sequences: 2, tokens: 32 },
            schedule: Schedule { warmup_steps: 4, decay_fraction: 0.5, final_fraction: 0.0, decay: Decay::Linear },
            inner: inner(0.02, 0.02, 0.004),
            outer: Outer { lr: 1.0, momentum: 0.5, nesterov: true },
            compression: Compression { chunk: 4096, keep: keep_for_rounds(rounds), beta: 0.95 },
            evaluation: Evaluation { windows: 8, every_rounds: 2 },
            ..Self::default_run()
        }
    }
}

fn shape(width: usize, layers: usize, ff: usize) -> Config {
    Config {
        vocab: VOCAB,
        width,
        layers,
        heads: width / 32,
        kv_heads: (width / 64).max(1),
        head_dim: 32,
        ff,
        context: 256,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: true,
        attention: Attention::PLAIN,
    }
}

/// Peak learning rates of Muon for the matrices and for the token table, and of AdamW for the rest.
pub(super) fn inner(matrices: f32, table: f32, adamw: f32) -> Inner {
    Inner {
        clip_norm: 1.0,
        adamw: Adamw { lr: adamw, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 },
        muon: Some(Muon { lr: matrices, table_lr: table, momentum: 0.95, iterations: 4, weight_decay: 0.0 }),
    }
}

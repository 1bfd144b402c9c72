//! What a stage costs: memory, computation and bytes, from the same arithmetic as the stage that runs.
//!
//! | of a unit (one micro-batch) | formula |
//! |---|---|
//! | forward | 2 FLOP for each multiplied parameter and token, and `2·rows·tokens·heads·head_dim` for causal attention in each layer |
//! | backward | twice the products, and 2.5 times the attention, whose scores are computed again |
//! | learned basis | `2·rows·width·rank` for each product of a boundary: one forward and two backward on either side |
//! | message | what the codec writes ([`learn::boundary::encoded_bytes`]); one goes down and one comes back over each boundary |
//!
//! | of a round | formula |
//! |---|---|
//! | step | the products of Muon ([`learn::inner::step_flops`]) |
//! | payload | [`learn::sparseloco::payload_bytes_mean`]; each replica fetches those of all others of its stage, and with a learned basis those \
//!   of both neighbouring stages too |

use learn::Recipe;
use learn::boundary::{Codec, Space, encoded_bytes};
use learn::pipeline::{MESSAGES_PER_UNIT, PROGRAM_BYTES, StageBudget, StageShape, TOKENIZER_BYTES};
use learn::recipe::{BatchShape, Compression, Pipeline};
use model::{Config, ConfigError, Kind};
use serde::Serialize;
use swarm::pipeline::PipelineConfig;

use super::calibration::Calibration;
use super::peers::PeerSpec;

/// Messages that a pipeline needs room for.
const MESSAGES_MIN: u64 = 5;

/// What is planned, without the peers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) model: Config,
    pub(crate) batch: BatchShape,
    pub(crate) keep: u32,
    pub(crate) slots: usize,
    pub(crate) codec: Codec,
    pub(crate) stages: usize,
}

/// Bytes that a member of a stage takes, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StageMemory {
    /// Parameters: the canonical ones, and those that the layers compute with.
    pub weights: u64,
    /// The optimiser's moments.
    pub optimiser: u64,
    /// The sum of the round's gradients.
    pub gradients: u64,
    /// What micro-batches keep between forward and backward, and the buffers of both.
    pub activations: u64,
    /// Token parts, which learned bases need.
    pub token_parts: u64,
    /// The end of a round: residual and payload, the step, the new state as bytes.
    pub exchange: u64,
    /// Inputs, outputs and gradients of units under way.
    pub window: u64,
    /// The program, the tokenizer, and buffers of the kernels.
    pub program: u64,
}

impl StageMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.without_window() + self.window
    }

    /// All but the window of units under way.
    pub fn without_window(&self) -> u64 {
        let Self { weights, optimiser, gradients, activations, token_parts, exchange, program, .. } = *self;
        weights + optimiser + gradients + activations + token_parts + exchange + program
    }
}

/// What one stage costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StageCost {
    /// Its first layer and the one past its last.
    pub(crate) layers: (usize, usize),
    pub(crate) first: bool,
    pub(crate) last: bool,
    /// Canonical parameters.
    pub(crate) parameters: u64,
    /// Memory with the smallest window.
    pub(crate) memory: StageMemory,
    /// Bytes of one message at a boundary.
    pub(crate) message: u64,
    /// FLOPs of one unit.
    pub(crate) forward_flops: f64,
    pub(crate) backward_flops: f64,
    /// FLOPs of the optimiser's step.
    pub(crate) step_flops: f64,
    /// Bytes of a payload, of the state, and whether the payloads of the neighbours are needed.
    pub(crate) payload: f64,
    pub(crate) state: u64,
    pub(crate) neighbours: bool,
}

impl Shape {
    /// The costs of all stages in order.
    ///
    /// # Errors
    /// The sizes are not those of a model, or the micro-batch does not suit it.
    pub(crate) fn costs(&self) -> Result<Vec<StageCost>, ConfigError> {
        self.model.validate()?;
        let Self { codec, stages, .. } = *self;
        let compression = Compression { chunk: 4096, keep: self.keep, beta: 0.95 };
        let pipeline = Some(Pipeline { stages, space: codec.space, precision: codec.precision, coarsest: None });
        // Not validated: recipes that run stop at 2^32 parameters, and this one is for its arithmetic only.
        let recipe = Recipe { model: self.model, batch: self.batch, compression, pipeline, ..Recipe::default_run() };
        StageShape::all(&recipe).iter().map(|shape| self.cost(&recipe, shape)).collect()
    }

    fn cost(&self, recipe: &Recipe, shape: &StageShape) -> Result<StageCost, ConfigError> {
        let config = &self.model;
        let rows = self.batch.sequences * self.batch.tokens;
        let budget = StageBudget::of(recipe, shape, self.slots, 1)?;
        let message = encoded_bytes(self.codec.precision, rows, shape.columns()) as u64;
        let program = PROGRAM_BYTES + TOKENIZER_BYTES * config.vocab as u64 + budget.kernels;
        let StageBudget { weights, optimiser, gradients, activations, token_parts, exchange, .. } = budget;
        let window = MESSAGES_MIN * message;
        let memory = StageMemory { weights, optimiser, gradients, activations, token_parts, exchange, window, program };
        let canonical = shape.layout().tensors();
        let full = shape.stage().layout();
        let multiplied = full.tensors().iter().filter(|tensor| matches!(tensor.kind, Kind::Matrix | Kind::Head));
        let multiplied: usize = multiplied.map(model::TensorInfo::len).sum();
        let layers = shape.stage().layers();
        let (products, attention) = (2.0 * multiplied as f64 * rows as f64, self.attention_flops(layers.len()));
        let sides = f64::from(u8::from(!shape.is_first()) + u8::from(!shape.is_last()));
        let basis = match self.codec.space {
            Space::Full => 0.0,
            Space::Subspace { rank } | Space::Projector { rank, .. } => {
                sides * 2.0 * (rows * config.width) as f64 * rank as f64
            }
        };
        Ok(StageCost {
            layers: (layers.start, layers.end),
            first: shape.is_first(),
            last: shape.is_last(),
            parameters: shape.layout().len() as u64,
            memory,
            message,
            forward_flops: products + attention + basis,
            backward_flops: 2.0 * products + 2.5 * attention + 2.0 * basis,
            step_flops: learn::inner::step_flops(canonical, recipe.inner),
            payload: learn::sparseloco::payload_bytes_mean(shape.layout(), recipe.compression),
            state: optimiser + 4 * shape.layout().len() as u64,
            neighbours: shape.needs_neighbours(),
        })
    }

    /// Of one unit forward in so many layers: scores and weighted values over half of the positions.
    fn attention_flops(&self, layers: usize) -> f64 {
        let rows = (self.batch.sequences * self.batch.tokens) as f64;
        2.0 * rows * self.batch.tokens as f64 * self.model.q_width() as f64 * layers as f64
    }
}

impl StageCost {
    /// Messages of a unit that a replica sends, which are as many as it gets.
    pub(crate) fn messages(&self) -> u64 {
        u64::from(!self.first) + u64::from(!self.last)
    }

    /// Seconds of a forward pass.
    pub(crate) fn forward_s(&self, peer: &PeerSpec, calibration: &Calibration) -> f64 {
        self.pass_s(self.forward_flops, peer, calibration)
    }

    /// Seconds of a backward pass, in which the forward is repeated when its activations were given up.
    pub(crate) fn backward_s(&self, peer: &PeerSpec, calibration: &Calibration, again: bool) -> f64 {
        let flops = self.backward_flops + if again { self.forward_flops } else { 0.0 };
        // The last stage goes forward and back in one pass.
        let fixed = if self.last { calibration.pass_s } else { 0.0 };
        self.pass_s(flops, peer, calibration) - fixed
    }

    fn pass_s(&self, flops: f64, peer: &PeerSpec, calibration: &Calibration) -> f64 {
        flops / (calibration.efficiency * peer.flops) + calibration.pass_s
    }

    /// Seconds of processor that the end of a round takes: residual, payload, aggregate, step and the new state.
    pub(crate) fn step_s(&self, peer: &PeerSpec, calibration: &Calibration) -> f64 {
        self.step_flops / (calibration.efficiency * peer.flops) + calibration.parameter_s * self.parameters as f64
    }

    /// Units that may be under way in this much memory; none when the stage does not fit.
    pub(crate) fn window(&self, memory_bytes: u64) -> Option<u32> {
        let most = u64::from(PipelineConfig::default().window_max);
        let free = memory_bytes.checked_sub(self.memory.without_window())?;
        if free < MESSAGES_MIN * self.message {
            return None;
        }
        let units = (free / (MESSAGES_PER_UNIT * self.message)).clamp(1, most);
        u32::try_from(units).ok()
    }

    /// Its memory with a window of so many units.
    pub(crate) fn memory_with(&self, window: u32) -> StageMemory {
        let window = (u64::from(window) * MESSAGES_PER_UNIT).max(MESSAGES_MIN) * self.message;
        StageMemory { window, ..self.memory }
    }
}

#[cfg(test)]
mod tests {
    use learn::boundary::Precision;

    use super::*;
    use crate::plan::shapes::model_shape;

    fn shape(stages: usize, codec: &str) -> Shape {
        Shape {
            model: model_shape("32b").unwrap(),
            batch: BatchShape { sequences: 1, tokens: 512 },
            keep: 64,
            slots: 4,
            codec: codec.parse().unwrap(),
            stages,
        }
    }

    /// A layer of 32B: 2·5120² + 2·5120·1024 + 3·5120·27648 parameters in its matrices.
    const LAYER: u64 = 62_914_560 + 424_673_280;

    #[test]
    fn a_middle_layer_costs_what_can_be_computed_by_hand() {
        let costs = shape(64, "full,f32").costs().unwrap();
        let middle = &costs[30];
        assert_eq!((middle.layers, middle.first, middle.last), ((30, 31), false, false));
        assert_eq!(middle.parameters, LAYER + 2 * 5120);
        assert_eq!(middle.message, 9 + 512 * 5120 * 4);
        let products = 2.0 * LAYER as f64 * 512.0;
        let attention = 2.0 * 512.0 * 512.0 * 5120.0;
        assert_eq!(middle.forward_flops, products + attention);
        assert_eq!(middle.backward_flops, 2.0 * products + 2.5 * attention);
        assert_eq!(middle.memory.weights, 2 * 4 * middle.parameters);
        assert_eq!(middle.state, 4 * (2 * middle.parameters + 2 * 5120), "moments; second ones of the norms only");
        // 64 of 4096 entries at about 9.5 bits.
        let bits = 8.0 * middle.payload / (middle.parameters as f64 * 64.0 / 4096.0);
        assert!((9.4..10.2).contains(&bits), "{bits} bits of an entry kept");
    }

    #[test]
    fn the_parts_are_the_whole() {
        let whole: u64 = shape(64, "full,int8").costs().unwrap().iter().map(|cost| cost.parameters).sum();
        assert_eq!(whole, model_shape("32b").unwrap().parameters());
        let (few, many) = (shape(8, "full,int8").costs().unwrap(), shape(64, "full,int8").costs().unwrap());
        let flops = |costs: &[StageCost]| costs.iter().map(|cost| cost.forward_flops).sum::<f64>();
        assert!((flops(&few) / flops(&many) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn codecs_write_what_they_say() {
        let message = |codec| shape(64, codec).costs().unwrap()[1].message;
        assert_eq!(message("full,bf16"), 9 + 512 * 5120 * 2);
        assert_eq!(message("full,int4"), 9 + 512 * (2 + 2560));
        assert_eq!(message("projector:640,int4"), 9 + 512 * (2 + 320));
        let costs = shape(64, "projector:640,int4").costs().unwrap();
        assert!(costs[1].neighbours && costs[1].memory.token_parts == 4 * 152_064 * 5120);
        assert_eq!(Precision::Int4.bits(), 4);
    }

    #[test]
    fn the_window_is_what_memory_leaves() {
        let cost = &shape(64, "full,f32").costs().unwrap()[1];
        let least = cost.memory.total();
        assert_eq!(cost.window(least - 1), None);
        assert_eq!(cost.window(least), Some(1));
        let three = cost.memory.without_window() + 3 * 4 * cost.message;
        assert_eq!((cost.window(three), cost.window(u64::MAX)), (Some(3), Some(64)));
        assert_eq!(cost.memory_with(3).total(), three);
    }
}

//! Low-rank adapters: a frozen matrix `W` acts as `W + alpha/rank · B·A`, and only the thin `A` and `B` are trained.
//!
//! Source: LoRA, Hu et al., arXiv:2106.09685. `A` is `[rank, in]` and `B` `[out, rank]`. `A` starts uniform within `±1/√in`, as
//! in PEFT of Hugging Face, whose names the tensors have too; `B` starts at zero, so that an adapter that was not trained changes nothing.
//!
//! What it does not do: adapters of the embedding, the head or the norms, dropout, and the variants that
//! scale by `alpha/√rank` or decompose the weight.

mod peft;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tensor::Context;
use tensor::random::Stream;

use crate::config::{Config, ConfigError};
use crate::stage::{Kind, LayerParts, Stage, TensorInfo};

pub use self::peft::{CONFIG_NAME, VALUES_NAME};

/// The largest rank.
pub const RANK_MAX: usize = 1024;

/// A linear map of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinearMap {
    /// Queries of attention.
    #[serde(rename = "q_proj")]
    Query,
    /// Keys of attention.
    #[serde(rename = "k_proj")]
    Key,
    /// Values of attention.
    #[serde(rename = "v_proj")]
    Value,
    /// The output of attention.
    #[serde(rename = "o_proj")]
    Output,
    /// The gate of the feed-forward layer.
    #[serde(rename = "gate_proj")]
    Gate,
    /// The way up of the feed-forward layer.
    #[serde(rename = "up_proj")]
    Up,
    /// The way down of the feed-forward layer.
    #[serde(rename = "down_proj")]
    Down,
}

impl LinearMap {
    /// Every linear map of a layer, in the order of the layer's parameters.
    pub const ALL: [Self; 7] = [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The name in Hugging Face's models and in PEFT's `target_modules`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The map of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|map| map.name() == name)
    }

    /// The name with the part of the layer that it belongs to.
    fn module(self) -> String {
        let part = if matches!(self, Self::Gate | Self::Up | Self::Down) { "mlp" } else { "self_attn" };
        format!("{part}.{}", self.name())
    }

    /// Entries of the output and of the input.
    pub(crate) fn sizes(self, config: &Config) -> [usize; 2] {
        let (width, q, kv, ff) = (config.width, config.q_width(), config.kv_width(), config.ff);
        match self {
            Self::Query => [q, width],
            Self::Key | Self::Value => [kv, width],
            Self::Output => [width, q],
            Self::Gate | Self::Up => [ff, width],
            Self::Down => [width, ff],
        }
    }

    /// Where the weight lies in the flat vector.
    pub(crate) fn weight(self, parts: &LayerParts) -> &Range<usize> {
        match self {
            Self::Query => &parts.q,
            Self::Key => &parts.k,
            Self::Value => &parts.v,
            Self::Output => &parts.o,
            Self::Gate => &parts.gate,
            Self::Up => &parts.up,
            Self::Down => &parts.down,
        }
    }
}

/// Which adapters a model gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Rows of `A` and columns of `B`, 1 to [`RANK_MAX`].
    pub rank: usize,
    /// What the product `B·A` counts, times the rank; above 0.
    pub alpha: f32,
    /// The maps of every layer that get one: at least one, each once, in the order of [`LinearMap::ALL`].
    pub targets: Vec<LinearMap>,
}

impl Lora {
    /// Adapters of this rank for every linear map, with `alpha` twice the rank.
    pub fn all(rank: usize) -> Self {
        Self { rank, alpha: 2.0 * rank as f32, targets: LinearMap::ALL.to_vec() }
    }

    /// The factor of `B·A`.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.rank == 0 || self.rank > RANK_MAX {
            return Err(ConfigError::OutOfRange { field: "lora.rank", value: self.rank, max: RANK_MAX });
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            let expected = "finite and above 0";
            return Err(ConfigError::BadNumber { field: "lora.alpha", value: self.alpha, expected });
        }
        if self.targets.is_empty() || self.targets.windows(2).any(|pair| pair[0] >= pair[1]) {
            let count = self.targets.len();
            return Err(ConfigError::OutOfRange { field: "lora.targets", value: count, max: LinearMap::ALL.len() });
        }
        Ok(())
    }

    /// Number of trained values in a model of `layers` layers of this shape.
    pub fn parameters(&self, config: &Config, layers: usize) -> u64 {
        let of = |map: &LinearMap| map.sizes(config).iter().sum::<usize>() as u64 * self.rank as u64;
        self.targets.iter().map(of).sum::<u64>() * layers as u64
    }
}

/// Where `A` and `B` of one map lie in the flat vector of adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdapterParts {
    pub(crate) a: Range<usize>,
    pub(crate) b: Range<usize>,
}

/// The adapters of a stage in one flat vector, layer by layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterLayout {
    lora: Lora,
    tensors: Vec<TensorInfo>,
    layers: Vec<[Option<AdapterParts>; 7]>,
    len: usize,
}

impl AdapterLayout {
    /// Lays out the adapters of a stage.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub fn new(stage: &Stage, lora: Lora) -> Result<Self, ConfigError> {
        lora.validate()?;
        let mut layout = Self { lora, tensors: Vec::new(), layers: Vec::new(), len: 0 };
        for layer in stage.layers() {
            let parts = LinearMap::ALL.map(|map| {
                let wanted = layout.lora.targets.contains(&map);
                wanted.then(|| layout.add(layer, map, map.sizes(stage.config())))
            });
            layout.layers.push(parts);
        }
        Ok(layout)
    }

    fn add(&mut self, layer: usize, map: LinearMap, [outs, ins]: [usize; 2]) -> AdapterParts {
        let mut add = |name: &str, shape: [usize; 2]| {
            let tensor = TensorInfo {
                name: format!("base_model.model.model.layers.{layer}.{}.{name}.weight", map.module()),
                shape: shape.to_vec(),
                kind: Kind::Matrix,
                offset: self.len,
                writes_residual: false,
            };
            let range = tensor.range();
            self.len = range.end;
            self.tensors.push(tensor);
            range
        };
        let rank = self.lora.rank;
        AdapterParts { a: add("lora_A", [rank, ins]), b: add("lora_B", [outs, rank]) }
    }

    /// What was asked for.
    pub fn lora(&self) -> &Lora {
        &self.lora
    }

    /// Number of trained values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The matrices in order, under the names that PEFT gives them.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(crate) fn layers(&self) -> &[[Option<AdapterParts>; 7]] {
        &self.layers
    }

    /// Draws the initial adapters from a seed; every matrix has a random stream of its own, named by the tensor.
    pub fn init(&self, seed: [u8; 32]) -> Vec<f32> {
        let mut adapters = vec![0.0; self.len];
        for tensor in self.tensors.iter().filter(|tensor| tensor.name.ends_with("lora_A.weight")) {
            let bound = 1.0 / (tensor.shape[1] as f32).sqrt();
            let mut stream = Stream::new(seed, &format!("init {}", tensor.name));
            for value in &mut adapters[tensor.range()] {
                *value = bound * (2.0 * stream.uniform() - 1.0);
            }
        }
        adapters
    }

    /// Adds every adapter to its matrix, so that a model without adapters computes what the model with them did, up to
    /// rounding. Each entry continues its fold: `w + Σ_r (scale·B)[o, r] · A[r, i]`, ascending.
    ///
    /// # Panics
    /// When a slice has another length than its layout, or the stage is another.
    pub fn merge(&self, ctx: &Context, stage: &Stage, params: &mut [f32], adapters: &[f32]) {
        let layout = stage.layout();
        assert_eq!(
            (params.len(), adapters.len()),
            (layout.len(), self.len),
            "parameters and adapters of another model"
        );
        assert_eq!(layout.parts().layers.len(), self.layers.len(), "adapters of another stage");
        for (parts, adapted) in layout.parts().layers.iter().zip(&self.layers) {
            for (map, at) in LinearMap::ALL.iter().zip(adapted) {
                let Some(AdapterParts { a, b }) = at else { continue };
                let [outs, ins] = map.sizes(stage.config());
                let mut scaled = adapters[b.clone()].to_vec();
                tensor::scale(ctx, self.lora.scale(), &mut scaled);
                let weight = &mut params[map.weight(parts).clone()];
                tensor::matmul_nn(ctx, outs, ins, self.lora.rank, &scaled, &adapters[a.clone()], weight, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny;

    #[test]
    fn the_matrices_fill_the_vector_and_have_the_names_of_peft() {
        let stage = Stage::whole(tiny()).unwrap();
        let lora = Lora { targets: vec![LinearMap::Query, LinearMap::Down], ..Lora::all(3) };
        let layout = AdapterLayout::new(&stage, lora.clone()).unwrap();
        let mut at = 0;
        for tensor in layout.tensors() {
            assert_eq!(tensor.offset, at);
            at += tensor.len();
        }
        assert_eq!((layout.len(), layout.len() as u64), (at, lora.parameters(&tiny(), 2)));
        let down = &layout.tensors()[6];
        assert_eq!(down.name, "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight");
        assert_eq!(down.shape, [3, tiny().ff]);
    }

    #[test]
    fn the_seed_decides_a_and_b_is_zero() {
        let layout = AdapterLayout::new(&Stage::whole(tiny()).unwrap(), Lora::all(4)).unwrap();
        let adapters = layout.init([1; 32]);
        assert_eq!(adapters, layout.init([1; 32]));
        assert_ne!(adapters, layout.init([2; 32]));
        for tensor in layout.tensors() {
            let (values, bound) = (&adapters[tensor.range()], 1.0 / (tensor.shape[1] as f32).sqrt());
            let is_a = tensor.name.contains("lora_A");
            assert_eq!(values.iter().all(|value| *value == 0.0), !is_a, "{}", tensor.name);
            assert!(values.iter().all(|value| value.abs() <= bound), "{}", tensor.name);
        }
    }

    #[test]
    fn unsound_settings_are_refused() {
        let all = Lora::all(4);
        assert_eq!(all.validate(), Ok(()));
        let edits = [
            ("rank", Lora { rank: 0, ..all.clone() }),
            ("rank", Lora { rank: RANK_MAX + 1, ..all.clone() }),
            ("alpha", Lora { alpha: f32::NAN, ..all.clone() }),
            ("targets", Lora { targets: Vec::new(), ..all.clone() }),
            ("targets", Lora { targets: vec![LinearMap::Key, LinearMap::Key], ..all.clone() }),
        ];
        for (field, bad) in edits {
            let message = bad.validate().unwrap_err().to_string();
            assert!(message.contains(field), "`{message}` does not name `{field}`");
        }
    }
}

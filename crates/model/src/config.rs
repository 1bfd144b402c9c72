//! The shape of a Llama-family model, checked before anything is allocated.

use serde::{Deserialize, Serialize};
use tensor::RopeTable;

/// The shape of a Llama-family decoder: RMSNorm, rotary positions, grouped-query attention and SwiGLU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of token ids.
    pub vocab: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Entries per head; even, because rotary positions turn pairs of them.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ff: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Number added to the mean square before the root in RMSNorm.
    pub norm_eps: f32,
    /// Whether the head uses the embedding table as its weight.
    pub tied_head: bool,
    /// What the model's attention has besides; nothing in the plain Llama.
    #[serde(default, skip_serializing_if = "Attention::is_plain")]
    pub attention: Attention,
}

/// What the attention of some families has besides that of the plain Llama.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attention {
    /// Whether queries, keys and values have a bias (Qwen2.5).
    pub bias: bool,
    /// Whether each head's query and key goes through an RMSNorm of its own before the rotation (Qwen3).
    pub query_key_norm: bool,
    /// How the rotary frequencies are changed for long texts.
    pub rope_scaling: Option<RopeScaling>,
}

impl Attention {
    /// That of the plain Llama: nothing besides.
    pub const PLAIN: Self = Self { bias: false, query_key_norm: false, rope_scaling: None };

    /// Whether it is that of the plain Llama.
    pub fn is_plain(&self) -> bool {
        *self == Self::PLAIN
    }
}

/// How rotary frequencies are changed, so that a model reads longer texts than it was first trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum RopeScaling {
    /// Every frequency is divided by `factor` (position interpolation; Chen et al., arXiv:2306.15595).
    Linear {
        /// How many times longer the texts are; at least 1.
        factor: f32,
    },
    /// Low frequencies are divided by `factor`, high ones kept, those between mixed (Llama 3.1).
    Llama3 {
        /// How many times longer the texts are; at least 1.
        factor: f32,
        /// Waves longer than `original_context / low_frequency_factor` positions are low.
        low_frequency_factor: f32,
        /// Waves shorter than `original_context / high_frequency_factor` positions are high.
        high_frequency_factor: f32,
        /// Longest text of the first training, in tokens.
        original_context: u32,
    },
}

impl RopeScaling {
    /// The changed frequency, in radians per position.
    pub fn frequency(&self, frequency: f64) -> f64 {
        match *self {
            Self::Linear { factor } => frequency / f64::from(factor),
            Self::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
                let (factor, low, high) =
                    (f64::from(factor), f64::from(low_frequency_factor), f64::from(high_frequency_factor));
                // How many waves the original context holds.
                let waves = f64::from(original_context) * frequency / std::f64::consts::TAU;
                let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let check = |field, value: f32, sound: bool, expected| match value.is_finite() && sound {
            true => Ok(()),
            false => Err(ConfigError::BadNumber { field, value, expected }),
        };
        let (Self::Linear { factor } | Self::Llama3 { factor, .. }) = *self;
        check("rope_scaling.factor", factor, factor >= 1.0, "finite and at least 1")?;
        if let Self::Llama3 { low_frequency_factor: low, high_frequency_factor: high, original_context, .. } = *self {
            check("rope_scaling.low_frequency_factor", low, low > 0.0, "finite and above 0")?;
            check("rope_scaling.high_frequency_factor", high, high > low, "above low_frequency_factor")?;
            let context = original_context as f32;
            check("rope_scaling.original_context", context, original_context > 0, "above 0")?;
        }
        Ok(())
    }
}

/// What is wrong with a [`Config`] or a [`Stage`](crate::config::Config).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A size is outside of its range.
    #[error("model config: `{field}` is {value}, and must be between 1 and {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The largest permitted value.
        max: usize,
    },
    /// The head size is odd, and rotary positions turn pairs of entries.
    #[error("model config: `head_dim` is {0}, and must be even")]
    OddHeadDim(usize),
    /// The query heads cannot be shared out over the key and value heads.
    #[error("model config: `heads` is {heads}, and must be a multiple of `kv_heads`, which is {kv_heads}")]
    UnevenHeads {
        /// Number of query heads.
        heads: usize,
        /// Number of key and value heads.
        kv_heads: usize,
    },
    /// A real number is outside of its range.
    #[error("model config: `{field}` is {value}, and must be {expected}")]
    BadNumber {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f32,
        /// The permitted range in words.
        expected: &'static str,
    },
    /// The whole model has more parameters than this program handles.
    #[error("model config: {parameters} parameters, and at most {max} are handled")]
    TooLarge {
        /// Number of parameters.
        parameters: u64,
        /// The largest permitted number.
        max: u64,
    },
    /// A stage names layers that the model does not have, or none.
    #[error("stage: layers {start}..{end} of a model with {layers} layers")]
    BadLayers {
        /// First layer.
        start: usize,
        /// One past the last layer.
        end: usize,
        /// Layers in the model.
        layers: usize,
    },
    /// The head shares the embedding's weights, and they are in different stages.
    #[error(
        "stage: a model with a tied head must be one stage, and layers {start}..{end} of {layers} are not all of it"
    )]
    TiedAcrossStages {
        /// First layer.
        start: usize,
        /// One past the last layer.
        end: usize,
        /// Layers in the model.
        layers: usize,
    },
    /// The micro-batch is empty, or its sequences are longer than the context.
    #[error("micro-batch: {batch} sequences of {tokens} tokens, where the context is {context}")]
    BadBatch {
        /// Sequences.
        batch: usize,
        /// Tokens in each.
        tokens: usize,
        /// Longest sequence of the model.
        context: usize,
    },
    /// The parameter vector does not belong to this model.
    #[error("parameters: {got} values, where the model has {expected}")]
    WrongParameters {
        /// Values that the layout holds.
        expected: usize,
        /// Values that came.
        got: usize,
    },
}

/// Most parameters of one model: a trillion, so that every product of sizes fits 64 bits with room to spare. What must fit a `u32` index
/// has a limit of its own where it is indexed.
pub const PARAMETERS_MAX: u64 = 1 << 40;

impl Config {
    /// Checks every size and the relations between them.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value, max) in self.sizes() {
            if value == 0 || value > max {
                return Err(ConfigError::OutOfRange { field, value, max });
            }
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::OddHeadDim(self.head_dim));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(ConfigError::UnevenHeads { heads: self.heads, kv_heads: self.kv_heads });
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            let expected = "finite and above 1";
            return Err(ConfigError::BadNumber { field: "rope_theta", value: self.rope_theta, expected });
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            let expected = "between 0 and 1";
            return Err(ConfigError::BadNumber { field: "norm_eps", value: self.norm_eps, expected });
        }
        self.attention.rope_scaling.as_ref().map_or(Ok(()), RopeScaling::validate)?;
        let parameters = self.parameters();
        if parameters > PARAMETERS_MAX {
            return Err(ConfigError::TooLarge { parameters, max: PARAMETERS_MAX });
        }
        Ok(())
    }

    /// The rotary angles of the first `positions` positions.
    pub fn rope_table(&self, positions: usize) -> RopeTable {
        let scaling = self.attention.rope_scaling;
        RopeTable::scaled(self.head_dim, positions, self.rope_theta, |frequency| match scaling {
            Some(scaling) => scaling.frequency(frequency),
            None => frequency,
        })
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together, which is also that of the values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Number of parameters of the whole model, saturating for sizes that [`Config::validate`] refuses.
    pub fn parameters(&self) -> u64 {
        let product = |a: usize, b: usize| (a as u64).saturating_mul(b as u64);
        let q = product(self.width, self.heads.saturating_mul(self.head_dim));
        let kv = product(self.width, self.kv_heads.saturating_mul(self.head_dim));
        let ff = product(self.width, self.ff);
        let biases = if self.attention.bias { self.heads.saturating_add(self.kv_heads.saturating_mul(2)) } else { 0 };
        let norms = if self.attention.query_key_norm { 2 } else { 0 };
        let small = [product(biases, self.head_dim), product(norms, self.head_dim), product(self.width, 2)];
        let layer = [q, q, kv, kv, ff, ff, ff, small[0], small[1], small[2]];
        let layer = layer.iter().fold(0u64, |sum, &x| sum.saturating_add(x));
        let tables = product(self.vocab, self.width).saturating_mul(if self.tied_head { 1 } else { 2 });
        (self.layers as u64).saturating_mul(layer).saturating_add(tables).saturating_add(self.width as u64)
    }

    fn sizes(&self) -> [(&'static str, usize, usize); 8] {
        [
            ("vocab", self.vocab, 1 << 20),
            ("width", self.width, 1 << 16),
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, 1 << 10),
            ("kv_heads", self.kv_heads, 1 << 10),
            ("head_dim", self.head_dim, 1 << 10),
            ("ff", self.ff, 1 << 18),
            ("context", self.context, 1 << 20),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            vocab: 64,
            width: 16,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 4,
            ff: 24,
            context: 32,
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
            tied_head: false,
            attention: Attention::PLAIN,
        }
    }

    #[test]
    fn a_sound_config_passes_and_each_bad_field_is_named() {
        assert_eq!(config().validate(), Ok(()));
        type Edit = fn(&mut Config);
        let edits: [(&str, Edit); 12] = [
            ("vocab", |c| c.vocab = 0),
            ("width", |c| c.width = usize::MAX),
            ("layers", |c| c.layers = 0),
            ("heads", |c| c.heads = 3),
            ("kv_heads", |c| c.kv_heads = 0),
            ("head_dim", |c| c.head_dim = 3),
            ("ff", |c| c.ff = usize::MAX),
            ("context", |c| c.context = 0),
            ("rope_theta", |c| c.rope_theta = f32::NAN),
            ("norm_eps", |c| c.norm_eps = 0.0),
            ("rope_scaling.factor", |c| c.attention.rope_scaling = Some(RopeScaling::Linear { factor: 0.5 })),
            ("rope_scaling.high_frequency_factor", |c| {
                c.attention.rope_scaling = Some(RopeScaling::Llama3 {
                    factor: 8.0,
                    low_frequency_factor: 4.0,
                    high_frequency_factor: 1.0,
                    original_context: 16,
                });
            }),
        ];
        for (field, edit) in edits {
            let mut bad = config();
            edit(&mut bad);
            let message = bad.validate().expect_err(field).to_string();
            assert!(message.contains(field), "`{message}` does not name `{field}`");
        }
    }

    #[test]
    fn a_plain_config_is_written_as_before_attention_could_vary() {
        let text = serde_json::to_string(&config()).unwrap();
        assert!(!text.contains("attention"), "{text}");
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config());
        let attention = Attention { bias: true, ..Attention::PLAIN };
        let text = serde_json::to_string(&Config { attention, ..config() }).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap().attention, attention);
    }

    #[test]
    fn a_model_beyond_the_limit_is_refused_before_any_allocation() {
        let huge = Config { vocab: 1 << 20, width: 1 << 16, ff: 1 << 18, layers: 1 << 10, ..config() };
        assert!(matches!(huge.validate(), Err(ConfigError::TooLarge { .. })));
    }
}

//! A `config.json`: read into our [`Config`], and written.
//!
//! Source: the configurations `LlamaConfig`, `Qwen2Config` and `Qwen3Config` of Hugging Face transformers, versions 4 and 5 (which
//! moved the rotation's base into `rope_parameters`). Fields that would change what is computed and are not known here are errors.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{read_json_bytes, unsupported};
use crate::config::{Attention, Config, RopeScaling};
use crate::pretrained::PretrainedError;

/// Which of the supported families a model is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pretrained) enum Family {
    Llama,
    Qwen2,
    Qwen3,
}

impl Family {
    const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// The name in `model_type`, which is also that of the architecture in GGUF files.
    pub(in crate::pretrained) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The family that computes what a config says.
    ///
    /// # Errors
    /// None of them does.
    pub(in crate::pretrained) fn of(config: &Config) -> Result<Self, PretrainedError> {
        match (config.attention.bias, config.attention.query_key_norm) {
            (false, false) => Ok(Self::Llama),
            (true, false) => Ok(Self::Qwen2),
            (false, true) => Ok(Self::Qwen3),
            (true, true) => Err(PretrainedError::Unsupported {
                field: "attention".to_owned(),
                found: "one with biases and norms of heads".to_owned(),
                expected: "one with either, as in Llama, Qwen2.5 or Qwen3, to be exported".to_owned(),
            }),
        }
    }
}

/// The fields that matter here.
#[derive(Deserialize)]
struct Fields {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: Option<f32>,
    rope_theta: Option<f32>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    partial_rotary_factor: Option<f32>,
    quantization_config: Option<serde::de::IgnoredAny>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
}

#[derive(Deserialize)]
struct Rope {
    rope_type: Option<String>,
    /// The older name of `rope_type`; some files have both.
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<u32>,
    partial_rotary_factor: Option<f32>,
}

/// A config with the tokens that the file names.
pub(super) struct Described {
    pub(super) config: Config,
    pub(super) begin: Vec<u32>,
    pub(super) ends: Vec<u32>,
}

/// Reads the bytes of a `config.json` of the families Llama, Qwen2 and Qwen3. `path` is for messages only.
///
/// # Errors
/// The bytes are no such file, a size is out of range, or the model is of a kind that this crate does not compute; the error names
/// the field.
pub fn read_config(path: &Path, bytes: &[u8]) -> Result<Config, PretrainedError> {
    read(path, bytes).map(|described| described.config)
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Described, PretrainedError> {
    let fields: Fields = read_json_bytes(path, bytes)?;
    let family = Family::ALL.into_iter().find(|family| family.name() == fields.model_type).ok_or_else(|| {
        let found = format!("`{}`", fields.model_type.escape_debug());
        unsupported(path, "model_type", found, "`llama`, `qwen2` or `qwen3`")
    })?;
    check(path, &fields)?;
    let heads = fields.num_attention_heads;
    let usual = if family == Family::Qwen3 { 128 } else { fields.hidden_size / heads.max(1) };
    let rope = fields.rope_parameters.as_ref().or(fields.rope_scaling.as_ref());
    let plain = Attention::PLAIN;
    let attention = match family {
        Family::Llama => plain,
        Family::Qwen2 => Attention { bias: true, ..plain },
        Family::Qwen3 => Attention { query_key_norm: true, ..plain },
    };
    let rope_scaling = rope.map_or(Ok(None), |rope| scaling(path, rope))?;
    let config = Config {
        vocab: fields.vocab_size,
        width: fields.hidden_size,
        layers: fields.num_hidden_layers,
        heads,
        kv_heads: fields.num_key_value_heads.unwrap_or(heads),
        head_dim: fields.head_dim.unwrap_or(usual),
        ff: fields.intermediate_size,
        context: fields.max_position_embeddings,
        rope_theta: rope.and_then(|rope| rope.rope_theta).or(fields.rope_theta).unwrap_or(10_000.0),
        norm_eps: fields.rms_norm_eps.unwrap_or(1e-6),
        tied_head: fields.tie_word_embeddings.unwrap_or(false),
        attention: Attention { rope_scaling, ..attention },
    };
    config.validate()?;
    let ids = |value: &Option<Value>| value.as_ref().map(token_ids).unwrap_or_default();
    Ok(Described { config, begin: ids(&fields.bos_token_id), ends: ids(&fields.eos_token_id) })
}

/// The ids of a field that is a number, a list of them, or null.
pub(super) fn token_ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

/// What would change the computation and is not computed here.
fn check(path: &Path, fields: &Fields) -> Result<(), PretrainedError> {
    let refuse = |field: &str, found: String, expected: &str| Err(unsupported(path, field, found, expected));
    if fields.attention_bias == Some(true) {
        return refuse("attention_bias", "true".into(), "false: biases of the attention's output are not computed");
    }
    if fields.mlp_bias == Some(true) {
        return refuse("mlp_bias", "true".into(), "false: biases of the feed-forward layer are not computed");
    }
    if let Some(other) = fields.hidden_act.as_deref().filter(|act| !matches!(*act, "silu" | "swish")) {
        return refuse("hidden_act", format!("`{}`", other.escape_debug()), "`silu`");
    }
    if fields.use_sliding_window == Some(true) {
        return refuse("use_sliding_window", "true".into(), "false: every token attends to all before it");
    }
    let layers = fields.layer_types.iter().flatten();
    if let Some(other) = layers.into_iter().find(|kind| *kind != "full_attention") {
        return refuse("layer_types", format!("`{}`", other.escape_debug()), "`full_attention` in every layer");
    }
    let rope = fields.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
    if let Some(part) = fields.partial_rotary_factor.or(rope).filter(|part| *part != 1.0) {
        return refuse("partial_rotary_factor", part.to_string(), "1: all of a head is rotated");
    }
    if fields.quantization_config.is_some() {
        return refuse("quantization_config", "there".into(), "absent: of quantised models, GGUF files are read");
    }
    Ok(())
}

fn scaling(path: &Path, rope: &Rope) -> Result<Option<RopeScaling>, PretrainedError> {
    let needed = |field: &str, value: Option<f32>| {
        let field = format!("rope_scaling.{field}");
        value.ok_or_else(|| unsupported(path, &field, "missing", "a number"))
    };
    match rope.rope_type.as_deref().or(rope.kind.as_deref()).unwrap_or("default") {
        "default" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: needed("factor", rope.factor)? })),
        "llama3" => Ok(Some(RopeScaling::Llama3 {
            factor: needed("factor", rope.factor)?,
            low_frequency_factor: needed("low_freq_factor", rope.low_freq_factor)?,
            high_frequency_factor: needed("high_freq_factor", rope.high_freq_factor)?,
            original_context: rope.original_max_position_embeddings.ok_or_else(|| {
                unsupported(path, "rope_scaling.original_max_position_embeddings", "missing", "a number")
            })?,
        })),
        other => {
            let found = format!("`{}`", other.escape_debug());
            Err(unsupported(path, "rope_scaling.rope_type", found, "`default`, `linear` or `llama3`"))
        }
    }
}

/// The `config.json` of a model, for transformers of version 4 or later. `dtype` is that of the tensors, such as `float32`.
///
/// # Errors
/// No family computes what the config says.
pub(in crate::pretrained) fn write(
    config: &Config,
    dtype: &str,
    begin: Option<u32>,
    ends: &[u32],
) -> Result<Value, PretrainedError> {
    let family = Family::of(config)?;
    let mut value = json!({
        "architectures": [family.class()],
        "model_type": family.name(),
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ff,
        "max_position_embeddings": config.context,
        "rms_norm_eps": exact(config.norm_eps),
        "rope_theta": exact(config.rope_theta),
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "use_cache": true,
        "torch_dtype": dtype,
        "bos_token_id": begin,
        "eos_token_id": ends.first(),
    });
    match family {
        Family::Llama => {
            value["attention_bias"] = json!(false);
            value["mlp_bias"] = json!(false);
        }
        Family::Qwen2 => value["use_sliding_window"] = json!(false),
        Family::Qwen3 => {
            value["attention_bias"] = json!(false);
            value["use_sliding_window"] = json!(false);
        }
    }
    match config.attention.rope_scaling {
        None => {}
        Some(RopeScaling::Linear { factor }) => {
            value["rope_scaling"] = json!({"rope_type": "linear", "factor": exact(factor)});
        }
        Some(RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context }) => {
            value["rope_scaling"] = json!({
                "rope_type": "llama3",
                "factor": exact(factor),
                "low_freq_factor": exact(low_frequency_factor),
                "high_freq_factor": exact(high_frequency_factor),
                "original_max_position_embeddings": original_context,
            });
        }
    }
    Ok(value)
}

/// The shortest decimal that reads as the same `f32`, so that a written config is read with the same bits and looks as people wrote
/// it (`1e-5`, not `0.000009999999747378752`).
fn exact(value: f32) -> f64 {
    // The text of an `f32` is always a number, and finite values were checked.
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

//! A model from a GGUF file.
//!
//! Deviation of the format to undo: files of the architecture `llama` hold the rows of queries and keys in the order of
//! rotations of neighbouring entries, where Hugging Face and this crate rotate the two halves of a head.

use std::collections::BTreeSet;

use super::{END_TEXTS, Pretrained, PretrainedError, SpecialTokens};
use crate::config::{Attention, Config, RopeScaling};
use crate::decoder::{Decoder, Weight};
use crate::gguf::{Gguf, GgufError, Metadata};
use crate::stage::{Kind, Layout, Stage, TensorInfo};
use crate::template::ChatTemplate;
use crate::tokenizer::{AddedText, Parts, Splitting, Tokenizer};

/// The kinds of token in `tokenizer.ggml.token_type` that matter here.
pub(super) const NORMAL: i32 = 1;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
/// A row of the embedding without a token.
pub(super) const UNUSED: i32 = 5;

/// Scaled rotations as the models of Llama 3.1 and 3.2 have them; their files hold the resulting factors.
pub(super) const LLAMA3_FACTORS: [f32; 2] = [8.0, 32.0];

impl Pretrained {
    /// Reads the model of a GGUF file.
    ///
    /// # Errors
    /// The file lacks something, or the model is of a kind that this crate does not compute.
    pub fn from_gguf(file: &Gguf<'_>) -> Result<Self, PretrainedError> {
        let about = Self::without_params(file)?;
        let neighbours = file.metadata().string("general.architecture")? == "llama";
        Ok(Self { params: params(file, &about.config, neighbours)?, ..about })
    }

    /// All but the parameters.
    pub(super) fn without_params(file: &Gguf<'_>) -> Result<Self, PretrainedError> {
        let metadata = file.metadata();
        let architecture = metadata.string("general.architecture")?;
        let config = config(file, architecture)?;
        let tokenizer = tokenizer(metadata)?;
        if tokenizer.vocab() > config.vocab {
            let (found, expected) = (format!("{} tokens", tokenizer.vocab()), format!("at most {}", config.vocab));
            return Err(unsupported("tokenizer.ggml.tokens", found, expected));
        }
        let id = |key: &str| metadata.u64(key).ok().and_then(|id| u32::try_from(id).ok());
        let text =
            |id: Option<u32>| id.and_then(|id| metadata.string_array(TOKENS).ok()?.get(id as usize)).unwrap_or("");
        let (begin, end) = (id("tokenizer.ggml.bos_token_id"), id("tokenizer.ggml.eos_token_id"));
        let template = match metadata.contains("tokenizer.chat_template") {
            true => Some(ChatTemplate::new(metadata.string("tokenizer.chat_template")?, text(begin), text(end))?),
            false => None,
        };
        let mut ends: Vec<u32> = END_TEXTS.iter().filter_map(|text| tokenizer.added(text)).chain(end).collect();
        ends.sort_unstable();
        ends.dedup();
        let name = metadata.string("general.name").unwrap_or(architecture).to_owned();
        let part = |key: &str| metadata.string(key).ok().filter(|part| !part.is_empty());
        let short_name = match (part("general.basename"), part("general.size_label")) {
            (Some(base), Some(size)) => format!("{base}-{size}"),
            _ => name.clone(),
        };
        Ok(Self {
            name,
            short_name,
            licence: metadata.string("general.license").ok().map(str::to_owned),
            stored: Self::commonest(
                file.tensors().iter().map(|tensor| (tensor.tensor_type.name(), tensor.range.len() as u64)),
            ),
            params: Vec::new(),
            config,
            tokenizer,
            template,
            begin: begin.filter(|_| metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(false)),
            ends,
            special: SpecialTokens {
                begin,
                end,
                unknown: id("tokenizer.ggml.unknown_token_id"),
                padding: id("tokenizer.ggml.padding_token_id"),
            },
        })
    }
}

/// The factors of scaled rotations, a tensor.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";

pub(super) fn unsupported(field: &str, found: impl Into<String>, expected: impl Into<String>) -> PretrainedError {
    PretrainedError::Unsupported { field: field.to_owned(), found: found.into(), expected: expected.into() }
}

fn config(file: &Gguf<'_>, architecture: &str) -> Result<Config, PretrainedError> {
    let metadata = file.metadata();
    if !["llama", "qwen2", "qwen3"].contains(&architecture) {
        let found = format!("`{}`", architecture.escape_debug());
        return Err(unsupported("general.architecture", found, "`llama`, `qwen2` or `qwen3`"));
    }
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| -> Result<usize, GgufError> {
        Ok(usize::try_from(metadata.u64(&key(name))?).unwrap_or(usize::MAX))
    };
    let size_or = |name: &str, default: usize| if metadata.contains(&key(name)) { size(name) } else { Ok(default) };
    if size_or("expert_count", 0)? > 0 {
        return Err(unsupported(&key("expert_count"), "above 0", "absent: mixtures of experts are not computed"));
    }
    let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let head_dim = size_or("attention.key_length", width / heads.max(1))?;
    let rotated = size_or("rope.dimension_count", head_dim)?;
    if rotated != head_dim || size_or("attention.value_length", head_dim)? != head_dim {
        let expected = format!("{head_dim}, the size of a head, which values have too");
        return Err(unsupported(&key("rope.dimension_count"), rotated.to_string(), expected));
    }
    let rope_theta = match metadata.contains(&key("rope.freq_base")) {
        true => metadata.f32(&key("rope.freq_base"))?,
        false => 10_000.0,
    };
    let plain = Config {
        vocab: usize::try_from(rows(file, "token_embd.weight")?).unwrap_or(usize::MAX),
        width,
        layers: size("block_count")?,
        heads,
        kv_heads: size_or("attention.head_count_kv", heads)?,
        head_dim,
        ff: size("feed_forward_length")?,
        context: size("context_length")?,
        rope_theta,
        norm_eps: metadata.f32(&key("attention.layer_norm_rms_epsilon"))?,
        tied_head: file.tensor("output.weight").is_err(),
        attention: Attention {
            bias: file.tensor("blk.0.attn_q.bias").is_ok(),
            query_key_norm: file.tensor("blk.0.attn_q_norm.weight").is_ok(),
            rope_scaling: None,
        },
    };
    plain.validate()?;
    let rope_scaling = rope_scaling(file, architecture, &plain)?;
    Ok(Config { attention: Attention { rope_scaling, ..plain.attention }, ..plain })
}

/// Rows of a matrix.
fn rows(file: &Gguf<'_>, name: &str) -> Result<u64, GgufError> {
    Ok(file.tensor(name)?.dimensions.get(1).copied().unwrap_or(1))
}

fn rope_scaling(file: &Gguf<'_>, architecture: &str, plain: &Config) -> Result<Option<RopeScaling>, PretrainedError> {
    let metadata = file.metadata();
    if file.tensor(ROPE_FACTORS).is_ok() {
        let factors = file.tensor_f32(ROPE_FACTORS)?;
        let known = LLAMA3_FACTORS.map(|factor| RopeScaling::Llama3 {
            factor,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192,
        });
        let scaling = known.into_iter().find(|scaling| agrees(scaling, plain, &factors));
        return scaling
            .map(Some)
            .ok_or_else(|| unsupported(ROPE_FACTORS, "another scaling of the rotations", "that of Llama 3.1 or 3.2"));
    }
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    if !metadata.contains(&key("type")) {
        return Ok(None);
    }
    match metadata.string(&key("type"))? {
        "none" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: metadata.f32(&key("factor"))? })),
        other => Err(unsupported(&key("type"), format!("`{}`", other.escape_debug()), "`none` or `linear`")),
    }
}

/// Whether a scaling divides the frequencies by these factors.
fn agrees(scaling: &RopeScaling, config: &Config, factors: &[f32]) -> bool {
    let half = config.head_dim / 2;
    factors.len() == half
        && factors.iter().enumerate().all(|(i, factor)| {
            let exponent = -2.0 * i as f64 / config.head_dim as f64;
            let frequency = f64::from(config.rope_theta).powf(exponent);
            (frequency / scaling.frequency(frequency) / f64::from(*factor) - 1.0).abs() < 1e-3
        })
}

/// The model of a GGUF file, ready to decode: matrices stay quantised as they are, of the types that products read.
///
/// # Errors
/// As [`Pretrained::from_gguf`].
pub fn decoder_from_gguf(file: &Gguf<'_>) -> Result<Decoder, PretrainedError> {
    let architecture = file.metadata().string("general.architecture")?;
    let config = config(file, architecture)?;
    check(file, &Stage::whole(config)?.layout())?;
    Decoder::load(config, |tensor| {
        let name = name_in_file(&tensor.name);
        let turned = architecture == "llama" && is_turned(tensor);
        if matches!(tensor.kind, Kind::Matrix | Kind::Embedding | Kind::Head) {
            let source = |row| if turned { row_in_file(row, config.head_dim) } else { row };
            if let Some(matrix) = file.quantised_matrix(&name, source)? {
                return Ok(Weight::Quantised(matrix));
            }
        }
        Ok(Weight::Values(values(file, &config, tensor, architecture == "llama")?))
    })
}

/// Whether the rows are queries or keys, which the rotations turn.
fn is_turned(tensor: &TensorInfo) -> bool {
    [".q_proj.", ".k_proj."].iter().any(|part| tensor.name.contains(part))
}

fn params(file: &Gguf<'_>, config: &Config, neighbours: bool) -> Result<Vec<f32>, PretrainedError> {
    let layout = Stage::whole(*config)?.layout();
    check(file, &layout)?;
    let mut params = Vec::with_capacity(layout.len());
    for tensor in layout.tensors() {
        params.extend(values(file, config, tensor, neighbours)?);
    }
    Ok(params)
}

/// All values of a tensor, in this crate's order of rows.
fn values(
    file: &Gguf<'_>,
    config: &Config,
    tensor: &TensorInfo,
    neighbours: bool,
) -> Result<Vec<f32>, PretrainedError> {
    let values = file.tensor_f32(&name_in_file(&tensor.name))?;
    Ok(match neighbours && is_turned(tensor) {
        true => halves(&values, tensor.shape.get(1).copied().unwrap_or(1), config.head_dim).collect(),
        false => values,
    })
}

/// Checks every tensor's shape before any is read.
fn check(file: &Gguf<'_>, layout: &Layout) -> Result<(), PretrainedError> {
    for TensorInfo { name, shape, .. } in layout.tensors() {
        let name = name_in_file(name);
        let mut found = file.tensor(&name)?.dimensions.clone();
        found.reverse();
        if !found.iter().eq(shape.iter().map(|size| *size as u64).collect::<Vec<_>>().iter()) {
            return Err(PretrainedError::WrongShape { name, found, expected: shape.clone() });
        }
    }
    // A tensor that is not computed with would change what the model says.
    let known: BTreeSet<String> = layout.tensors().iter().map(|tensor| name_in_file(&tensor.name)).collect();
    match file.tensors().iter().find(|tensor| !known.contains(&tensor.name) && tensor.name != ROPE_FACTORS) {
        Some(tensor) => {
            let name = format!("tensor {}", tensor.name.escape_debug());
            Err(unsupported(&name, "there", "absent: the model has no such part here"))
        }
        None => Ok(()),
    }
}

/// Brings rows from the order of neighbouring pairs into that of two halves, head by head.
fn halves(values: &[f32], columns: usize, head_dim: usize) -> impl Iterator<Item = f32> + '_ {
    (0..values.len() / columns).flat_map(move |row| {
        let from = row_in_file(row, head_dim);
        values[from * columns..(from + 1) * columns].iter().copied()
    })
}

/// Where the row of two halves is in a file of neighbouring pairs.
fn row_in_file(row: usize, head_dim: usize) -> usize {
    let (head, place, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + 2 * (place % half) + place / half
}

/// What a GGUF file calls a tensor of Hugging Face's name.
pub(super) fn name_in_file(name: &str) -> String {
    const PLACES: [(&str, &str); 11] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
        "model.norm.weight" => return "output_norm.weight".to_owned(),
        "lm_head.weight" => return "output.weight".to_owned(),
        _ => {}
    }
    let layer = name.trim_start_matches("model.layers.");
    let (layer, place) = layer.split_once('.').unwrap_or((layer, ""));
    let (place, kind) = place.rsplit_once('.').unwrap_or((place, ""));
    let found = PLACES.iter().find_map(|(theirs, ours)| (*theirs == place).then_some(*ours)).unwrap_or(place);
    format!("blk.{layer}.{found}.{kind}")
}

fn tokenizer(metadata: &Metadata) -> Result<Tokenizer, PretrainedError> {
    let model = metadata.string("tokenizer.ggml.model")?;
    if model != "gpt2" {
        let found = format!("`{}`", model.escape_debug());
        return Err(unsupported("tokenizer.ggml.model", found, "`gpt2`, a byte-level BPE"));
    }
    let splitting = Splitting::from_gguf(metadata.string("tokenizer.ggml.pre").unwrap_or("gpt-2"))?;
    let (tokens, kinds) = (metadata.string_array(TOKENS)?, metadata.i32_array("tokenizer.ggml.token_type")?);
    if kinds.len() != tokens.len() {
        let (found, expected) = (format!("{} kinds", kinds.len()), format!("{}, one for each token", tokens.len()));
        return Err(unsupported("tokenizer.ggml.token_type", found, expected));
    }
    let mut parts = Parts {
        vocab: Default::default(),
        merges: Vec::new(),
        splitting,
        compose: splitting == Splitting::Qwen2,
        whole_words: splitting == Splitting::Llama3,
        added: Vec::new(),
    };
    for (id, (text, kind)) in (0u32..).zip(tokens.iter().zip(&kinds)) {
        if [CONTROL, USER_DEFINED].contains(kind) {
            parts.added.push(AddedText { id, content: text.to_owned(), special: *kind == CONTROL });
        }
        if *kind == UNUSED {
            continue;
        }
        if let Some(earlier) = parts.vocab.insert(text.to_owned(), id) {
            return Err(unsupported(TOKENS, format!("token {earlier} again as token {id}"), "each token once"));
        }
    }
    for merge in metadata.string_array("tokenizer.ggml.merges")?.iter() {
        let (first, second) = merge.split_once(' ').ok_or_else(|| {
            unsupported(
                "tokenizer.ggml.merges",
                format!("`{}`", merge.escape_debug()),
                "two tokens with a space between",
            )
        })?;
        parts.merges.push((first.to_owned(), second.to_owned()));
    }
    Ok(Tokenizer::from_parts(parts)?)
}

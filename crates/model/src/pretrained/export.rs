//! A model as a GGUF file: the inverse of reading one, for this program and for llama.cpp.
//!
//! Matrices have the type that is asked for; vectors stay in F32, as converters write them, and rows that Q8_0 cannot hold become F16.

use std::borrow::Cow;
use std::path::Path;

use super::gguf::{
    CONTROL, LLAMA3_FACTORS, NORMAL, ROPE_FACTORS, TOKENS, UNUSED, USER_DEFINED, name_in_file, unsupported,
};
use super::hugging_face::{self, Family};
use super::{Pretrained, PretrainedError};
use crate::config::{Config, RopeScaling};
use crate::gguf::{self, Array, Metadata, Strings, TensorSource, TensorType, Value};
use crate::stage::{Stage, TensorInfo};
use crate::tokenizer::{Parts, Splitting};

impl Pretrained {
    /// Writes the model into a new directory of Hugging Face, in f32 or, with `half`, in f16. The directory appears whole or not at all.
    ///
    /// # Errors
    /// The directory is there already or cannot be written, no family of transformers computes the config, or a value is too large for f16.
    pub fn save_hugging_face(&self, folder: &Path, half: bool) -> Result<(), PretrainedError> {
        hugging_face::write(self, folder, half)
    }

    /// Writes the model as a GGUF file with matrices of type F32, F16 or Q8_0. The file appears whole or not at all.
    ///
    /// # Errors
    /// The type is another one, the file cannot be written, the tokenizer or the rotations cannot be said in such a file, or a value is too
    /// large for the type.
    pub fn save_gguf(&self, path: &Path, matrices: TensorType) -> Result<(), PretrainedError> {
        // Asked of the choice itself: the rows of a small model may all be stored as another type.
        if !matrices.is_written() {
            return Err(unsupported("type", matrices.to_string(), "F32, F16 or Q8_0"));
        }
        let layout = Stage::whole(self.config)?.layout();
        let family = Family::of(&self.config)?;
        let metadata = self.metadata(family, matrices)?;
        let factors = factors(&self.config);
        let mut tensors: Vec<Tensor<'_>> = Vec::new();
        if let Some(factors) = &factors {
            let dimensions = vec![factors.len() as u64];
            let (name, values) = (ROPE_FACTORS.to_owned(), Cow::Borrowed(factors.as_slice()));
            tensors.push(Tensor { name, dimensions, tensor_type: TensorType::F32, values });
        }
        for tensor in layout.tensors() {
            tensors.push(self.tensor(tensor, family, matrices));
        }
        let sources: Vec<TensorSource<'_>> = tensors.iter().map(Tensor::source).collect();
        Ok(gguf::save(path, &metadata, &sources)?)
    }

    /// Bytes that [`Pretrained::save_gguf`] takes beside the model: the rows that lie in another order in the file, and the largest tensor as
    /// it is stored.
    ///
    /// # Errors
    /// As [`Pretrained::save_gguf`], for the config.
    pub fn gguf_scratch_bytes(config: &Config, matrices: TensorType) -> Result<u64, PretrainedError> {
        let (layout, family) = (Stage::whole(*config)?.layout(), Family::of(config)?);
        let turned = layout.tensors().iter().filter(|tensor| is_turned(tensor, family));
        let copied: usize = turned.map(|tensor| tensor.len() * size_of::<f32>()).sum();
        let stored = |tensor: &TensorInfo| {
            let stored = stored_as(tensor, matrices);
            tensor.len() / stored.block_len() * stored.block_bytes()
        };
        Ok((copied + layout.tensors().iter().map(stored).max().unwrap_or(0)) as u64)
    }

    fn tensor<'a>(&'a self, tensor: &TensorInfo, family: Family, matrices: TensorType) -> Tensor<'a> {
        let values = &self.params[tensor.range()];
        let columns = tensor.shape.get(1).copied().unwrap_or(1);
        Tensor {
            name: name_in_file(&tensor.name),
            dimensions: tensor.shape.iter().rev().map(|&size| size as u64).collect(),
            tensor_type: stored_as(tensor, matrices),
            values: match is_turned(tensor, family) {
                true => Cow::Owned(neighbours(values, columns, self.config.head_dim).collect()),
                false => Cow::Borrowed(values),
            },
        }
    }

    fn metadata(&self, family: Family, matrices: TensorType) -> Result<Metadata, PretrainedError> {
        let (config, name) = (&self.config, family.name());
        let mut metadata = Metadata::new();
        let mut set = |key: &str, value| drop(metadata.insert(key, value));
        set("general.architecture", text(name));
        set("general.type", text("model"));
        set("general.name", text(&self.name));
        if let Some(licence) = &self.licence {
            set("general.license", text(licence));
        }
        let file_type = match matrices {
            TensorType::F16 => 1,
            TensorType::Q8_0 => 7,
            _ => 0,
        };
        set("general.file_type", Value::U32(file_type));
        let sizes = [
            ("vocab_size", config.vocab),
            ("block_count", config.layers),
            ("context_length", config.context),
            ("embedding_length", config.width),
            ("feed_forward_length", config.ff),
            ("attention.head_count", config.heads),
            ("attention.head_count_kv", config.kv_heads),
            ("attention.key_length", config.head_dim),
            ("attention.value_length", config.head_dim),
            ("rope.dimension_count", config.head_dim),
        ];
        for (key, size) in sizes {
            // A valid config has no size above 2^20.
            set(&format!("{name}.{key}"), Value::U32(size as u32));
        }
        set(&format!("{name}.attention.layer_norm_rms_epsilon"), Value::F32(config.norm_eps));
        set(&format!("{name}.rope.freq_base"), Value::F32(config.rope_theta));
        match config.attention.rope_scaling {
            None => {}
            Some(RopeScaling::Linear { factor }) => {
                set(&format!("{name}.rope.scaling.type"), text("linear"));
                set(&format!("{name}.rope.scaling.factor"), Value::F32(factor));
            }
            Some(RopeScaling::Llama3 { .. }) if factors(config).is_some() => {}
            Some(RopeScaling::Llama3 { .. }) => {
                let expected = "that of Llama 3.1 or 3.2 for a GGUF file; a directory of Hugging Face can say it";
                return Err(unsupported("rope_scaling", "another scaling of the rotations", expected));
            }
        }
        self.tokenizer_metadata(&mut metadata)?;
        Ok(metadata)
    }

    fn tokenizer_metadata(&self, metadata: &mut Metadata) -> Result<(), PretrainedError> {
        let parts = self.tokenizer.parts()?;
        // What the name of a splitting stands for where such a file is read.
        let usual = (parts.splitting == Splitting::Qwen2, parts.splitting == Splitting::Llama3);
        if (parts.compose, parts.whole_words) != usual {
            let expected =
                "the one that belongs to its splitting, for a GGUF file; a directory of Hugging Face can say it";
            return Err(unsupported("tokenizer", "one with another normalisation", expected));
        }
        let (tokens, kinds) = tokens(&parts, self.config.vocab);
        let merges = parts.merges.iter().map(|(first, second)| format!("{first} {second}"));
        let merges = merges.fold(Strings::default(), |mut all, merge| {
            all.push(&merge);
            all
        });
        let mut set = |key: &str, value| drop(metadata.insert(key, value));
        set("tokenizer.ggml.model", text("gpt2"));
        set("tokenizer.ggml.pre", text(parts.splitting.gguf_name()));
        set(TOKENS, Value::Array(Array::String(tokens)));
        set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
        set("tokenizer.ggml.merges", Value::Array(Array::String(merges)));
        set("tokenizer.ggml.add_bos_token", Value::Bool(self.begin.is_some()));
        let special = &self.special;
        let ids = [
            ("bos", self.begin.or(special.begin)),
            ("eos", special.end.or_else(|| self.ends.first().copied())),
            ("unknown", special.unknown),
            ("padding", special.padding),
        ];
        for (role, id) in ids {
            if let Some(id) = id {
                set(&format!("tokenizer.ggml.{role}_token_id"), Value::U32(id));
            }
        }
        if let Some(template) = &self.template {
            set("tokenizer.chat_template", text(template.source()));
        }
        Ok(())
    }
}

/// A tensor of the file with its values, where they had to be turned.
struct Tensor<'a> {
    name: String,
    dimensions: Vec<u64>,
    tensor_type: TensorType,
    values: Cow<'a, [f32]>,
}

impl Tensor<'_> {
    fn source(&self) -> TensorSource<'_> {
        let Self { name, dimensions, tensor_type, values } = self;
        TensorSource { name, dimensions, tensor_type: *tensor_type, values }
    }
}

/// The type that a tensor gets when `matrices` is asked for.
fn stored_as(tensor: &TensorInfo, matrices: TensorType) -> TensorType {
    match tensor.shape[..] {
        [_, columns] if columns.is_multiple_of(matrices.block_len()) => matrices,
        [_, _] => TensorType::F16,
        _ => TensorType::F32,
    }
}

/// Whether the rows are queries or keys, which lie in another order in files of this family.
fn is_turned(tensor: &TensorInfo, family: Family) -> bool {
    family == Family::Llama && [".q_proj.", ".k_proj."].iter().any(|part| tensor.name.contains(part))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Brings rows from the order of two halves into that of neighbouring pairs, head by head.
fn neighbours(values: &[f32], columns: usize, head_dim: usize) -> impl Iterator<Item = f32> + '_ {
    let half = head_dim / 2;
    (0..values.len() / columns).flat_map(move |row| {
        let (head, place) = (row / head_dim, row % head_dim);
        let from = head * head_dim + place % 2 * half + place / 2;
        values[from * columns..(from + 1) * columns].iter().copied()
    })
}

/// What the frequencies are divided by, for the scalings whose factors a reader knows again.
fn factors(config: &Config) -> Option<Vec<f32>> {
    let Some(scaling @ RopeScaling::Llama3 { factor, .. }) = config.attention.rope_scaling else { return None };
    let known =
        RopeScaling::Llama3 { factor, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_context: 8192 };
    (scaling == known && LLAMA3_FACTORS.contains(&factor)).then(|| {
        let frequency = |i: usize| f64::from(config.rope_theta).powf(-2.0 * i as f64 / config.head_dim as f64);
        let divisor = |i| (frequency(i) / scaling.frequency(frequency(i))) as f32;
        (0..config.head_dim / 2).map(divisor).collect()
    })
}

/// Texts and kinds of all `vocab` tokens; ids that nobody uses get a text of their own.
fn tokens(parts: &Parts, vocab: usize) -> (Strings, Vec<i32>) {
    let mut rows: Vec<Option<(&str, i32)>> = vec![None; vocab];
    for (token, &id) in &parts.vocab {
        rows[id as usize] = Some((token, NORMAL));
    }
    for added in &parts.added {
        rows[added.id as usize] = Some((&added.content, if added.special { CONTROL } else { USER_DEFINED }));
    }
    let mut tokens = Strings::default();
    let mut kinds = Vec::with_capacity(vocab);
    for (id, row) in rows.into_iter().enumerate() {
        match row {
            Some((token, kind)) => {
                tokens.push(token);
                kinds.push(kind);
            }
            None => {
                tokens.push(&format!("[PAD{id}]"));
                kinds.push(UNUSED);
            }
        }
    }
    (tokens, kinds)
}

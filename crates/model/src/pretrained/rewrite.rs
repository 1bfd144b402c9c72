//! A GGUF file with other parameters: what a fine-tuned model is written as.
//!
//! Everything but the parameters stays as the file had it: tokenizer, template, licence, and tensors that are no
//! parameters. Matrices get the type that is asked for, where their rows suit it (Q8_0 takes rows in blocks of 32; others
//! become F16); vectors stay F32, as llama.cpp wants them.

use std::borrow::Cow;
use std::path::Path;

use super::gguf::name_in_file;
use crate::config::Config;
use crate::gguf::{self, Gguf, GgufError, Metadata, TensorSource, TensorType, Value};
use crate::stage::{Layout, TensorInfo};

/// What a GGUF file holds besides the parameters.
#[derive(Debug, Clone)]
pub struct Frame {
    metadata: Metadata,
    /// Whether rows of queries and keys lie in the order of neighbouring pairs.
    neighbours: bool,
    /// Tensors that are no parameters: name, dimensions, values.
    others: Vec<(String, Vec<u64>, Vec<f32>)>,
}

impl Frame {
    /// Takes what a file holds besides the parameters in `layout`.
    ///
    /// # Errors
    /// The file names no architecture, or a tensor of a type that is not read.
    pub fn of(file: &Gguf<'_>, layout: &Layout) -> Result<Self, GgufError> {
        let parameters: Vec<String> = layout.tensors().iter().map(|tensor| name_in_file(&tensor.name)).collect();
        let mut others = Vec::new();
        for tensor in file.tensors().iter().filter(|tensor| !parameters.contains(&tensor.name)) {
            let values = file.tensor_f32(&tensor.name)?;
            others.push((tensor.name.clone(), tensor.dimensions.clone(), values));
        }
        let neighbours = file.metadata().string("general.architecture")? == "llama";
        Ok(Self { metadata: file.metadata().clone(), neighbours, others })
    }

    /// Bytes of the copies that [`Frame::save`] makes: of what lies in another order in the file, and of one stored tensor.
    pub fn writing_bytes(&self, layout: &Layout, tensor_type: TensorType) -> u64 {
        let copied = |tensor: &TensorInfo| if self.turns(tensor) { tensor.len() * size_of::<f32>() } else { 0 };
        let stored = |tensor: &TensorInfo| {
            let stored = stored_as(tensor, tensor_type);
            tensor.len() / stored.block_len() * stored.block_bytes()
        };
        let largest = layout.tensors().iter().map(stored).max().unwrap_or(0);
        (layout.tensors().iter().map(copied).sum::<usize>() + largest) as u64
    }

    /// Writes the file with these parameters durably to a path; the same parameters give the same bytes.
    ///
    /// # Errors
    /// A parameter is not finite or too large for the type, the type is none of F32, F16 and Q8_0, or what the system says.
    ///
    /// # Panics
    /// When the parameters are not as many as the layout has.
    pub fn save(
        &self,
        path: &Path,
        config: &Config,
        layout: &Layout,
        params: &[f32],
        tensor_type: TensorType,
    ) -> Result<(), GgufError> {
        assert_eq!(params.len(), layout.len(), "parameters of another model");
        let mut metadata = self.metadata.clone();
        if let Some(number) = file_type(tensor_type) {
            metadata.insert("general.file_type", Value::U32(number));
        }
        let mut parts: Vec<Part<'_>> = Vec::new();
        for tensor in layout.tensors() {
            let values = &params[tensor.range()];
            let values = match self.turns(tensor) {
                true => pairs(values, tensor.shape.get(1).copied().unwrap_or(1), config.head_dim).into(),
                false => values.into(),
            };
            let dimensions = tensor.shape.iter().rev().map(|&size| size as u64).collect();
            parts.push((name_in_file(&tensor.name), dimensions, stored_as(tensor, tensor_type), values));
        }
        for (name, dimensions, values) in &self.others {
            parts.push((name.clone(), dimensions.clone(), TensorType::F32, values.into()));
        }
        let sources: Vec<TensorSource<'_>> = parts
            .iter()
            .map(|(name, dimensions, tensor_type, values)| TensorSource {
                name,
                dimensions,
                tensor_type: *tensor_type,
                values,
            })
            .collect();
        gguf::save(path, &metadata, &sources)
    }

    /// Whether the rows of a tensor lie in another order than in this crate.
    fn turns(&self, tensor: &TensorInfo) -> bool {
        self.neighbours && [".q_proj.", ".k_proj."].iter().any(|part| tensor.name.contains(part))
    }
}

/// A tensor to be written: name, dimensions, type, values.
type Part<'a> = (String, Vec<u64>, TensorType, Cow<'a, [f32]>);

/// The type that a tensor is stored as when `wanted` is asked for.
fn stored_as(tensor: &TensorInfo, wanted: TensorType) -> TensorType {
    match tensor.shape[..] {
        [_, columns] if columns.is_multiple_of(wanted.block_len()) => wanted,
        [_, _] => TensorType::F16,
        _ => TensorType::F32,
    }
}

/// What llama.cpp calls a file of this type in `general.file_type`.
fn file_type(tensor_type: TensorType) -> Option<u32> {
    match tensor_type {
        TensorType::F32 => Some(0),
        TensorType::F16 => Some(1),
        TensorType::Q8_0 => Some(7),
        _ => None,
    }
}

/// Brings rows from the order of two halves into that of neighbouring pairs, head by head.
fn pairs(values: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let mut turned = Vec::with_capacity(values.len());
    for row in 0..values.len() / columns {
        let (head, place) = (row / head_dim, row % head_dim);
        let from = head * head_dim + place / 2 + half * (place % 2);
        turned.extend_from_slice(&values[from * columns..(from + 1) * columns]);
    }
    turned
}

//! GGUF files: metadata and quantised tensors in one file, as llama.cpp and its relatives use it.
//!
//! Purpose: to read any little-endian GGUF file of version 2 or 3, to turn its tensors into `f32`, and to write such
//! files. Source: the GGUF specification, `docs/gguf.md` of ggml; the block formats are those of ggml's
//! `ggml-common.h`, and the values those of its reference functions `dequantize_row_*` and `quantize_row_q8_0_ref` in
//! `ggml-quants.c`.
//!
//! Reading is total: whatever the bytes are, it ends with a well-formed [`Gguf`] or an error that names the field, and
//! every count and length is checked against the bytes that are left before anything is allocated. Beside the file
//! itself, at most [`HEADER_BYTES_MAX`] bytes of it are copied, in a form that is at most twice as large, plus a few
//! hundred bytes for each metadata entry, array and tensor. Names and texts of the file are data: nothing here uses
//! them as a path.
//!
//! Deviations from the specification, each of them towards what real files contain or what this program can use:
//! - keys need not be ASCII or `lower_snake_case`, and the alignment may be any power of two up to [`ALIGNMENT_MAX`];
//! - names of tensors that are read may have up to [`TENSOR_NAME_BYTES_MAX`] bytes, where the specification says 64;
//! - arrays nest at most [`ARRAY_DEPTH_MAX`] deep, and a tensor has at least one dimension, none of them 0;
//! - tensors may lie in any order and with gaps, but must not overlap; padding is not looked at.
//!
//! What it does not do: version 1, big-endian files, files in several parts, memory mapping, and any meaning of the
//! metadata: which model the tensors are is for the caller to say.

mod blocks;
mod error;
mod metadata;
mod quantised;
mod reader;
mod tensor_type;
mod writer;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

pub use blocks::quantise_q8_0;
pub use error::GgufError;
pub use metadata::{Array, Metadata, Strings, Value};
pub use tensor::math::{bf16_to_f32, f16_to_f32, f32_to_f16};
pub use tensor_type::{TensorType, Unsupported};
pub use writer::{TensorSource, save, write};

use crate::config::PARAMETERS_MAX;

/// Most bytes before the tensors: the metadata and the list of tensors.
pub const HEADER_BYTES_MAX: u64 = 64 << 20;

/// Most bytes of a file that is read.
pub const FILE_BYTES_MAX: u64 = PARAMETERS_MAX * 4 + HEADER_BYTES_MAX;

/// Most metadata entries.
pub const METADATA_ENTRIES_MAX: u64 = 1 << 16;

/// Most tensors.
pub const TENSORS_MAX: u64 = 1 << 16;

/// Most bytes of a metadata key.
pub const KEY_BYTES_MAX: u64 = 65_535;

/// Most bytes of a tensor's name that is read.
pub const TENSOR_NAME_BYTES_MAX: u64 = 256;

/// Most bytes of a tensor's name that is written: what llama.cpp reads.
pub const WRITTEN_NAME_BYTES_MAX: u64 = 63;

/// Most dimensions of a tensor.
pub const DIMENSIONS_MAX: u64 = 4;

/// Most levels of arrays in arrays; an array of numbers has one.
pub const ARRAY_DEPTH_MAX: usize = 4;

/// Most arrays in all metadata, those in arrays included.
pub const ARRAYS_MAX: u64 = 1 << 16;

/// The alignment of a file that does not name one, in bytes; also that of every file written here.
pub const ALIGNMENT: u64 = 32;

/// The largest alignment that is read, in bytes.
pub const ALIGNMENT_MAX: u64 = 1 << 16;

/// The metadata key of the alignment.
pub const ALIGNMENT_KEY: &str = "general.alignment";

/// The metadata key of the version of the block formats.
pub const QUANTISATION_VERSION_KEY: &str = "general.quantization_version";

/// The version of the block formats.
pub const QUANTISATION_VERSION: u32 = 2;

/// The first bytes of every file.
const MAGIC: [u8; 4] = *b"GGUF";

/// The version that is written.
const VERSION: u32 = 3;

/// A GGUF file: its metadata, and tensors whose data lie inside of the file, aligned and without overlap.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    bytes: Cow<'a, [u8]>,
    header: Header,
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The name, unique in the file.
    pub name: String,
    /// One to four sizes, none of them 0; the first is that of the fastest index, so a matrix is `[columns, rows]`.
    pub dimensions: Vec<u64>,
    /// How the values are stored; the first dimension is a multiple of its block length.
    pub tensor_type: TensorType,
    /// Number of values: the product of the dimensions.
    pub elements: usize,
    /// Where the data lie, in bytes from the start of the file.
    pub range: Range<usize>,
}

/// Everything that a file says before its tensors' data.
#[derive(Debug, Clone)]
struct Header {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    /// Positions in `tensors`.
    by_name: BTreeMap<String, usize>,
}

/// Reads a file from its bytes, which the result borrows.
///
/// # Errors
/// Anything that is not a GGUF file by the rules of this module; the error names the metadata entry or the tensor.
pub fn read(bytes: &[u8]) -> Result<Gguf<'_>, GgufError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(GgufError::TooLarge { bytes: bytes.len() as u64 });
    }
    Ok(Gguf { header: reader::header(bytes)?, bytes: Cow::Borrowed(bytes) })
}

/// Reads a file whole into memory.
///
/// # Errors
/// Those of [`read`], and what the system says.
pub fn load(path: &Path) -> Result<Gguf<'static>, GgufError> {
    let failed = |source| GgufError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let capacity = usize::try_from(bytes).ok().filter(|_| bytes <= FILE_BYTES_MAX);
    let capacity = capacity.ok_or(GgufError::TooLarge { bytes })?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(capacity).map_err(|_| failed(std::io::ErrorKind::OutOfMemory.into()))?;
    // A file that grows meanwhile is cut, and the reader says so.
    file.take(bytes).read_to_end(&mut buffer).map_err(failed)?;
    Ok(Gguf { header: reader::header(&buffer)?, bytes: Cow::Owned(buffer) })
}

impl Gguf<'_> {
    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The alignment of the tensors' data in bytes, a power of two.
    pub fn alignment(&self) -> u64 {
        self.header.alignment
    }

    /// The metadata, by key.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The tensors in the order of the file's list.
    pub fn tensors(&self) -> &[Tensor] {
        &self.header.tensors
    }

    /// The tensor with a name.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, GgufError> {
        let position = self.header.by_name.get(name);
        let tensor = position.and_then(|&position| self.header.tensors.get(position));
        tensor.ok_or_else(|| GgufError::MissingTensor { name: name.to_owned() })
    }

    /// The data of a tensor as they are stored, row after row in blocks of its type.
    ///
    /// # Errors
    /// There is no tensor with that name.
    pub fn data(&self, name: &str) -> Result<&[u8], GgufError> {
        let tensor = self.tensor(name)?;
        // The reader has checked that every range is inside of the file.
        Ok(&self.bytes[tensor.range.clone()])
    }

    /// The values of a tensor, row after row, `elements` of them and all finite.
    ///
    /// Allocates 4 bytes for each value, which is at most 7.2 times the data of the tensor.
    ///
    /// # Errors
    /// There is no tensor with that name, its type is not supported, or a value is NaN or infinite.
    pub fn tensor_f32(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        let tensor = self.tensor(name)?;
        let length = if tensor.tensor_type.is_supported() { tensor.elements } else { 0 };
        let mut values = vec![0.0; length];
        let done = tensor.tensor_type.dequantise(self.data(name)?, &mut values);
        done.map_err(|source| GgufError::Unsupported { name: name.to_owned(), source })?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(GgufError::NotFinite { name: name.to_owned(), index, value: values[index] }),
            None => Ok(values),
        }
    }
}

#[cfg(test)]
mod tests;

//! Checkpoint files: the parameters of a stage as safetensors.
//!
//! Purpose: a file that any safetensors reader opens, with the tensors under their Hugging Face names, and whose metadata
//! says which model, which layers and which tokenizer it is for. Source: the safetensors format, version 0.x.
//!
//! The same checkpoint always gives the same bytes. Reading is total: whatever the bytes are, it ends with a checkpoint or
//! an error that names the field, and allocates no more than the file's own size. The header is read by our own
//! description of it, because the library's reader overflows on some hostile offsets.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, PARAMETERS_MAX};
use crate::stage::{Layout, Stage, TensorInfo};

/// The metadata entry that holds what this crate writes.
const METADATA_KEY: &str = "cairn";

/// The version of that entry.
const FORMAT: u32 = 1;

/// Most bytes of a header that is read.
pub const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Most bytes of a checkpoint that is read.
pub const CHECKPOINT_BYTES_MAX: u64 = PARAMETERS_MAX * 4 + HEADER_BYTES_MAX;

/// The parameters of a stage and what they belong to.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Which layers of which model.
    pub stage: Stage,
    /// [`Tokenizer::hash`](crate::Tokenizer::hash) of the tokenizer that it was trained with.
    pub tokenizer: [u8; 32],
    /// The flat parameter vector in the order of [`Stage::layout`]; every value is finite.
    pub params: Vec<f32>,
}

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read or written.
    #[error("checkpoint `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any checkpoint.
    #[error("checkpoint: {bytes} bytes, and at most {CHECKPOINT_BYTES_MAX} are read")]
    TooLarge {
        /// The size of the file.
        bytes: u64,
    },
    /// The file ends before its header does.
    #[error("checkpoint: truncated: {bytes} bytes, and the header needs {needed}")]
    Truncated {
        /// The size of the file.
        bytes: u64,
        /// The size up to the end of the header.
        needed: u64,
    },
    /// The header is not one of safetensors.
    #[error("checkpoint: the header is not that of safetensors: {reason}")]
    BadHeader {
        /// What the reader said.
        reason: String,
    },
    /// A safetensors file that this program did not write.
    #[error("checkpoint: the metadata `{METADATA_KEY}` is {reason}")]
    Foreign {
        /// What is wrong with the entry.
        reason: String,
    },
    /// The config or the range of layers in the metadata is unsound.
    #[error("checkpoint: {0}")]
    BadStage(#[from] ConfigError),
    /// A tensor of the model is not there.
    #[error("checkpoint: tensor `{name}` is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor is there that the model does not have.
    #[error("checkpoint: tensor `{name}` does not belong to the model")]
    UnknownTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has another type or shape than the model's.
    #[error("checkpoint: tensor `{name}` is {got}, where the model has {expected}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// Type and shape by the config.
        expected: String,
        /// Type and shape by the file.
        got: String,
    },
    /// A tensor's bytes are not where the header says.
    #[error("checkpoint: tensor `{name}` lies at bytes {start}..{end} of {bytes}, which does not fit its shape")]
    BadOffsets {
        /// The tensor.
        name: String,
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes after the header.
        bytes: u64,
    },
    /// The file is longer or shorter than its tensors.
    #[error("checkpoint: {got} bytes of tensors, where the model has {expected}")]
    WrongLength {
        /// Bytes by the config.
        expected: u64,
        /// Bytes in the file.
        got: u64,
    },
    /// A parameter is NaN or infinite.
    #[error("checkpoint: tensor `{name}` has the value {value} at {index}, and only finite values are accepted")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Position in the tensor.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// Writes a checkpoint as bytes; the same checkpoint gives the same bytes.
///
/// # Errors
/// The parameters are not as many as the stage has, or not finite.
pub fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, FileError> {
    let Checkpoint { stage, tokenizer, params } = checkpoint;
    let layout = stage.layout();
    if params.len() != layout.len() {
        return Err(ConfigError::WrongParameters { expected: layout.len(), got: params.len() }.into());
    }
    check_finite(&layout, params)?;
    let body: Vec<u8> = params.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut views = Vec::with_capacity(layout.tensors().len());
    for tensor in layout.tensors() {
        let range = tensor.range();
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &body[range.start * 4..range.end * 4]);
        views.push((tensor.name.as_str(), view.map_err(|e| bad_header(&e))?));
    }
    let layers = stage.layers();
    let about = About {
        format: FORMAT,
        config: *stage.config(),
        layers: [layers.start, layers.end],
        tokenizer: hex::encode(tokenizer),
    };
    let about = serde_json::to_string(&about).map_err(|e| bad_header(&e))?;
    // One entry only: the library writes metadata in the order of a hash map.
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), about)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| bad_header(&e))
}

/// Reads a checkpoint from bytes.
///
/// # Errors
/// Anything that is not exactly a checkpoint of this crate: truncated, too long, foreign, of another shape, or with values
/// that are not finite.
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, FileError> {
    let (header, body) = split_header(bytes)?;
    let header: Header = serde_json::from_slice(header).map_err(|e| bad_header(&e))?;
    let (stage, tokenizer) = about(&header)?;
    let layout = stage.layout();
    let (expected, got) = (layout.len() as u64 * 4, body.len() as u64);
    if expected != got {
        return Err(FileError::WrongLength { expected, got });
    }
    if let Some(name) = header.tensors.keys().find(|name| layout.get(name).is_none()) {
        return Err(FileError::UnknownTensor { name: name.clone() });
    }
    let mut params = Vec::with_capacity(layout.len());
    for tensor in layout.tensors() {
        let Some(entry) = header.tensors.get(&tensor.name) else {
            return Err(FileError::MissingTensor { name: tensor.name.clone() });
        };
        let values = entry.bytes_of(tensor, body)?.as_chunks::<4>().0;
        params.extend(values.iter().map(|&value| f32::from_le_bytes(value)));
    }
    check_no_overlap(&header)?;
    check_finite(&layout, &params)?;
    Ok(Checkpoint { stage, tokenizer, params })
}

/// Writes a checkpoint to a file: into a temporary file beside it, to the disk, then under its name.
///
/// # Errors
/// Those of [`encode`], and what the system says.
pub fn save(path: &Path, checkpoint: &Checkpoint) -> Result<(), FileError> {
    let bytes = encode(checkpoint)?;
    write_durably(path, &bytes).map_err(|source| FileError::Io { path: path.to_owned(), source })
}

/// Reads a checkpoint from a file.
///
/// # Errors
/// Those of [`decode`], and what the system says.
pub fn load(path: &Path) -> Result<Checkpoint, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > CHECKPOINT_BYTES_MAX {
        return Err(FileError::TooLarge { bytes });
    }
    let mut buffer = Vec::new();
    file.take(CHECKPOINT_BYTES_MAX).read_to_end(&mut buffer).map_err(failed)?;
    decode(&buffer)
}

/// What the metadata entry says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: u32,
    config: Config,
    layers: [usize; 2],
    tokenizer: String,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default, rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Entry {
    /// The bytes of a tensor, if the entry is what the layout says.
    fn bytes_of<'a>(&self, tensor: &TensorInfo, body: &'a [u8]) -> Result<&'a [u8], FileError> {
        let shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
        if self.dtype != "F32" || self.shape != shape {
            return Err(FileError::WrongShape {
                name: tensor.name.clone(),
                expected: format!("F32 {shape:?}"),
                got: format!("{} {:?}", self.dtype, self.shape),
            });
        }
        let [start, end] = self.data_offsets;
        let bytes = (end.checked_sub(start) == Some(tensor.len() as u64 * 4))
            .then(|| body.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?))
            .flatten();
        let name = tensor.name.clone();
        bytes.ok_or(FileError::BadOffsets { name, start, end, bytes: body.len() as u64 })
    }
}

fn split_header(bytes: &[u8]) -> Result<(&[u8], &[u8]), FileError> {
    let length = bytes.len() as u64;
    let Some((size, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(FileError::Truncated { bytes: length, needed: 8 });
    };
    let size = u64::from_le_bytes(*size);
    if size > HEADER_BYTES_MAX {
        return Err(FileError::BadHeader {
            reason: format!("{size} bytes long, and at most {HEADER_BYTES_MAX} are read"),
        });
    }
    rest.split_at_checked(size as usize).ok_or(FileError::Truncated { bytes: length, needed: size + 8 })
}

fn about(header: &Header) -> Result<(Stage, [u8; 32]), FileError> {
    let foreign = |reason: String| FileError::Foreign { reason };
    let text = header.metadata.get(METADATA_KEY).ok_or_else(|| foreign("missing".into()))?;
    let about: About = serde_json::from_str(text).map_err(|e| foreign(format!("unreadable: {e}")))?;
    if about.format != FORMAT {
        return Err(foreign(format!("of format {}, and this program reads {FORMAT}", about.format)));
    }
    let mut tokenizer = [0; 32];
    hex::decode_to_slice(&about.tokenizer, &mut tokenizer)
        .map_err(|e| foreign(format!("unreadable: `tokenizer`: {e}")))?;
    let [start, end] = about.layers;
    Ok((Stage::new(about.config, start..end)?, tokenizer))
}

/// With the total length already checked, tensors that do not overlap cover every byte.
fn check_no_overlap(header: &Header) -> Result<(), FileError> {
    let mut entries: Vec<_> = header.tensors.iter().map(|(name, entry)| (entry.data_offsets, name)).collect();
    entries.sort_unstable();
    let mut at = 0;
    for ([start, end], name) in entries {
        if start != at {
            return Err(FileError::BadOffsets { name: name.clone(), start, end, bytes: at });
        }
        at = end;
    }
    Ok(())
}

fn check_finite(layout: &Layout, params: &[f32]) -> Result<(), FileError> {
    for tensor in layout.tensors() {
        let values = &params[tensor.range()];
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(FileError::NotFinite { name: tensor.name.clone(), index, value });
        }
    }
    Ok(())
}

fn bad_header(error: &dyn std::fmt::Display) -> FileError {
    FileError::BadHeader { reason: error.to_string() }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_durably(path, |error| error, |file| file.write_all(bytes))
}

/// Lets `write` fill a file beside `path`, brings it to the disk, and renames it. When anything fails, nothing is left of it.
pub(crate) fn replace_durably<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = File::create(&temporary).map_err(&failed).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all().map_err(&failed)
    });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path).map_err(&failed)) {
        // The first error is the one to report; a left-over temporary file is harmless.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

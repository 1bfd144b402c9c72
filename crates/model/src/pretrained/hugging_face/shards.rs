//! The tensors of a model in one safetensors file or in several, read one at a time.
//!
//! Source: the safetensors format, version 0.x, and the `model.safetensors.index.json` of Hugging Face. The header is read by
//! our own description of it, because the library's reader overflows on some hostile offsets.
//!
//! Only headers are kept in memory. Every range is checked against the file's length before anything is allocated, and the tensors
//! of a file must cover its data without gaps or overlap, as the format demands.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{damaged, failed, read_json_bytes};
use crate::config::PARAMETERS_MAX;
use crate::gguf::{bf16_to_f32, f16_to_f32};
use crate::pretrained::PretrainedError;

/// Most bytes of a header that is read.
pub const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Most files that a model lies in.
pub const SHARDS_MAX: usize = 1 << 10;

/// Most tensors of a file.
pub const TENSORS_MAX: usize = 1 << 16;

/// The file of a model that lies in one.
pub(super) const SINGLE: &str = "model.safetensors";

/// The file that says where the tensors of a model lie that lies in several.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The entry of a header that is no tensor.
const METADATA: &str = "__metadata__";

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 16;

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    F32,
    F16,
    Bf16,
}

impl Stored {
    fn named(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    fn bytes(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// A safetensors file whose header was read.
#[derive(Debug)]
pub struct Shard<R> {
    path: PathBuf,
    file: R,
    tensors: BTreeMap<String, Entry>,
    /// Where the tensors' data begin.
    start: u64,
}

/// The tensors of a header. Its other entry, the metadata, says nothing that is needed.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Header, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = entries.next_key::<String>()? {
            if name == METADATA {
                entries.next_value::<IgnoredAny>()?;
            } else if tensors.len() == TENSORS_MAX {
                return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors, and no more are read")));
            } else {
                let place = format!("tensor `{}`", name.escape_debug());
                if tensors.insert(name, entries.next_value()?).is_some() {
                    return Err(A::Error::custom(format!("{place} is there twice")));
                }
            }
        }
        Ok(Header(tensors))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Entry {
    fn elements(&self) -> Option<u64> {
        let product = self.shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        product.filter(|&product| product <= PARAMETERS_MAX)
    }
}

impl<R: Read + Seek> Shard<R> {
    /// Reads the header. `path` is for messages only.
    ///
    /// # Errors
    /// Truncated or oversized headers, and tensors whose data overlap, leave gaps or are not in the file.
    pub fn read(path: &Path, mut file: R) -> Result<Self, PretrainedError> {
        let io = |source| failed(path, source);
        let bytes = file.seek(SeekFrom::End(0)).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let truncated = |needed: u64| damaged(path, format!("truncated: {bytes} bytes, and the header needs {needed}"));
        if bytes < 8 {
            return Err(truncated(8));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(io)?;
        let size = u64::from_le_bytes(size);
        if size > HEADER_BYTES_MAX {
            return Err(damaged(path, format!("a header of {size} bytes, and at most {HEADER_BYTES_MAX} are read")));
        }
        let start = size + 8;
        if start > bytes {
            return Err(truncated(start));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let Header(tensors) = read_json_bytes(path, &header)?;
        check(path, &tensors, bytes - start)?;
        Ok(Self { path: path.to_owned(), file, tensors, start })
    }

    /// The names of the tensors, in the order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The sizes of a tensor, rows first; none when there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[u64]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Appends the values of a tensor, row after row.
    ///
    /// # Errors
    /// There is no such tensor, its type is not F32, F16 or BF16, or a value is NaN or infinite.
    pub fn append(&mut self, name: &str, values: &mut Vec<f32>) -> Result<(), PretrainedError> {
        let tensor = name.escape_debug();
        let entry = self.tensors.get(name);
        let entry = entry.ok_or_else(|| damaged(&self.path, format!("tensor `{tensor}` is missing")))?;
        let stored = Stored::named(&entry.dtype).ok_or_else(|| {
            let reason = format!("tensor `{tensor}` is {}, and F32, F16 and BF16 are read", entry.dtype.escape_debug());
            damaged(&self.path, reason)
        })?;
        let [start, end] = entry.data_offsets;
        if entry.elements().and_then(|count| count.checked_mul(stored.bytes())) != Some(end - start) {
            let reason = format!("tensor `{tensor}` of {} {:?} has {} bytes", entry.dtype, entry.shape, end - start);
            return Err(damaged(&self.path, reason));
        }
        let io = |source| failed(&self.path, source);
        self.file.seek(SeekFrom::Start(self.start + start)).map_err(io)?;
        let mut piece = [0; PIECE_BYTES];
        let mut left = end - start;
        let first = values.len();
        while left > 0 {
            let count = (PIECE_BYTES as u64).min(left) as usize;
            let piece = &mut piece[..count];
            self.file.read_exact(piece).map_err(io)?;
            append_values(stored, piece, values);
            left -= count as u64;
        }
        match values[first..].iter().position(|value| !value.is_finite()) {
            Some(index) => {
                let value = values[first + index];
                let reason =
                    format!("tensor `{tensor}` has the value {value} at {index}, and only finite values are accepted");
                Err(damaged(&self.path, reason))
            }
            None => Ok(()),
        }
    }
}

fn append_values(stored: Stored, bytes: &[u8], values: &mut Vec<f32>) {
    match stored {
        Stored::F32 => values.extend(bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value))),
        Stored::F16 => {
            values.extend(bytes.as_chunks::<2>().0.iter().map(|&value| f16_to_f32(u16::from_le_bytes(value))))
        }
        Stored::Bf16 => {
            values.extend(bytes.as_chunks::<2>().0.iter().map(|&value| bf16_to_f32(u16::from_le_bytes(value))));
        }
    }
}

/// The tensors' data must cover all bytes after the header, one after the other.
fn check(path: &Path, tensors: &BTreeMap<String, Entry>, bytes: u64) -> Result<(), PretrainedError> {
    let mut ranges: Vec<_> = tensors.iter().map(|(name, entry)| (entry.data_offsets, name)).collect();
    ranges.sort_unstable();
    let mut at = 0;
    for ([start, end], name) in ranges {
        let name = name.escape_debug();
        if start > end || end > bytes {
            return Err(damaged(path, format!("tensor `{name}` lies at bytes {start}..{end} of {bytes}")));
        }
        if start != at {
            let what = if start < at { "overlaps the one before it" } else { "leaves a gap before it" };
            return Err(damaged(path, format!("tensor `{name}` at bytes {start}..{end} {what}, which ends at {at}")));
        }
        at = end;
    }
    match at == bytes {
        true => Ok(()),
        false => Err(damaged(path, format!("{bytes} bytes of tensors, of which the header names {at}"))),
    }
}

/// What an index says.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads an index: which file each tensor is in. File names are plain names of safetensors files, never a path. `path` is for
/// messages only.
///
/// # Errors
/// The bytes are no index, a name leads out of the directory, or there are too many files.
pub fn read_index(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, String>, PretrainedError> {
    let Index { weight_map } = read_json_bytes(path, bytes)?;
    for (tensor, file) in &weight_map {
        let plain = file.ends_with(".safetensors")
            && !file.starts_with('.')
            && file.len() <= 255
            && !file.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control());
        if !plain {
            let (tensor, file) = (tensor.escape_debug(), file.escape_debug());
            let reason =
                format!("`weight_map`: tensor `{tensor}` is in `{file}`, which is no file name in the same directory");
            return Err(damaged(path, reason));
        }
    }
    let mut files: Vec<&String> = weight_map.values().collect();
    files.sort_unstable();
    files.dedup();
    if files.is_empty() || files.len() > SHARDS_MAX {
        let reason = format!("`weight_map` names {} files, and must name between 1 and {SHARDS_MAX}", files.len());
        return Err(damaged(path, reason));
    }
    Ok(weight_map)
}

/// All tensors of a model.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<Shard<BufReader<File>>>,
    /// Positions in `files`.
    by_name: BTreeMap<String, usize>,
}

impl Shards {
    /// Opens the files of a model; `names` are what [`file_names`] gave.
    pub(super) fn open(folder: &Path, names: &[String]) -> Result<Self, PretrainedError> {
        let (mut files, mut by_name) = (Vec::new(), BTreeMap::new());
        for name in names {
            let path = folder.join(name);
            let file = File::open(&path).map_err(|source| failed(&path, source))?;
            let shard = Shard::read(&path, BufReader::new(file))?;
            for name in shard.names() {
                if by_name.insert(name.to_owned(), files.len()).is_some() {
                    let name = name.escape_debug();
                    return Err(damaged(&path, format!("tensor `{name}` is in another file of the model too")));
                }
            }
            files.push(shard);
        }
        Ok(Self { files, by_name })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The types of the tensors with their bytes.
    pub(super) fn types(&self) -> impl Iterator<Item = (&str, u64)> {
        let entries = self.files.iter().flat_map(|file| file.tensors.values());
        entries.map(|entry| (entry.dtype.as_str(), entry.data_offsets[1] - entry.data_offsets[0]))
    }

    /// The file that a tensor is in, for messages.
    pub(super) fn path_of(&self, name: &str) -> Option<&Path> {
        self.by_name.get(name).map(|&file| self.files[file].path.as_path())
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[u64]> {
        self.by_name.get(name).and_then(|&file| self.files[file].shape(name))
    }

    /// Appends the values of a tensor that is there.
    pub(super) fn append(&mut self, name: &str, values: &mut Vec<f32>) -> Result<(), PretrainedError> {
        let file = self.by_name.get(name).copied().unwrap_or(0);
        self.files[file].append(name, values)
    }
}

/// The names of the files that hold a model's tensors, in a fixed order.
///
/// # Errors
/// There is neither a single file nor an index, or the index is unsound.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>, PretrainedError> {
    if folder.join(SINGLE).is_file() {
        return Ok(vec![SINGLE.to_owned()]);
    }
    let path = folder.join(INDEX);
    if !path.is_file() {
        return Err(damaged(folder, format!("neither `{SINGLE}` nor `{INDEX}` is there")));
    }
    let bytes = super::read_bounded(&path, HEADER_BYTES_MAX)?;
    let mut files: Vec<String> = read_index(&path, &bytes)?.into_values().collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

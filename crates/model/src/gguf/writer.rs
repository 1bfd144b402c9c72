//! Files out of metadata and values: version 3, alignment 32.
//!
//! The same input gives the same bytes: entries are in the order of their keys, tensors in the order given, one after
//! the other, and padding is zero. What is written is read again by [`read`](super::read), and by llama.cpp unless it
//! has arrays in arrays.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use super::reader::element_count;
use super::{
    ALIGNMENT, ALIGNMENT_KEY, ARRAY_DEPTH_MAX, ARRAYS_MAX, Array, DIMENSIONS_MAX, GgufError, HEADER_BYTES_MAX,
    KEY_BYTES_MAX, MAGIC, METADATA_ENTRIES_MAX, Metadata, QUANTISATION_VERSION, QUANTISATION_VERSION_KEY, TENSORS_MAX,
    TensorType, Unsupported, VERSION, Value, WRITTEN_NAME_BYTES_MAX, f16_to_f32, f32_to_f16, quantise_q8_0,
};
use crate::files::replace_durably;

/// A tensor to be written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorSource<'a> {
    /// The name, unique in the file and of at most [`WRITTEN_NAME_BYTES_MAX`] bytes.
    pub name: &'a str,
    /// One to four sizes, none of them 0; the first is that of the fastest index, so a matrix is `[columns, rows]`.
    pub dimensions: &'a [u64],
    /// How to store the values: F32, F16 or Q8_0.
    pub tensor_type: TensorType,
    /// As many finite values as the product of the dimensions, row after row.
    pub values: &'a [f32],
}

/// Writes a file as bytes; the same input gives the same bytes.
///
/// If a tensor is quantised, the metadata entry [`QUANTISATION_VERSION_KEY`] is added where it is missing, because the
/// format demands it. No other entry is added; `general.architecture` is for the caller to set.
///
/// # Errors
/// What [`read`](super::read) would refuse: keys and names that are empty, too long or there twice, arrays nested too
/// deep, another alignment than [`ALIGNMENT`], bad dimensions, a header that is too long; and types other than F32, F16
/// and Q8_0, values that are not as many as the dimensions say, not finite, or too large for the type.
pub fn write(metadata: &Metadata, tensors: &[TensorSource<'_>]) -> Result<Vec<u8>, GgufError> {
    let (mut out, bytes) = header(metadata, tensors)?;
    out.reserve_exact(bytes);
    for tensor in tensors {
        append_values(&mut out, tensor)?;
        pad(&mut out);
    }
    Ok(out)
}

/// Writes a file: into a temporary file beside it, to the disk, then under its name. Beside the header, one tensor at a time is in
/// memory as bytes.
///
/// # Errors
/// Those of [`write`], and what the system says; the file is then as it was before.
pub fn save(path: &Path, metadata: &Metadata, tensors: &[TensorSource<'_>]) -> Result<(), GgufError> {
    let failed = |source| GgufError::Io { path: path.to_owned(), source };
    let (header, _) = header(metadata, tensors)?;
    replace_durably(path, failed, |file| {
        file.write_all(&header).map_err(failed)?;
        let mut data = Vec::new();
        for tensor in tensors {
            data.clear();
            append_values(&mut data, tensor)?;
            // Data begin at a multiple of the alignment, so that each tensor can be padded on its own.
            pad(&mut data);
            file.write_all(&data).map_err(failed)?;
        }
        Ok(())
    })
}

/// Everything before the tensors' data, padded, and the bytes that these take.
fn header(metadata: &Metadata, tensors: &[TensorSource<'_>]) -> Result<(Vec<u8>, usize), GgufError> {
    let mut entries: BTreeMap<&str, &Value> = metadata.iter().collect();
    if tensors.iter().any(|tensor| tensor.tensor_type == TensorType::Q8_0) {
        entries.entry(QUANTISATION_VERSION_KEY).or_insert(&Value::U32(QUANTISATION_VERSION));
    }
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    append_count(&mut out, tensors.len(), TENSORS_MAX, "tensors")?;
    append_count(&mut out, entries.len(), METADATA_ENTRIES_MAX, "metadata")?;
    let mut arrays = 0;
    for (key, value) in entries {
        append_entry(&mut out, key, value, &mut arrays)?;
    }
    let bytes = append_list(&mut out, tensors)?;
    if out.len() as u64 > HEADER_BYTES_MAX {
        return Err(GgufError::HeaderTooLong { place: "the header".to_owned() });
    }
    pad(&mut out);
    Ok((out, bytes))
}

fn append_count(out: &mut Vec<u8>, count: usize, max: u64, place: &str) -> Result<(), GgufError> {
    let count = count as u64;
    if count > max {
        return Err(GgufError::TooMany { place: place.to_owned(), count, max });
    }
    out.extend(count.to_le_bytes());
    Ok(())
}

fn append_entry(out: &mut Vec<u8>, key: &str, value: &Value, arrays: &mut u64) -> Result<(), GgufError> {
    check_name("a metadata key", key, KEY_BYTES_MAX)?;
    if key == ALIGNMENT_KEY && *value != Value::U32(ALIGNMENT as u32) {
        let got = match value {
            Value::U32(alignment) => alignment.to_string(),
            other => other.type_name(),
        };
        return Err(GgufError::OtherAlignment { got });
    }
    if let Value::Array(array) = value {
        check_array(key, array, 1, arrays)?;
    }
    append_text(out, key);
    out.extend(value.kind().id().to_le_bytes());
    append_value(out, value);
    Ok(())
}

/// Checks the nesting of an array that is inside of `depth - 1` others; `arrays` counts all of a file.
fn check_array(key: &str, array: &Array, depth: usize, arrays: &mut u64) -> Result<(), GgufError> {
    if depth > ARRAY_DEPTH_MAX {
        return Err(GgufError::TooDeep { place: format!("metadata `{}`", key.escape_debug()) });
    }
    *arrays += 1;
    if *arrays > ARRAYS_MAX {
        return Err(GgufError::TooMany { place: "arrays".to_owned(), count: *arrays, max: ARRAYS_MAX });
    }
    match array {
        Array::Array(inner) => inner.iter().try_for_each(|array| check_array(key, array, depth + 1, arrays)),
        _ => Ok(()),
    }
}

fn append_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => out.extend(value.to_le_bytes()),
        Value::I8(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(text) => append_text(out, text),
        Value::Array(array) => append_array(out, array),
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
    }
}

fn append_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.kind().id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(values) => out.extend(values),
        Array::I8(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U16(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I16(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::Bool(values) => out.extend(values.iter().map(|&value| u8::from(value))),
        Array::String(texts) => texts.iter().for_each(|text| append_text(out, text)),
        Array::Array(arrays) => arrays.iter().for_each(|array| append_array(out, array)),
        Array::U64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
}

fn append_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Appends the list of tensors and returns the bytes of their data with padding.
fn append_list(out: &mut Vec<u8>, tensors: &[TensorSource<'_>]) -> Result<usize, GgufError> {
    let mut names = BTreeSet::new();
    let mut offset = 0u64;
    for tensor in tensors {
        check_tensor(tensor)?;
        if !names.insert(tensor.name) {
            return Err(GgufError::DuplicateTensor { name: tensor.name.to_owned() });
        }
        append_text(out, tensor.name);
        out.extend((tensor.dimensions.len() as u32).to_le_bytes());
        out.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
        out.extend(tensor.tensor_type.id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += (data_bytes(tensor) as u64).next_multiple_of(ALIGNMENT);
    }
    // The values are in memory and take no fewer bytes there.
    Ok(offset as usize)
}

fn check_tensor(tensor: &TensorSource<'_>) -> Result<(), GgufError> {
    let TensorSource { name, dimensions, tensor_type, values } = *tensor;
    let owned = || (name.to_owned(), dimensions.to_vec());
    check_name("a tensor", name, WRITTEN_NAME_BYTES_MAX)?;
    if !tensor_type.is_written() {
        return Err(GgufError::Unsupported { name: name.to_owned(), source: Unsupported { tensor_type } });
    }
    let count = dimensions.len() as u64;
    if count == 0 || count > DIMENSIONS_MAX || dimensions.contains(&0) {
        let (name, dimensions) = owned();
        return Err(GgufError::BadDimensions { name, count, dimensions });
    }
    if !dimensions[0].is_multiple_of(tensor_type.block_len() as u64) {
        return Err(GgufError::UnevenRow { name: name.to_owned(), row: dimensions[0], tensor_type });
    }
    let (name, dimensions) = owned();
    match element_count(dimensions.as_slice()) {
        None => Err(GgufError::TooManyElements { name, dimensions }),
        Some(count) if count != values.len() as u64 => {
            Err(GgufError::WrongElements { name, dimensions, got: values.len() })
        }
        Some(_) => Ok(()),
    }
}

fn check_name(place: &str, name: &str, max: u64) -> Result<(), GgufError> {
    let bytes = name.len() as u64;
    if bytes == 0 || bytes > max {
        return Err(GgufError::BadName { place: format!("{place} `{}`", name.escape_debug()), bytes, max });
    }
    Ok(())
}

fn data_bytes(tensor: &TensorSource<'_>) -> usize {
    tensor.values.len() / tensor.tensor_type.block_len() * tensor.tensor_type.block_bytes()
}

fn append_values(out: &mut Vec<u8>, tensor: &TensorSource<'_>) -> Result<(), GgufError> {
    let TensorSource { name, tensor_type, values, .. } = *tensor;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(GgufError::NotFinite { name: name.to_owned(), index, value: values[index] });
    }
    let start = out.len();
    match tensor_type {
        TensorType::F16 => out.extend(values.iter().flat_map(|&value| f32_to_f16(value).to_le_bytes())),
        TensorType::Q8_0 => {
            out.resize(start + data_bytes(tensor), 0);
            quantise_q8_0(values, &mut out[start..]);
        }
        // The types were checked before: this is F32.
        _ => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
    match overflow(tensor_type, &out[start..], values) {
        Some(index) => Err(GgufError::Overflow { name: name.to_owned(), index, value: values[index], tensor_type }),
        None => Ok(()),
    }
}

/// The first value that became infinite as an `f16`, or that made its block's scale so.
fn overflow(tensor_type: TensorType, data: &[u8], values: &[f32]) -> Option<usize> {
    let infinite = |bytes: &[u8]| f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]])).is_infinite();
    match tensor_type {
        TensorType::F16 => data.chunks_exact(2).position(infinite),
        TensorType::Q8_0 => {
            let block = data.chunks_exact(tensor_type.block_bytes()).position(infinite)?;
            let first = block * tensor_type.block_len();
            let block = &values[first..][..tensor_type.block_len()];
            let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            block.iter().position(|value| value.abs() == largest).map(|index| first + index)
        }
        _ => None,
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
}

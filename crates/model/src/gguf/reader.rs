//! Everything before the tensors' data, checked as it is read.
//!
//! Layout: magic, version, number of tensors, number of metadata entries; the entries (key, type, value); the tensors
//! (name, dimensions, type, offset); then padding up to the alignment, from where offsets count.

use std::collections::BTreeMap;

use super::metadata::Kind;
use super::{
    ALIGNMENT, ALIGNMENT_KEY, ALIGNMENT_MAX, ARRAY_DEPTH_MAX, ARRAYS_MAX, Array, DIMENSIONS_MAX, GgufError,
    HEADER_BYTES_MAX, Header, KEY_BYTES_MAX, MAGIC, METADATA_ENTRIES_MAX, Metadata, Strings, TENSOR_NAME_BYTES_MAX,
    TENSORS_MAX, Tensor, TensorType, Value,
};
use crate::config::PARAMETERS_MAX;

/// Least bytes of a metadata entry: the length of its key, one byte of it, its type and one byte of value.
const ENTRY_BYTES_MIN: usize = 8 + 1 + 4 + 1;

/// Least bytes in the list for a tensor: as above, then the number of dimensions, one of them, the type and the offset.
const TENSOR_BYTES_MIN: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// Reads everything before the tensors' data and checks that the data are there.
pub(super) fn header(file: &[u8]) -> Result<Header, GgufError> {
    let mut cursor = Cursor { file, at: 0, arrays: 0, place: "the header".to_owned() };
    let version = version(&mut cursor)?;
    let tensor_count = cursor.u64()?;
    let entry_count = cursor.u64()?;
    let tensor_count = cursor.bounded(tensor_count, TENSOR_BYTES_MIN, TENSORS_MAX, "tensors")?;
    let entry_count = cursor.bounded(entry_count, ENTRY_BYTES_MIN, METADATA_ENTRIES_MAX, "metadata")?;
    let metadata = metadata(&mut cursor, entry_count)?;
    let alignment = alignment(&metadata)?;
    let mut listed = Vec::with_capacity(tensor_count);
    for index in 0..tensor_count {
        listed.push(listed_tensor(&mut cursor, index)?);
    }
    let start = (cursor.at as u64).next_multiple_of(alignment);
    let tensors: Vec<Tensor> =
        listed.into_iter().map(|listed| listed.placed(file, start, alignment)).collect::<Result<_, _>>()?;
    let by_name = unique_names(&tensors)?;
    check_no_overlap(&tensors)?;
    Ok(Header { version, alignment, metadata, tensors, by_name })
}

/// A tensor of the list, whose data have not been looked for.
struct Listed {
    tensor: Tensor,
    bytes: u64,
    offset: u64,
}

impl Listed {
    /// Finds the data: `start` is where offsets count from.
    fn placed(self, file: &[u8], start: u64, alignment: u64) -> Result<Tensor, GgufError> {
        let Self { mut tensor, bytes, offset } = self;
        let name = || tensor.name.clone();
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { name: name(), offset, alignment });
        }
        let length = file.len() as u64;
        let begin = start.checked_add(offset);
        let end = begin.and_then(|begin| begin.checked_add(bytes)).filter(|&end| end <= length);
        let (Some(begin), Some(end)) = (begin, end) else {
            let available = length.saturating_sub(start);
            return Err(GgufError::OutOfFile { name: name(), offset, needed: bytes, available });
        };
        // Both are at most the length of a slice.
        tensor.range = begin as usize..end as usize;
        Ok(tensor)
    }
}

fn version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let found = cursor.array::<4>()?;
    if found != MAGIC {
        return Err(GgufError::BadMagic { found });
    }
    let version = cursor.u32()?;
    match version {
        2 | 3 => Ok(version),
        _ if matches!(version.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        _ => Err(GgufError::BadVersion { version }),
    }
}

fn metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Metadata, GgufError> {
    let mut metadata = Metadata::new();
    for index in 0..count {
        cursor.place = format!("metadata entry {index}");
        let key = cursor.name(KEY_BYTES_MAX)?;
        cursor.place = format!("metadata `{}`", key.escape_debug());
        let kind = cursor.kind()?;
        let value = cursor.value(kind)?;
        if metadata.insert(key, value).is_some() {
            return Err(GgufError::DuplicateKey { key: key.to_owned() });
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let alignment = if metadata.contains(ALIGNMENT_KEY) { metadata.u64(ALIGNMENT_KEY)? } else { ALIGNMENT };
    if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
        return Err(GgufError::BadAlignment { alignment });
    }
    Ok(alignment)
}

fn listed_tensor(cursor: &mut Cursor<'_>, index: usize) -> Result<Listed, GgufError> {
    cursor.place = format!("tensor {index}");
    let name = cursor.name(TENSOR_NAME_BYTES_MAX)?.to_owned();
    cursor.place = format!("tensor `{}`", name.escape_debug());
    let dimensions = dimensions(cursor, &name)?;
    let id = cursor.u32()?;
    let offset = cursor.u64()?;
    let tensor_type = TensorType::from_id(id).ok_or_else(|| GgufError::UnknownType { name: name.clone(), id })?;
    let (block_len, block_bytes) = (tensor_type.block_len() as u64, tensor_type.block_bytes() as u64);
    let row = dimensions[0];
    if !row.is_multiple_of(block_len) {
        return Err(GgufError::UnevenRow { name, row, tensor_type });
    }
    let count = element_count(&dimensions);
    let Some((elements, count)) = count.and_then(|count| Some((usize::try_from(count).ok()?, count))) else {
        return Err(GgufError::TooManyElements { name, dimensions });
    };
    // At most 8 bytes for each of PARAMETERS_MAX values, so that the product fits.
    let bytes = count / block_len * block_bytes;
    let tensor = Tensor { name, dimensions, tensor_type, elements, range: 0..0 };
    Ok(Listed { tensor, bytes, offset })
}

/// One to four sizes, none of them 0.
fn dimensions(cursor: &mut Cursor<'_>, name: &str) -> Result<Vec<u64>, GgufError> {
    let count = u64::from(cursor.u32()?);
    let bad = |dimensions| GgufError::BadDimensions { name: name.to_owned(), count, dimensions };
    if count == 0 || count > DIMENSIONS_MAX {
        return Err(bad(Vec::new()));
    }
    let dimensions: Vec<u64> = (0..count).map(|_| cursor.u64()).collect::<Result<_, _>>()?;
    if dimensions.contains(&0) { Err(bad(dimensions)) } else { Ok(dimensions) }
}

/// The product of the dimensions, if it is not more than a model's parameters.
pub(super) fn element_count(dimensions: &[u64]) -> Option<u64> {
    let product = dimensions.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
    product.filter(|&product| product <= PARAMETERS_MAX)
}

fn unique_names(tensors: &[Tensor]) -> Result<BTreeMap<String, usize>, GgufError> {
    let mut by_name = BTreeMap::new();
    for (position, tensor) in tensors.iter().enumerate() {
        if by_name.insert(tensor.name.clone(), position).is_some() {
            return Err(GgufError::DuplicateTensor { name: tensor.name.clone() });
        }
    }
    Ok(by_name)
}

fn check_no_overlap(tensors: &[Tensor]) -> Result<(), GgufError> {
    let mut sorted: Vec<&Tensor> = tensors.iter().collect();
    sorted.sort_unstable_by_key(|tensor| (tensor.range.start, tensor.range.end));
    for pair in sorted.windows(2) {
        if pair[0].range.end > pair[1].range.start {
            return Err(GgufError::Overlap { first: pair[0].name.clone(), second: pair[1].name.clone() });
        }
    }
    Ok(())
}

/// A position in the file, and what is read there, for errors.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
    /// Arrays so far.
    arrays: u64,
    place: String,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], GgufError> {
        let (at, bytes) = (self.at as u64, self.file.len() as u64);
        let taken = usize::try_from(count).ok().and_then(|count| self.file.get(self.at..)?.get(..count));
        let Some(taken) = taken else {
            return Err(GgufError::Truncated { place: self.place.clone(), at, needed: count, bytes });
        };
        if at + count > HEADER_BYTES_MAX {
            return Err(GgufError::HeaderTooLong { place: self.place.clone() });
        }
        self.at += taken.len();
        Ok(taken)
    }

    /// `count` values of `N` bytes each; the caller has bounded the count.
    fn chunks<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]], GgufError> {
        Ok(self.take((count as u64).saturating_mul(N as u64))?.as_chunks::<N>().0)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of entries, if the bytes that are left can hold them and there are no more than `max`.
    fn bounded(&self, count: u64, bytes_min: usize, max: u64, place: &str) -> Result<usize, GgufError> {
        let left = (self.file.len() as u64).min(HEADER_BYTES_MAX).saturating_sub(self.at as u64);
        let max = max.min(left / bytes_min as u64);
        if count > max {
            return Err(GgufError::TooMany { place: place.to_owned(), count, max });
        }
        // Not more than the length of a slice.
        Ok(count as usize)
    }

    /// A text of any length.
    fn text(&mut self) -> Result<&'a str, GgufError> {
        let length = self.u64()?;
        self.utf8(length)
    }

    /// A text of 1 to `max` bytes.
    fn name(&mut self, max: u64) -> Result<&'a str, GgufError> {
        let bytes = self.u64()?;
        if bytes == 0 || bytes > max {
            return Err(GgufError::BadName { place: self.place.clone(), bytes, max });
        }
        self.utf8(bytes)
    }

    fn utf8(&mut self, length: u64) -> Result<&'a str, GgufError> {
        let text = std::str::from_utf8(self.take(length)?);
        text.map_err(|error| GgufError::NotUtf8 { place: self.place.clone(), valid: error.valid_up_to() })
    }

    fn bool(&self, byte: u8) -> Result<bool, GgufError> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(GgufError::BadBool { place: self.place.clone(), value }),
        }
    }

    fn kind(&mut self) -> Result<Kind, GgufError> {
        let id = self.u32()?;
        Kind::from_id(id).ok_or_else(|| GgufError::BadValueType { place: self.place.clone(), id })
    }

    fn value(&mut self, kind: Kind) -> Result<Value, GgufError> {
        Ok(match kind {
            Kind::U8 => Value::U8(u8::from_le_bytes(self.array()?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(self.array()?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(self.array()?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(self.array()?)),
            Kind::U32 => Value::U32(u32::from_le_bytes(self.array()?)),
            Kind::I32 => Value::I32(i32::from_le_bytes(self.array()?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            Kind::Bool => {
                let [byte] = self.array()?;
                Value::Bool(self.bool(byte)?)
            }
            Kind::String => Value::String(self.text()?.to_owned()),
            Kind::Array => Value::Array(self.values(1)?),
            Kind::U64 => Value::U64(u64::from_le_bytes(self.array()?)),
            Kind::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
        })
    }

    /// An array that is inside of `depth - 1` others.
    fn values(&mut self, depth: usize) -> Result<Array, GgufError> {
        if depth > ARRAY_DEPTH_MAX {
            return Err(GgufError::TooDeep { place: self.place.clone() });
        }
        self.arrays += 1;
        if self.arrays > ARRAYS_MAX {
            return Err(GgufError::TooMany { place: "arrays".to_owned(), count: self.arrays, max: ARRAYS_MAX });
        }
        let kind = self.kind()?;
        let count = self.u64()?;
        let count = self.bounded(count, kind.bytes_min(), HEADER_BYTES_MAX, &self.place)?;
        Ok(match kind {
            Kind::U8 => Array::U8(self.numbers(count, u8::from_le_bytes)?),
            Kind::I8 => Array::I8(self.numbers(count, i8::from_le_bytes)?),
            Kind::U16 => Array::U16(self.numbers(count, u16::from_le_bytes)?),
            Kind::I16 => Array::I16(self.numbers(count, i16::from_le_bytes)?),
            Kind::U32 => Array::U32(self.numbers(count, u32::from_le_bytes)?),
            Kind::I32 => Array::I32(self.numbers(count, i32::from_le_bytes)?),
            Kind::F32 => Array::F32(self.numbers(count, f32::from_le_bytes)?),
            Kind::Bool => {
                let bytes = self.take(count as u64)?;
                Array::Bool(bytes.iter().map(|&byte| self.bool(byte)).collect::<Result<_, _>>()?)
            }
            Kind::String => Array::String(self.texts(count)?),
            Kind::Array => {
                // Grown as they come: each level could claim the same bytes.
                let mut arrays = Vec::new();
                for _ in 0..count {
                    arrays.push(self.values(depth + 1)?);
                }
                Array::Array(arrays)
            }
            Kind::U64 => Array::U64(self.numbers(count, u64::from_le_bytes)?),
            Kind::I64 => Array::I64(self.numbers(count, i64::from_le_bytes)?),
            Kind::F64 => Array::F64(self.numbers(count, f64::from_le_bytes)?),
        })
    }

    fn numbers<const N: usize, T>(&mut self, count: usize, number: fn([u8; N]) -> T) -> Result<Vec<T>, GgufError> {
        Ok(self.chunks::<N>(count)?.iter().map(|&bytes| number(bytes)).collect())
    }

    fn texts(&mut self, count: usize) -> Result<Strings, GgufError> {
        let mut texts = Strings::with_capacity(count);
        for _ in 0..count {
            texts.push(self.text()?);
        }
        Ok(texts)
    }
}

//! Why a GGUF file could not be read or written.

use std::io;
use std::path::PathBuf;

use super::{
    ALIGNMENT, ALIGNMENT_KEY, ALIGNMENT_MAX, ARRAY_DEPTH_MAX, DIMENSIONS_MAX, FILE_BYTES_MAX, HEADER_BYTES_MAX,
    TensorType, Unsupported,
};
use crate::config::PARAMETERS_MAX;

/// Why a GGUF file could not be read or written.
///
/// Names that come from a file are printed with their control characters escaped. A `place` is a part of the file in
/// words, such as ``metadata `llama.block_count` `` or `tensor 7`.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be read.
    #[error("gguf `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any model.
    #[error("gguf: {bytes} bytes, and at most {FILE_BYTES_MAX} are read")]
    TooLarge {
        /// The size of the file.
        bytes: u64,
    },
    /// The file is of another format.
    #[error("gguf: the file begins with `{}`, and a GGUF file with `GGUF`", found.escape_ascii())]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The numbers of the file are in the other byte order.
    #[error("gguf: a big-endian file, and only little-endian ones are read")]
    BigEndian,
    /// The version is not one that is read.
    #[error("gguf: version {version}, and 2 and 3 are read")]
    BadVersion {
        /// The version of the file.
        version: u32,
    },
    /// The file ends inside of its header.
    #[error("gguf: truncated: {place} needs {needed} bytes from byte {at} on, and the file has {bytes}")]
    Truncated {
        /// The part of the file.
        place: String,
        /// First byte of what is read.
        at: u64,
        /// Bytes of what is read.
        needed: u64,
        /// The size of the file.
        bytes: u64,
    },
    /// The metadata and the list of tensors are larger than those of any model.
    #[error("gguf: {place} goes on after byte {HEADER_BYTES_MAX}, and so much of a header is read at most")]
    HeaderTooLong {
        /// The part of the file.
        place: String,
    },
    /// There are more entries than the bytes that are left can hold, or than any model has.
    #[error("gguf: {place}: {count} entries, where there is room for at most {max}")]
    TooMany {
        /// The part of the file.
        place: String,
        /// The number that the file claims.
        count: u64,
        /// The largest permitted number here.
        max: u64,
    },
    /// A key or a name is empty or too long.
    #[error("gguf: {place}: the name has {bytes} bytes, and must have between 1 and {max}")]
    BadName {
        /// The part of the file.
        place: String,
        /// Bytes of the name.
        bytes: u64,
        /// The largest permitted number.
        max: u64,
    },
    /// A text is not UTF-8.
    #[error("gguf: {place}: a text is not UTF-8 from its byte {valid} on")]
    NotUtf8 {
        /// The part of the file.
        place: String,
        /// Bytes of the text that are UTF-8.
        valid: usize,
    },
    /// A metadata value is of a type that the format does not have.
    #[error("gguf: {place}: type {id} of a value, and there are 0 to 12")]
    BadValueType {
        /// The part of the file.
        place: String,
        /// The number of the type.
        id: u32,
    },
    /// A truth value is neither 0 nor 1.
    #[error("gguf: {place}: {value} as a truth value, which must be 0 or 1")]
    BadBool {
        /// The part of the file.
        place: String,
        /// The value.
        value: u8,
    },
    /// Arrays in arrays go too deep.
    #[error("gguf: {place}: arrays in arrays more than {ARRAY_DEPTH_MAX} deep")]
    TooDeep {
        /// The part of the file.
        place: String,
    },
    /// Two metadata entries have the same key.
    #[error("gguf: metadata `{}` is there twice", key.escape_debug())]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The alignment is not a power of two, or too large.
    #[error("gguf: `{ALIGNMENT_KEY}` is {alignment}, and must be a power of two and at most {ALIGNMENT_MAX}")]
    BadAlignment {
        /// The alignment.
        alignment: u64,
    },
    /// Two tensors have the same name.
    #[error("gguf: tensor `{}` is there twice", name.escape_debug())]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has no dimensions, too many, or an empty one.
    #[error(
        "gguf: tensor `{}` has {count} dimensions {dimensions:?}, and must have between 1 and {DIMENSIONS_MAX}, \
         none of them 0",
        name.escape_debug()
    )]
    BadDimensions {
        /// The tensor.
        name: String,
        /// How many dimensions it has.
        count: u64,
        /// Those that were read.
        dimensions: Vec<u64>,
    },
    /// A tensor has more values than the largest model.
    #[error("gguf: tensor `{}` of {dimensions:?} has more than {PARAMETERS_MAX} values", name.escape_debug())]
    TooManyElements {
        /// The tensor.
        name: String,
        /// Its dimensions.
        dimensions: Vec<u64>,
    },
    /// A tensor's type is not one that is known, so that its size is not known either.
    #[error("gguf: tensor `{}` has type {id}{}, which is not known", name.escape_debug(), former_name(*id))]
    UnknownType {
        /// The tensor.
        name: String,
        /// The number of the type.
        id: u32,
    },
    /// A row of a tensor ends inside of a block.
    #[error(
        "gguf: tensor `{}` has rows of {row} values, and {tensor_type} needs a multiple of {}",
        name.escape_debug(),
        tensor_type.block_len()
    )]
    UnevenRow {
        /// The tensor.
        name: String,
        /// Values in a row.
        row: u64,
        /// Its type.
        tensor_type: TensorType,
    },
    /// A tensor does not start at a multiple of the alignment.
    #[error("gguf: tensor `{}` has offset {offset}, which is not a multiple of {alignment}", name.escape_debug())]
    Misaligned {
        /// The tensor.
        name: String,
        /// Its offset from the start of all data.
        offset: u64,
        /// The alignment of the file.
        alignment: u64,
    },
    /// A tensor's data are not inside of the file.
    #[error(
        "gguf: tensor `{}` has {needed} bytes at offset {offset} of the data, and the file ends at offset {available}",
        name.escape_debug()
    )]
    OutOfFile {
        /// The tensor.
        name: String,
        /// Its offset from the start of all data.
        offset: u64,
        /// Bytes of the tensor.
        needed: u64,
        /// Bytes of all data.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("gguf: the data of tensor `{}` overlap those of `{}`", second.escape_debug(), first.escape_debug())]
    Overlap {
        /// The tensor that starts first.
        first: String,
        /// The other tensor.
        second: String,
    },
    /// A metadata entry is not there.
    #[error("gguf: metadata `{}` is missing", key.escape_debug())]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata entry is of another type or size than the one that was asked for.
    #[error("gguf: metadata `{}` is {got}, where {expected} is needed", key.escape_debug())]
    WrongValue {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// Type of the value in the file, or the value itself if it does not fit.
        got: String,
    },
    /// A tensor is not there.
    #[error("gguf: tensor `{}` is missing", name.escape_debug())]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor's type is known but its values cannot be read or written.
    #[error("gguf: tensor `{}`: {source}", name.escape_debug())]
    Unsupported {
        /// The tensor.
        name: String,
        /// The type.
        source: Unsupported,
    },
    /// A value is NaN or infinite.
    #[error(
        "gguf: tensor `{}` has the value {value} at {index}, and only finite values are accepted",
        name.escape_debug()
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Position in the tensor.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value to be written is too large for its type.
    #[error("gguf: tensor `{}` has the value {value} at {index}, too large for {tensor_type}", name.escape_debug())]
    Overflow {
        /// The tensor.
        name: String,
        /// Position in the tensor.
        index: usize,
        /// The value.
        value: f32,
        /// The type to write.
        tensor_type: TensorType,
    },
    /// The values to be written are not as many as the dimensions say.
    #[error("gguf: tensor `{}` of {dimensions:?} comes with {got} values", name.escape_debug())]
    WrongElements {
        /// The tensor.
        name: String,
        /// Its dimensions.
        dimensions: Vec<u64>,
        /// Values that came.
        got: usize,
    },
    /// The metadata to be written name an alignment other than the one used.
    #[error("gguf: `{ALIGNMENT_KEY}` is to be written as {got}, and files are written with the u32 {ALIGNMENT}")]
    OtherAlignment {
        /// The value in the metadata.
        got: String,
    },
}

/// The name of a type that was removed from the format, for people.
fn former_name(id: u32) -> &'static str {
    match id {
        4 => " (Q4_2)",
        5 => " (Q4_3)",
        31 => " (Q4_0_4_4)",
        32 => " (Q4_0_4_8)",
        33 => " (Q4_0_8_8)",
        36 => " (IQ4_NL_4_4)",
        37 => " (IQ4_NL_4_8)",
        38 => " (IQ4_NL_8_8)",
        _ => "",
    }
}

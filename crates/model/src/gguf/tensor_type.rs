//! The types of tensors: how many values a block has, how many bytes, and which of them can be turned into `f32`.

use std::fmt;

use super::blocks;

/// How the values of a tensor are stored: rows of blocks, each with the same number of values and bytes.
///
/// The number of each variant is the one in the file. All sizes are known, so that any file's ranges can be checked;
/// only those with [`TensorType::is_supported`] can be turned into `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum TensorType {
    /// IEEE 754 binary32.
    F32 = 0,
    /// IEEE 754 binary16.
    F16 = 1,
    /// 4 bits and a scale for 32 values.
    Q4_0 = 2,
    /// 4 bits, a scale and an offset for 32 values.
    Q4_1 = 3,
    /// 5 bits and a scale for 32 values.
    Q5_0 = 6,
    /// 5 bits, a scale and an offset for 32 values.
    Q5_1 = 7,
    /// 8 bits and a scale for 32 values.
    Q8_0 = 8,
    /// 8 bits, a scale and a sum for 32 values; not meant for files.
    Q8_1 = 9,
    /// 2 bits, scales and offsets for 16 values, which share theirs.
    Q2K = 10,
    /// 3 bits and scales for 16 values, which share theirs.
    Q3K = 11,
    /// 4 bits, scales and offsets for 32 values, which share theirs.
    Q4K = 12,
    /// 5 bits, scales and offsets for 32 values, which share theirs.
    Q5K = 13,
    /// 6 bits and scales for 16 values, which share theirs.
    Q6K = 14,
    /// 8 bits, an `f32` scale and sums; not meant for files.
    Q8K = 15,
    /// 2.06 bits a value, from a table.
    Iq2Xxs = 16,
    /// 2.31 bits a value, from a table.
    Iq2Xs = 17,
    /// 3.06 bits a value, from a table.
    Iq3Xxs = 18,
    /// 1.56 bits a value, from a table.
    Iq1S = 19,
    /// 4 bits that index a table, and a scale for 32 values.
    Iq4Nl = 20,
    /// 3.44 bits a value, from a table.
    Iq3S = 21,
    /// 2.56 bits a value, from a table.
    Iq2S = 22,
    /// 4 bits that index a table, and scales for 32 values, which share theirs.
    Iq4Xs = 23,
    /// 8 bits, signed.
    I8 = 24,
    /// 16 bits, signed.
    I16 = 25,
    /// 32 bits, signed.
    I32 = 26,
    /// 64 bits, signed.
    I64 = 27,
    /// IEEE 754 binary64.
    F64 = 28,
    /// 1.75 bits a value, from a table.
    Iq1M = 29,
    /// bfloat16, the upper half of a binary32.
    Bf16 = 30,
    /// Three levels, five values in a byte.
    Tq1_0 = 34,
    /// Three levels, four values in a byte.
    Tq2_0 = 35,
    /// 4-bit floats and a power of two for 32 values.
    Mxfp4 = 39,
    /// 4-bit floats and 8-bit float scales for 16 values.
    Nvfp4 = 40,
    /// 1 bit and a scale for 128 values.
    Q1_0 = 41,
    /// 2 bits and a scale for 64 values.
    Q2_0 = 42,
}

/// The type of a tensor is known but its values cannot be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("type {} ({tensor_type}) is not supported here", tensor_type.id())]
pub struct Unsupported {
    /// The type.
    pub tensor_type: TensorType,
}

impl TensorType {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 35] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q8_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Q8K,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq3Xxs,
        Self::Iq1S,
        Self::Iq4Nl,
        Self::Iq3S,
        Self::Iq2S,
        Self::Iq4Xs,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F64,
        Self::Iq1M,
        Self::Bf16,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::Mxfp4,
        Self::Nvfp4,
        Self::Q1_0,
        Self::Q2_0,
    ];

    /// The type with a number, if there is one.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|tensor_type| tensor_type.id() == id)
    }

    /// The number in the file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name that llama.cpp gives it, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.properties().0
    }

    /// Values in a block; a row is a multiple of it.
    pub fn block_len(self) -> usize {
        self.properties().1
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.properties().2
    }

    /// Whether [`TensorType::dequantise`] works.
    pub fn is_supported(self) -> bool {
        use TensorType::{Bf16, F16, F32, Q4_0, Q4_1, Q4K, Q6K, Q8_0};
        matches!(self, F32 | F16 | Bf16 | Q8_0 | Q4_0 | Q4_1 | Q4K | Q6K)
    }

    /// Whether values can be written as this type.
    pub fn is_written(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Q8_0)
    }

    /// Turns whole blocks into their values, with the bits that ggml's reference gives.
    ///
    /// All arithmetic is in `f32`, and each operation is rounded on its own in the order written here, where `d`, `m`
    /// and `dmin` are the `f16` scales of the block, `q` its small integers and `sc`, `mn` its integer scales. No
    /// product needs more than 24 bits, so each is exact, and a reference whose compiler fuses operations gives the
    /// same bits:
    /// - F32 as it is; F16 and BF16 exact;
    /// - Q8_0 and Q4_0: `q * d`, with `q` between -8 and 7 for Q4_0;
    /// - Q4_1: `(q * d) + m`;
    /// - Q4_K: `((d * sc) * q) - (dmin * mn)`;
    /// - Q6_K: `(d * sc) * q`, with `q` between -32 and 31.
    ///
    /// Values may be NaN or infinite where the scales are.
    ///
    /// # Errors
    /// The type is not supported; nothing is written.
    ///
    /// # Panics
    /// For a supported type, if `data` is not a whole number of blocks or `out` not as long as their values.
    pub fn dequantise(self, data: &[u8], out: &mut [f32]) -> Result<(), Unsupported> {
        match self {
            Self::F32 => blocks::each(data, out, blocks::f32),
            Self::F16 => blocks::each(data, out, blocks::f16),
            Self::Bf16 => blocks::each(data, out, blocks::bf16),
            Self::Q8_0 => blocks::each(data, out, blocks::q8_0),
            Self::Q4_0 => blocks::each(data, out, blocks::q4_0),
            Self::Q4_1 => blocks::each(data, out, blocks::q4_1),
            Self::Q4K => blocks::each(data, out, blocks::q4_k),
            Self::Q6K => blocks::each(data, out, blocks::q6_k),
            _ => return Err(Unsupported { tensor_type: self }),
        }
        Ok(())
    }

    /// Name, values in a block and bytes of a block, which are written as the sum of the block's parts.
    fn properties(self) -> (&'static str, usize, usize) {
        match self {
            Self::F32 => ("F32", 1, 4),
            Self::F16 => ("F16", 1, 2),
            Self::Q4_0 => ("Q4_0", 32, 2 + 16),
            Self::Q4_1 => ("Q4_1", 32, 2 + 2 + 16),
            Self::Q5_0 => ("Q5_0", 32, 2 + 4 + 16),
            Self::Q5_1 => ("Q5_1", 32, 2 + 2 + 4 + 16),
            Self::Q8_0 => ("Q8_0", 32, 2 + 32),
            Self::Q8_1 => ("Q8_1", 32, 2 + 2 + 32),
            Self::Q2K => ("Q2_K", 256, 16 + 64 + 2 + 2),
            Self::Q3K => ("Q3_K", 256, 32 + 64 + 12 + 2),
            Self::Q4K => ("Q4_K", 256, 2 + 2 + 12 + 128),
            Self::Q5K => ("Q5_K", 256, 2 + 2 + 12 + 32 + 128),
            Self::Q6K => ("Q6_K", 256, 128 + 64 + 16 + 2),
            Self::Q8K => ("Q8_K", 256, 4 + 256 + 32),
            Self::Iq2Xxs => ("IQ2_XXS", 256, 2 + 64),
            Self::Iq2Xs => ("IQ2_XS", 256, 2 + 64 + 8),
            Self::Iq3Xxs => ("IQ3_XXS", 256, 2 + 96),
            Self::Iq1S => ("IQ1_S", 256, 2 + 32 + 16),
            Self::Iq4Nl => ("IQ4_NL", 32, 2 + 16),
            Self::Iq3S => ("IQ3_S", 256, 2 + 64 + 8 + 32 + 4),
            Self::Iq2S => ("IQ2_S", 256, 2 + 64 + 8 + 8),
            Self::Iq4Xs => ("IQ4_XS", 256, 2 + 2 + 4 + 128),
            Self::I8 => ("I8", 1, 1),
            Self::I16 => ("I16", 1, 2),
            Self::I32 => ("I32", 1, 4),
            Self::I64 => ("I64", 1, 8),
            Self::F64 => ("F64", 1, 8),
            Self::Iq1M => ("IQ1_M", 256, 32 + 16 + 8),
            Self::Bf16 => ("BF16", 1, 2),
            Self::Tq1_0 => ("TQ1_0", 256, 48 + 4 + 2),
            Self::Tq2_0 => ("TQ2_0", 256, 64 + 2),
            Self::Mxfp4 => ("MXFP4", 32, 1 + 16),
            Self::Nvfp4 => ("NVFP4", 64, 4 + 32),
            Self::Q1_0 => ("Q1_0", 128, 2 + 16),
            Self::Q2_0 => ("Q2_0", 64, 2 + 16),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

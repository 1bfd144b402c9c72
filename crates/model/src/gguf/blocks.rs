//! The blocks of quantised tensors: values out of each kind, and Q8_0 blocks out of values.
//!
//! Source: `dequantize_row_*` and `quantize_row_q8_0_ref` of ggml, as scalar code whose every operation is rounded on
//! its own; [`TensorType::dequantise`](super::TensorType::dequantise) lists the order.

use tensor::math::{bf16_to_f32, f16_to_f32, f32_to_f16};

/// Values in a Q8_0 block.
const Q8_0_LEN: usize = 32;

/// Bytes of a Q8_0 block.
const Q8_0_BYTES: usize = 34;

/// Quantises whole blocks of 32 values to Q8_0: an `f16` scale and 32 signed bytes each.
///
/// The scale is the largest magnitude over 127; a byte is the value times the scale's reciprocal (taken before the
/// scale is rounded to `f16`), rounded to the nearest integer and half away from zero. The error of a value is at most
/// half a scale plus the byte times the scale's rounding. Values too large for an `f16` scale give an infinite one, and
/// NaN counts as 0; callers check both. Where the reciprocal overflows, at magnitudes below 4e-37, bytes saturate, and
/// the scale is 0.
///
/// # Panics
/// If `values` is not a multiple of 32 or `out` not 34 bytes for each block.
pub fn quantise_q8_0(values: &[f32], out: &mut [u8]) {
    let (from, rest) = values.as_chunks::<Q8_0_LEN>();
    let (to, rest_out) = out.as_chunks_mut::<Q8_0_BYTES>();
    assert!(rest.is_empty() && rest_out.is_empty(), "{} values and {} bytes left over", rest.len(), rest_out.len());
    assert_eq!(from.len(), to.len(), "blocks of values, and of bytes");
    for (values, block) in from.iter().zip(to) {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        let reciprocal = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let (head, bytes) = block.split_at_mut(2);
        head.copy_from_slice(&f32_to_f16(scale).to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(values) {
            *byte = ((value * reciprocal).round() as i8).to_le_bytes()[0];
        }
    }
}

/// Turns each block of `BYTES` bytes into `LEN` values.
///
/// # Panics
/// If `data` or `out` is not a whole number of blocks, or not the same number.
pub(super) fn each<const BYTES: usize, const LEN: usize>(
    data: &[u8],
    out: &mut [f32],
    block_values: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (from, rest) = data.as_chunks::<BYTES>();
    let (to, rest_out) = out.as_chunks_mut::<LEN>();
    assert!(rest.is_empty() && rest_out.is_empty(), "{} bytes and {} values left over", rest.len(), rest_out.len());
    assert_eq!(from.len(), to.len(), "blocks of bytes, and of values");
    for (block, values) in from.iter().zip(to) {
        block_values(block, values);
    }
}

pub(super) fn f32(block: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*block);
}

pub(super) fn f16(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f16_to_f32(u16::from_le_bytes(*block));
}

pub(super) fn bf16(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = bf16_to_f32(u16::from_le_bytes(*block));
}

/// Scale, then 32 signed bytes.
pub(super) fn q8_0(block: &[u8; Q8_0_BYTES], out: &mut [f32; Q8_0_LEN]) {
    let scale = scale(block, 0);
    for (value, &byte) in out.iter_mut().zip(&block[2..]) {
        *value = signed(byte) * scale;
    }
}

/// Scale, then 16 bytes whose lower halves are values 0 to 15 and upper halves values 16 to 31, each plus 8.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = scale(block, 0);
    let (lower, upper) = out.split_at_mut(16);
    for ((low, high), &pair) in lower.iter_mut().zip(upper).zip(&block[2..]) {
        *low = (f32::from(pair & 15) - 8.0) * scale;
        *high = (f32::from(pair >> 4) - 8.0) * scale;
    }
}

/// Scale, smallest value, then 16 bytes as in Q4_0, without the 8.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, smallest) = (scale(block, 0), scale(block, 2));
    let (lower, upper) = out.split_at_mut(16);
    for ((low, high), &pair) in lower.iter_mut().zip(upper).zip(&block[4..]) {
        *low = f32::from(pair & 15) * scale + smallest;
        *high = f32::from(pair >> 4) * scale + smallest;
    }
}

/// Scale of the scales, scale of the offsets, 12 bytes with eight pairs of a scale and an offset, then four times 32
/// bytes whose lower halves are one part of 32 values and upper halves the next.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale_unit, offset_unit) = (scale(block, 0), scale(block, 2));
    let (packed, nibbles) = block[4..].split_at(12);
    for (part, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = q4_k_scale_and_offset(packed, part);
        let (scale, offset) = (scale_unit * f32::from(scale), offset_unit * f32::from(offset));
        let (bytes, shift) = (&nibbles[part / 2 * 32..][..32], part % 2 * 4);
        for (value, byte) in values.iter_mut().zip(bytes) {
            *value = scale * f32::from(byte >> shift & 15) - offset;
        }
    }
}

/// The lower four bits of all values in 128 bytes, their upper two bits in 64, 16 signed scales, the scale of the
/// scales.
///
/// Each half, of 128 values, has 64 bytes of lower bits and 32 of upper ones: the lower halves of the 64 are its first
/// 64 values, the upper halves the others; a byte of the 32 has two bits for one value of each quarter.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let unit = scale(block, 208);
    let (lower, rest) = block.split_at(128);
    let (upper, rest) = rest.split_at(64);
    let scales = &rest[..16];
    for (part, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        // A half has 128 values, in four parts of 32.
        let (half, quarter) = (part / 4, part % 4);
        let lower = &lower[half * 64 + quarter % 2 * 32..][..32];
        let upper = &upper[half * 32..][..32];
        for (index, value) in values.iter_mut().enumerate() {
            let bits = lower[index] >> (quarter / 2 * 4) & 15 | (upper[index] >> (quarter * 2) & 3) << 4;
            let scale = signed(scales[part * 2 + index / 16]);
            *value = unit * scale * (f32::from(bits) - 32.0);
        }
    }
}

/// The scale and the offset of one of eight parts, 6 bits each: the lower six bits of bytes 0 to 3 and 4 to 7 for the
/// first four parts; for the others four bits from bytes 8 to 11 and two from the top of the former.
pub(super) fn q4_k_scale_and_offset(packed: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        let low = packed[part + 4];
        (low & 15 | packed[part - 4] >> 6 << 4, low >> 4 | packed[part] >> 6 << 4)
    }
}

/// The `f16` at a position of a block.
pub(super) fn scale(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

pub(super) fn signed(byte: u8) -> f32 {
    f32::from(i8::from_le_bytes([byte]))
}

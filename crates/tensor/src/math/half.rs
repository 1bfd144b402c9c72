//! Numbers of 16 bits: IEEE 754 binary16 and bfloat16.
//!
//! Every `f16` and every bfloat16 is an `f32`, so reading is exact; writing rounds once, to nearest, ties to even.

/// Turns the bits of an IEEE 754 binary16 into the same number; a NaN stays a NaN.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    let magnitude = match exponent {
        // A multiple of 2^-24, exact because both factors are short.
        0 => (fraction as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        0x1f => 0x7f80_0000 | fraction << 13,
        // The exponent's bias is 15 here and 127 in an f32.
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// Turns a number into the bits of the nearest IEEE 754 binary16, ties to even.
///
/// From 65520 on the result is infinite, as the standard has it; every NaN becomes the one with bits `0x7e00` and its
/// sign.
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = if magnitude > 0x7f80_0000 {
        0x7e00
    } else if magnitude >= 0x4780_0000 {
        // 2^16 and more.
        0x7c00
    } else if magnitude >= 0x3880_0000 {
        // 2^-14 and more: drop 13 bits of the fraction; a carry goes on into the exponent, at the end up to infinity.
        let nearest = magnitude + 0x0fff + (magnitude >> 13 & 1);
        (nearest - 0x3800_0000) >> 13
    } else {
        // The last bit of 0.5 is worth 2^-24, as is that of a small f16: the addition rounds to it.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000
    };
    (bits >> 16 & 0x8000 | rounded) as u16
}

/// Turns the bits of a bfloat16, the upper half of an `f32`, into the same number.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

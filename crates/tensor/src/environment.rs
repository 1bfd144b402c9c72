//! The floating-point environment that the contract needs: subnormals kept, round to nearest even, a true fused multiply-add.

use std::hint::black_box;

/// A way in which this thread's floating-point unit deviates from the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FloatEnvironmentError {
    /// Results below the smallest normal number become zero.
    #[error("the floating-point unit flushes subnormal results to zero")]
    FlushToZero,
    /// Subnormal operands count as zero.
    #[error("the floating-point unit treats subnormal operands as zero")]
    DenormalsAreZero,
    /// Results are not rounded to nearest, ties to even.
    #[error("the floating-point unit does not round to nearest even")]
    RoundingMode,
    /// A multiply-add rounds twice.
    #[error("the multiply-add of this machine rounds twice")]
    UnfusedMultiplyAdd,
}

/// Checks that the calling thread computes floats as the contract demands.
///
/// # Errors
/// The first deviation found. A peer with one must not start: its results would differ from everybody's.
pub fn check_float_environment() -> Result<(), FloatEnvironmentError> {
    let smallest_normal = black_box(f32::MIN_POSITIVE);
    if black_box(smallest_normal * black_box(0.5)).to_bits() != 0x0040_0000 {
        return Err(FloatEnvironmentError::FlushToZero);
    }
    let smallest = black_box(f32::from_bits(1));
    if black_box(smallest * black_box(16_777_216.0)).to_bits() != 0x0080_0000 << 1 {
        return Err(FloatEnvironmentError::DenormalsAreZero);
    }
    let ulp = black_box(f32::EPSILON);
    let ties_down = black_box(1.0f32) + ulp * 0.5;
    let ties_up = black_box(1.0 + f32::EPSILON) + ulp * 0.5;
    let negative = -black_box(1.0f32) - ulp * 0.25;
    if ties_down != 1.0 || ties_up != 1.0 + 2.0 * f32::EPSILON || negative != -1.0 {
        return Err(FloatEnvironmentError::RoundingMode);
    }
    // (1 + e)(1 - e) - 1 = -e², which a rounded product loses.
    if black_box(1.0 + f32::EPSILON).mul_add(1.0 - f32::EPSILON, -1.0) != -(f32::EPSILON * f32::EPSILON) {
        return Err(FloatEnvironmentError::UnfusedMultiplyAdd);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_obeys_the_contract() {
        assert_eq!(check_float_environment(), Ok(()));
    }
}

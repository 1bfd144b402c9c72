//! Row reductions: 16 virtual lanes and one fixed tree, the same on every machine.
//!
//! Element `i` of a row belongs to lane `i mod 16`; each lane is a left fold over its elements; then lane `i` takes lane `i + 8`,
//! `i + 4`, `i + 2`, `i + 1`. Lanes of the last, short group take +0.

use crate::arch::{LANES, Lanes, Portable};
use crate::fault::slip_f32;
use crate::profile::{Profile, in_profile};

/// Sums a row by the contract's tree. Error at most `len / 16 + 4` roundings.
pub fn sum(x: &[f32]) -> f32 {
    sum_lanes(Portable::<true>, x)
}

/// Computes Σ x·y by the contract's tree; each fold step is rounded as the profile says.
///
/// # Panics
/// When the lengths differ.
pub fn dot(profile: Profile, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "dot of rows of different lengths");
    in_profile!(profile, FUSED => dot_lanes(Portable::<FUSED>, x, y))
}

#[inline(always)]
pub(crate) fn sum_lanes<S: Lanes>(s: S, x: &[f32]) -> f32 {
    let mut lanes = s.splat(0.0);
    for group in x.chunks(LANES) {
        lanes = s.add(lanes, s.load_or(group, 0.0));
    }
    slip_f32("row_sum", s.sum_lanes(lanes))
}

#[inline(always)]
pub(crate) fn dot_lanes<S: Lanes>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = s.splat(0.0);
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        lanes = s.mul_add(s.load_or(x, 0.0), s.load_or(y, 0.0), lanes);
    }
    slip_f32("row_dot", s.sum_lanes(lanes))
}

#[inline(always)]
pub(crate) fn max_lanes<S: Lanes>(s: S, x: &[f32]) -> f32 {
    let mut lanes = s.splat(f32::NEG_INFINITY);
    for group in x.chunks(LANES) {
        lanes = s.max(lanes, s.load_or(group, f32::NEG_INFINITY));
    }
    slip_f32("row_max", s.max_lanes(lanes))
}

//! One-ulp faults, to prove that the conformance suite finds them and names the kernel.
//!
//! Every kernel hands its result to [`slip`] (or one of its siblings) under its name. In the unit tests of this crate a thread can
//! arm one name: that kernel's result is then wrong by one unit in the last place. Everywhere else the calls are empty.

use crate::arch::Lanes;

#[cfg(test)]
thread_local! {
    static ARMED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Runs `work` while the kernel of this name is wrong by one unit in the last place, on this thread only.
#[cfg(test)]
pub(crate) fn with_fault<R>(kernel: &'static str, work: impl FnOnce() -> R) -> R {
    ARMED.set(Some(kernel));
    let result = work();
    ARMED.set(None);
    result
}

#[cfg(test)]
fn armed(kernel: &str) -> bool {
    ARMED.get() == Some(kernel)
}

/// Makes the middle value of a kernel's result wrong by one unit, when a test asked for it.
#[inline(always)]
pub(crate) fn slip(kernel: &str, out: &mut [f32]) {
    #[cfg(test)]
    if armed(kernel)
        && let middle = out.len() / 2
        && let Some(x) = out.get_mut(middle)
    {
        *x = f32::from_bits(x.to_bits() ^ 1);
    }
    let _ = (kernel, out);
}

/// As [`slip`], for a function of one f32.
#[inline(always)]
pub(crate) fn slip_f32(kernel: &str, x: f32) -> f32 {
    let mut out = [x];
    slip(kernel, &mut out);
    out[0]
}

/// As [`slip`], for a result in f64.
#[inline(always)]
pub(crate) fn slip_f64(kernel: &str, x: f64) -> f64 {
    #[cfg(test)]
    if armed(kernel) {
        return f64::from_bits(x.to_bits() ^ 1);
    }
    let _ = kernel;
    x
}

/// As [`slip`], for a decision.
#[inline(always)]
pub(crate) fn slip_bool(kernel: &str, x: bool) -> bool {
    #[cfg(test)]
    if armed(kernel) {
        return !x;
    }
    let _ = kernel;
    x
}

/// As [`slip`], for random bits.
#[inline(always)]
pub(crate) fn slip_u32(kernel: &str, x: u32) -> u32 {
    #[cfg(test)]
    if armed(kernel) {
        return x ^ 1;
    }
    let _ = kernel;
    x
}

/// As [`slip`], for a vector.
#[inline(always)]
pub(crate) fn slip_lanes<S: Lanes>(s: S, kernel: &str, x: S::F) -> S::F {
    #[cfg(test)]
    if armed(kernel) {
        let mut lanes = s.to_array(x);
        slip(kernel, &mut lanes[..S::WIDTH]);
        return s.load(&lanes);
    }
    let _ = (s, kernel);
    x
}

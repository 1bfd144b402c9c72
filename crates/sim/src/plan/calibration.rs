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
    /// Seconds of processor for a parameter at the end of a round, besides the products of the step: gradient, residual, payload, aggregate,
    /// the new state as bytes, its hash and its file.
    pub parameter_s: f64,
    /// What messages get of a link's rate, from 0 to 1: the rest is headers, acknowledgements and congestion control.
    pub link: f64,
    /// Largest error of a run that the constants were not fitted on, as a fraction of its measured tokens per second.
    pub error_max: f64,
    /// Mean error of those runs.
    pub error_mean: f64,
    /// Runs that the constants were fitted on, and others that the errors are of.
    pub runs: (u32, u32),
}

impl Calibration {
    /// What was measured on 2026-11-28 on two cores of 117 GFLOP/s each: the efficiency by training the wider of two models on all cores,
    /// the other constants fitted on six clusters, the errors those of eight others.
    pub const MEASURED: Self = Self {
        efficiency: 0.872,
        pass_s: 7.114e-3,
        parameter_s: 123.7e-9,
        link: 0.736,
        error_max: 0.138,
        error_mean: 0.083,
        runs: (6, 8),
    };
}

//! The settings of a pipeline and its fixed bounds.

use wire::stage::STAGE_BYTES_MAX;
use wire::transaction::RECEIPTS_PER_COMMITMENT_MAX;

/// Replicas of the next stage that are asked whether they know a unit, before it is handed to one of them anew.
pub const QUESTIONS_MAX: usize = 16;
/// Calls for one unit that one connection may make in a [`PipelineConfig::timeout_us_min`]. A caller whose unit nobody can take tries again
/// less and less often, but may have to all round.
pub const CALLS_PER_UNIT_MAX: u32 = 16;
/// Different inputs that are worked on for one unit, each of another caller: more than one means that somebody lies.
pub const INPUTS_PER_UNIT_MAX: usize = 2;
/// Replicas of the next stage that a peer connects with.
pub const ROUTES_MAX: usize = 64;
/// Members of stage 0 before the own place, in the order of ids, whose units a peer may have to take over.
pub const WATCHED_MAX: usize = 32;
/// Refusals in one [`PipelineConfig::timeout_us_min`] after which a caller is no longer answered, as a multiple of
/// [`PipelineConfig::window_max`].
pub const REFUSALS_PER_WINDOW_MAX: u32 = 8;

/// The settings of a [`crate::pipeline::Pipeline`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Most units between forward and backward at one time, at least 1.
    pub window_max: u32,
    /// Most calls of others that wait for a task; more are refused as busy.
    pub calls_queued_max: u32,
    /// Most units that are counted in one round: as many as one commitment has receipts.
    pub units_max: u32,
    /// Most bytes of an input, an output or a gradient. The recipe knows: the closer, the more units fit in memory.
    pub message_bytes_max: u64,
    /// Most bytes of inputs, outputs and gradients held, at least five messages.
    pub held_bytes_max: u64,
    /// Least time until a call counts as not answered, per stage that has to answer, in microseconds.
    pub timeout_us_min: u64,
    /// Time until a replica that refused is called again, in microseconds.
    pub retry_us: u64,
    /// Time that a replica that answered may be disconnected until its units are done anew, in microseconds.
    pub redo_us: u64,
    /// Time that a member of stage 0 may be disconnected until its units are taken over, in microseconds.
    pub takeover_us: u64,
}

impl Default for PipelineConfig {
    /// Settings for the internet: time-outs from 10 s, units done anew after 2 s and taken over after 5 s.
    fn default() -> Self {
        Self {
            window_max: 64,
            calls_queued_max: 16,
            units_max: u32::try_from(RECEIPTS_PER_COMMITMENT_MAX).expect("a small constant"),
            message_bytes_max: STAGE_BYTES_MAX as u64,
            held_bytes_max: 2 << 30,
            timeout_us_min: 10_000_000,
            retry_us: 250_000,
            redo_us: 2_000_000,
            takeover_us: 5_000_000,
        }
    }
}

impl PipelineConfig {
    /// Panics when the settings allow no work at all.
    pub(crate) fn check(&self) {
        let (held, message) = (self.held_bytes_max, self.message_bytes_max);
        assert!(message >= 1 && held / 5 >= message, "{held} bytes held must be five messages of {message}");
        assert!(
            self.window_max >= 1 && self.calls_queued_max >= 1 && self.units_max >= 1,
            "no room for work: {self:?}"
        );
    }
}

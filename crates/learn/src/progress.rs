//! What a run tells about itself as it goes.

/// One round of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Rounds done.
    pub round: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Mean loss over the round's tokens, nats per token.
    pub training_loss: f64,
    /// Held-out loss, where it was measured.
    pub heldout_loss: Option<f64>,
    /// Bytes of all payloads of this round; 0 without a swarm.
    pub payload_bytes: u64,
}

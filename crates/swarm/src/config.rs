//! What a peer is told when it is made.

use wire::{Block, Charter, OperatorCertificate, PeerId, Signed, Transaction, Verified};

use crate::checked::CheckedBlocks;
use crate::job::ModelPoint;
use crate::pipeline::PipelineConfig;

/// The fixed settings of a peer.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The run's terms.
    pub charter: Verified<Charter>,
    /// Peers that the shell knows how to dial; the own id and duplicates are harmless.
    pub peers: Vec<PeerId>,
    /// Whether this peer trains. Otherwise it only follows the run, and serves what it has.
    pub trains: bool,
    /// Whether it begins as after [`crate::Input::Pause`].
    pub paused: bool,
    /// The stage in which this peer takes part: one of the charter's.
    pub stage: u16,
    /// The other stages in which this machine can take part: it moves to one of them when the ledger advises it.
    pub other_stages: Vec<u16>,
    /// Who runs this peer, when that is not its own key.
    pub operator: Option<Signed<OperatorCertificate>>,
    /// Whether the own state needs the payloads of the neighbouring stages as well.
    pub neighbour_payloads: bool,
    /// The settings of the pipeline, in a run of several stages.
    pub pipeline: PipelineConfig,
    /// Least time between two blocks of a validator, in microseconds.
    pub block_interval_us: u64,
    /// First delay before anything is tried again, in microseconds; doubles with every failure.
    pub retry_us: u64,
    /// Longest delay before anything is tried again, in microseconds.
    pub retry_us_max: u64,
    /// Blocks whose signatures were checked. Peers of one process may share it, so that each block is checked once.
    pub checked: CheckedBlocks,
}

impl PeerConfig {
    /// Settings for a local network: blocks every 50 ms, retries after 1 s to 30 s.
    pub fn new(charter: Verified<Charter>, peers: Vec<PeerId>) -> Self {
        Self {
            charter,
            peers,
            trains: true,
            paused: false,
            stage: 0,
            other_stages: Vec::new(),
            operator: None,
            neighbour_payloads: false,
            pipeline: PipelineConfig::default(),
            block_interval_us: 50_000,
            retry_us: 1_000_000,
            retry_us_max: 30_000_000,
            checked: CheckedBlocks::default(),
        }
    }
}

/// What survived the peer's last life: everything that [`crate::Record`] stored, and the stored model.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// All blocks, from height 0 on.
    pub blocks: Vec<Block>,
    /// The stored state, when there is one. A first start may leave it out: the peer then asks for round 0 by
    /// [`crate::Job::LoadState`].
    pub model: Option<ModelPoint>,
    /// The newest own transactions; the ones that are settled by now are harmless.
    pub outbox: Vec<Signed<Transaction>>,
}

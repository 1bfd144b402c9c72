//! What a peer says about itself, to the cluster that it is part of and, as a line of JSON, to a parent process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ledger::{Account, Ledger, Totals};
use serde::{Deserialize, Serialize};
use swarm::Activity;
use wire::{Hash, PeerId, RunId};

use crate::member::Failure;
use crate::time::Spent;
use crate::transport::{Path, Traffic};
use crate::view::{FaultView, PeerActivity};

/// A closed round, as every ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundReport {
    /// The round.
    pub round: u64,
    /// Tokens trained on up to its end.
    pub tokens: u64,
    /// Mean loss over the round's tokens, nats per token.
    pub training_loss: Option<f64>,
    /// Bytes of its payloads.
    pub payload_bytes: u64,
    /// How many payloads.
    pub payloads: u64,
    /// When it opened, in microseconds since the Unix epoch.
    pub opened_us: u64,
    /// When it closed, in microseconds since the Unix epoch.
    pub closed_us: u64,
}

/// The model that a peer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// The round that starts from the state.
    pub round: u64,
    /// The state's root, which is the name of its blob.
    pub state_root: Hash,
}

/// What a parent knows of the processes that a peer has, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives {
    /// How often it was started again.
    pub restarts: u64,
    /// Its process' number; none while it has none, or is a task of this process.
    pub process: Option<u32>,
    /// Whether its process died, and it gets another.
    pub is_away: bool,
    /// Why it gets no other, when it failed.
    pub lost: Option<String>,
}

/// A peer at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id.
    pub id: PeerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it does.
    pub activity: PeerActivity,
    /// Peers that it is connected to.
    pub connected: u64,
    /// The open round, when there is one.
    pub open_round: Option<u64>,
    /// How many steps smaller than the recipe says the numbers between each stage and the next are in it.
    #[serde(default)]
    pub coarser: Vec<u8>,
    /// Its stage; 0 when every peer holds the whole model.
    pub stage: u16,
    /// The model, or the stage of it, when it has one.
    pub model: Option<ModelStatus>,
    /// The newest state that its ledger has agreed roots of, in every stage.
    pub agreed: Option<AgreedState>,
    /// Whether the run is complete and its final state is here.
    pub finished: bool,
    /// Why it stopped taking part, when it did.
    pub halted: Option<Failure>,
    /// Why the last job failed that is to be tried again.
    pub last_failure: Option<String>,
    /// Blocks.
    pub height: u64,
    /// Root of its ledger.
    pub ledger_root: Hash,
    /// The ledger's totals.
    pub totals: Totals,
    /// The ledger's accounts, ordered by peer.
    pub accounts: Vec<Account>,
    /// Bytes over all its connections, headers included.
    pub traffic: Traffic,
    /// Of these, those to and from other machines.
    #[serde(default)]
    pub outside: Traffic,
    /// Which way packets to each connected peer take.
    #[serde(default)]
    pub paths: BTreeMap<PeerId, Path>,
    /// The most memory that it took, when it has a process of its own and the system says so.
    pub memory_peak_bytes: Option<u64>,
    /// Where its time went since the first round opened in this process.
    pub spent: Spent,
    /// Tokens it trained on in this process.
    pub trained_tokens: u64,
    /// Seconds it trained in this process.
    pub trained_seconds: f64,
    /// Faults it recorded, newest last, at most 100.
    pub faults: Vec<FaultView>,
    /// The closed rounds, oldest first. Left out of the JSON: rounds travel in lines of their own.
    #[serde(skip)]
    pub rounds: Arc<Vec<RoundReport>>,
    /// Its processes. Not in the JSON: whoever started them knows.
    #[serde(skip)]
    pub lives: Lives,
}

impl PeerStatus {
    /// That of a peer that has not opened its directory yet.
    pub(crate) fn blank(id: PeerId, address: SocketAddr) -> Self {
        let run = RunId(Hash::default());
        Self {
            id,
            address,
            activity: Default::default(),
            connected: 0,
            open_round: None,
            coarser: Vec::new(),
            stage: 0,
            model: None,
            agreed: None,
            finished: false,
            halted: None,
            last_failure: None,
            height: 0,
            ledger_root: Hash::default(),
            totals: Totals { run, supply: 0, tokens: 0, receipts: 0, rounds: 0, history: Hash::default() },
            accounts: Vec::new(),
            traffic: Traffic::default(),
            outside: Traffic::default(),
            paths: BTreeMap::new(),
            memory_peak_bytes: None,
            spent: Default::default(),
            trained_tokens: 0,
            trained_seconds: 0.0,
            faults: Vec::new(),
            rounds: Arc::default(),
            lives: Lives::default(),
        }
    }
}

/// A state with an agreed root for every stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreedState {
    /// The round that starts from it.
    pub round: u64,
    /// The stages' roots, in order.
    pub roots: Vec<Hash>,
}

impl AgreedState {
    /// The newest one of a ledger.
    pub(crate) fn newest(ledger: &Ledger) -> Option<Self> {
        let open = ledger.round()?;
        let roots: Option<Vec<Hash>> = open.state_roots.iter().copied().collect();
        let closed = || ledger.recent().next_back().map(|set| Self { round: set.round, roots: set.state_in.clone() });
        roots.map(|roots| Self { round: open.round, roots }).or_else(closed)
    }

    /// The state as one: the root over the stages.
    pub(crate) fn model(&self) -> ModelStatus {
        ModelStatus { round: self.round, state_root: wire::run_root(&self.roots) }
    }
}

impl PeerStatus {
    /// The account of a peer.
    pub fn account(&self, peer: PeerId) -> Option<&Account> {
        self.accounts.iter().find(|account| account.peer == peer)
    }
}

/// What people see of a protocol activity.
pub(crate) fn activity_view(activity: Activity, connected: bool) -> PeerActivity {
    match activity {
        Activity::Halted => PeerActivity::Offline,
        Activity::Finished => PeerActivity::Done,
        Activity::Paused => PeerActivity::Paused,
        Activity::Training { .. } => PeerActivity::Training,
        Activity::CatchingUp { .. } => PeerActivity::Fetching,
        Activity::Applying { .. } => PeerActivity::Applying,
        Activity::WaitingForRound { .. } => PeerActivity::Waiting,
        Activity::WaitingForMembers { .. } if connected => PeerActivity::Joining,
        Activity::WaitingForMembers { .. } => PeerActivity::Offline,
    }
}

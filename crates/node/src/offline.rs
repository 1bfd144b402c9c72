//! What a data directory holds when nothing runs in it: the newest checkpoint, the last picture, and pieces.

use std::path::PathBuf;
use std::sync::Arc;

use ledger::{Ledger, Piece};
use model::Pretrained;
use wire::{Block, Hash};

use crate::Checkpoint;
use crate::home::{Home, RunHome};
use crate::observe::{Observed, Summary, blob_paths, read_checkpoint, read_states};
use crate::state::{ModelState, Parts};
use crate::status::AgreedState;
use crate::store::{Store, StoreError};
use crate::view::{NetState, PeerActivity};

/// A run's model for other programs.
#[derive(Debug)]
pub struct Exported {
    /// Rounds that led to it.
    pub round: u64,
    /// Root of the state that it is made of.
    pub state_root: Hash,
    /// Whether there were learned bases between its stages, which are left out: the layers alone compute something else than the run's
    /// model, as far as the bases lose something.
    pub has_bases: bool,
    /// The model.
    pub model: Pretrained,
}

/// Refuses to put stages together, or to pass weights on, while the charter does not open them.
pub(crate) fn check_open(ledger: &Ledger) -> Result<(), StoreError> {
    match ledger.weights_are_open() {
        true => Ok(()),
        false => Err(StoreError::WeightsClosed { release: ledger.charter().release, rounds: ledger.totals().rounds }),
    }
}

/// A run at rest: the one that was started last, unless another is named.
#[derive(Debug)]
pub struct Saved {
    run: RunHome,
    /// Whose first directory it is: the user's key, which need not be the validator's.
    owner: wire::PeerId,
}

impl Saved {
    /// The newest run of a data directory; none when no run was ever started in it.
    ///
    /// # Errors
    /// [`StoreError`] when its files are damaged or cannot be read.
    pub fn newest(home: &Home) -> Result<Option<Self>, StoreError> {
        home.newest_run()?.map(|run| Self::open(home, run)).transpose()
    }

    /// The run.
    pub fn run(&self) -> &RunHome {
        &self.run
    }

    /// The run whose id begins with `beginning`; none when there is no such run, or there are several.
    ///
    /// # Errors
    /// [`StoreError`] when its files are damaged or cannot be read.
    pub fn of_run(home: &Home, beginning: &str) -> Result<Option<Self>, StoreError> {
        home.run(beginning)?.map(|run| Self::open(home, run)).transpose()
    }

    fn open(home: &Home, run: RunHome) -> Result<Self, StoreError> {
        Ok(Self { run, owner: home.identity(1)?.id() })
    }

    /// The newest state that peer 1 holds, as a model to serve; none before it made the first.
    ///
    /// # Errors
    /// [`StoreError`] when it is damaged, has no form without stages, its stages may not be put together, or the directory is in use.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let store = self.store()?;
        let Some(point) = store.point()? else { return Ok(None) };
        let tokenizer = Arc::new(self.run.tokenizer()?);
        let (parts, charter) = (Parts::of(self.run.recipe()), &self.run.charter().body);
        let stages = parts.stages_len();
        let newest = match stages {
            1 => Some(AgreedState { round: point.round, roots: vec![point.state_root] }),
            _ => {
                let ledger = self.ledger(&store)?.0;
                check_open(&ledger)?;
                AgreedState::newest(&ledger)
            }
        };
        let Some(state) = newest else { return Ok(None) };
        let blobs = self.blob_paths(stages);
        read_checkpoint(&parts, self.run.recipe().model, &blobs, &state, &tokenizer, &charter.name).map(Some)
    }

    /// The newest state that the ledger agreed on, as a model for other programs, put together from its stages; none before there is one.
    ///
    /// # Errors
    /// [`StoreError::WeightsClosed`] while the charter does not open the weights; another when blobs are missing or damaged, or the
    /// directory is in use.
    pub fn export(&self) -> Result<Option<Exported>, StoreError> {
        let ledger = self.ledger(&self.store()?)?.0;
        check_open(&ledger)?;
        let parts = Parts::of(self.run.recipe());
        let Some(state) = AgreedState::newest(&ledger) else { return Ok(None) };
        // Round 0 starts from what the recipe makes, which nobody stores.
        let states = match state.round {
            0 => (0..parts.stages_len()).map(|stage| ModelState::genesis(&parts, stage)).collect(),
            _ => read_states(&parts, &self.blob_paths(parts.stages_len()), &state)?,
        };
        let params = (0..).zip(states).flat_map(|(stage, state)| state.into_parameters(&parts, stage)).collect();
        let (name, config) = (self.run.charter().body.name.clone(), self.run.recipe().model);
        let model = Pretrained::trained(name, config, params, self.run.tokenizer()?);
        Ok(Some(Exported {
            round: state.round,
            state_root: state.model().state_root,
            has_bases: !parts.is_plain(),
            model,
        }))
    }

    /// Where the local peers of each stage keep their blobs.
    fn blob_paths(&self, stages: u16) -> Vec<Vec<PathBuf>> {
        let peers = (1..).take_while(|&number| self.run.peer_path(number).is_dir()).count();
        (0..stages).map(|stage| blob_paths(&self.run, stage, stages, peers)).collect()
    }

    /// The last picture of the network, with everybody offline.
    ///
    /// # Errors
    /// [`StoreError`] when it is damaged or cannot be read.
    pub fn state(&self) -> Result<NetState, StoreError> {
        let observed: Observed = self.run.observed()?.unwrap_or_default();
        let mut state = observed.state;
        state.version = env!("CARGO_PKG_VERSION").to_owned();
        for peer in &mut state.peers {
            peer.activity = PeerActivity::Offline;
            peer.tokens_per_second = 0.0;
        }
        Ok(state)
    }

    /// The summary, when the run is complete.
    ///
    /// # Errors
    /// [`StoreError`] when it is damaged or cannot be read.
    pub fn summary(&self) -> Result<Option<Summary>, StoreError> {
        self.run.summary()
    }

    /// The ids of the local peers that have an account, by number from 1, as far as their directories tell.
    ///
    /// # Errors
    /// [`StoreError`] when a key file is damaged or cannot be read.
    pub fn local_peers(&self, home: &Home) -> Result<Vec<wire::PeerId>, StoreError> {
        let numbers = (1..).take_while(|&number| self.run.peer_path(number).is_dir());
        numbers.map(|number| home.identity(number).map(|identity| identity.id())).collect()
    }

    /// The piece of a peer, from peer 1's blocks; none when it has no account.
    ///
    /// # Errors
    /// [`StoreError`] when the blocks are damaged, or the directory is in use.
    pub fn piece(&self, peer: wire::PeerId) -> Result<Option<Piece>, StoreError> {
        let (ledger, blocks) = self.records()?;
        let receipts = ledger.paid_receipts(&peer, &blocks);
        Ok(ledger.piece(&peer, receipts))
    }

    /// Peer 1's ledger, and the blocks that it follows from.
    ///
    /// # Errors
    /// [`StoreError`] when the blocks are damaged, or the directory is in use.
    pub fn records(&self) -> Result<(Ledger, Vec<Block>), StoreError> {
        self.ledger(&self.store()?)
    }

    fn ledger(&self, store: &Store) -> Result<(Ledger, Vec<Block>), StoreError> {
        let blocks = store.blocks()?;
        let mut ledger = Ledger::new(self.run.charter());
        for block in &blocks {
            ledger.apply(block).map_err(|error| StoreError::corrupt(store.directory(), error.to_string()))?;
        }
        Ok((ledger, blocks))
    }

    fn store(&self) -> Result<Store, StoreError> {
        Store::open(&self.run.peer_path(1), self.run.charter().body.run_id(), self.owner)
    }
}

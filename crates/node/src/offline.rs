//! What a data directory holds when nothing runs in it: the newest checkpoint, the last picture, and pieces.

use std::sync::Arc;

use ledger::{Ledger, Piece};

use crate::Checkpoint;
use crate::home::{Home, RunHome};
use crate::observe::{Observed, Summary, blobs_path, read_checkpoint};
use crate::store::{Store, StoreError};
use crate::view::{NetState, PeerActivity};

/// The run that was started last, at rest.
#[derive(Debug)]
pub struct Saved {
    run: RunHome,
}

impl Saved {
    /// The newest run of a data directory; none when no run was ever started in it.
    ///
    /// # Errors
    /// [`StoreError`] when its files are damaged or cannot be read.
    pub fn newest(home: &Home) -> Result<Option<Self>, StoreError> {
        Ok(home.newest_run()?.map(|run| Self { run }))
    }

    /// The run.
    pub fn run(&self) -> &RunHome {
        &self.run
    }

    /// The newest state that peer 1 holds, as a model to serve; none before it made the first.
    ///
    /// # Errors
    /// [`StoreError`] when it is damaged, or the directory is in use.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let store = self.store()?;
        let Some(point) = store.point()? else { return Ok(None) };
        let tokenizer = Arc::new(self.run.tokenizer()?);
        let (blobs, name) = (blobs_path(&self.run), &self.run.charter().body.name);
        read_checkpoint(&blobs, point.state_root, self.run.recipe(), &tokenizer, name).map(Some)
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
        let store = self.store()?;
        let blocks = store.blocks()?;
        let mut ledger = Ledger::new(self.run.charter());
        for block in &blocks {
            ledger.apply(block).map_err(|error| StoreError::corrupt(store.directory(), error.to_string()))?;
        }
        let receipts = ledger.paid_receipts(&peer, &blocks);
        Ok(ledger.piece(&peer, receipts))
    }

    fn store(&self) -> Result<Store, StoreError> {
        let charter = &self.run.charter().body;
        let validator = charter.validators[0];
        Store::open(&self.run.peer_path(1), charter.run_id(), validator)
    }
}

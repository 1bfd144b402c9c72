//! What a peer keeps between starts: one directory, one redb database in it, and sealed files for what is large.
//!
//! A directory belongs to one process at a time (a lock file) and to one run (its id is in the database). Blocks, own
//! transactions, own receipts, faults and the pointers to the model's files live in the database; every call is one
//! transaction, flushed to disk before the call returns. The model's state is a blob, named by its root; the residuals
//! are sealed files. A file is written before the transaction that points to it, and removed after the one that no
//! longer does, so that a crash at any moment leaves either the old point or the new one, whole.
//!
//! Overflow: the oldest faults are dropped beyond [`FAULTS_MAX`], the oldest outgoing transactions beyond [`OUTBOX_MAX`].

pub mod error;
pub mod file;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use wire::{Action, Block, Hash, PeerId, Receipt, RunId, Signable, Signed, Transaction};

pub use error::StoreError;

use crate::view::FaultView;

/// The version of the layout.
pub const FORMAT: u32 = 3;
/// Most faults kept.
pub const FAULTS_MAX: u64 = 1000;
/// Most outgoing transactions kept.
pub const OUTBOX_MAX: u64 = 64;

const DATABASE: &str = "node.redb";
/// Little: what is stored is read at the start, and only written from there on.
const CACHE_BYTES: usize = 1 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
const RECEIPTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("receipts");
const FAULTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("faults");

const FORMAT_KEY: &str = "format";
const RUN_KEY: &str = "run";
const OWNER_KEY: &str = "peer";
const POINT_KEY: &str = "point";
const PENDING_KEY: &str = "pending";
const STAGE_KEY: &str = "stage";

/// A stored residual: a sealed file beside the database.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ResidualFile {
    /// The file's name in the directory.
    pub name: String,
    /// BLAKE3 hash of its body.
    pub root: Hash,
}

/// Where the model stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Point {
    /// The round that starts from the state.
    pub round: u64,
    /// The state's root: the name of its blob.
    pub state_root: Hash,
    /// The error-feedback residual; none before the first own payload.
    pub residual: Option<ResidualFile>,
}

/// The stored result of one unit.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PendingUnit {
    /// The unit's place in the round.
    pub index: u32,
    /// The unit's name.
    pub unit: Hash,
    /// Hash of the token batches.
    pub data_root: Hash,
    /// Hash over the inner steps.
    pub trace_root: Hash,
    /// Hash of the pseudo-gradient.
    pub output_root: Hash,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean training loss in millionths of a nat per token.
    pub loss_micronats: u64,
}

/// Work that is done but whose round is not applied yet.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Pending {
    /// The round.
    pub round: u64,
    /// The state that the units started from.
    pub state_root: Hash,
    /// The payload's blob.
    pub payload: Hash,
    /// Its size in bytes.
    pub payload_bytes: u64,
    /// What is left after the payload.
    pub residual: ResidualFile,
    /// The units' results.
    pub units: Vec<PendingUnit>,
}

/// A peer's directory, open.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    database: Database,
    owner: PeerId,
    _lock: DirectoryLock,
}

impl Store {
    /// Opens a peer's directory for a run, and makes it when it is not there.
    ///
    /// # Errors
    /// [`StoreError`]: the directory is in use, belongs to another run or peer, has another format, is damaged, or cannot
    /// be written.
    pub fn open(directory: &Path, run: RunId, owner: PeerId) -> Result<Self, StoreError> {
        file::make_directory(directory)?;
        let lock = DirectoryLock::take(directory)?;
        file::remove_partial_files(directory)?;
        let path = directory.join(DATABASE);
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| StoreError::database(&path, error.into()))?;
        let store = Self { directory: directory.to_owned(), database, owner, _lock: lock };
        store.claim(run)?;
        Ok(store)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stores a block under its height. Own transactions in it leave the outbox; own receipts in it are kept.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub fn put_block(&self, block: &Block) -> Result<(), StoreError> {
        self.write(|transaction| {
            let height = block.header.body.height;
            transaction.open_table(BLOCKS)?.insert(height, wire::encode(block).as_slice())?;
            let own = || block.transactions.iter().filter(|signed| signed.signer == self.owner);
            let mut outbox = transaction.open_table(OUTBOX)?;
            let settled: Vec<Hash> = own().map(|signed| signed.body.digest()).collect();
            if !settled.is_empty() {
                outbox.retain(|_, bytes| {
                    wire::decode::<Signed<Transaction>>(bytes).is_ok_and(|kept| !settled.contains(&kept.body.digest()))
                })?;
            }
            let mut receipts = transaction.open_table(RECEIPTS)?;
            for signed in own() {
                let Action::Commit(commitment) = &signed.body.action else { continue };
                for receipt in &commitment.receipts {
                    receipts.insert(receipt.body.counter, wire::encode(receipt).as_slice())?;
                }
            }
            Ok(())
        })
    }

    /// Stores an own transaction until a block has it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub fn put_outgoing(&self, signed: &Signed<Transaction>) -> Result<(), StoreError> {
        self.write(|transaction| append(transaction, OUTBOX, &wire::encode(signed), OUTBOX_MAX))
    }

    /// Records a fault.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub fn put_fault(&self, fault: &FaultView) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(fault).expect("a fault is plain data");
        self.write(|transaction| append(transaction, FAULTS, &bytes, FAULTS_MAX))
    }

    /// Stores where the model stands, and whether work is pending, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub fn put_model(&self, point: &Point, pending: Option<&Pending>) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert(POINT_KEY, to_bytes(point).as_slice())?;
            match pending {
                Some(pending) => meta.insert(PENDING_KEY, to_bytes(pending).as_slice())?,
                None => meta.remove(PENDING_KEY)?,
            };
            Ok(())
        })
    }

    /// Changes the stage: where the model stood in the old one, and work for it, count no more.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub fn set_stage(&self, stage: u16) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.remove(POINT_KEY)?;
            meta.remove(PENDING_KEY)?;
            meta.insert(STAGE_KEY, stage.to_le_bytes().as_slice())?;
            Ok(())
        })
    }

    /// The stage that what is stored belongs to; `first` when none was ever noted, which is noted then.
    ///
    /// # Errors
    /// As [`Store::blocks`], or when it cannot be written.
    pub fn stage_or(&self, first: u16) -> Result<u16, StoreError> {
        let Some(bytes) = self.meta(STAGE_KEY)? else {
            self.write(|transaction| {
                transaction.open_table(META)?.insert(STAGE_KEY, first.to_le_bytes().as_slice())?;
                Ok(())
            })?;
            return Ok(first);
        };
        let bytes = bytes.try_into().map_err(|_| self.corrupt("the stage has another size"))?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// All blocks, by height, from 0 to the last before a gap.
    ///
    /// # Errors
    /// [`StoreError`] when one does not decode, or the database cannot be read.
    pub fn blocks(&self) -> Result<Vec<Block>, StoreError> {
        let mut blocks: Vec<Block> = Vec::new();
        self.each(BLOCKS, |height, bytes| {
            if height == blocks.len() as u64 {
                blocks.push(self.decode(bytes)?);
            }
            Ok(())
        })?;
        Ok(blocks)
    }

    /// The own transactions that no stored block has, oldest first.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub fn outbox(&self) -> Result<Vec<Signed<Transaction>>, StoreError> {
        let mut outbox = Vec::new();
        self.each(OUTBOX, |_, bytes| {
            outbox.push(self.decode(bytes)?);
            Ok(())
        })?;
        Ok(outbox)
    }

    /// The own receipts that are in blocks, by counter.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub fn receipts(&self) -> Result<Vec<Signed<Receipt>>, StoreError> {
        let mut receipts = Vec::new();
        self.each(RECEIPTS, |_, bytes| {
            receipts.push(self.decode(bytes)?);
            Ok(())
        })?;
        Ok(receipts)
    }

    /// The recorded faults, oldest first.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub fn faults(&self) -> Result<Vec<FaultView>, StoreError> {
        let mut faults = Vec::new();
        self.each(FAULTS, |_, bytes| {
            faults.push(serde_json::from_slice(bytes).map_err(|error| self.corrupt(error.to_string()))?);
            Ok(())
        })?;
        Ok(faults)
    }

    /// Where the model stands, when that was stored.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub fn point(&self) -> Result<Option<Point>, StoreError> {
        self.meta(POINT_KEY)?.map(|bytes| self.value_of(&bytes)).transpose()
    }

    /// The pending work, when there is some.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub fn pending(&self) -> Result<Option<Pending>, StoreError> {
        self.meta(PENDING_KEY)?.map(|bytes| self.value_of(&bytes)).transpose()
    }

    /// Writes a residual to its own file; it counts once a point or pending work names it.
    ///
    /// # Errors
    /// [`StoreError`]; no file is left then.
    pub fn write_residual(&self, label: &str, body: &[u8]) -> Result<ResidualFile, StoreError> {
        let root = Hash::of(body);
        let name = format!("residual-{label}-{}.bin", root.short());
        file::write_sealed(&self.directory.join(&name), body)?;
        Ok(ResidualFile { name, root })
    }

    /// Reads a residual.
    ///
    /// # Errors
    /// [`StoreError`] when the file is missing, damaged, or not the one that was named.
    pub fn read_residual(&self, residual: &ResidualFile) -> Result<Vec<u8>, StoreError> {
        let path = self.directory.join(&residual.name);
        let body = file::read_sealed(&path)?;
        if Hash::of(&body) != residual.root {
            return Err(StoreError::corrupt(&path, "it holds another residual than the database names"));
        }
        Ok(body)
    }

    /// Removes residual files that neither the point nor the pending work names.
    ///
    /// # Errors
    /// [`StoreError`] when the directory or the database cannot be read.
    pub fn sweep_residuals(&self) -> Result<(), StoreError> {
        let point = self.point()?.and_then(|point| point.residual);
        let named = [point, self.pending()?.map(|pending| pending.residual)];
        for entry in std::fs::read_dir(&self.directory).map_err(|error| StoreError::io(&self.directory, error))? {
            let entry = entry.map_err(|error| StoreError::io(&self.directory, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("residual-") && !named.iter().flatten().any(|residual| residual.name == name) {
                file::remove(&entry.path());
            }
        }
        Ok(())
    }

    fn claim(&self, run: RunId) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(BLOCKS)?;
            transaction.open_table(OUTBOX)?;
            transaction.open_table(RECEIPTS)?;
            transaction.open_table(FAULTS)?;
            let mut meta = transaction.open_table(META)?;
            if meta.get(FORMAT_KEY)?.is_none() {
                meta.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
                meta.insert(RUN_KEY, run.0.0.as_slice())?;
                meta.insert(OWNER_KEY, self.owner.0.as_slice())?;
            }
            Ok(())
        })?;
        let format = self.meta(FORMAT_KEY)?.unwrap_or_default();
        if format != FORMAT.to_le_bytes() {
            let found = format.try_into().map(u32::from_le_bytes).unwrap_or_default();
            return Err(StoreError::Format { path: self.path(), found, expected: FORMAT });
        }
        if self.meta(RUN_KEY)?.as_deref() != Some(run.0.0.as_slice()) {
            return Err(StoreError::OtherRun { path: self.path() });
        }
        if self.meta(OWNER_KEY)?.as_deref() != Some(self.owner.0.as_slice()) {
            return Err(StoreError::OtherPeer { path: self.path() });
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }

    fn corrupt(&self, detail: impl Into<String>) -> StoreError {
        StoreError::corrupt(&self.path(), detail)
    }

    fn decode<T: wire::Wire>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        wire::decode(bytes).map_err(|error| self.corrupt(error.to_string()))
    }

    fn value_of<T: BorshDeserialize>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        T::try_from_slice(bytes).map_err(|error| self.corrupt(error.to_string()))
    }

    fn write(&self, run: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        let attempt = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            run(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        attempt().map_err(|error| StoreError::database(&self.path(), error))
    }

    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let attempt = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(META)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        attempt().map_err(|error| StoreError::database(&self.path(), error))
    }

    fn each(
        &self,
        table: TableDefinition<'_, u64, &'static [u8]>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |error: redb::Error| StoreError::database(&self.path(), error);
        let transaction = self.database.begin_read().map_err(|error| failed(error.into()))?;
        let table = transaction.open_table(table).map_err(|error| failed(error.into()))?;
        for entry in table.iter().map_err(|error| failed(error.into()))? {
            let (key, value) = entry.map_err(|error| failed(error.into()))?;
            take(key.value(), value.value())?;
        }
        Ok(())
    }
}

fn to_bytes<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to a vector cannot fail")
}

/// Adds an entry under the next number, and drops the oldest beyond `entries_max`.
fn append(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, u64, &'static [u8]>,
    bytes: &[u8],
    entries_max: u64,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(table)?;
    let next = table.last()?.map_or(0, |(key, _)| key.value() + 1);
    table.insert(next, bytes)?;
    if next >= entries_max {
        table.retain_in(..=next - entries_max, |_, _| false)?;
    }
    Ok(())
}

/// The right of one process to use a directory. It ends with the value, or with the process.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of an existing directory.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, [`StoreError::Io`] when the lock file cannot be made.
    pub fn take(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| StoreError::io(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { directory: directory.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StoreError::io(&path, error)),
        }
    }
}

#[cfg(test)]
mod tests;

//! Content-addressed blobs: payloads and states, each a file named by its BLAKE3 hash.
//!
//! Source: iroh-blobs 0.104 for the protocol between peers (requests, BLAKE3-verified streaming, serving). Deviation: its
//! store is used only as an index of our own files by reference, and is made anew at every start. What is durable is a
//! file written by [`crate::store::file::write_durably`], so that a crash or a damaged index loses nothing.
//!
//! Every 16 KiB of a fetched blob is checked against the hash as it arrives; truncated, altered or oversized data is
//! refused, and the next provider is tried. A blob is read back only if it still matches its name.
//!
//! Bounded: [`FETCHES_MAX`] fetches at a time, an answer within [`STALL_MS_MAX`] and [`FETCH_BYTES_PER_SECOND_MIN`] from there on, the size is bounded by the caller.
//! Whom a peer serves is a [`BlobGate`]'s question: everybody, unless the run splits its weights; then members of the own stage.
//! Deliberately absent: partial downloads across restarts, choosing the nearest provider.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bao_tree::io::fsm::BaoContentItem;
use iroh::endpoint::{Connection, ConnectionError, VarInt};
use iroh_blobs::BlobFormat;
use iroh_blobs::api::Store as BlobIndex;
use iroh_blobs::api::blobs::{AddPathOptions, ImportMode};
use iroh_blobs::get::fsm::{self, BlobContentNext, ConnectedNext, DecodeError, EndBlobNext};
use iroh_blobs::protocol::GetRequest;
use iroh_blobs::store::GcConfig;
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::fs::options::{InlineOptions, Options};
use tokio::sync::Semaphore;
use wire::{Hash, PeerId};

use crate::limits::Rate;
use crate::store::{StoreError, file};
use crate::transport::Dialer;

/// Most fetches at a time; further ones wait.
pub const FETCHES_MAX: usize = 8;
/// A provider that does not answer for so long is given up.
pub const STALL_MS_MAX: u64 = 10_000;
/// A provider that sends more slowly than this is given up.
pub const FETCH_BYTES_PER_SECOND_MIN: u64 = 50_000;

const INDEX_SWEEP: Duration = Duration::from_secs(60);

/// What a connection for blobs is closed with that is not served.
pub(crate) const CLOSE_REFUSED: u32 = 1;

/// Who may have a peer's blobs. Cheap to clone; clones are one gate.
#[derive(Clone, Debug, Default)]
pub struct BlobGate {
    /// Those who may; everybody without a list.
    admitted: Option<Arc<Mutex<BTreeSet<PeerId>>>>,
}

impl BlobGate {
    /// One that lets nobody in until [`BlobGate::admit`].
    pub fn closed() -> Self {
        Self { admitted: Some(Arc::default()) }
    }

    /// Lets peers in from now on; those that were in before stay. An open gate stays open.
    pub fn admit(&self, peers: impl IntoIterator<Item = PeerId>) {
        if let Some(admitted) = &self.admitted {
            admitted.lock().unwrap_or_else(PoisonError::into_inner).extend(peers);
        }
    }

    /// Whether a peer may have blobs.
    pub fn admits(&self, peer: &PeerId) -> bool {
        let is_in = |admitted: &Arc<Mutex<BTreeSet<PeerId>>>| {
            admitted.lock().unwrap_or_else(PoisonError::into_inner).contains(peer)
        };
        self.admitted.as_ref().is_none_or(is_in)
    }
}

/// Blobs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob here.
    #[error("there is no blob `{hash:?}` here")]
    Missing {
        /// Its name.
        hash: Hash,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index of what is served.
    #[error("the index of blobs at `{}` failed: {detail}", path.display())]
    Index {
        /// Its directory.
        path: PathBuf,
        /// What it says.
        detail: String,
    },
}

/// Why a provider did not give a blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It cannot be reached.
    #[error("unreachable: {detail}")]
    Unreachable {
        /// What the transport says.
        detail: String,
    },
    /// It gives nothing to this peer.
    #[error("it gives no blobs to this peer")]
    Refused,
    /// It does not have it, or not all of it.
    #[error("it does not have it")]
    Missing,
    /// It sent data that does not match the hash.
    #[error("it sent data that does not match the hash")]
    Corrupt,
    /// It states a size above the bound.
    #[error("it states {stated} bytes where at most {bytes_max} are expected")]
    TooLarge {
        /// Its statement.
        stated: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// It did not answer, or was too slow.
    #[error("it stopped sending")]
    Stalled,
    /// The connection broke.
    #[error("the connection broke: {detail}")]
    Broken {
        /// What the connection says.
        detail: String,
    },
}

/// A blob could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No provider gave it.
    #[error("no provider gave blob `{hash:?}`")]
    NoProvider {
        /// Its name.
        hash: Hash,
    },
    /// It arrived but could not be stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// A peer's blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    directory: Arc<Path>,
    index: FsStore,
    sizes: Arc<Mutex<BTreeMap<Hash, u64>>>,
    fetches: Arc<Semaphore>,
}

impl Blobs {
    /// Opens a directory of blobs, and makes it when it is not there.
    ///
    /// # Errors
    /// [`BlobError`] when the directory cannot be read or written.
    pub async fn open(directory: &Path) -> Result<Self, BlobError> {
        file::make_directory(directory)?;
        let directory = directory.canonicalize().map_err(|error| StoreError::io(directory, error))?;
        file::remove_partial_files(&directory)?;
        let index_path = directory.join("index");
        let index =
            open_index(&index_path).await.map_err(|detail| BlobError::Index { path: index_path.clone(), detail })?;
        let blobs = Self {
            directory: Arc::from(directory),
            index,
            sizes: Arc::default(),
            fetches: Arc::new(Semaphore::new(FETCHES_MAX)),
        };
        for hash in blobs.stored()? {
            blobs.register(hash).await?;
        }
        Ok(blobs)
    }

    /// What the transport serves requests from.
    pub fn index(&self) -> BlobIndex {
        self.index.clone().into()
    }

    /// The size of a blob in bytes, when it is here.
    pub fn size(&self, hash: Hash) -> Option<u64> {
        self.sizes().get(&hash).copied()
    }

    /// The names of all blobs here, sorted.
    pub fn list(&self) -> Vec<Hash> {
        self.sizes().keys().copied().collect()
    }

    /// Stores a blob durably, and provides it from now on.
    ///
    /// # Errors
    /// [`BlobError`]; no part of it is left then.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<Hash, BlobError> {
        let directory = self.directory.clone();
        let store = move || -> Result<Hash, StoreError> {
            let hash = Hash::of(&bytes);
            file::write_durably(&directory.join(hash.to_string()), &bytes)?;
            Ok(hash)
        };
        let hash = tokio::task::spawn_blocking(store).await.expect("writing a file does not panic")?;
        self.register(hash).await?;
        Ok(hash)
    }

    /// Reads a blob, and checks it against its name. One that no longer matches is removed, so that it can be fetched again.
    ///
    /// # Errors
    /// [`BlobError::Missing`], or [`BlobError::Store`] when it is damaged or cannot be read.
    pub fn get(&self, hash: Hash) -> Result<Vec<u8>, BlobError> {
        let path = self.path(hash);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(BlobError::Missing { hash }),
            Err(error) => return Err(StoreError::io(&path, error).into()),
        };
        if Hash::of(&bytes) != hash {
            self.sizes().remove(&hash);
            file::remove(&path);
            return Err(StoreError::corrupt(&path, "its bytes do not match its name").into());
        }
        Ok(bytes)
    }

    /// Gets a blob of at most `bytes_max` bytes from the first of `providers` that gives it, stores and provides it.
    /// `failed` is told of each provider that did not. Answers at once when the blob is here.
    ///
    /// # Errors
    /// [`FetchError`] when no provider gave it, or it could not be stored.
    pub async fn fetch(
        &self,
        dialer: &Dialer,
        hash: Hash,
        bytes_max: u64,
        providers: &[PeerId],
        mut failed: impl FnMut(PeerId, &ProviderError),
    ) -> Result<u64, FetchError> {
        let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
        if let Some(bytes) = self.size(hash) {
            return Ok(bytes);
        }
        for &provider in providers {
            match fetch_from(dialer, provider, hash, bytes_max).await {
                Ok(bytes) => {
                    let size = bytes.len() as u64;
                    self.put(bytes).await?;
                    return Ok(size);
                }
                Err(error) => {
                    tracing::debug!(provider = ?provider, blob = ?hash, %error, "a provider did not give a blob");
                    failed(provider, &error);
                }
            }
        }
        Err(FetchError::NoProvider { hash })
    }

    /// Removes blobs. Unknown names are ignored.
    pub async fn forget(&self, hashes: &[Hash]) {
        for hash in hashes {
            if self.sizes().remove(hash).is_none() {
                continue;
            }
            file::remove(&self.path(*hash));
            if let Err(error) = self.index.tags().delete(hash.to_string()).await {
                tracing::warn!(%error, "cannot remove a blob from the index");
            }
        }
    }

    /// Ends the index. Blobs stay on disk.
    pub async fn close(&self) {
        if let Err(error) = self.index.shutdown().await {
            tracing::debug!(%error, "the index of blobs was already closed");
        }
    }

    fn path(&self, hash: Hash) -> PathBuf {
        self.directory.join(hash.to_string())
    }

    fn sizes(&self) -> std::sync::MutexGuard<'_, BTreeMap<Hash, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the blob files in the directory.
    fn stored(&self) -> Result<Vec<Hash>, StoreError> {
        let failed = |error| StoreError::io(&self.directory, error);
        let mut hashes = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            hashes.extend(name.to_str().and_then(|name| name.parse::<Hash>().ok()));
        }
        Ok(hashes)
    }

    /// Adds a stored file to the index. A file that does not match its name is removed.
    async fn register(&self, hash: Hash) -> Result<(), BlobError> {
        let failed = |detail: String| BlobError::Index { path: self.directory.join("index"), detail };
        let path = self.path(hash);
        let bytes = std::fs::metadata(&path).map_err(|error| StoreError::io(&path, error))?.len();
        let options = AddPathOptions { path: path.clone(), format: BlobFormat::Raw, mode: ImportMode::TryReference };
        let added = self.index.add_path_with_opts(options).with_named_tag(hash.to_string()).await;
        let added = added.map_err(|error| failed(format!("{error:#}")))?;
        if *added.hash.as_bytes() != hash.0 {
            tracing::warn!(path = %path.display(), "a stored blob is damaged and is removed");
            file::remove(&path);
            self.index.tags().delete(hash.to_string()).await.map_err(|error| failed(format!("{error:#}")))?;
            return Ok(());
        }
        self.sizes().insert(hash, bytes);
        Ok(())
    }
}

pub(crate) async fn open_index(path: &Path) -> Result<FsStore, String> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
        _ => {}
    }
    let mut options = Options::new(path);
    // Its database keeps what it reads in memory, up to all of its file: no bytes of blobs are to be among that.
    options.inline = InlineOptions::NO_INLINE;
    options.gc = Some(GcConfig { interval: INDEX_SWEEP, add_protected: None });
    FsStore::load_with_opts(path.join("blobs.db"), options).await.map_err(|error| format!("{error:#}"))
}

/// Gets a blob from one provider into memory.
async fn fetch_from(dialer: &Dialer, provider: PeerId, hash: Hash, bytes_max: u64) -> Result<Vec<u8>, ProviderError> {
    let stall = Duration::from_millis(STALL_MS_MAX);
    let connection = tokio::time::timeout(stall, dialer.connection(provider, iroh_blobs::ALPN))
        .await
        .map_err(|_| ProviderError::Stalled)?
        .map_err(|error| ProviderError::Unreachable { detail: error.to_string() })?;
    let whole = GetRequest::blob(iroh_blobs::Hash::from_bytes(hash.0));
    let requested = tokio::time::timeout(stall, request(connection.clone(), whole)).await;
    let (content, size) = match requested.map_err(|_| ProviderError::Stalled)? {
        Ok(requested) => requested,
        Err(_) if is_refused(&connection) => return Err(ProviderError::Refused),
        Err(error) => return Err(error),
    };
    if size > bytes_max {
        return Err(ProviderError::TooLarge { stated: size, bytes_max });
    }
    let down = dialer.rates().down_from(&provider);
    // What slows it down here is not the provider's fault.
    let own = down.map_or(0, |rate| size.saturating_mul(8 * FETCHES_MAX as u64) / rate.bits_per_s());
    let limit = stall + Duration::from_secs(size / FETCH_BYTES_PER_SECOND_MIN + own);
    let received = tokio::time::timeout(limit, read(content, down)).await.map_err(|_| ProviderError::Stalled)?;
    let (end, bytes) = received.map_err(provider_error)?;
    if let EndBlobNext::Closing(closing) = end.next() {
        closing.next().await.map_err(|error| ProviderError::Broken { detail: error.to_string() })?;
    }
    if Hash::of(&bytes) != hash {
        return Err(ProviderError::Corrupt);
    }
    Ok(bytes)
}

/// Sends a request for one blob, and reads the size that the provider states.
pub(crate) async fn request(
    connection: Connection,
    request: GetRequest,
) -> Result<(fsm::AtBlobContent, u64), ProviderError> {
    let broken = |detail: String| ProviderError::Broken { detail };
    let connected = fsm::start(connection, request, Default::default()).next().await;
    let next = connected.map_err(|error| broken(error.to_string()))?.next().await;
    let ConnectedNext::StartRoot(start) = next.map_err(|error| broken(error.to_string()))? else {
        return Err(ProviderError::Missing);
    };
    start.next().next().await.map_err(|error| provider_error(error.into()))
}

/// Reads a blob to its end, at a rate if there is one.
async fn read(content: fsm::AtBlobContent, down: Option<&Rate>) -> Result<(fsm::AtEndBlob, Vec<u8>), DecodeError> {
    let (mut content, mut bytes) = (content, Vec::new());
    loop {
        match content.next().await {
            BlobContentNext::Done(end) => return Ok((end, bytes)),
            BlobContentNext::More((more, item)) => {
                content = more;
                if let BaoContentItem::Leaf(leaf) = item? {
                    bytes.extend_from_slice(&leaf.data);
                    if let Some(down) = down {
                        down.take(leaf.data.len()).await;
                    }
                }
            }
        }
    }
}

/// Whether the provider closed the connection because this peer may have nothing.
fn is_refused(connection: &Connection) -> bool {
    let refusal = VarInt::from_u32(CLOSE_REFUSED);
    matches!(connection.close_reason(), Some(ConnectionError::ApplicationClosed(close)) if close.error_code == refusal)
}

pub(crate) fn provider_error(error: DecodeError) -> ProviderError {
    match error {
        DecodeError::ChunkNotFound { .. } | DecodeError::ParentNotFound { .. } | DecodeError::LeafNotFound { .. } => {
            ProviderError::Missing
        }
        DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => ProviderError::Corrupt,
        // A provider resets the stream when it lacks the blob, or can no longer read its file.
        DecodeError::Read { source, .. } if source.kind() == std::io::ErrorKind::ConnectionReset => {
            ProviderError::Missing
        }
        other => ProviderError::Broken { detail: other.to_string() },
    }
}

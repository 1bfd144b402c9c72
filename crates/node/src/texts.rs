//! Texts that runs are trained on: kept in the data directory, served to machines that join, and fetched by them.
//!
//! ```text
//! texts/<hash of the manifest>/          corpus.toml, tokenizer.json, and each file's text under its hash
//! texts/<hash of the manifest>.partial/  what is there of one that is being fetched
//! ```
//!
//! The charter names the manifest and the tokenizer by their hashes, and the manifest the files. So a machine that joins needs no list from
//! anybody: it asks the run's validator for these names, one after the other, and whoever answers can withhold a text and cannot forge it.
//!
//! Source: the protocol of iroh-blobs 0.104, under the name [`ALPN`] and with an index of its own, so that states and payloads, which a run may
//! keep to some, are not in it. Every 16 KiB are checked as they arrive. What was checked is kept: a fetch that broke goes on there, also
//! when the program was stopped in between.
//!
//! Bounded: the manifest by [`MANIFEST_BYTES_MAX`], the tokenizer by [`TOKENIZER_BYTES_MAX`], all files together by
//! [`learn::data::TEXT_BYTES_MAX`], silence by [`STALL_MS_MAX`]; after [`ATTEMPTS_MAX`] attempts that brought nothing, a fetch is given up.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bao_tree::io::BaoContentItem;
use iroh::RelayUrl;
use iroh::endpoint::Connection;
use iroh_blobs::BlobFormat;
use iroh_blobs::api::blobs::{AddPathOptions, ImportMode};
use iroh_blobs::get::fsm::{AtBlobContent, BlobContentNext, EndBlobNext};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt, GetRequest};
use iroh_blobs::provider::events::EventSender;
use iroh_blobs::store::fs::FsStore;
use learn::data::{Corpus, CorpusError, MANIFEST_BYTES_MAX, Manifest, ManifestError, Texts};
use wire::{Charter, Hash, Identity, PeerId};

use crate::blobs::{BlobError, ProviderError, STALL_MS_MAX, open_index, provider_error, request};
use crate::join::bind_for;
use crate::store::{StoreError, file};
use crate::transport::{Dialer, Services, Transport, TransportConfig, TransportError};

/// What machines that want a run's text ask for when they connect.
pub const ALPN: &[u8] = b"cairn-text/1";
/// Most bytes of a tokenizer.
pub const TOKENIZER_BYTES_MAX: u64 = 16 << 20;
/// Attempts in a row that bring nothing before a fetch is given up.
pub const ATTEMPTS_MAX: u32 = 5;

/// How long to wait after an attempt that brought nothing.
const PAUSE: Duration = Duration::from_millis(500);
/// What is checked at once; a fetch goes on at a multiple of it.
const CHECKED_BYTES: u64 = 16 << 10;

/// Where the texts of a manifest are kept in a data directory.
pub fn path_of(home: &Path, data: Hash) -> PathBuf {
    home.join("texts").join(data.to_string())
}

/// Keeps texts in a data directory; gives where they are.
///
/// # Errors
/// [`TextError`] when they cannot be written, or nobody could read them again.
pub fn keep(home: &Path, texts: &Texts) -> Result<PathBuf, TextError> {
    texts.manifest().check_stated()?;
    let folder = path_of(home, Hash(texts.manifest().hash()));
    if Texts::are_kept_in(&folder) {
        return Ok(folder);
    }
    file::make_directory(&folder)?;
    // The manifest comes last: with it the folder is whole.
    for (name, bytes) in texts.files() {
        file::write_durably(&folder.join(name), &bytes)?;
    }
    Ok(folder)
}

/// The corpus that a charter names: the bundled one, or one that is kept in the data directory; none when it is not here.
///
/// # Errors
/// [`CorpusError`] when a kept file is damaged.
pub fn corpus(home: &Path, charter: &Charter) -> Result<Option<Corpus>, CorpusError> {
    if charter.data.0 == Corpus::bundled_manifest()?.hash() {
        return Corpus::bundled().map(Some);
    }
    let folder = path_of(home, charter.data);
    match Texts::are_kept_in(&folder) {
        true => Texts::open(&folder)?.into_corpus().map(Some),
        false => Ok(None),
    }
}

/// Serves the texts of one run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TextOffer {
    index: FsStore,
}

impl TextOffer {
    /// Offers the files of a folder of [`Texts`]; `index` is a directory for what is computed of them, made anew.
    ///
    /// # Errors
    /// [`BlobError`] when one cannot be read, or the directory cannot be written.
    pub async fn open(folder: &Path, index: &Path) -> Result<Self, BlobError> {
        let failed = |detail: String| BlobError::Index { path: index.to_owned(), detail };
        file::make_directory(index)?;
        let offer = Self { index: open_index(index).await.map_err(failed)? };
        for entry in std::fs::read_dir(folder).map_err(|error| StoreError::io(folder, error))? {
            let path = entry.map_err(|error| StoreError::io(folder, error))?.path();
            let path = path.canonicalize().map_err(|error| StoreError::io(&path, error))?;
            let tag = path.display().to_string();
            let options = AddPathOptions { path, format: BlobFormat::Raw, mode: ImportMode::TryReference };
            let added = offer.index.add_path_with_opts(options).with_named_tag(tag).await;
            added.map_err(|error| failed(format!("{error:#}")))?;
        }
        Ok(offer)
    }

    /// Answers what a connection asks for.
    pub(crate) async fn serve(self, connection: Connection) {
        iroh_blobs::provider::handle_connection(connection, self.index.into(), EventSender::DEFAULT).await;
    }

    /// Ends the index.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.index.shutdown().await {
            tracing::debug!(%error, "the index of texts was already closed");
        }
    }
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here, those of earlier attempts included.
    pub done: u64,
    /// All bytes, as far as they are known.
    pub all: u64,
}

/// A text cannot be kept or fetched.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// No socket.
    #[error(transparent)]
    Network(#[from] TransportError),
    /// Who should have the text did not give it.
    #[error("`{from}` did not give {what} of the run's text: {error}")]
    Provider {
        /// Where it was asked for: an address, relays.
        from: String,
        /// What was asked for.
        what: String,
        /// What came instead.
        error: ProviderError,
    },
    /// The manifest cannot be relied on.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest names another tokenizer than the charter.
    #[error("the charter and the manifest of the run's text name different tokenizers")]
    OtherTokenizer,
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The text cannot be trained on.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
}

impl TextError {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Network(_) => "check that this machine may open UDP sockets".to_owned(),
            Self::Provider { error: ProviderError::Corrupt | ProviderError::TooLarge { .. }, .. } => {
                "do not trust who answers there; ask for a new ticket over another way".to_owned()
            }
            Self::Provider { .. } => {
                "try again, it goes on where it stopped; or name the same files with `--data FILE_OR_DIR`".to_owned()
            }
            Self::Manifest(_) | Self::OtherTokenizer => "who founded the run has to found it anew".to_owned(),
            Self::Store(error) => error.hint(),
            Self::Corpus(error) => error.hint().to_owned(),
        }
    }

    /// Whether somebody else is to blame: who answers, or the way there.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Network(_) | Self::Provider { .. })
    }
}

/// Fetches the text that a charter names from a peer of its run, at its address or through a relay, and keeps it; `tell` hears how far it is.
/// A text that is here already is only read.
///
/// # Errors
/// [`TextError`]; what arrived until then is kept, and the next fetch goes on from it.
pub async fn fetch(
    home: &Path,
    charter: &Charter,
    (peer, address): (PeerId, Option<SocketAddr>),
    relays: &[RelayUrl],
    mut tell: impl FnMut(Progress),
) -> Result<Corpus, TextError> {
    if let Some(corpus) = corpus(home, charter)? {
        return Ok(corpus);
    }
    let identity = Identity::from_secret(iroh::SecretKey::generate().to_bytes());
    let bind = bind_for(address.as_slice());
    let config = TransportConfig { bind, relays: relays.to_vec(), ..TransportConfig::default() };
    let transport = Transport::bind(&config, &identity, Services::default()).await?;
    let source = Source { dialer: transport.dialer().clone(), peer, ways: ways(address, relays) };
    address.map(|address| source.dialer.set_address(peer, address));
    let fetched = fetch_all(&source, home, charter, &mut tell).await;
    transport.shutdown().await;
    let folder = fetched?;
    Ok(Texts::open(&folder)?.into_corpus()?)
}

/// Where a peer is asked, in words.
fn ways(address: Option<SocketAddr>, relays: &[RelayUrl]) -> String {
    let relays = relays.iter().map(RelayUrl::to_string);
    let ways: Vec<String> = address.iter().map(SocketAddr::to_string).chain(relays).collect();
    ways.join(", ")
}

/// Fetches every file; gives the folder, which is whole.
async fn fetch_all(
    source: &Source,
    home: &Path,
    charter: &Charter,
    tell: &mut dyn FnMut(Progress),
) -> Result<PathBuf, TextError> {
    let folder = path_of(home, charter.data);
    let partial = folder.with_extension("partial");
    file::make_directory(&partial)?;
    let manifest_path = partial.join(Texts::MANIFEST);
    let size = Size::AtMost(MANIFEST_BYTES_MAX as u64);
    source.fetch(charter.data, size, &manifest_path, "the manifest", &mut |_| {}).await?;
    let bytes = std::fs::read(&manifest_path).map_err(|error| StoreError::io(&manifest_path, error))?;
    let manifest = Manifest::from_bytes(&bytes)?;
    manifest.check_stated()?;
    if manifest.tokenizer_blake3 != charter.tokenizer.to_string() {
        return Err(TextError::OtherTokenizer);
    }
    let tokenizer = partial.join(Texts::TOKENIZER);
    source
        .fetch(charter.tokenizer, Size::AtMost(TOKENIZER_BYTES_MAX), &tokenizer, "the tokenizer", &mut |_| {})
        .await?;
    let (mut before, all) = (0, manifest.text_bytes());
    for named in &manifest.files {
        let hash: Hash = named.blake3.parse().map_err(|_| ManifestError::OutOfRange("the hash of a file is none"))?;
        let what = format!("`{}`", named.name);
        let mut told = |done: u64| tell(Progress { done: before + done, all });
        source.fetch(hash, Size::Exactly(named.bytes), &partial.join(&named.blake3), &what, &mut told).await?;
        before += named.bytes;
    }
    std::fs::rename(&partial, &folder).map_err(|error| StoreError::io(&folder, error))?;
    file::sync_directory(folder.parent()).map_err(|error| StoreError::io(&folder, error))?;
    Ok(folder)
}

/// How large a file is to be.
#[derive(Clone, Copy, Debug)]
enum Size {
    Exactly(u64),
    AtMost(u64),
}

impl Size {
    fn check(self, stated: u64) -> Result<(), ProviderError> {
        match self {
            Self::Exactly(bytes) if stated < bytes => Err(ProviderError::Corrupt),
            Self::Exactly(bytes_max) | Self::AtMost(bytes_max) if stated > bytes_max => {
                Err(ProviderError::TooLarge { stated, bytes_max })
            }
            _ => Ok(()),
        }
    }
}

/// Who has the text.
struct Source {
    dialer: Dialer,
    peer: PeerId,
    /// Where it is asked, in words.
    ways: String,
}

impl Source {
    /// Fetches one file to `path`, from what is there of it on; `tell` hears how many bytes are.
    async fn fetch(
        &self,
        hash: Hash,
        size: Size,
        path: &Path,
        what: &str,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), TextError> {
        if hash_of(path)? == Some(hash) {
            tell(length_of(path)?);
            return Ok(());
        }
        let part = path.with_extension("part");
        let failed = |error| TextError::Provider { from: self.ways.clone(), what: what.to_owned(), error };
        let mut barren = 0;
        loop {
            let before = length_of(&part)?;
            let outcome = self.download(hash, size, &part, tell).await;
            match outcome {
                Ok(()) if hash_of(&part)? == Some(hash) => break,
                // Everything that arrives is checked: what was there before is damaged.
                Ok(()) => file::remove(&part),
                Err(Lost::Store(error)) => return Err(error.into()),
                Err(Lost::Provider(error)) if !may_recover(&error) => return Err(failed(error)),
                Err(Lost::Provider(error)) => {
                    barren = if length_of(&part)? > before { 0 } else { barren + 1 };
                    if barren >= ATTEMPTS_MAX {
                        return Err(failed(error));
                    }
                    tracing::debug!(%error, what, "a fetch of a text goes on in a moment");
                    self.dialer.forget_connections(self.peer);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        std::fs::rename(&part, path).map_err(|error| StoreError::io(path, error))?;
        Ok(())
    }

    /// Appends to a part of a file what is missing of it.
    async fn download(&self, hash: Hash, size: Size, part: &Path, tell: &mut dyn FnMut(u64)) -> Result<(), Lost> {
        let stored = |error| Lost::Store(StoreError::io(part, error));
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(part).map_err(stored)?;
        let start = file.metadata().map_err(stored)?.len() / CHECKED_BYTES * CHECKED_BYTES;
        file.set_len(start).map_err(stored)?;
        let ranges = if start == 0 { ChunkRanges::all() } else { ChunkRanges::bytes(start..) };
        let request_of = GetRequest::blob_ranges(iroh_blobs::Hash::from_bytes(hash.0), ranges);
        let connection = within(self.dialer.connection(self.peer, ALPN)).await?;
        let connection = connection.map_err(|error| ProviderError::Unreachable { detail: error.to_string() })?;
        let (content, stated) = within(request(connection, request_of)).await??;
        size.check(stated)?;
        tell(start);
        receive(content, &mut file, stored, tell).await?;
        file.sync_all().map_err(stored)
    }
}

/// Writes what arrives, in order, at its place.
async fn receive(
    mut content: AtBlobContent,
    file: &mut File,
    stored: impl Fn(std::io::Error) -> Lost,
    tell: &mut dyn FnMut(u64),
) -> Result<(), Lost> {
    loop {
        match within(content.next()).await? {
            BlobContentNext::More((rest, item)) => {
                content = rest;
                if let BaoContentItem::Leaf(leaf) = item.map_err(provider_error)? {
                    file.seek(SeekFrom::Start(leaf.offset)).map_err(&stored)?;
                    file.write_all(&leaf.data).map_err(&stored)?;
                    tell(leaf.offset + leaf.data.len() as u64);
                }
            }
            BlobContentNext::Done(end) => {
                if let EndBlobNext::Closing(closing) = end.next() {
                    let closed = within(closing.next()).await?;
                    closed.map_err(|error| ProviderError::Broken { detail: error.to_string() })?;
                }
                return Ok(());
            }
        }
    }
}

/// An attempt that did not end well.
enum Lost {
    Provider(ProviderError),
    Store(StoreError),
}

impl From<ProviderError> for Lost {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

/// Whether another attempt may do better.
fn may_recover(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Unreachable { .. } | ProviderError::Stalled | ProviderError::Broken { .. })
}

async fn within<T>(step: impl Future<Output = T>) -> Result<T, ProviderError> {
    tokio::time::timeout(Duration::from_millis(STALL_MS_MAX), step).await.map_err(|_| ProviderError::Stalled)
}

/// The hash of a file; none when there is no such file.
fn hash_of(path: &Path) -> Result<Option<Hash>, StoreError> {
    match File::open(path) {
        Ok(file) => {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file).map_err(|error| StoreError::io(path, error))?;
            Ok(Some(Hash(*hasher.finalize().as_bytes())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

/// Bytes of a file; 0 when there is no such file.
fn length_of(path: &Path) -> Result<u64, StoreError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

//! The fetches of blobs that are under way.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use wire::{Hash, PeerId};

use crate::blobs::{BlobError, Blobs, FetchError};
use crate::time::TimeBook;
use crate::transport::Dialer;

/// What a fetch tells the peer.
#[derive(Debug)]
pub(super) enum FetchNews {
    /// The blob is here.
    Fetched { hash: Hash, bytes: u64 },
    /// A provider did not give it.
    ProviderFailed { hash: Hash, from: PeerId },
    /// No provider gave it.
    Exhausted { hash: Hash },
    /// It cannot be stored.
    Broken(BlobError),
}

/// Fetches under way, one per blob.
#[derive(Debug)]
pub(super) struct Fetching {
    blobs: Blobs,
    dialer: Dialer,
    time: TimeBook,
    news: mpsc::Sender<FetchNews>,
    /// Providers that were named since the fetch started, to be tried after it.
    under_way: BTreeMap<Hash, Wanted>,
}

#[derive(Debug)]
struct Wanted {
    bytes: u64,
    tried: Vec<PeerId>,
    more: Vec<PeerId>,
}

impl Fetching {
    pub(super) fn new(blobs: Blobs, dialer: Dialer, time: TimeBook, news: mpsc::Sender<FetchNews>) -> Self {
        Self { blobs, dialer, time, news, under_way: BTreeMap::new() }
    }

    /// Starts a fetch, or adds providers to the one under way.
    pub(super) fn start(&mut self, hash: Hash, bytes: u64, providers: Vec<PeerId>) {
        if let Some(wanted) = self.under_way.get_mut(&hash) {
            let new = |peer: &PeerId| !wanted.tried.contains(peer) && !wanted.more.contains(peer);
            let added: Vec<PeerId> = providers.into_iter().filter(new).collect();
            wanted.more.extend(added);
            return;
        }
        self.under_way.insert(hash, Wanted { bytes, tried: providers.clone(), more: Vec::new() });
        self.spawn(hash, bytes, providers);
    }

    /// The blob is here.
    pub(super) fn finished(&mut self, hash: Hash) {
        self.under_way.remove(&hash);
    }

    /// The providers so far did not give it: goes on with those that were added meanwhile, or gives up.
    pub(super) fn exhausted(&mut self, hash: Hash) {
        let Some(wanted) = self.under_way.remove(&hash) else { return };
        if !wanted.more.is_empty() {
            self.start(hash, wanted.bytes, wanted.more);
        }
    }

    fn spawn(&self, hash: Hash, bytes: u64, providers: Vec<PeerId>) {
        let (blobs, dialer, news, waiting) =
            (self.blobs.clone(), self.dialer.clone(), self.news.clone(), self.time.fetch());
        tokio::spawn(async move {
            let _waiting = waiting;
            let mut failed = Vec::new();
            let outcome = blobs.fetch(&dialer, hash, bytes, &providers, |from, _| failed.push(from)).await;
            // Errors from here on mean that the peer is gone.
            for from in failed {
                let _ = news.send(FetchNews::ProviderFailed { hash, from }).await;
            }
            let last = match outcome {
                Ok(bytes) => FetchNews::Fetched { hash, bytes },
                Err(FetchError::NoProvider { hash }) => FetchNews::Exhausted { hash },
                Err(FetchError::Blob(error)) => FetchNews::Broken(error),
            };
            let _ = news.send(last).await;
        });
    }
}

//! Blobs between real endpoints, and liars among the providers.

use std::path::Path;

use node::blobs::{BlobError, Blobs, FetchError, ProviderError};
use node::transport::{Services, Transport, TransportConfig};
use wire::{Hash, Identity, PeerId};

use crate::transport::identity;

pub(crate) struct Provider {
    pub(crate) id: PeerId,
    pub(crate) blobs: Blobs,
    pub(crate) transport: Transport,
    _directory: tempfile::TempDir,
}

async fn provider(who: &Identity) -> Provider {
    provider_with(who, &TransportConfig::default()).await
}

pub(crate) async fn provider_with(who: &Identity, config: &TransportConfig) -> Provider {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&directory.path().join("blobs")).await.unwrap();
    let services = Services { blobs: Some(blobs.index()), ..Services::default() };
    let transport = Transport::bind(config, who, services).await.unwrap();
    Provider { id: who.id(), blobs, transport, _directory: directory }
}

impl Provider {
    pub(crate) fn knows(&self, other: &Self) {
        self.transport.dialer().set_address(other.id, other.transport.dialer().address());
    }

    pub(crate) async fn fetch(
        &self,
        hash: Hash,
        bytes_max: u64,
        from: &[PeerId],
    ) -> (Result<u64, FetchError>, Vec<ProviderError>) {
        let mut failures = Vec::new();
        let take = |_: PeerId, error: &ProviderError| failures.push(error.clone());
        let outcome = self.blobs.fetch(self.transport.dialer(), hash, bytes_max, from, take).await;
        (outcome, failures)
    }

    fn file(&self, hash: Hash) -> std::path::PathBuf {
        self._directory.path().join("blobs").join(hash.to_string())
    }

    pub(crate) async fn stop(self) {
        self.transport.shutdown().await;
        self.blobs.close().await;
    }
}

pub(crate) fn some_bytes(count: usize) -> Vec<u8> {
    (0..count as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_any_size_is_fetched_and_passed_on() {
    let (a, b, c) = (provider(&identity(1)).await, provider(&identity(2)).await, provider(&identity(3)).await);
    b.knows(&a);
    c.knows(&b);
    for size in [0, 1, 1024, 16 << 10, (16 << 10) + 1, 3_000_000] {
        let bytes = some_bytes(size);
        let hash = a.blobs.put(bytes.clone()).await.unwrap();
        assert_eq!(hash, Hash::of(&bytes));
        assert_eq!(b.fetch(hash, size as u64, &[a.id]).await.0.unwrap(), size as u64, "{size} bytes");
        assert_eq!(c.fetch(hash, size as u64, &[b.id]).await.0.unwrap(), size as u64, "{size} bytes");
        assert_eq!(c.blobs.get(hash).unwrap(), bytes);
    }
    let sent = a.transport.dialer().traffic()[&b.id].sent;
    assert!(sent > 3_000_000, "{sent} bytes were counted on the provider's side");
    for stop in [a, b, c] {
        stop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_provider_is_tried() {
    let (a, b, c) = (provider(&identity(1)).await, provider(&identity(2)).await, provider(&identity(3)).await);
    c.knows(&a);
    c.knows(&b);
    let hash = b.blobs.put(some_bytes(100_000)).await.unwrap();
    let (outcome, failures) = c.fetch(hash, 100_000, &[identity(9).id(), a.id, b.id]).await;
    assert_eq!(outcome.unwrap(), 100_000);
    assert!(matches!(failures[..], [ProviderError::Unreachable { .. }, ProviderError::Missing]), "{failures:?}");
    for stop in [a, b, c] {
        stop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_altered_and_oversized_blobs_are_refused() {
    let (a, b) = (provider(&identity(1)).await, provider(&identity(2)).await);
    b.knows(&a);
    let bytes = some_bytes(1_000_000);

    let truncated = a.blobs.put(bytes.clone()).await.unwrap();
    std::fs::write(a.file(truncated), &bytes[..300_000]).unwrap();
    let (outcome, failures) = b.fetch(truncated, 1_000_000, &[a.id]).await;
    assert!(matches!(outcome, Err(FetchError::NoProvider { hash }) if hash == truncated));
    assert_eq!(failures.len(), 1, "{failures:?}");

    let altered = a.blobs.put(bytes[1..].to_vec()).await.unwrap();
    let mut bad = bytes[1..].to_vec();
    bad[500_000] ^= 1;
    std::fs::write(a.file(altered), &bad).unwrap();
    let (outcome, failures) = b.fetch(altered, 1_000_000, &[a.id]).await;
    assert!(outcome.is_err());
    assert_eq!(failures.len(), 1, "{failures:?}");

    let large = a.blobs.put(bytes[2..].to_vec()).await.unwrap();
    let (outcome, failures) = b.fetch(large, 999_997, &[a.id]).await;
    assert!(outcome.is_err());
    assert_eq!(failures, [ProviderError::TooLarge { stated: 999_998, bytes_max: 999_997 }]);
    assert_eq!(b.blobs.list(), [], "nothing of it was kept");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_survive_a_restart_and_damaged_ones_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, damaged, forgotten);
    {
        let blobs = Blobs::open(directory.path()).await.unwrap();
        kept = blobs.put(some_bytes(50_000)).await.unwrap();
        damaged = blobs.put(some_bytes(60_000)).await.unwrap();
        forgotten = blobs.put(some_bytes(70_000)).await.unwrap();
        blobs.forget(&[forgotten, Hash::of(b"unknown")]).await;
        assert!(matches!(blobs.get(forgotten), Err(BlobError::Missing { .. })));
        blobs.close().await;
    }
    std::fs::write(directory.path().join(damaged.to_string()), some_bytes(59_999)).unwrap();
    std::fs::write(directory.path().join("x.1-1.partial"), b"half").unwrap();
    let blobs = Blobs::open(directory.path()).await.unwrap();
    assert_eq!(blobs.list(), [kept]);
    assert_eq!(blobs.get(kept).unwrap(), some_bytes(50_000));
    assert!(!directory.path().join("x.1-1.partial").exists());
    assert!(!Path::new(&directory.path().join(damaged.to_string())).exists());

    std::fs::write(directory.path().join(kept.to_string()), b"damaged while it runs").unwrap();
    assert!(matches!(blobs.get(kept), Err(BlobError::Store(_))));
    assert_eq!(blobs.size(kept), None, "it can be fetched again");
    blobs.close().await;
}

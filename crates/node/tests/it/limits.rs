//! Limits of the rate, over real endpoints: what goes over the wire is counted.

use std::time::{Duration, Instant};

use node::limits::Rates;
use node::transport::{Transport, TransportConfig, TransportEvent};
use wire::{Block, BlockHeader, Hash, Message, PROTOCOL_VERSION, PeerId, RunId};

use crate::blobs::{Provider, provider_with, some_bytes};
use crate::transport::identity;

/// Bytes over the limit that are borne, and what is asked for: of the limit.
const TOLERANCE: std::ops::RangeInclusive<f64> = 0.7..=1.15;
const LIMIT_BITS_PER_S: u64 = 8_000_000;
const BYTES: usize = 3_000_000;

fn limited(up: Option<u64>, down: Option<u64>, own: &[PeerId]) -> TransportConfig {
    TransportConfig { rates: Rates::new(up, down, own), ..TransportConfig::default() }
}

/// Fetches a blob, and gives the bits per second on the wire, as the provider counts them.
async fn fetch(from: &Provider, to: &Provider) -> f64 {
    to.knows(from);
    let hash = from.blobs.put(some_bytes(BYTES)).await.unwrap();
    let began = Instant::now();
    let (fetched, failures) = to.fetch(hash, BYTES as u64, &[from.id]).await;
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(fetched.unwrap(), BYTES as u64, "{failures:?}");
    let sent = from.transport.dialer().traffic()[&to.id].sent;
    8.0 * sent as f64 / seconds
}

fn is_kept(rate: f64) {
    let part = rate / LIMIT_BITS_PER_S as f64;
    assert!(TOLERANCE.contains(&part), "{part:.2} of the limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_keeps_to_its_limit() {
    let a = provider_with(&identity(1), &limited(Some(LIMIT_BITS_PER_S), None, &[])).await;
    let b = provider_with(&identity(2), &TransportConfig::default()).await;
    is_kept(fetch(&a, &b).await);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fetches_keeps_to_its_limit() {
    let a = provider_with(&identity(1), &TransportConfig::default()).await;
    let b = provider_with(&identity(2), &limited(None, Some(LIMIT_BITS_PER_S), &[])).await;
    is_kept(fetch(&a, &b).await);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_one_machine_are_not_limited_among_each_other() {
    let ids = [1, 2].map(|byte| identity(byte).id());
    let config = limited(Some(LIMIT_BITS_PER_S), Some(LIMIT_BITS_PER_S), &ids);
    let (a, b) = (provider_with(&identity(1), &config).await, provider_with(&identity(2), &config).await);
    let rate = fetch(&a, &b).await;
    assert!(rate > 1.5 * LIMIT_BITS_PER_S as f64, "{rate} bit/s");
    a.stop().await;
    b.stop().await;
}

fn hello(height: u64) -> Message {
    Message::Hello { version: PROTOCOL_VERSION, run: RunId(Hash::of(b"run")), height, open: None }
}

/// A message of a few megabytes.
fn large() -> Message {
    let header = BlockHeader {
        run: RunId(Hash::of(b"run")),
        height: 0,
        parent: Hash::default(),
        time_us: 0,
        transactions_root: Hash::default(),
        ledger_root: Hash::default(),
    };
    let action = wire::Action::Attest(wire::Attestation { round: 0, stage: 0, state_root: Hash::default() });
    let transaction = identity(1).sign(wire::Transaction { run: header.run, action });
    let block = Block { header: identity(1).sign(header), transactions: vec![transaction; 4096].into() };
    Message::Blocks(vec![block; 5])
}

async fn next(transport: &mut Transport) -> TransportEvent {
    tokio::time::timeout(Duration::from_secs(60), transport.next()).await.expect("an event within a minute")
}

/// Connects two endpoints, sends a large message from the first to the second, and gives its bits per second.
async fn send_large(from: &TransportConfig, to: &TransportConfig) -> f64 {
    let (alice, bob) = (identity(1), identity(2));
    let mut a = Transport::bind(from, &alice, Default::default()).await.unwrap();
    let mut b = Transport::bind(to, &bob, Default::default()).await.unwrap();
    a.dialer().set_address(bob.id(), b.dialer().address());
    a.connect(bob.id());
    assert!(matches!(next(&mut a).await, TransportEvent::Connected(_)));
    assert!(matches!(next(&mut b).await, TransportEvent::Connected(_)));
    let message = large();
    let began = Instant::now();
    a.send(bob.id(), &message);
    let TransportEvent::Received { message: received, .. } = next(&mut b).await else { panic!("not a message") };
    let seconds = began.elapsed().as_secs_f64();
    assert!(*received == message, "it arrived whole");
    let sent = a.dialer().traffic()[&bob.id()].sent;
    a.shutdown().await;
    b.shutdown().await;
    8.0 * sent as f64 / seconds
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_keep_to_the_limits_of_both_sides() {
    let free = TransportConfig::default();
    is_kept(send_large(&limited(Some(LIMIT_BITS_PER_S), None, &[]), &free).await);
    is_kept(send_large(&free, &limited(None, Some(LIMIT_BITS_PER_S), &[])).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_messages_get_through_while_a_blob_is_under_way() {
    const SLOW_BITS_PER_S: u64 = 1_000_000;
    let mut a = provider_with(&identity(1), &limited(Some(SLOW_BITS_PER_S), None, &[])).await;
    let b = provider_with(&identity(2), &TransportConfig::default()).await;
    let mut c = Transport::bind(&TransportConfig::default(), &identity(3), Default::default()).await.unwrap();
    b.knows(&a);
    // A megabyte takes more than eight seconds.
    let hash = a.blobs.put(some_bytes(1_000_000)).await.unwrap();
    let fetching = tokio::spawn(async move {
        let (fetched, failures) = b.fetch(hash, 1_000_000, &[identity(1).id()]).await;
        b.stop().await;
        (fetched.map_err(|error| error.to_string()), failures)
    });
    while a.transport.dialer().traffic().get(&identity(2).id()).is_none_or(|traffic| traffic.sent < 50_000) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    a.transport.dialer().set_address(identity(3).id(), c.dialer().address());
    a.transport.connect(identity(3).id());
    assert!(matches!(next(&mut a.transport).await, TransportEvent::Connected(_)));
    assert!(matches!(next(&mut c).await, TransportEvent::Connected(_)));
    for height in 0..20 {
        a.transport.send(identity(3).id(), &hello(height));
        let TransportEvent::Received { message, .. } = next(&mut c).await else { panic!("not a message") };
        assert_eq!(*message, hello(height));
    }
    assert!(!fetching.is_finished(), "all twenty were there before the blob was");
    assert_eq!(fetching.await.unwrap(), (Ok(1_000_000), vec![]));
    a.stop().await;
    c.shutdown().await;
}

//! Real endpoints behind shaped links: everything goes through them, and nothing goes around.

use std::time::{Duration, Instant};

use node::blobs::Blobs;
use node::links::{LinkCounts, NetworkCounts};
use node::transport::{Services, Transport, TransportConfig, TransportEvent};
use node::{Cluster, ClusterConfig, LinkSpec, ShapedNetwork};
use wire::{Hash, Identity, Message, PROTOCOL_VERSION, PeerId, RunId};

use crate::common::{check_complete, config, finish};
use crate::transport::identity;

const PATIENCE: Duration = Duration::from_secs(60);
const BLOB_BYTES: usize = 4_000_000;

fn spec(text: &str) -> LinkSpec {
    text.parse().unwrap()
}

fn hello(height: u64) -> Message {
    Message::Hello { version: PROTOCOL_VERSION, run: RunId(Hash::of(b"run")), height, open: None }
}

async fn next(transport: &mut Transport) -> TransportEvent {
    tokio::time::timeout(PATIENCE, transport.next()).await.expect("an event in time")
}

/// One end of a pair.
struct End {
    id: PeerId,
    transport: Transport,
    blobs: Blobs,
    _directory: tempfile::TempDir,
}

async fn end(who: &Identity, fixed_paths: bool) -> End {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&directory.path().join("blobs")).await.unwrap();
    let config = TransportConfig { fixed_paths, ..TransportConfig::default() };
    let transport =
        Transport::bind(&config, who, Services { blobs: Some(blobs.index()), ..Services::default() }).await.unwrap();
    End { id: who.id(), transport, blobs, _directory: directory }
}

/// Two peers that are connected over shaped links, and the links.
async fn pair(links: [&str; 2], fixed_paths: bool) -> (End, End, ShapedNetwork) {
    let (mut a, mut b) = (end(&identity(1), fixed_paths).await, end(&identity(2), fixed_paths).await);
    let network = ShapedNetwork::start(1).unwrap();
    let front_a = network.add(a.id, a.transport.dialer().address(), spec(links[0])).unwrap();
    let front_b = network.add(b.id, b.transport.dialer().address(), spec(links[1])).unwrap();
    a.transport.dialer().set_address(b.id, front_b);
    b.transport.dialer().set_address(a.id, front_a);
    a.transport.connect(b.id);
    assert!(matches!(next(&mut a.transport).await, TransportEvent::Connected(_)));
    assert!(matches!(next(&mut b.transport).await, TransportEvent::Connected(_)));
    (a, b, network)
}

/// The time for a message there and one back.
async fn round_trip(a: &mut End, b: &mut End, number: u64) -> Duration {
    let start = Instant::now();
    a.transport.send(b.id, &hello(number));
    assert!(matches!(next(&mut b.transport).await, TransportEvent::Received { .. }));
    b.transport.send(a.id, &hello(number));
    assert!(matches!(next(&mut a.transport).await, TransportEvent::Received { .. }));
    start.elapsed()
}

/// `b` fetches a blob from `a`; gives the seconds that it took.
async fn transfer(a: &End, b: &End) -> f64 {
    let blob: Vec<u8> = (0..BLOB_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let hash = a.blobs.put(blob).await.unwrap();
    let start = Instant::now();
    let (dialer, providers) = (b.transport.dialer(), [a.id]);
    let fetch = b.blobs.fetch(dialer, hash, BLOB_BYTES as u64, &providers, |_, error| panic!("{error}"));
    let bytes = tokio::time::timeout(PATIENCE, fetch).await.expect("a blob in time").unwrap();
    assert_eq!(bytes, BLOB_BYTES as u64);
    start.elapsed().as_secs_f64()
}

/// Bytes that the endpoint of `a` has sent to `b` by its own count.
fn sent(a: &End, b: &End) -> u64 {
    a.transport.dialer().traffic()[&b.id].sent
}

async fn stop(ends: [End; 2]) {
    for end in ends {
        end.transport.shutdown().await;
        end.blobs.close().await;
    }
}

fn check_plausible(counts: &NetworkCounts) {
    for LinkCounts { offered, delivered, lost, overflowed, cut } in counts.pairs.values() {
        let ended = delivered.datagrams + lost.datagrams + overflowed.datagrams + cut.datagrams;
        assert!(ended <= offered.datagrams, "{counts:?}");
    }
    assert_eq!((counts.unknown.datagrams, counts.refused.datagrams), (0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_and_messages_cross_the_link_at_its_speed() {
    let (mut a, mut b, network) = pair(["100M/20M,50ms", "100M/20M,50ms"], true).await;
    let mut fastest = Duration::MAX;
    for number in 0..5 {
        fastest = fastest.min(round_trip(&mut a, &mut b, number).await);
    }
    assert!(fastest >= Duration::from_millis(50), "{fastest:?}");
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");

    let seconds = transfer(&a, &b).await;
    // 4 MB are 1.6 s at 20 Mbit/s. An unshaped loopback takes 0.05 s.
    assert!((1.55..8.0).contains(&seconds), "{seconds} s");
    let counts = network.counts();
    let crossed = counts.pair(a.id, b.id);
    assert!(crossed.delivered.bytes > BLOB_BYTES as u64, "{crossed:?}");
    // The endpoint counts over all of its paths, and later than the proxy.
    let (sent, offered) = (sent(&a, &b), network.counts().pair(a.id, b.id).offered.bytes);
    assert!(offered as f64 >= 0.98 * sent as f64, "{offered} of {sent} bytes went through the proxy");
    assert!(counts.pair(b.id, a.id).delivered.bytes > 20_000, "acknowledgements cross, too: {counts:?}");
    check_plausible(&counts);
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_are_repaired_and_counted() {
    let (a, b, network) = pair(["50M,10ms,2%", "50M,10ms,2%"], true).await;
    transfer(&a, &b).await;
    let crossed = network.counts().pair(a.id, b.id);
    let share = crossed.lost.datagrams as f64 / crossed.offered.datagrams as f64;
    // About 3000 datagrams: 60 are expected, with a deviation of 8.
    assert!((0.008..0.035).contains(&share), "{crossed:?}");
    assert!(crossed.offered.bytes > BLOB_BYTES as u64 * 101 / 100);
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_has_no_way_around_it() {
    let (mut a, mut b, network) = pair(["20ms", "20ms"], true).await;
    round_trip(&mut a, &mut b, 1).await;
    let before = network.counts();
    assert!(network.cut(b.id));
    a.transport.send(b.id, &hello(2));
    b.transport.send(a.id, &hello(3));
    let cut = async {
        while network.counts().total().cut.datagrams < before.total().cut.datagrams + 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = cut => {}
        event = a.transport.next() => panic!("{event:?} came around"),
        event = b.transport.next() => panic!("{event:?} came around"),
    }
    assert!(network.mend(b.id));
    assert!(network.set(b.id, spec("100ms")));
    // What was sent meanwhile arrives once, after a retransmission; the connection is the same.
    for end in [&mut a, &mut b] {
        assert!(matches!(next(&mut end.transport).await, TransportEvent::Received { .. }));
    }
    let slower = round_trip(&mut a, &mut b, 4).await;
    assert!(slower >= Duration::from_millis(60), "the mean of both: {slower:?}");
    stop([a, b]).await;
}

/// Why peers behind links need fixed paths: should this fail one day, `transport::fixed` can go.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_left_to_themselves_go_around_the_links() {
    let (a, b, network) = pair(["100M/20M,50ms", "100M/20M,50ms"], false).await;
    transfer(&a, &b).await;
    let (sent, offered) = (sent(&a, &b), network.counts().pair(a.id, b.id).offered.bytes);
    assert!((offered as f64) < 0.5 * sent as f64, "{offered} of {sent} bytes went through the proxy");
    stop([a, b]).await;
}

async fn check_cluster(config: ClusterConfig) {
    let cluster = Cluster::start(ClusterConfig { link: Some(spec("200M/50M,10ms+-2ms,3%")), ..config }).await.unwrap();
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    let counts = cluster.network().unwrap().counts();
    for (place, member) in cluster.members().iter().enumerate() {
        let sent = member.status().borrow().traffic.sent;
        let offered = counts.sent_by(member.id()).offered.bytes;
        assert!(offered as f64 >= 0.95 * sent as f64, "peer {}: {offered} of {sent} bytes", place + 1);
        assert!(sent > 0 && cluster.network().unwrap().front(member.id()) != Some(member.address()));
    }
    assert!(counts.total().lost.datagrams > 0, "{counts:?}");
    assert_eq!(counts.unknown.datagrams, 0, "{counts:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_behind_links_trains_to_equal_roots() {
    let directory = tempfile::tempdir().unwrap();
    check_cluster(config(directory.path(), 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_behind_links_train_to_equal_roots() {
    let directory = tempfile::tempdir().unwrap();
    check_cluster(crate::processes::config_of_processes(directory.path(), 2)).await;
}

//! What the shaped links do, against what was asked of them, and what they cost.
//!
//! Prints: the rate at which datagrams cross fast links with the share of a core that the proxy takes; the rate of
//! limited links under twice their load; round trips of datagrams and of messages over QUIC; the time of a blob; and that of payloads, which
//! are small and come with pauses between them. `cargo bench -p node --bench links -- payloads` does the last only.

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use node::ShapedNetwork;
use node::blobs::Blobs;
use node::links::proxy::{HEADER_BYTES, THREAD_NAME};
use node::transport::{Services, Transport, TransportConfig, TransportEvent};
use wire::{Hash, Identity, Message, PROTOCOL_VERSION, PeerId, RunId};

const DATAGRAM_BYTES: usize = 1_400;
const BURST: u32 = 8;
const SECONDS: f64 = 3.0;
const PINGS: usize = 40;
const BLOB_BYTES: usize = 4_000_000;
const PAYLOAD_BYTES: usize = 25_000;
const PAYLOADS: usize = 12;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!(
        "over QUIC: {PAYLOADS} payloads of {PAYLOAD_BYTES} bytes with pauses between them, the first and then least / median / most:"
    );
    for spec in ["100M/20M,100ms", "100M/20M,100ms,1%"] {
        let times = runtime.block_on(payloads(spec));
        println!("  {spec}: {:.0} ms; {}", times[0].as_secs_f64() * 1e3, spread(times[1..].to_vec()));
    }
    if std::env::args().any(|argument| argument == "payloads") {
        return;
    }
    println!("datagrams of {DATAGRAM_BYTES} bytes, for {SECONDS} s:");
    for (spec, mbit_per_s) in [("0ms", 100.0), ("0ms", 200.0), ("0ms", 400.0), ("1G,50ms", 100.0), ("1G,50ms", 200.0)] {
        let flood = flood(spec, mbit_per_s);
        println!(
            "  {spec}, {mbit_per_s} Mbit/s sent: {:.1} Mbit/s delivered, {:.2} % not, {:.0} % of a core for the proxy",
            flood.delivered_mbit_per_s,
            flood.missing * 100.0,
            flood.cpu * 100.0
        );
    }
    println!("limited links under twice their load:");
    for mbit_per_s in [1.0, 20.0, 80.0] {
        let flood = flood(&format!("{mbit_per_s}M"), 2.0 * mbit_per_s);
        let measured = flood.delivered_mbit_per_s;
        println!(
            "  {mbit_per_s} Mbit/s asked: {measured:.2} delivered, {:+.2} %",
            (measured / mbit_per_s - 1.0) * 100.0
        );
    }
    println!("round trips of {PINGS} datagrams, least / median / most:");
    for spec in ["0ms", "20ms", "50ms", "100ms"] {
        println!("  {spec} asked: {}", spread(pings(spec)));
    }
    println!("over QUIC: round trips of {PINGS} messages, then a blob of {BLOB_BYTES} bytes:");
    for spec in ["0ms", "80M/20M,50ms", "80M/20M,50ms,1%", "100M/100M,10ms"] {
        let (trips, seconds) = runtime.block_on(quic(spec));
        let goodput = BLOB_BYTES as f64 * 8e-6 / seconds;
        println!("  {spec}: {}; {seconds:.2} s, {goodput:.1} Mbit/s of content", spread(trips));
    }
}

struct Flood {
    delivered_mbit_per_s: f64,
    missing: f64,
    cpu: f64,
}

fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn peer(byte: u8) -> PeerId {
    PeerId([byte; 32])
}

fn add(network: &ShapedNetwork, peer: PeerId, address: SocketAddr, spec: &str) -> SocketAddr {
    network.add(peer, address, spec.parse().unwrap()).unwrap()
}

/// Sends evenly at a rate, headers included, and measures what arrives.
fn flood(spec: &str, mbit_per_s: f64) -> Flood {
    let network = ShapedNetwork::start(1).unwrap();
    let (a, b) = (socket(), socket());
    add(&network, peer(1), a.local_addr().unwrap(), spec);
    let front = add(&network, peer(2), b.local_addr().unwrap(), spec);
    b.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let receiving = std::thread::spawn(move || {
        let mut buffer = [0; 2 * DATAGRAM_BYTES];
        let (mut datagrams, mut first, mut last) = (0_u32, None, Instant::now());
        while b.recv(&mut buffer).is_ok() {
            last = Instant::now();
            first.get_or_insert(last);
            datagrams += 1;
        }
        (datagrams, last - first.unwrap_or(last))
    });
    let charged = (DATAGRAM_BYTES as u64 + HEADER_BYTES) as f64;
    let pause = Duration::from_secs_f64(f64::from(BURST) * charged * 8e-6 / mbit_per_s);
    let (start, datagram) = (Instant::now(), [0; DATAGRAM_BYTES]);
    let mut bursts = 0;
    while start.elapsed().as_secs_f64() < SECONDS {
        for _ in 0..BURST {
            a.send_to(&datagram, front).unwrap();
        }
        bursts += 1;
        std::thread::sleep((pause * bursts).saturating_sub(start.elapsed()));
    }
    let cpu = cpu_seconds() / start.elapsed().as_secs_f64();
    let (datagrams, time) = receiving.join().unwrap();
    Flood {
        delivered_mbit_per_s: f64::from(datagrams.saturating_sub(1)) * charged * 8e-6 / time.as_secs_f64(),
        missing: 1.0 - f64::from(datagrams) / f64::from(bursts * BURST),
        cpu,
    }
}

/// Processor time of the proxy's thread so far; Linux only, elsewhere not a number.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return f64::NAN };
    let stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let own = stats.filter(|stat| stat.contains(&format!("({THREAD_NAME})")));
    let ticks = own.map(|stat| {
        // After the name: state, then 10 fields, then user and system time.
        let fields: Vec<f64> =
            stat.rsplit(')').next().unwrap().split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        fields[11] + fields[12]
    });
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn pings(spec: &str) -> Vec<Duration> {
    let network = ShapedNetwork::start(1).unwrap();
    let (a, b) = (socket(), socket());
    let front_a = add(&network, peer(1), a.local_addr().unwrap(), spec);
    let front_b = add(&network, peer(2), b.local_addr().unwrap(), spec);
    let mut buffer = [0; 8];
    let mut ping = || {
        let start = Instant::now();
        a.send_to(b"ping", front_b).unwrap();
        b.recv(&mut buffer).unwrap();
        b.send_to(b"pong", front_a).unwrap();
        a.recv(&mut buffer).unwrap();
        start.elapsed()
    };
    (0..PINGS).map(|_| ping()).collect()
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    format!("{:.1} / {:.1} / {:.1} ms", ms(times[0]), ms(times[times.len() / 2]), ms(times[times.len() - 1]))
}

struct End {
    id: PeerId,
    transport: Transport,
    blobs: Blobs,
    _directory: tempfile::TempDir,
}

async fn end(byte: u8) -> End {
    let (directory, who) = (tempfile::tempdir().unwrap(), Identity::from_secret([byte; 32]));
    let blobs = Blobs::open(&directory.path().join("blobs")).await.unwrap();
    let config = TransportConfig { fixed_paths: true, ..TransportConfig::default() };
    let transport =
        Transport::bind(&config, &who, Services { blobs: Some(blobs.index()), ..Services::default() }).await.unwrap();
    End { id: who.id(), transport, blobs, _directory: directory }
}

/// How long each of several payloads takes from one end to the other.
async fn payloads(spec: &str) -> Vec<Duration> {
    let network = ShapedNetwork::start(1).unwrap();
    let (a, b) = (end(1).await, end(2).await);
    let front_a = add(&network, a.id, a.transport.dialer().address(), spec);
    let front_b = add(&network, b.id, b.transport.dialer().address(), spec);
    a.transport.dialer().set_address(b.id, front_b);
    b.transport.dialer().set_address(a.id, front_a);
    let mut times = Vec::new();
    for number in 0..PAYLOADS {
        let hash = a.blobs.put(vec![u8::try_from(number).unwrap(); PAYLOAD_BYTES]).await.unwrap();
        let start = Instant::now();
        let providers = [a.id];
        let dialer = b.transport.dialer();
        b.blobs.fetch(dialer, hash, PAYLOAD_BYTES as u64, &providers, |_, error| panic!("{error}")).await.unwrap();
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    a.transport.shutdown().await;
    b.transport.shutdown().await;
    times
}

/// Round trips of messages, and the seconds of a blob.
async fn quic(spec: &str) -> (Vec<Duration>, f64) {
    let network = ShapedNetwork::start(1).unwrap();
    let (mut a, mut b) = (end(1).await, end(2).await);
    let front_a = add(&network, a.id, a.transport.dialer().address(), spec);
    let front_b = add(&network, b.id, b.transport.dialer().address(), spec);
    a.transport.dialer().set_address(b.id, front_b);
    b.transport.dialer().set_address(a.id, front_a);
    a.transport.connect(b.id);
    assert!(matches!(a.transport.next().await, TransportEvent::Connected(_)));
    assert!(matches!(b.transport.next().await, TransportEvent::Connected(_)));
    let hello = Message::Hello { version: PROTOCOL_VERSION, run: RunId(Hash::of(b"run")), height: 0, open: None };
    let mut trips = Vec::new();
    for _ in 0..PINGS {
        let start = Instant::now();
        a.transport.send(b.id, &hello);
        b.transport.next().await;
        b.transport.send(a.id, &hello);
        a.transport.next().await;
        trips.push(start.elapsed());
    }
    let hash = a.blobs.put(vec![7; BLOB_BYTES]).await.unwrap();
    let start = Instant::now();
    b.blobs.fetch(b.transport.dialer(), hash, BLOB_BYTES as u64, &[a.id], |_, error| panic!("{error}")).await.unwrap();
    let seconds = start.elapsed().as_secs_f64();
    a.transport.shutdown().await;
    b.transport.shutdown().await;
    (trips, seconds)
}

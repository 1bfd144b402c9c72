//! Counts the bytes on the wire, headers included, and says which way they take.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use iroh::TransportAddr;
use iroh::endpoint::{Connection, UdpStats};
use serde::{Deserialize, Serialize};
use wire::PeerId;

/// IPv4 and UDP headers of one datagram, in bytes.
const DATAGRAM_HEADER_BYTES: u64 = 20 + 8;

/// Bytes to and from a peer, QUIC, UDP and IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

impl Traffic {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
    }

    fn of(connection: &Connection) -> Self {
        let bytes = |udp: UdpStats| udp.bytes + DATAGRAM_HEADER_BYTES * udp.datagrams;
        let stats = connection.stats();
        Self { sent: bytes(stats.udp_tx), received: bytes(stats.udp_rx) }
    }
}

/// Which way packets to a peer take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Where they are sent; none when that is a relay.
    pub direct: Option<SocketAddr>,
    /// Its round-trip time, in microseconds.
    pub round_trip_us: u64,
}

impl Path {
    /// The path that a connection uses now; none when it has none, or paths of another kind.
    pub(super) fn of(connection: &Connection) -> Option<Self> {
        let paths = connection.paths();
        let path = paths.iter().find(iroh::endpoint::Path::is_selected)?;
        let direct = match path.remote_addr() {
            TransportAddr::Ip(address) => Some(*address),
            TransportAddr::Relay(_) => None,
            _ => return None,
        };
        Some(Self { direct, round_trip_us: u64::try_from(path.rtt().as_micros()).unwrap_or(u64::MAX) })
    }

    /// Whether a relay passes the packets on.
    pub fn is_relayed(&self) -> bool {
        self.direct.is_none()
    }
}

/// The counters of all connections, open and closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    meters: Arc<Mutex<BTreeMap<PeerId, Meter>>>,
}

#[derive(Debug, Default)]
struct Meter {
    closed: Traffic,
    open: Vec<Connection>,
}

impl Meters {
    /// Counts a connection from now until it closes.
    pub(super) fn watch(&self, peer: PeerId, connection: &Connection) {
        self.with(|meters| meters.entry(peer).or_default().open.push(connection.clone()));
        let (meters, connection) = (self.clone(), connection.clone());
        tokio::spawn(async move {
            connection.closed().await;
            meters.with(|meters| {
                let meter = meters.entry(peer).or_default();
                meter.open.retain(|open| open.stable_id() != connection.stable_id());
                meter.closed.add(Traffic::of(&connection));
            });
        });
    }

    /// The open connections to and from a peer, whatever they are for.
    pub(super) fn open(&self, peer: PeerId) -> Vec<Connection> {
        self.with(|meters| meters.get(&peer).map_or_else(Vec::new, |meter| meter.open.clone()))
    }

    /// Which way packets to each connected peer take: of several connections, that of the newest.
    pub(super) fn paths(&self) -> BTreeMap<PeerId, Path> {
        self.with(|meters| {
            let path = |meter: &Meter| meter.open.iter().rev().find_map(Path::of);
            meters.iter().filter_map(|(peer, meter)| Some((*peer, path(meter)?))).collect()
        })
    }

    /// Bytes so far, by peer.
    pub(super) fn read(&self) -> BTreeMap<PeerId, Traffic> {
        self.with(|meters| {
            let sum = |meter: &Meter| {
                let mut traffic = meter.closed;
                meter.open.iter().for_each(|connection| traffic.add(Traffic::of(connection)));
                traffic
            };
            meters.iter().map(|(peer, meter)| (*peer, sum(meter))).collect()
        })
    }

    fn with<T>(&self, run: impl FnOnce(&mut BTreeMap<PeerId, Meter>) -> T) -> T {
        run(&mut self.meters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

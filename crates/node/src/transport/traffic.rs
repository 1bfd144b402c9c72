//! Counts the bytes on the wire, headers included.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

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

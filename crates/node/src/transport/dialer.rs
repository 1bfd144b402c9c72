//! Opens connections to peers, knows where they listen, and counts their bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use iroh::endpoint::{Connection, ConnectionError};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayUrl, TransportAddr};
use wire::PeerId;

use super::traffic::{Meters, Path, Traffic};
use super::{NO_COMMON_ALPN, PEERS_MAX, TransportConfig, TransportError, fixed, link, window};
use crate::limits::Rates;

/// Connections to a peer for one protocol.
type OpenConnections = BTreeMap<(PeerId, &'static [u8]), Connection>;

/// Opens connections, and counts their bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    pub(super) endpoint: Endpoint,
    /// Where it listens when its paths are fixed.
    fixed: Option<SocketAddr>,
    /// Through which peers are reached, too.
    relays: Arc<[RelayUrl]>,
    pub(super) own: PeerId,
    pub(super) alpn: Arc<[u8]>,
    /// Where peers listen, as it was told.
    book: Arc<Mutex<BTreeMap<PeerId, SocketAddr>>>,
    /// Where connections of other peers came from last: at most [`PEERS_MAX`].
    seen: Arc<Mutex<BTreeMap<PeerId, SocketAddr>>>,
    /// Where others say that peers listen: at most [`PEERS_MAX`].
    rumours: Arc<Mutex<BTreeMap<PeerId, SocketAddr>>>,
    pub(super) meters: Meters,
    rates: Rates,
    /// Open connections for other things than messages, by what they are for.
    connections: Arc<Mutex<OpenConnections>>,
}

impl Dialer {
    /// Dials for the endpoint of a peer, which listens at `fixed` when its paths are, as it is configured, through these relays.
    pub(super) fn new(
        endpoint: Endpoint,
        fixed: Option<SocketAddr>,
        own: PeerId,
        (config, relays): (&TransportConfig, &[RelayUrl]),
    ) -> Self {
        Self {
            endpoint,
            fixed,
            relays: relays.into(),
            own,
            alpn: config.alpn.as_slice().into(),
            book: Arc::default(),
            seen: Arc::default(),
            rumours: Arc::default(),
            meters: Meters::default(),
            rates: config.rates.clone(),
            connections: Arc::default(),
        }
    }

    /// The address that the endpoint listens on.
    pub fn address(&self) -> SocketAddr {
        let first = || self.endpoint.bound_sockets().into_iter().next().expect("a bound endpoint has a socket");
        self.fixed.unwrap_or_else(first)
    }

    /// The addresses that the endpoint knows of itself: those of this machine and, once a relay told, that from which its packets come.
    pub(crate) fn own_addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.addr().ip_addrs().copied().collect()
    }

    /// Notes where a peer listens; gives where it was known to listen before.
    pub fn set_address(&self, peer: PeerId, address: SocketAddr) -> Option<SocketAddr> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, address)
    }

    /// Notes where a connection of a peer came from.
    pub(super) fn note_seen(&self, peer: PeerId, address: SocketAddr) {
        insert_bounded(&self.seen, peer, address);
    }

    /// Notes where another peer says that a peer listens.
    pub(crate) fn note_rumour(&self, peer: PeerId, address: SocketAddr) {
        insert_bounded(&self.rumours, peer, address);
    }

    /// Where to call a peer: what was told counts for more than what was seen, and that for more than what others say.
    pub(crate) fn address_of(&self, peer: PeerId) -> Option<SocketAddr> {
        let ways = [&self.book, &self.seen, &self.rumours];
        ways.into_iter().find_map(|way| way.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied())
    }

    /// Closes what is open to a peer for other things than messages: its process is another one now, and would not answer there.
    pub(crate) fn forget_connections(&self, peer: PeerId) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|(of, _), connection| {
            if *of == peer {
                connection.close(link::CLOSE_DUPLICATE, b"its peer began anew");
            }
            *of != peer
        });
    }

    /// How much may go to other machines and come from them.
    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Bytes sent and received so far, by peer, headers included, over message and blob connections.
    pub fn traffic(&self) -> BTreeMap<PeerId, Traffic> {
        self.meters.read()
    }

    /// Which way packets to each connected peer take now.
    pub fn paths(&self) -> BTreeMap<PeerId, Path> {
        self.meters.paths()
    }

    /// Which way packets to a peer take now; none when it is not connected.
    pub fn path_to(&self, peer: PeerId) -> Option<Path> {
        self.meters.open(peer).iter().rev().find_map(Path::of)
    }

    /// Closes the endpoint, with all its connections.
    pub(crate) async fn close(&self) {
        self.endpoint.close().await;
    }

    /// A connection to a peer for another protocol than that of messages: the open one, or a new one.
    ///
    /// # Errors
    /// [`TransportError`] when the peer is unknown or does not answer.
    pub async fn connection(&self, peer: PeerId, alpn: &'static [u8]) -> Result<Connection, TransportError> {
        let known = self.connections.lock().unwrap_or_else(PoisonError::into_inner).get(&(peer, alpn)).cloned();
        if let Some(connection) = known.filter(|connection| connection.close_reason().is_none()) {
            return Ok(connection);
        }
        let connection = self.dial(peer, alpn).await?;
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.insert((peer, alpn), connection.clone());
        Ok(connection)
    }

    pub(super) async fn dial(&self, peer: PeerId, alpn: &[u8]) -> Result<Connection, TransportError> {
        self.dial_at(peer, alpn, self.address_of(peer).as_slice()).await
    }

    /// Dials a peer at addresses and through the relays, all at once.
    pub(crate) async fn dial_at(
        &self,
        peer: PeerId,
        alpn: &[u8],
        addresses: &[SocketAddr],
    ) -> Result<Connection, TransportError> {
        let unreachable = |detail: String| TransportError::Unreachable { peer, detail };
        if addresses.is_empty() && self.relays.is_empty() {
            return Err(TransportError::UnknownPeer { peer });
        }
        let id = EndpointId::from_bytes(&peer.0).map_err(|_| unreachable("its id is no public key".to_owned()))?;
        let direct = addresses.iter().map(|address| match self.fixed {
            Some(_) => TransportAddr::Custom(fixed::path_to(*address)),
            None => TransportAddr::Ip(*address),
        });
        let ways = direct.chain(self.relays.iter().cloned().map(TransportAddr::Relay));
        let connecting = self
            .endpoint
            .connect_with_opts(
                EndpointAddr::from_parts(id, ways),
                alpn,
                window::options(alpn, self.rates.down_bits_per_s()),
            )
            .await
            .map_err(|error| unreachable(format!("{error:#}")))?;
        let connection = connecting.await.map_err(|error| match &error {
            iroh::endpoint::ConnectingError::ConnectionError { source, .. } if is_version_refusal(source) => {
                TransportError::WrongVersion { peer }
            }
            _ => unreachable(format!("{error:#}")),
        })?;
        self.meters.watch(peer, &connection);
        Ok(connection)
    }
}

fn insert_bounded(way: &Mutex<BTreeMap<PeerId, SocketAddr>>, peer: PeerId, address: SocketAddr) {
    let mut way = way.lock().unwrap_or_else(PoisonError::into_inner);
    if way.len() >= PEERS_MAX && !way.contains_key(&peer) {
        way.pop_first();
    }
    way.insert(peer, address);
}

fn is_version_refusal(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) == NO_COMMON_ALPN,
        ConnectionError::TransportError(error) => u64::from(error.code) == NO_COMMON_ALPN,
        _ => false,
    }
}

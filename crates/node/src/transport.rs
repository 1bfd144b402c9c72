//! Connects peers over QUIC and carries their messages.
//!
//! Source: iroh 1.4 (QUIC with mutual ed25519 authentication, so a connection proves the other side's [`PeerId`]). The
//! endpoint is built on iroh's minimal preset: no DNS, no port mapper, no third party, and no relay but those of the run; addresses come
//! from the address book, and the default bind address is loopback.
//!
//! Shape of a connection: one unidirectional stream each way, opened by its sender at once; on it frames of a `u32`
//! little-endian length and a message's canonical bytes. Two streams rather than one bidirectional one, so that neither
//! side waits for the other's first byte before it counts as connected.
//!
//! One connection per pair of peers. When both dial at the same moment, both keep the connection that the peer with the
//! smaller id dialled. A connection from a peer that already has one older than [`SIMULTANEOUS_MS_MAX`] replaces it: the
//! other side would not dial if it still had the old one. What was open to it for other things than messages goes, too.
//!
//! Everything is bounded. Out: [`FRAMES_QUEUED_MAX`] frames and [`BYTES_QUEUED_MAX`] bytes per peer; a message that does
//! not fit is dropped and counted, since the protocol repeats by timer what matters. In: [`BYTES_INBOUND_MAX`] bytes of
//! decoded frames over all peers; then readers stop reading, and QUIC's flow control slows the senders.
//!
//! Paths. By default, endpoints tell each other their own addresses over a connection, and move it to the fastest path that
//! they find. With [`TransportConfig::fixed_paths`] they use the addresses of the address book and no others: see `fixed`.
//!
//! Addresses. Whoever starts peers tells them where others listen. A peer that nobody told of is called back where its connections come
//! from: its socket is one for both directions, so this also reaches peers behind an address translation that they themselves opened.
//!
//! Relays. Peers of a run with relays ([`crate::relay`]) keep a connection to one of them, and are dialled through them and at their known
//! address at once. A connection that began through a relay goes on without it as soon as the two ends found a direct path; which it is, is
//! told by [`Dialer::paths`].
//!
//! What it deliberately does not do: decide whom to connect to, retry, or look into messages.

mod dialer;
mod fixed;
mod link;
mod relays;
mod throttle;
mod traffic;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iroh::endpoint::{Connection, IncomingAddr, PortmapperConfig, VarInt, presets};
use iroh::{Endpoint, RelayUrl, SecretKey};
use iroh_blobs::api::Store as BlobIndex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use wire::{Identity, Message, PeerId};

use crate::blobs::{BlobGate, CLOSE_REFUSED};
use crate::inference::{self, InferenceServer};
use crate::join::{self, RunOffer};
use crate::limits::Rates;
use crate::texts::{self, TextOffer};
pub use dialer::Dialer;
use fixed::FixedPaths;
use link::{Link, LinkEvent};
pub use traffic::{Path, Traffic};
use window::Acceptor;

/// What peers of this protocol version ask for when they connect.
pub const ALPN: &[u8] = b"cairn/3";
/// Most frames waiting to be sent to one peer.
pub const FRAMES_QUEUED_MAX: usize = 256;
/// Most bytes waiting to be sent to one peer.
pub const BYTES_QUEUED_MAX: usize = 64 << 20;
/// Most bytes of received frames that wait to be handled, over all peers.
pub const BYTES_INBOUND_MAX: usize = 96 << 20;
/// Most connected peers.
pub const PEERS_MAX: usize = 1024;
/// Two connections of one pair that were made within this time count as dialled at the same moment.
pub const SIMULTANEOUS_MS_MAX: u64 = 3_000;
/// How long a shutdown waits for queued messages to be sent.
pub const FLUSH_MS_MAX: u64 = 2_000;

/// A connection on which nothing was heard for so long is gone: its peer crashed, or the way to it did.
pub const SILENCE_MAX: Duration = Duration::from_secs(8);

const EVENTS_QUEUED_MAX: usize = 1024;
/// TLS alert 120, `no_application_protocol`, as a QUIC error code: the other side speaks another version.
const NO_COMMON_ALPN: u64 = 0x100 + 120;

/// How to bind.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The protocol to speak and to accept: [`ALPN`].
    pub alpn: Vec<u8>,
    /// Whether to use the addresses of the address book and no path besides, as peers behind shaped links must.
    pub fixed_paths: bool,
    /// Relays through which to be reached and to reach others: none without any, and with fixed paths.
    pub relays: Vec<RelayUrl>,
    /// How much may go to other machines and come from them.
    pub rates: Rates,
}

impl Default for TransportConfig {
    fn default() -> Self {
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { bind, alpn: ALPN.to_vec(), fixed_paths: false, relays: Vec::new(), rates: Rates::default() }
    }
}

/// The network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No socket at the address.
    #[error("cannot listen on `{address}`: {detail}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the endpoint says.
        detail: String,
    },
    /// The address book does not know the peer.
    #[error("no address is known for peer `{peer:?}`")]
    UnknownPeer {
        /// The peer.
        peer: PeerId,
    },
    /// The peer did not answer, or refused.
    #[error("cannot connect to peer `{peer:?}`: {detail}")]
    Unreachable {
        /// The peer.
        peer: PeerId,
        /// What the endpoint says.
        detail: String,
    },
    /// The peer speaks another version of the protocol.
    #[error("peer `{peer:?}` speaks another version of the protocol")]
    WrongVersion {
        /// The peer.
        peer: PeerId,
    },
}

/// What happened on the network.
#[derive(Debug)]
pub enum TransportEvent {
    /// A peer is connected; messages can be sent.
    Connected(PeerId),
    /// A peer is no longer connected.
    Disconnected(PeerId),
    /// A message arrived.
    Received {
        /// From whom.
        from: PeerId,
        /// The message.
        message: Box<Message>,
        /// How long its bytes took to arrive, from the first to the last, in microseconds.
        took_us: u64,
    },
    /// Bytes arrived that are no message.
    Undecodable {
        /// From whom.
        from: PeerId,
        /// What the decoder says.
        error: String,
    },
    /// A connection that was asked for could not be made.
    ConnectFailed {
        /// To whom.
        peer: PeerId,
        /// Why.
        error: TransportError,
    },
}

/// One live connection to a peer.
#[derive(Debug)]
struct Live {
    link: Link,
    dialled_by: PeerId,
    since: Instant,
}

/// What an endpoint serves beside messages.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Blobs, to whom the gate admits.
    pub blobs: Option<BlobIndex>,
    /// Who may have them.
    pub gate: BlobGate,
    /// A stage of a model, to consumers.
    pub inference: Option<InferenceServer>,
    /// What run it is, to machines that want to join.
    pub offer: Option<RunOffer>,
    /// The text that the run is trained on, to them.
    pub texts: Option<TextOffer>,
}

/// The network side of one peer. One task owns it: it sends, and polls [`Transport::next`].
#[derive(Debug)]
pub struct Transport {
    dialer: Dialer,
    live: BTreeMap<PeerId, Live>,
    dialling: BTreeSet<PeerId>,
    incoming: mpsc::Receiver<LinkEvent>,
    incoming_sender: mpsc::Sender<LinkEvent>,
    inbound_bytes: Arc<Semaphore>,
    ready: VecDeque<TransportEvent>,
    links_made: u64,
    accepting: tokio::task::JoinHandle<()>,
}

impl Transport {
    /// Binds the endpoint of `identity` and starts accepting connections.
    ///
    /// # Errors
    /// [`TransportError::Bind`] when the address cannot be listened on.
    pub async fn bind(
        config: &TransportConfig,
        identity: &Identity,
        services: Services,
    ) -> Result<Self, TransportError> {
        let bind_error = |detail: String| TransportError::Bind { address: config.bind, detail };
        let mut alpns = vec![config.alpn.clone()];
        if services.blobs.is_some() {
            alpns.push(iroh_blobs::ALPN.to_vec());
        }
        if services.inference.is_some() {
            alpns.push(inference::ALPN.to_vec());
        }
        if services.offer.is_some() {
            alpns.push(join::ALPN.to_vec());
        }
        if services.texts.is_some() {
            alpns.push(texts::ALPN.to_vec());
        }
        let relays = if config.fixed_paths { &[] } else { config.relays.as_slice() };
        let builder = Endpoint::builder(presets::Minimal)
            .relay_mode(relays::mode(relays))
            .ca_tls_config(relays::trust(relays))
            .portmapper_config(PortmapperConfig::Disabled)
            .secret_key(SecretKey::from_bytes(&identity.secret()))
            .alpns(alpns)
            .clear_ip_transports();
        let down_bits_per_s = config.rates.down_bits_per_s();
        let builder = builder.transport_config(window::transfers(down_bits_per_s));
        let (builder, fixed) = if config.fixed_paths {
            let paths = FixedPaths::bind(config.bind).map_err(|error| bind_error(error.to_string()))?;
            let address = paths.address();
            (builder.add_custom_transport(Arc::new(paths)), Some(address))
        } else {
            (builder.bind_addr(config.bind).map_err(|error| bind_error(error.to_string()))?, None)
        };
        let endpoint = builder.bind().await.map_err(|error| bind_error(format!("{error:#}")))?;
        let dialer = Dialer::new(endpoint, fixed, identity.id(), (config, relays));
        let (incoming_sender, incoming) = mpsc::channel(EVENTS_QUEUED_MAX);
        let accepting = tokio::spawn(accept_all(dialer.clone(), services, incoming_sender.clone()));
        Ok(Self {
            dialer,
            live: BTreeMap::new(),
            dialling: BTreeSet::new(),
            incoming,
            incoming_sender,
            inbound_bytes: Arc::new(Semaphore::new(BYTES_INBOUND_MAX)),
            ready: VecDeque::new(),
            links_made: 0,
            accepting,
        })
    }

    /// The handle that other tasks use: address book, blob connections, byte counters.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Whether a peer is connected.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.live.contains_key(&peer)
    }

    /// Notes where a peer listens. What is open to one that listened elsewhere is closed: an endpoint sends to the address that it chose
    /// for a peer until its last connection to it is gone, new ones included (iroh's `remote_state.rs`).
    pub fn set_address(&mut self, peer: PeerId, address: SocketAddr) {
        if self.dialer.set_address(peer, address).is_some_and(|before| before != address) {
            self.note_end(peer);
        }
    }

    /// Notes that a peer's process ended: everything that is open to it is closed, as it would be after [`SILENCE_MAX`].
    pub fn note_end(&mut self, peer: PeerId) {
        if self.live.remove(&peer).is_some() {
            self.ready.push_back(TransportEvent::Disconnected(peer));
        }
        for connection in self.dialer.meters.open(peer) {
            connection.close(link::CLOSE_DUPLICATE, b"its peer ended");
        }
    }

    /// Starts to connect to a peer, unless that is done or under way. The outcome comes as an event.
    pub fn connect(&mut self, peer: PeerId) {
        if peer == self.dialer.own || self.live.contains_key(&peer) || !self.dialling.insert(peer) {
            return;
        }
        let (dialer, sender) = (self.dialer.clone(), self.incoming_sender.clone());
        tokio::spawn(async move {
            let alpn = dialer.alpn.clone();
            let outcome = dialer.dial(peer, &alpn).await;
            // The receiver is gone only when the transport is.
            let _ = sender.send(LinkEvent::Dialled { peer, outcome }).await;
        });
    }

    /// Sends what is queued for a peer, then closes its connection. No event follows.
    pub fn disconnect(&mut self, peer: PeerId) {
        self.live.remove(&peer);
    }

    /// Queues a message for a peer. It is dropped when the peer is not connected, or its queue is full.
    pub fn send(&mut self, to: PeerId, message: &Message) {
        match self.live.get(&to) {
            Some(live) => live.link.send(to, message),
            None => tracing::trace!(peer = ?to, "not connected: message dropped"),
        }
    }

    /// The next event. Cancel-safe.
    pub async fn next(&mut self) -> TransportEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let event = self.incoming.recv().await.expect("the transport holds a sender");
            self.take(event);
        }
    }

    /// Sends what is queued, closes every connection, and waits until the other sides know it.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        let writers: Vec<_> =
            std::mem::take(&mut self.live).into_values().map(|live| live.link.into_writer()).collect();
        let flushed = async {
            for writer in writers {
                // A writer that panicked has nothing left to flush.
                let _ = writer.await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(FLUSH_MS_MAX), flushed).await.is_err() {
            tracing::warn!("a peer did not take its last messages in time");
        }
        self.dialer.endpoint.close().await;
    }

    fn take(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Dialled { peer, outcome } => {
                self.dialling.remove(&peer);
                match outcome {
                    Ok(connection) => self.admit(peer, connection, self.dialer.own),
                    Err(_) if self.live.contains_key(&peer) => {}
                    Err(error) => self.ready.push_back(TransportEvent::ConnectFailed { peer, error }),
                }
            }
            LinkEvent::Accepted(connection) => {
                let peer = PeerId(*connection.remote_id().as_bytes());
                self.admit(peer, connection, peer);
            }
            LinkEvent::Message { from, link, message, took_us, permit } => {
                drop(permit);
                if self.is_current(from, link) {
                    self.ready.push_back(TransportEvent::Received { from, message, took_us });
                }
            }
            LinkEvent::Undecodable { from, link, error } => {
                if self.is_current(from, link) {
                    self.ready.push_back(TransportEvent::Undecodable { from, error });
                }
            }
            LinkEvent::Closed { peer, link, reason } => {
                if self.is_current(peer, link) {
                    tracing::debug!(peer = ?peer, reason, "connection closed");
                    self.live.remove(&peer);
                    self.ready.push_back(TransportEvent::Disconnected(peer));
                }
            }
        }
    }

    fn is_current(&self, peer: PeerId, link: u64) -> bool {
        self.live.get(&peer).is_some_and(|live| live.link.number() == link)
    }

    /// Takes a new connection in, or refuses it, by the rule for two connections of one pair.
    fn admit(&mut self, peer: PeerId, connection: Connection, dialled_by: PeerId) {
        if !self.live.contains_key(&peer) && self.live.len() >= PEERS_MAX {
            connection.close(link::CLOSE_FULL, b"too many peers");
            return;
        }
        if let Some(old) = self.live.get(&peer) {
            let fresh = old.since.elapsed() < Duration::from_millis(SIMULTANEOUS_MS_MAX);
            let preferred = self.dialer.own.min(peer);
            if fresh && old.dialled_by == preferred && dialled_by != preferred {
                connection.close(link::CLOSE_DUPLICATE, b"duplicate");
                return;
            }
            if let Some(old) = self.live.remove(&peer) {
                old.link.close_duplicate();
            }
            if !fresh {
                self.dialer.forget_connections(peer);
            }
            self.ready.push_back(TransportEvent::Disconnected(peer));
        }
        self.links_made += 1;
        let events = self.incoming_sender.clone();
        let link =
            Link::start(peer, self.links_made, connection, events, self.inbound_bytes.clone(), self.dialer.rates());
        self.live.insert(peer, Live { link, dialled_by, since: Instant::now() });
        self.ready.push_back(TransportEvent::Connected(peer));
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts connections until the endpoint closes: messages go to the transport, what is served otherwise to tasks of its own.
async fn accept_all(dialer: Dialer, services: Services, events: mpsc::Sender<LinkEvent>) {
    // Whoever ends this task ends the connections that it serves.
    let mut serving = JoinSet::new();
    let acceptor = Acceptor::new(&dialer.endpoint, dialer.rates().down_bits_per_s());
    while let Some(incoming) = dialer.endpoint.accept().await {
        while serving.try_join_next().is_some() {}
        let from = match incoming.remote_addr() {
            IncomingAddr::Ip(address) => Some(address),
            _ => None,
        };
        let Ok(accepting) = acceptor.accept(incoming) else { continue };
        let (dialer, services, events) = (dialer.clone(), services.clone(), events.clone());
        serving.spawn(async move {
            let connection = match accepting.await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%error, "an incoming connection failed");
                    return;
                }
            };
            let peer = PeerId(*connection.remote_id().as_bytes());
            dialer.meters.watch(peer, &connection);
            if let Some(address) = from {
                dialer.note_seen(peer, address);
            }
            if connection.alpn() == iroh_blobs::ALPN {
                match services.blobs {
                    Some(_) if !services.gate.admits(&peer) => {
                        tracing::debug!(peer = ?peer, "a peer that may have no blobs asks for some");
                        connection.close(VarInt::from_u32(CLOSE_REFUSED), b"no blobs for this peer");
                    }
                    Some(blobs) => {
                        let paced = throttle::paced(dialer.rates().up_to(&peer));
                        iroh_blobs::provider::handle_connection(connection, blobs, paced).await;
                    }
                    None => connection.close(VarInt::from_u32(0), b"no blobs"),
                }
            } else if connection.alpn() == join::ALPN {
                match services.offer {
                    Some(offer) => offer.serve(connection).await,
                    None => connection.close(VarInt::from_u32(0), b"no run"),
                }
            } else if connection.alpn() == texts::ALPN {
                match services.texts {
                    Some(texts) => texts.serve(connection).await,
                    None => connection.close(VarInt::from_u32(0), b"no text"),
                }
            } else if connection.alpn() == inference::ALPN {
                match services.inference {
                    Some(inference) => inference.serve(connection, dialer.rates()).await,
                    None => connection.close(VarInt::from_u32(0), b"no inference"),
                }
            } else {
                // The receiver is gone only when the transport is.
                let _ = events.send(LinkEvent::Accepted(connection)).await;
            }
        });
    }
}

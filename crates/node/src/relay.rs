//! A relay: a machine with a public address through which peers meet that cannot reach each other.
//!
//! Source: iroh-relay 1.4, as a library. It does three things: it passes packets on between peers that connected to it (over a WebSocket, on
//! TCP), it is where two of them arrange to open a direct path (QUIC NAT traversal), and it tells a peer from which address its packets come
//! (QUIC address discovery, on UDP of the same port number).
//!
//! Trust: none. Everything between two peers is encrypted and authenticated end to end by their own keys; a relay sees who talks to whom,
//! when, and how much, and can refuse. So it needs no certificate of the web's authorities: for an `http://` relay, peers take any certificate
//! at the address discovery, whose answer is a hint that is tried out ([`crate::transport`]).
//!
//! Bounded: [`CLIENT_BYTES_PER_S`] from each client unless another limit is set.
//!
//! What it deliberately does not do: accounts, payments, HTTPS. Behind a web server that terminates TLS, it is reached at an `https://`
//! address.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;

use iroh_relay::server::{ClientRateLimit, QuicConfig, RelayConfig, Server, ServerConfig};

use crate::join;

/// What one client may send through a relay unless somebody says otherwise, in bytes per second.
pub const CLIENT_BYTES_PER_S: NonZeroU32 = NonZeroU32::new(12_500_000).expect("it is not 0");
/// How often another port is tried when any may be taken.
const PORT_TRIES: usize = 8;

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    server: Server,
    address: SocketAddr,
}

/// A relay cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot run a relay at `{address}`: {detail}")]
pub struct RelayError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What went wrong.
    pub detail: String,
}

/// What a relay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayFigures {
    /// Clients that are connected.
    pub clients: u64,
    /// Bytes that came from clients to be passed on.
    pub bytes_received: u64,
    /// Bytes that were passed on.
    pub bytes_sent: u64,
}

impl Relay {
    /// Starts to listen on TCP and UDP of one port; port 0 takes a free one. Each client may send so many bytes a second.
    ///
    /// # Errors
    /// [`RelayError`] when the port is taken, or may not be opened.
    pub async fn start(listen: SocketAddr, client_bytes_per_s: NonZeroU32) -> Result<Self, RelayError> {
        let mut outcome = Self::start_at(listen, client_bytes_per_s).await;
        for _ in 1..PORT_TRIES {
            // A free port of TCP may be taken in UDP.
            if outcome.is_ok() || listen.port() != 0 {
                break;
            }
            outcome = Self::start_at(listen, client_bytes_per_s).await;
        }
        outcome
    }

    async fn start_at(listen: SocketAddr, client_bytes_per_s: NonZeroU32) -> Result<Self, RelayError> {
        let error = |detail: String| RelayError { address: listen, detail };
        let address = match listen.port() {
            0 => TcpListener::bind(listen).and_then(|socket| socket.local_addr()),
            _ => Ok(listen),
        };
        let address = address.map_err(|io| error(io.to_string()))?;
        let mut relay = RelayConfig::new(address);
        relay.limits.client_rx = Some(ClientRateLimit::new(client_bytes_per_s));
        let mut discovery = QuicConfig::new(address);
        discovery.server_config = Some(own_certificate().map_err(error)?);
        let mut config = ServerConfig::default();
        (config.relay, config.quic) = (Some(relay), Some(discovery));
        let server = Server::spawn(config).await.map_err(|failed| error(format!("{failed:#}")))?;
        Ok(Self { server, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How peers name it: its addresses as far as this machine knows them, the likeliest first.
    pub fn urls(&self) -> Vec<String> {
        join::reachable(self.address).into_iter().map(|address| format!("http://{address}")).collect()
    }

    /// What it has done so far.
    pub fn figures(&self) -> RelayFigures {
        let metrics = &self.server.metrics().server;
        RelayFigures {
            clients: metrics.accepts.get().saturating_sub(metrics.disconnects.get()),
            bytes_received: metrics.bytes_recv.get(),
            bytes_sent: metrics.bytes_sent.get(),
        }
    }

    /// Ends it, with all that is connected.
    pub async fn shutdown(self) {
        if let Err(error) = self.server.shutdown().await {
            tracing::debug!(%error, "the relay ended with an error");
        }
    }
}

/// A certificate that nobody vouches for; see the head of this file.
fn own_certificate() -> Result<rustls::ServerConfig, String> {
    let made = rcgen::generate_simple_self_signed(["cairn-relay".to_owned()]).map_err(|error| error.to_string())?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_no_client_auth();
    builder.with_single_cert(vec![made.cert.der().clone()], key.into()).map_err(|error| error.to_string())
}

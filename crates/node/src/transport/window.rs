//! What a connection may send before anything was acknowledged.
//!
//! QUIC begins with a window of ten datagrams, and spreads what it sends over the round trip in bursts of at most 10 ms of a full window
//! (noq-proto's `pacing.rs`). While a connection has nothing more to send, acknowledgements do not widen its window (RFC 9002, 7.8). So calls
//! and answers of a few kilobytes stay in the first window: with 100 ms to go there and back, each datagram after the first would wait 8 ms.
//!
//! Connections of inference therefore begin with [`CALL_WINDOW_BYTES`]. All others carry transfers, whose windows widen by themselves, and
//! begin as usual: behind a slow link a wide first window would only overflow the router's queue.
//!
//! Transfers are paced by BBR (version 3), which measures the rate of the way instead of taking each loss for a full queue, as Cubic does: with 1 % of
//! datagrams lost, 4 MB over 20 Mbit/s and 50 ms take 2.0 s instead of 8.5 s, and without losses they take the same.
//!
//! Where the rate of what arrives is limited, less may arrive before it is read.
//!
//! The accepting side has to choose before the handshake. It reads the protocol's name in the first datagram; where that cannot be read, the
//! connection begins as usual.

use std::sync::Arc;
use std::time::Duration;

use iroh::Endpoint;
use iroh::endpoint::{
    Accepting, ConnectOptions, ConnectionError, IdleTimeout, Incoming, QuicTransportConfig, QuicTransportConfigBuilder,
    ServerConfig, VarInt,
};
use noq_proto::congestion::{Bbr3Config, CubicConfig};

use super::SILENCE_MAX;
use crate::inference;

/// How often a silent connection is kept alive.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// The first window of a connection of inference: eight kilobytes leave at once where a round trip takes no more than 80 ms.
const CALL_WINDOW_BYTES: u64 = 64 << 10;
/// The least and the most that may arrive unread on a stream where the rate of what arrives is limited, in bytes.
const UNREAD_BYTES: (u64, u64) = (64 << 10, 1 << 20);

/// The settings of connections whose windows begin as usual.
pub(super) fn transfers(down_bits_per_s: Option<u64>) -> QuicTransportConfig {
    builder(down_bits_per_s).congestion_controller_factory(Arc::new(Bbr3Config::default())).build()
}

fn builder(down_bits_per_s: Option<u64>) -> QuicTransportConfigBuilder {
    let silence = IdleTimeout::try_from(SILENCE_MAX).expect("a few seconds fit");
    let builder = QuicTransportConfig::builder().keep_alive_interval(KEEP_ALIVE).max_idle_timeout(Some(silence));
    match down_bits_per_s {
        None => builder,
        Some(rate) => builder.stream_receive_window(unread(rate)),
    }
}

/// What may arrive on a stream before it is read: half a second of a limited rate, so that a sender notices soon that it is to slow down.
fn unread(bits_per_s: u64) -> VarInt {
    let bytes = (bits_per_s / 16).clamp(UNREAD_BYTES.0, UNREAD_BYTES.1);
    VarInt::from_u32(u32::try_from(bytes).expect("at most a megabyte"))
}

fn calls(down_bits_per_s: Option<u64>) -> QuicTransportConfig {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(CALL_WINDOW_BYTES);
    builder(down_bits_per_s).congestion_controller_factory(Arc::new(congestion)).build()
}

/// The settings of a connection to be made for a protocol.
pub(super) fn options(alpn: &[u8], down_bits_per_s: Option<u64>) -> ConnectOptions {
    match alpn == inference::ALPN {
        true => ConnectOptions::new().with_transport_config(calls(down_bits_per_s)),
        false => ConnectOptions::new(),
    }
}

/// Accepts connections, each with the settings of its protocol.
#[derive(Debug)]
pub(super) struct Acceptor {
    calls: Arc<ServerConfig>,
}

impl Acceptor {
    /// Accepts the connections of an endpoint.
    pub(super) fn new(endpoint: &Endpoint, down_bits_per_s: Option<u64>) -> Self {
        let config = endpoint.create_server_config_builder(vec![inference::ALPN.to_vec()]);
        Self { calls: Arc::new(config.set_transport_config(calls(down_bits_per_s)).build()) }
    }

    /// Begins to accept a connection.
    pub(super) fn accept(&self, incoming: Incoming) -> Result<Accepting, ConnectionError> {
        if is_for_calls(&incoming) { incoming.accept_with(self.calls.clone()) } else { incoming.accept() }
    }
}

/// Whether a connection is for inference and nothing else.
fn is_for_calls(incoming: &Incoming) -> bool {
    let Some(mut names) = incoming.decrypt().and_then(|first| first.alpns()) else { return false };
    names.next().is_some_and(|name| name.is_ok_and(|name| name == inference::ALPN)) && names.next().is_none()
}

#[cfg(test)]
mod tests {
    use iroh::endpoint::{PathId, PortmapperConfig, presets};
    use iroh::{EndpointAddr, RelayMode, TransportAddr};

    use super::*;

    async fn endpoint() -> Endpoint {
        let builder = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .alpns(vec![super::super::ALPN.to_vec(), inference::ALPN.to_vec()])
            .transport_config(transfers(None))
            .clear_ip_transports();
        builder.bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap()
    }

    #[tokio::test]
    async fn connections_of_inference_and_no_others_begin_with_a_wide_window() {
        let (caller, server) = (endpoint().await, endpoint().await);
        let acceptor = Acceptor::new(&server, None);
        for (alpn, wide) in [(inference::ALPN, true), (super::super::ALPN, false)] {
            let address = TransportAddr::Ip(server.bound_sockets()[0]);
            let to = EndpointAddr::from_parts(server.id(), [address]);
            let call = async { caller.connect_with_opts(to, alpn, options(alpn, None)).await.unwrap().await.unwrap() };
            let accept = async { acceptor.accept(server.accept().await.unwrap()).unwrap().await.unwrap() };
            let (called, accepted) = tokio::join!(call, accept);
            for connection in [called, accepted] {
                let window = connection.congestion_state(PathId::ZERO).unwrap().initial_window();
                assert_eq!(window == CALL_WINDOW_BYTES, wide, "a window of {window} bytes");
            }
        }
    }
}

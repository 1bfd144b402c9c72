//! How this machine is seen from outside: what its router does with addresses, as a relay tells.
//!
//! Source: QUIC address discovery at a relay of the run (see [`crate::relay`]). With one relay it cannot be told whether a router gives each
//! connection another port; that it keeps the port is what matters, since then others can be told of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use iroh::{RelayUrl, SecretKey};
use serde::Serialize;
use wire::Identity;

use crate::join::bind_for;
use crate::transport::{Services, Transport, TransportConfig, TransportError};

/// How long the relays have to answer, and how often to look whether they have.
const ANSWER_MAX: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(100);

/// What becomes of this machine's addresses on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Translation {
    /// Nothing: the machine has a public address.
    None,
    /// A router puts its own address in place, and keeps the port: peers behind two such routers find a direct path.
    KeepsPorts,
    /// A router changes the port, too: a direct path is found only with luck, and a relay is needed otherwise.
    ChangesPorts,
    /// No relay told.
    Unknown,
}

/// How this machine is seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// The address from which its packets come, as a relay sees it.
    pub seen: Option<SocketAddr>,
    /// What that says of its router.
    pub translation: Translation,
}

/// Asks the relays.
///
/// # Errors
/// [`TransportError`] when there is no socket.
pub async fn look(relays: &[RelayUrl]) -> Result<Reach, TransportError> {
    let identity = Identity::from_secret(SecretKey::generate().to_bytes());
    let config = TransportConfig { bind: bind_for(&[]), relays: relays.to_vec(), ..TransportConfig::default() };
    let transport = Transport::bind(&config, &identity, Services::default()).await?;
    let port = transport.dialer().address().port();
    let began = tokio::time::Instant::now();
    let reach = loop {
        let reach = judge(&transport.dialer().own_addresses(), port);
        if reach.translation != Translation::Unknown || relays.is_empty() || began.elapsed() > ANSWER_MAX {
            break reach;
        }
        tokio::time::sleep(LOOK).await;
    };
    transport.shutdown().await;
    Ok(reach)
}

/// Judges by the addresses that an endpoint at `port` knows of itself.
fn judge(addresses: &[SocketAddr], port: u16) -> Reach {
    let is_public = |address: &&SocketAddr| match address.ip() {
        IpAddr::V4(ip) => !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_carrier(ip.octets())),
        // Only IPv4 is translated in practice.
        IpAddr::V6(_) => false,
    };
    let has_private = addresses.iter().any(|address| address.is_ipv4() && !is_public(&address));
    let Some(seen) = addresses.iter().find(is_public) else {
        return Reach { seen: None, translation: Translation::Unknown };
    };
    let translation = match (has_private, seen.port() == port) {
        (false, _) => Translation::None,
        (true, true) => Translation::KeepsPorts,
        (true, false) => Translation::ChangesPorts,
    };
    Reach { seen: Some(*seen), translation }
}

/// Addresses that carriers share between homes (RFC 6598).
fn is_carrier([first, second, ..]: [u8; 4]) -> bool {
    first == 100 && (64..128).contains(&second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_judged_by_what_it_does_with_ports() {
        let judged = |addresses: &[&str]| {
            let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            judge(&addresses, 7071).translation
        };
        assert_eq!(judged(&["198.51.100.7:7071"]), Translation::None);
        assert_eq!(judged(&["192.168.1.2:7071", "198.51.100.7:7071"]), Translation::KeepsPorts);
        assert_eq!(judged(&["100.64.1.2:7071", "198.51.100.7:4711"]), Translation::ChangesPorts);
        assert_eq!(judged(&["192.168.1.2:7071", "[2001:db8::1]:7071"]), Translation::Unknown);
        assert_eq!(judged(&[]), Translation::Unknown);
    }
}

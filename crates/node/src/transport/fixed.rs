//! Paths that are exactly those of the address book.
//!
//! iroh endpoints that listen on an IP address tell it to the other side of every connection, probe what they are told, and
//! move the connection to the fastest path that answers (its NAT traversal over QUIC multipath; `remote_state.rs`). There
//! is no setting against that: the limits of addresses and paths have lower bounds. On one machine it means that a
//! connection which began at a proxy goes on without it.
//!
//! So a peer with fixed paths has no IP transport at all. It has a custom transport of iroh's (an unstable interface; the
//! version is pinned) whose addresses are IP addresses in an envelope, and whose socket is an ordinary UDP socket. The
//! endpoint then knows no address of its own that it could tell, and no other that it could probe.
//!
//! Differences from the ordinary path: datagrams are sent and received one by one, without segmentation offload, and
//! without congestion marks of the network (ECN). A datagram that the socket does not take at once is lost, as on a line.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::task::{Context, Poll};

use iroh::endpoint::transports::{CustomEndpoint, CustomSender, CustomTransport, RecvInfo, Transmit};
use iroh_base::CustomAddr;
use n0_watcher::{Direct, Watchable};
use noq_udp::RecvMeta;
use tokio::io::ReadBuf;

/// Names these addresses among those of other custom transports.
const TRANSPORT_ID: u64 = u64::from_be_bytes(*b"\0\0\0cairn");
const PORT_BYTES: usize = 2;

/// A bound UDP socket that becomes an endpoint's only transport.
#[derive(Debug)]
pub(super) struct FixedPaths {
    socket: UdpSocket,
    address: SocketAddr,
}

impl FixedPaths {
    /// Listens on an address; port 0 takes a free one.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The path to an address.
pub(super) fn path_to(address: SocketAddr) -> CustomAddr {
    let mut data = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    data.extend(address.port().to_be_bytes());
    CustomAddr::from_parts(TRANSPORT_ID, &data)
}

/// The address at the end of a path; none when the path is another transport's.
fn address_of(path: &CustomAddr) -> Option<SocketAddr> {
    let data = Some(path.data()).filter(|_| path.id() == TRANSPORT_ID)?;
    let (ip, port) = data.split_last_chunk::<PORT_BYTES>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

impl CustomTransport for FixedPaths {
    fn bind(&self) -> io::Result<Box<dyn CustomEndpoint>> {
        let receiving = tokio::net::UdpSocket::from_std(self.socket.try_clone()?)?;
        let sender = Arc::new(Sender { socket: self.socket.try_clone()? });
        Ok(Box::new(Receiver { socket: receiving, sender, addresses: Watchable::new(vec![path_to(self.address)]) }))
    }
}

#[derive(Debug)]
struct Receiver {
    socket: tokio::net::UdpSocket,
    sender: Arc<Sender>,
    addresses: Watchable<Vec<CustomAddr>>,
}

impl CustomEndpoint for Receiver {
    fn watch_local_addrs(&self) -> Direct<Vec<CustomAddr>> {
        self.addresses.watch()
    }

    fn create_sender(&self) -> Arc<dyn CustomSender> {
        self.sender.clone()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        infos: &mut [RecvInfo],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        while filled < buffers.len() {
            let mut buffer = ReadBuf::new(&mut buffers[filled]);
            match self.socket.poll_recv_from(cx, &mut buffer) {
                Poll::Ready(Ok(from)) => {
                    let bytes = buffer.filled().len();
                    metas[filled] = RecvMeta::default();
                    (metas[filled].len, metas[filled].stride) = (bytes, bytes);
                    infos[filled] = RecvInfo::new(path_to(from), None);
                    filled += 1;
                }
                // Something that was sent earlier found nobody, on systems that tell.
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::ConnectionReset => {}
                Poll::Ready(Err(error)) if filled == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(filled))
    }
}

#[derive(Debug)]
struct Sender {
    socket: UdpSocket,
}

impl CustomSender for Sender {
    fn is_valid_send_addr(&self, path: &CustomAddr) -> bool {
        address_of(path).is_some()
    }

    fn poll_send(
        &self,
        _cx: &mut Context<'_>,
        path: &CustomAddr,
        _own: Option<&CustomAddr>,
        transmit: &Transmit<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(address) = address_of(path) else {
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidInput, "a path of another transport")));
        };
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(segment) {
            if let Err(error) = self.socket.send_to(datagram, address) {
                tracing::trace!(%error, %address, "a datagram was not sent");
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_envelope() {
        for text in ["127.0.0.1:4242", "[2001:db8::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(address_of(&path_to(address)), Some(address));
        }
        assert_eq!(address_of(&CustomAddr::from_parts(7, &[127, 0, 0, 1, 0, 1])), None);
        for data in [&[][..], &[1], &[1, 2, 3, 4, 5]] {
            assert_eq!(address_of(&CustomAddr::from_parts(TRANSPORT_ID, data)), None);
        }
    }
}

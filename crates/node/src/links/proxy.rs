//! Real sockets on loopback with a [`Medium`] between them.
//!
//! Two threads of its own run it, so that a busy runtime of the peers does not hold up their datagrams: one reads what was
//! sent to the fronts, one sleeps until something is due, to [`NAP_US_MIN`], and sends it. Each datagram is charged
//! [`HEADER_BYTES`] more than it holds, as a line would, so that counts compare with [`crate::transport::Traffic`].
//!
//! A datagram from an address that no peer has is dropped and counted. A peer that comes back at another address keeps its
//! front.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wire::PeerId;

use super::medium::{LinkCounts, Medium, Tally};
use super::spec::LinkSpec;

/// IPv4 and UDP headers of one datagram, in bytes.
pub const HEADER_BYTES: u64 = 20 + 8;
/// The name of the proxy's threads, by which tools find what they cost.
pub const THREAD_NAME: &str = "cairn-links";

/// The delivering thread looks no more often than this, so that a fast link costs no wake-up per datagram.
pub const NAP_US_MIN: u64 = 250;

/// Datagrams that are read or sent before others have their turn.
const BATCH: usize = 32;
const DATAGRAM_BYTES_MAX: usize = 1 << 16;
/// Tasks that run before sockets are looked at again: few, since they are nearly always ready when it matters.
const EVENT_INTERVAL: u32 = 4;

/// What a network has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// By sender and receiver, for pairs that sent anything; headers included.
    pub pairs: BTreeMap<(PeerId, PeerId), LinkCounts>,
    /// From addresses that no peer has.
    pub unknown: Tally,
    /// Delivered, but the operating system did not take it.
    pub refused: Tally,
}

impl NetworkCounts {
    /// What one peer sent to another.
    pub fn pair(&self, from: PeerId, to: PeerId) -> LinkCounts {
        self.pairs.get(&(from, to)).copied().unwrap_or_default()
    }

    /// What a peer sent to all others.
    pub fn sent_by(&self, peer: PeerId) -> LinkCounts {
        self.sum(|(from, _)| *from == peer)
    }

    /// What all others sent to a peer.
    pub fn sent_to(&self, peer: PeerId) -> LinkCounts {
        self.sum(|(_, to)| *to == peer)
    }

    /// What all peers sent.
    pub fn total(&self) -> LinkCounts {
        self.sum(|_| true)
    }

    fn sum(&self, wanted: impl Fn(&(PeerId, PeerId)) -> bool) -> LinkCounts {
        let mut sum = LinkCounts::default();
        self.pairs.iter().filter(|(pair, _)| wanted(pair)).for_each(|(_, counts)| sum.add(counts));
        sum
    }
}

/// Peers of this machine behind bad links. Dropping it ends the links: nothing arrives any more.
#[derive(Debug)]
pub struct ShapedNetwork {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    /// Dropped to end the reading thread.
    reading: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    state: Mutex<State>,
    /// Something is due earlier than before, or the network has ended.
    earlier: Condvar,
}

#[derive(Debug)]
struct State {
    medium: Medium<Box<[u8]>>,
    peers: Vec<Peer>,
    by_id: BTreeMap<PeerId, usize>,
    by_address: HashMap<SocketAddr, usize>,
    unknown: Tally,
    refused: Tally,
    ended: bool,
}

#[derive(Debug)]
struct Peer {
    id: PeerId,
    address: SocketAddr,
    front: UdpSocket,
    front_address: SocketAddr,
}

impl ShapedNetwork {
    /// Starts a network without peers. Losses and jitter follow from the seed.
    ///
    /// # Errors
    /// When the thread or its timer cannot be made.
    pub fn start(seed: u64) -> io::Result<Self> {
        let state = State {
            medium: Medium::new(seed),
            peers: Vec::new(),
            by_id: BTreeMap::new(),
            by_address: HashMap::new(),
            unknown: Tally::default(),
            refused: Tally::default(),
            ended: false,
        };
        let shared = Arc::new(Shared { started: Instant::now(), state: Mutex::new(state), earlier: Condvar::new() });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().event_interval(EVENT_INTERVAL).build()?;
        let (handle, delivering) = (runtime.handle().clone(), shared.clone());
        let (reading, ended) = oneshot::channel::<()>();
        let mut network = Self { shared, runtime: handle, reading: Some(reading), threads: Vec::new() };
        network.threads.push(thread(move || {
            // An error means that the network was dropped, which is what this waits for.
            let _ = runtime.block_on(ended);
        })?);
        network.threads.push(thread(move || delivering.deliver())?);
        Ok(network)
    }

    /// Puts a peer that listens at `address` behind a link, and gives the front where the others find it. A peer that is
    /// known has come back: it keeps its front, and gets the new address and link.
    ///
    /// # Errors
    /// When no socket can be made for the front.
    pub fn add(&self, peer: PeerId, address: SocketAddr, spec: LinkSpec) -> io::Result<SocketAddr> {
        if let Some(front) = self.shared.state().move_to(peer, address, spec) {
            return Ok(front);
        }
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        front.set_nonblocking(true)?;
        let (front_address, reading) = (front.local_addr()?, front.try_clone()?);
        let reading = {
            let _inside = self.runtime.enter();
            tokio::net::UdpSocket::from_std(reading)?
        };
        let place = self.shared.state().add(Peer { id: peer, address, front, front_address }, spec);
        self.runtime.spawn(self.shared.clone().listen(reading, place));
        Ok(front_address)
    }

    /// Where the others find a peer; none when it is unknown.
    pub fn front(&self, peer: PeerId) -> Option<SocketAddr> {
        let state = self.shared.state();
        state.by_id.get(&peer).map(|place| state.peers[*place].front_address)
    }

    /// A peer's link; none when it is unknown.
    pub fn spec(&self, peer: PeerId) -> Option<LinkSpec> {
        let state = self.shared.state();
        state.by_id.get(&peer).map(|place| state.medium.spec(*place))
    }

    /// Changes a peer's link from now on. False when the peer is unknown.
    pub fn set(&self, peer: PeerId, spec: LinkSpec) -> bool {
        self.with(peer, |state, place| state.medium.set(place, spec))
    }

    /// Cuts a peer off, with what is under way to and from it. False when the peer is unknown.
    pub fn cut(&self, peer: PeerId) -> bool {
        self.with(peer, |state, place| state.medium.set_cut(place, true))
    }

    /// Lets a peer back that was cut off. False when the peer is unknown.
    pub fn mend(&self, peer: PeerId) -> bool {
        self.with(peer, |state, place| state.medium.set_cut(place, false))
    }

    /// What was counted so far.
    pub fn counts(&self) -> NetworkCounts {
        let state = self.shared.state();
        let id = |place: usize| state.peers[place].id;
        NetworkCounts {
            pairs: state.medium.counts().map(|((from, to), counts)| ((id(from), id(to)), counts)).collect(),
            unknown: state.unknown,
            refused: state.refused,
        }
    }

    fn with(&self, peer: PeerId, change: impl FnOnce(&mut State, usize)) -> bool {
        let mut state = self.shared.state();
        let Some(place) = state.by_id.get(&peer).copied() else { return false };
        change(&mut state, place);
        true
    }
}

impl Drop for ShapedNetwork {
    fn drop(&mut self) {
        self.reading = None;
        self.shared.state().ended = true;
        self.shared.earlier.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a thread of the links ended unexpectedly");
            }
        }
    }
}

fn thread(run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(run)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Reads what waits at a front, up to a batch; true when there may be more.
    fn read(&self, socket: &tokio::net::UdpSocket, to: usize, buffer: &mut [u8]) -> bool {
        let mut state = self.state();
        let due_before = state.medium.due_us();
        let mut more = true;
        for _ in 0..BATCH {
            match socket.try_recv_from(buffer) {
                Ok((bytes, from)) => state.take(self.now_us(), from, to, &buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    more = false;
                    break;
                }
                // An answer to something that was sent to a peer that is gone, on systems that tell.
                Err(error) => tracing::trace!(%error, "a front could not be read"),
            }
        }
        // What is due already need not wait for the other thread.
        state.send(|| self.now_us());
        let due = state.medium.due_us();
        drop(state);
        if due.is_some_and(|due| due_before.is_none_or(|before| due < before)) {
            self.earlier.notify_one();
        }
        more
    }

    /// Reads a front until the network is dropped.
    async fn listen(self: Arc<Self>, socket: tokio::net::UdpSocket, place: usize) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while socket.readable().await.is_ok() {
            if self.read(&socket, place, &mut buffer) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sends what is due when it is, until the network is dropped.
    fn deliver(&self) {
        loop {
            let mut state = self.state();
            state.send(|| self.now_us());
            if state.ended {
                return;
            }
            let now_us = self.now_us();
            // Whatever ends the wait, it is time to look again; a panic of another thread holding the lock changes nothing.
            match state.medium.due_us() {
                Some(due_us) if due_us <= now_us => {}
                Some(due_us) => {
                    let nap_us = (due_us - now_us).max(NAP_US_MIN);
                    drop(self.earlier.wait_timeout(state, Duration::from_micros(nap_us)));
                }
                None => drop(self.earlier.wait(state)),
            }
        }
    }
}

impl State {
    /// Sends what is due, up to a batch.
    fn send(&mut self, now_us: impl Fn() -> u64) {
        for _ in 0..BATCH {
            let Some(delivery) = self.medium.poll(now_us()) else { return };
            let (front, address) = (&self.peers[delivery.from].front, self.peers[delivery.to].address);
            if let Err(error) = front.send_to(&delivery.payload, address) {
                tracing::trace!(%error, "a datagram could not be delivered");
                self.refused.count(charged(&delivery.payload));
            }
        }
    }

    fn add(&mut self, peer: Peer, spec: LinkSpec) -> usize {
        let place = self.medium.add(spec);
        self.by_id.insert(peer.id, place);
        self.by_address.insert(peer.address, place);
        self.peers.push(peer);
        place
    }

    fn move_to(&mut self, peer: PeerId, address: SocketAddr, spec: LinkSpec) -> Option<SocketAddr> {
        let place = *self.by_id.get(&peer)?;
        let old = std::mem::replace(&mut self.peers[place].address, address);
        self.by_address.remove(&old);
        self.by_address.insert(address, place);
        self.medium.set(place, spec);
        Some(self.peers[place].front_address)
    }

    fn take(&mut self, now_us: u64, from: SocketAddr, to: usize, datagram: &[u8]) {
        match self.by_address.get(&from) {
            Some(&from) if from != to => self.medium.offer(now_us, (from, to), charged(datagram), datagram.into()),
            _ => self.unknown.count(charged(datagram)),
        }
    }
}

fn charged(datagram: &[u8]) -> u64 {
    datagram.len() as u64 + HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    fn add(network: &ShapedNetwork, peer: PeerId, socket: &UdpSocket, spec: &str) -> SocketAddr {
        network.add(peer, socket.local_addr().unwrap(), spec.parse().unwrap()).unwrap()
    }

    /// Waits until the counters say something.
    fn wait(network: &ShapedNetwork, said: impl Fn(&NetworkCounts) -> bool) {
        let start = Instant::now();
        while !said(&network.counts()) {
            assert!(start.elapsed() < LIMIT, "{:?}", network.counts());
            std::thread::yield_now();
        }
    }

    #[test]
    fn peers_see_each_other_at_their_fronts_only() {
        let network = ShapedNetwork::start(1).unwrap();
        let (a, b) = (socket(), socket());
        let front_a = add(&network, peer(1), &a, "20ms");
        let front_b = add(&network, peer(2), &b, "20ms");
        assert_eq!((network.front(peer(1)), network.front(peer(3))), (Some(front_a), None));
        let mut buffer = [0; 100];
        let start = Instant::now();
        a.send_to(b"there", front_b).unwrap();
        assert_eq!(b.recv_from(&mut buffer).unwrap(), (5, front_a), "it comes from where it can be answered");
        assert_eq!(&buffer[..5], b"there");
        b.send_to(b"and back", front_a).unwrap();
        assert_eq!(a.recv_from(&mut buffer).unwrap(), (8, front_b));
        assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
        let one = |bytes| Tally { datagrams: 1, bytes };
        let (there, back) = (one(5 + HEADER_BYTES), one(8 + HEADER_BYTES));
        let counts = network.counts();
        assert_eq!((counts.pair(peer(1), peer(2)).offered, counts.pair(peer(1), peer(2)).delivered), (there, there));
        assert_eq!((counts.sent_by(peer(2)).delivered, counts.sent_to(peer(1)).delivered), (back, back));
        assert_eq!(counts.total().delivered.datagrams, 2);
        assert_eq!((counts.unknown, counts.refused), (Tally::default(), Tally::default()));
    }

    #[test]
    fn strangers_are_dropped_and_counted() {
        let network = ShapedNetwork::start(1).unwrap();
        let (a, b, stranger) = (socket(), socket(), socket());
        add(&network, peer(1), &a, "0ms");
        let front_b = add(&network, peer(2), &b, "0ms");
        stranger.send_to(b"let me in", front_b).unwrap();
        b.send_to(b"myself", front_b).unwrap();
        wait(&network, |counts| counts.unknown.datagrams == 2);
        a.send_to(b"hello", front_b).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(b.recv(&mut buffer).unwrap(), 5, "nothing else arrived");
        assert_eq!(network.counts().total().offered.datagrams, 1);
    }

    #[test]
    fn a_cut_peer_is_silent_and_one_that_moved_keeps_its_front() {
        let network = ShapedNetwork::start(1).unwrap();
        let (a, b) = (socket(), socket());
        let front_a = add(&network, peer(1), &a, "0ms");
        let front_b = add(&network, peer(2), &b, "0ms");
        assert!(network.cut(peer(2)) && !network.cut(peer(9)));
        a.send_to(b"lost", front_b).unwrap();
        wait(&network, |counts| counts.pair(peer(1), peer(2)).cut.datagrams == 1);
        assert!(network.mend(peer(2)));
        let moved = socket();
        assert_eq!(add(&network, peer(2), &moved, "10M"), front_b);
        assert_eq!(network.spec(peer(2)), Some("10M".parse().unwrap()));
        a.send_to(b"found", front_b).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(moved.recv_from(&mut buffer).unwrap(), (5, front_a));
        assert!(network.set(peer(1), "100%".parse().unwrap()));
        a.send_to(b"lost too", front_b).unwrap();
        wait(&network, |counts| counts.pair(peer(1), peer(2)).lost.datagrams == 1);
    }
}

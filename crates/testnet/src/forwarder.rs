//! What lies between the hosts: one thread that carries IP packets from each host's TUN device to another's, through a [`Medium`].
//!
//! It knows a packet's destination address and its length, and nothing else. A packet for an address that no host has is dropped, as are
//! packets between hosts of different sides of a partition. Delivery is late by what the machine needs to wake a thread.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use node::LinkSpec;
use node::links::LinkCounts;
use node::links::medium::{Medium, Tally};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

/// Packets that are read from one host before others have their turn.
const BATCH: usize = 64;
/// The longest packet of IPv4, in bytes.
const PACKET_BYTES_MAX: usize = 1 << 16;
/// How long the thread sleeps at most: so soon it sees a host that was added.
const NAP_MAX: Duration = Duration::from_millis(20);
/// How long it sleeps at least, so that a fast link costs no wake-up per packet.
const NAP_MIN: Duration = Duration::from_micros(100);

/// What was carried, headers of IP and above included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// What became of the packets that a host sent.
    pub sent: LinkCounts,
    /// What became of the packets that were sent to a host.
    pub received: LinkCounts,
}

/// The thread and what it shares with whoever controls it. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Forwarder {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    medium: Medium<Vec<u8>>,
    places: HashMap<Ipv4Addr, usize>,
    devices: Vec<Arc<SyncDevice>>,
    /// The side of a partition on which each host is.
    sides: Vec<u8>,
    /// Packets that a partition or an unknown address stopped.
    stopped: Tally,
    ended: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("places", &self.places).field("sides", &self.sides).finish()
    }
}

impl Forwarder {
    /// Starts without hosts. Losses and jitter follow from the seed.
    pub(crate) fn start(seed: u64) -> io::Result<Self> {
        let state = State {
            medium: Medium::new(seed),
            places: HashMap::new(),
            devices: Vec::new(),
            sides: Vec::new(),
            stopped: Tally::default(),
            ended: false,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let thread = std::thread::Builder::new().name("testnet".to_owned()).spawn(move || run(&shared))?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Adds a host by its public address and the device on which its packets come and go; gives its place.
    pub(crate) fn add(&self, address: Ipv4Addr, device: SyncDevice, link: LinkSpec) -> io::Result<usize> {
        device.set_nonblocking(true)?;
        let mut state = lock(&self.state);
        let place = state.medium.add(link);
        state.places.insert(address, place);
        state.devices.push(Arc::new(device));
        state.sides.push(0);
        Ok(place)
    }

    pub(crate) fn set_link(&self, place: usize, link: LinkSpec) {
        lock(&self.state).medium.set(place, link);
    }

    pub(crate) fn set_cut(&self, place: usize, cut: bool) {
        lock(&self.state).medium.set_cut(place, cut);
    }

    pub(crate) fn set_side(&self, place: usize, side: u8) {
        lock(&self.state).sides[place] = side;
    }

    pub(crate) fn counts(&self, place: usize) -> Forwarded {
        let mut forwarded = Forwarded::default();
        for ((from, to), counts) in lock(&self.state).medium.counts() {
            if from == place {
                forwarded.sent.add(&counts);
            }
            if to == place {
                forwarded.received.add(&counts);
            }
        }
        forwarded
    }

    pub(crate) fn stopped(&self) -> Tally {
        lock(&self.state).stopped
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        lock(&self.state).ended = true;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to end.
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries packets until the forwarder is dropped.
fn run(shared: &Mutex<State>) {
    let started = Instant::now();
    let now_us = || started.elapsed().as_micros() as u64;
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let (devices, nap) = {
            let mut state = lock(shared);
            if state.ended {
                return;
            }
            state.deliver(now_us());
            let due_us = state.medium.due_us().unwrap_or(u64::MAX);
            let nap = Duration::from_micros(due_us.saturating_sub(now_us()));
            (state.devices.clone(), nap.clamp(NAP_MIN, NAP_MAX))
        };
        let mut waiting: Vec<PollFd<'_>> =
            devices.iter().map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)).collect();
        let nap = Timespec { tv_sec: 0, tv_nsec: nap.subsec_nanos().into() };
        // An interrupted wait looks again.
        let _ = poll(&mut waiting, Some(&nap));
        let ready: Vec<bool> = waiting.iter().map(|found| found.revents().contains(PollFlags::IN)).collect();
        for (place, device) in devices.iter().enumerate().filter(|(place, _)| ready[*place]) {
            for _ in 0..BATCH {
                let Ok(length) = device.recv(&mut buffer) else { break };
                lock(shared).take(now_us(), place, &buffer[..length]);
            }
        }
    }
}

impl State {
    fn take(&mut self, now_us: u64, from: usize, packet: &[u8]) {
        let to = destination(packet).and_then(|address| self.places.get(&address)).copied();
        match to.filter(|to| *to != from && self.sides[*to] == self.sides[from]) {
            Some(to) => self.medium.offer(now_us, (from, to), packet.len() as u64, packet.to_vec()),
            None => self.stopped.count(packet.len() as u64),
        }
    }

    fn deliver(&mut self, now_us: u64) {
        while let Some(arrived) = self.medium.poll(now_us) {
            // A device whose queue is full drops the packet, as a line does.
            let _ = self.devices[arrived.to].send(&arrived.payload);
        }
    }
}

/// The destination of an IPv4 packet.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (packet[0] >> 4 == 4).then(|| address.into())
}

//! The event queue.

use std::collections::BTreeMap;

use swarm::{JobId, Time};
use wire::{Hash, Message};

/// What travels over a connection.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// A message.
    Message(Box<Message>),
    /// Bytes that an adversary made up.
    Bytes(Vec<u8>),
}

/// Something that happens at a time. Hosts are named by their place; a *life* counts a host's starts, so that what was meant
/// for an earlier life is dropped.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A host starts, for the first time or after a crash.
    Start { host: usize },
    /// A host's own timeout.
    Tick { host: usize, life: u32 },
    /// A dial ends.
    Dialled { from: usize, to: usize, life: u32 },
    /// A host notices that a connection is gone.
    Broken { host: usize, other: usize, life: u32, epoch: u32 },
    /// A message of `bytes` bytes reaches its receiver's access link, or, when it has `passed` that, its receiver.
    Deliver { from: usize, to: usize, epoch: u32, bytes: u64, passed: bool, parcel: Parcel },
    /// A job ends.
    JobDone { host: usize, life: u32, job: JobId },
    /// A host turns to the next provider of a blob.
    FetchNext { host: usize, life: u32, hash: Hash },
    /// A transfer of `bytes` bytes reaches the host's access link, or, when it has `passed` that, ends, well or not.
    FetchEnd { host: usize, life: u32, hash: Hash, from: usize, from_life: u32, bytes: u64, passed: bool },
    /// A host crashes.
    Crash { host: usize, life: u32 },
    /// A sleeping host has been silent for longer than its connections bear.
    Silent { host: usize, life: u32 },
    /// The next act of the schedule, by its place.
    Act(usize),
    /// The network splits.
    Split,
    /// The network is whole again.
    Rejoin,
}

impl Event {
    /// The host whose doing it is: while that sleeps, it has to wait.
    pub(crate) fn host(&self) -> Option<usize> {
        match self {
            Self::Deliver { passed: false, .. } | Self::FetchEnd { passed: false, .. } => None,
            Self::Dialled { from: host, .. } | Self::Deliver { to: host, .. } => Some(*host),
            Self::Tick { host, .. } | Self::Broken { host, .. } | Self::JobDone { host, .. } => Some(*host),
            Self::FetchNext { host, .. } | Self::FetchEnd { host, .. } => Some(*host),
            Self::Start { .. } | Self::Crash { .. } | Self::Silent { .. } | Self::Act(_) => None,
            Self::Split | Self::Rejoin => None,
        }
    }
}

/// Events by time; those of one time in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Events<E = Event> {
    queue: BTreeMap<(Time, u64), E>,
    added: u64,
}

impl<E> Default for Events<E> {
    fn default() -> Self {
        Self { queue: BTreeMap::new(), added: 0 }
    }
}

impl<E> Events<E> {
    /// Adds an event.
    pub(crate) fn add(&mut self, at: Time, event: E) {
        self.queue.insert((at, self.added), event);
        self.added += 1;
    }

    /// Takes the next event.
    pub(crate) fn next(&mut self) -> Option<(Time, E)> {
        self.queue.pop_first().map(|((at, _), event)| (at, event))
    }
}

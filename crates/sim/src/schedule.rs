//! What is done to a network at chosen times, besides the faults that come by chance.

use crate::network::AccessLink;
use crate::random::Random;

/// Something that is done to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A host crashes, and starts again after `down_us` microseconds. Nothing happens to one that is down.
    Kill {
        /// The host: its place.
        host: usize,
        /// How long it is down, in microseconds.
        down_us: u64,
    },
    /// All honest replicas of a stage crash, and start again.
    KillStage {
        /// The stage.
        stage: usize,
        /// How long they are down, in microseconds.
        down_us: u64,
    },
    /// All honest hosts crash at one moment, and start again within a second of each other.
    KillAll {
        /// How long they are down, in microseconds.
        down_us: u64,
    },
    /// A host does nothing for a time, as a laptop whose lid is closed; then it goes on where it was. Its connections break when that is
    /// longer than the transport's patience.
    Suspend {
        /// The host: its place.
        host: usize,
        /// How long, in microseconds.
        us: u64,
    },
    /// The network splits, and is whole again later.
    Split {
        /// The hosts on one side.
        island: Vec<usize>,
        /// For how long, in microseconds.
        us: u64,
    },
    /// A host leaves the run; it goes on following it. When it is killed and starts again, it joins again.
    Leave {
        /// The host: its place.
        host: usize,
    },
    /// A host pauses, as its owner wants it, and goes on later.
    Pause {
        /// The host: its place.
        host: usize,
        /// How long, in microseconds.
        us: u64,
    },
    /// The end of a pause.
    Resume {
        /// The host: its place.
        host: usize,
    },
    /// A host's access link becomes another one.
    Link {
        /// The host: its place.
        host: usize,
        /// Its link from now on.
        link: AccessLink,
    },
}

impl Act {
    /// How long it lasts, in microseconds.
    pub fn us(&self) -> u64 {
        match self {
            Self::Kill { down_us, .. } | Self::KillStage { down_us, .. } | Self::KillAll { down_us } => *down_us,
            Self::Suspend { us, .. } | Self::Split { us, .. } | Self::Pause { us, .. } => *us,
            Self::Leave { .. } | Self::Resume { .. } | Self::Link { .. } => 0,
        }
    }
}

/// An act and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// What.
    pub act: Act,
}

/// Draws `count` acts in the first `span_us` microseconds, in the order of time, for `peers` honest hosts in `stages` stages.
pub(crate) fn random(draw: &mut Random, count: u64, span_us: u64, peers: usize, stages: usize) -> Vec<Scheduled> {
    let mut schedule = Vec::new();
    for _ in 0..count {
        let (at_us, host) = (draw.between(1_000_000, span_us), draw.index(peers));
        let us = draw.between(500_000, 60_000_000);
        let mut add = |at_us, act| schedule.push(Scheduled { at_us, act });
        match draw.below(8) {
            0 => add(at_us, Act::Kill { host, down_us: us }),
            1 => add(at_us, Act::KillStage { stage: draw.index(stages), down_us: us }),
            2 => add(at_us, Act::KillAll { down_us: us * 4 }),
            3 => add(at_us, Act::Suspend { host, us: us * 2 }),
            4 => {
                let island = (0..peers).filter(|_| draw.chance(400_000)).collect();
                add(at_us, Act::Split { island, us });
            }
            5 => {
                add(at_us, Act::Leave { host });
                add(at_us + us, Act::Kill { host, down_us: 1_000_000 });
            }
            6 => {
                add(at_us, Act::Pause { host, us });
                add(at_us + us, Act::Resume { host });
            }
            _ => {
                let link = |up, down, delay_us, jitter_us, loss| AccessLink {
                    up_bytes_per_s: up,
                    down_bytes_per_s: down,
                    delay_us,
                    jitter_us,
                    loss,
                };
                let (up, down) = (draw.between(20_000, 200_000), draw.between(50_000, 1_000_000));
                let (delay_us, loss) = (draw.between(10_000, 500_000), draw.between(0, 50_000));
                let loss = u32::try_from(loss).expect("parts of a million");
                add(at_us, Act::Link { host, link: link(up, down, delay_us, delay_us / 2, loss) });
                add(at_us + us, Act::Link { host, link: link(2_500_000, 10_000_000, 10_000, 2_000, 0) });
            }
        }
    }
    schedule.sort_by_key(|scheduled| scheduled.at_us);
    schedule
}

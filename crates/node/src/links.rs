//! Bad links between the peers of one machine, in user space: no kernel features, no privileges.
//!
//! | part | module |
//! |---|---|
//! | what a person asks for, `80M/20M,50ms,1%` | [`spec`] |
//! | one direction of an access link: a queue that empties at a rate; the way between two of them | [`shaper`] |
//! | all peers with their links, in virtual time, without a clock or a socket | [`medium`] |
//! | real sockets around it | [`proxy`] |
//!
//! Every peer has one *front*, a UDP socket on loopback, which is where the others believe it to be. A datagram of Q for P:
//!
//! ```text
//! Q's socket ─► front of P ─► Q's uplink ─► delay, jitter, loss ─► P's downlink ─► front of Q ─► P's socket
//! ```
//!
//! so that P sees Q at Q's front, and answers there. What a peer sends to two others at once shares its uplink, and what
//! two others send to it at once shares its downlink, as behind a home router.
//!
//! Deviations from a real link: a lost datagram has used its sender's uplink, and never its receiver's downlink; jitter
//! does not reorder datagrams of one pair; there is no slot, frame or burst of a medium; the router's queue drops at its
//! tail and marks nothing. Delivery is late by up to [`proxy::NAP_US_MIN`], and by what the machine needs to wake the
//! proxy's threads. A datagram that the operating system drops before the proxy reads it, since a socket's buffer is full,
//! is counted by nobody.
//!
//! Bounded: [`shaper::QUEUE_US_MAX`] of waiting per direction, [`medium::IN_FLIGHT_BYTES_MAX`] of datagrams under way.
//!
//! What it deliberately does not do: know the protocol, or keep peers from other ways to each other. Endpoints find
//! direct paths on one machine by themselves; [`crate::transport::TransportConfig::fixed_paths`] is what stops them.

pub mod medium;
pub mod proxy;
pub mod shaper;
pub mod spec;

pub use medium::{LinkCounts, Tally};
pub use proxy::{NetworkCounts, ShapedNetwork};
pub use spec::{LinkSpec, LinkSpecError};

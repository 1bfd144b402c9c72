//! A small internet on one machine, for tests and benches: real programs on hosts that know nothing of each other but addresses.
//!
//! ```text
//! host `laptop`             router of `laptop`             the way between                  host `office`
//! ┌────────────────┐       ┌─────────────────────┐        ┌────────────────────┐           ┌──────────────┐
//! │ cairn join …   │ veth  │ masquerading,       │ TUN    │ `forwarder`: rates,│  TUN      │ cairn up …   │
//! │ 192.168.2.2    ├───────┤ unasked-for packets ├────────┤ delay, jitter, loss├───────────┤ 198.18.0.1   │
//! └────────────────┘       │ are dropped         │        │ partitions, counts │           └──────────────┘
//!                          └─────────────────────┘        └────────────────────┘
//! ```
//!
//! | part | module |
//! |---|---|
//! | hosts: network namespaces, a router with the kernel's own address translation, a share of the processors | [`hosts`] |
//! | what lies between them, in user space, since kernels often lack a queue that delays | [`forwarder`] |
//!
//! Every access link is one of [`node::links`]: a packet waits for its sender's uplink, travels, is lost or not, and waits for its receiver's
//! downlink. Public addresses are 198.18.0.1 and up (RFC 2544, section C.2.2: set aside for tests of networks).
//!
//! What it needs: Linux, root, `ip`, `iptables` and `/dev/net/tun`; [`Internet::new`] says what is missing. Several may run at a time; each
//! removes its namespaces and groups when it is dropped.
//!
//! What it deliberately does not do: names, IPv6, more than one router between a host and the rest, or running anywhere but in tests.

#[cfg(target_os = "linux")]
pub mod forwarder;
#[cfg(target_os = "linux")]
pub mod hosts;

#[cfg(target_os = "linux")]
pub use forwarder::Forwarded;
#[cfg(target_os = "linux")]
pub use hosts::{Host, HostSpec, Internet, InternetError, Nat};

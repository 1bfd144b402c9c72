//! The bounds of everything that grows.

/// Connections that are up or being made; more are closed on arrival.
pub const LINKS_MAX: usize = 1024;
/// Peers that a peer dials besides the validators.
pub const NEIGHBOURS_MAX: usize = 8;
/// Members of a round of one stage that a peer connects to, since it needs their payloads: all of so many, and as many at most of more.
pub const EXCHANGE_MAX: usize = 16;
/// Providers named in one [`crate::Output::Fetch`].
pub const PROVIDERS_MAX: usize = 8;
/// Own transactions that wait for a block: at most one of each kind, and room for those of a round just closed.
pub const OUTBOX_MAX: usize = 8;
/// Neighbours to whom a height is announced at one time, where members are many.
pub const ANNOUNCED_TO_MAX: usize = 3;
/// Retry delays between announcements of heights, where members are many.
pub const ANNOUNCE_DELAYS: u64 = 4;
/// Blocks kept that arrived before their predecessors; further ones are dropped and asked for again.
pub const BLOCKS_AHEAD_MAX: usize = 64;
/// Bytes of blocks after which an answer ends, so that one slow reader does not hold up much memory.
pub const BLOCKS_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Transactions that a validator holds for the next blocks; further ones are dropped and will be submitted again.
pub const POOL_MAX: usize = 4096;
/// Transactions of one signer that a validator holds.
pub const POOL_PER_SIGNER_MAX: usize = 8;
/// Rounds whose states are kept for peers that join. Payloads are kept for the rounds that the ledger lists.
pub const STATE_ROUNDS_MAX: u64 = 3;
/// Payloads of an old round that are given up whether or not this peer knows that it has them; of more, those that it has. What a peer stored
/// in an earlier life it does not know.
pub const PAYLOADS_LOOKED_FOR_MAX: usize = 256;
/// Faults on one connection after which it is closed, and the peer barred for [`crate::PeerConfig::retry_us_max`].
pub const FAULTS_PER_LINK_MAX: u32 = 3;
/// Failures of all its providers after which a validator gives a payload up; its peer submits it again.
pub const PAYLOAD_FETCHES_MAX: u32 = 3;
/// Longest error text kept from a peer's undecodable bytes, in bytes.
pub const ERROR_TEXT_BYTES_MAX: usize = 200;
/// Blocks remembered as checked, over all peers that share a [`crate::CheckedBlocks`].
pub const CHECKED_BLOCKS_MAX: usize = 4096;
/// Blocks remembered with the ledger after them, over all peers that share a [`crate::CheckedBlocks`].
pub const APPLIED_BLOCKS_MAX: usize = 64;

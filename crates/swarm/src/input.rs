//! What happens to a peer.

use wire::{Hash, Message, PeerId};

use crate::job::{JobId, JobResult};

/// Something that happened, told by the shell to [`crate::Peer::handle`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "inputs are handled one at a time, never stored in bulk")]
pub enum Input {
    /// The shell is ready to execute outputs. First, once.
    Start,
    /// A connection is up, dialled by either side. One connection per pair of peers: when both dial, the shell keeps one.
    Connected(PeerId),
    /// The connection is gone, or could not be made. Messages that were under way may be lost.
    Disconnected(PeerId),
    /// A message arrived on a connection that is up.
    Received {
        /// The other end of the connection.
        from: PeerId,
        /// The decoded message.
        message: Message,
    },
    /// How long the bytes of a [`Message::StageCall`] or [`Message::StageReply`] took, from the first to the last. Just before the message.
    Carried {
        /// The stage that it names.
        stage: u16,
        /// How long, in microseconds.
        took_us: u64,
    },
    /// Bytes arrived that are no message.
    Undecodable {
        /// The other end of the connection.
        from: PeerId,
        /// What the decoder says.
        error: String,
    },
    /// A job ended.
    Computed {
        /// The job.
        job: JobId,
        /// What came of it.
        result: JobResult,
    },
    /// A blob is stored here and matches its hash. Also the answer at once when it was here before.
    Fetched {
        /// The blob's name.
        hash: Hash,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A provider did not give a blob. The shell goes on with the next provider of the list and reports each that fails;
    /// after the last one it gives up until it is asked again.
    FetchFailed {
        /// The blob's name.
        hash: Hash,
        /// The provider.
        from: PeerId,
    },
    /// The machine is wanted for other things for a while: no job is started, nothing is fetched but what a validator needs for its blocks,
    /// and the ledger is told, so that nobody waits. Blocks are still taken, given and, on a validator, made. Again and again is the same
    /// as once. A peer whose pipeline is in a round has sums in memory that others count on: it is made anew instead, as after a crash,
    /// with [`crate::PeerConfig::paused`].
    Pause,
    /// The end of [`Input::Pause`]: the peer catches up and joins again.
    Resume,
    /// The user wants to take no part from the next round on. A shell that only pauses, and means to come back, just
    /// drops the peer instead: every moment is a safe moment for that.
    Stop,
    /// The time of [`crate::Peer::poll_timeout`] came. Harmless at any other time.
    Tick,
}

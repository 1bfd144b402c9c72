//! One connection's two streams: a writer task with a bounded queue, and a reader task that decodes frames. Where a rate is limited, large
//! frames are sent and read in parts that keep to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use iroh::endpoint::{Connection, ReadExactError, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wire::{Message, PeerId, Wire};

use super::{BYTES_INBOUND_MAX, BYTES_QUEUED_MAX, FLUSH_MS_MAX, FRAMES_QUEUED_MAX, TransportError};
use crate::limits::{PART_BYTES, Rate, Rates};

/// Close code: done.
pub(super) const CLOSE_DONE: VarInt = VarInt::from_u32(0);
/// Close code: another connection of the same pair is kept.
pub(super) const CLOSE_DUPLICATE: VarInt = VarInt::from_u32(1);
/// Close code: too many peers.
pub(super) const CLOSE_FULL: VarInt = VarInt::from_u32(2);
/// Close code: a frame was longer than a message may be.
const CLOSE_OVERSIZED: VarInt = VarInt::from_u32(3);

const LENGTH_BYTES: usize = 4;
/// Memory for a frame grows by this much as its bytes arrive, so that a false length costs its sender the bytes.
const READ_BYTES: usize = 64 << 10;

/// What connection tasks tell the transport.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// A dial that was asked for is over.
    Dialled { peer: PeerId, outcome: Result<Connection, TransportError> },
    /// Somebody connected.
    Accepted(Connection),
    /// A message arrived; the permit holds its share of the inbound bytes.
    Message { from: PeerId, link: u64, message: Box<Message>, took_us: u64, permit: OwnedSemaphorePermit },
    /// A frame is no message.
    Undecodable { from: PeerId, link: u64, error: String },
    /// The connection is over.
    Closed { peer: PeerId, link: u64, reason: String },
}

/// The sending end of one connection. Dropping it sends what is queued and then closes the connection.
#[derive(Debug)]
pub(super) struct Link {
    number: u64,
    connection: Connection,
    frames: mpsc::Sender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    dropped: AtomicU64,
    writer: tokio::task::JoinHandle<()>,
}

impl Link {
    /// Starts the two tasks of a connection.
    pub(super) fn start(
        peer: PeerId,
        number: u64,
        connection: Connection,
        events: mpsc::Sender<LinkEvent>,
        inbound_bytes: Arc<Semaphore>,
        rates: &Rates,
    ) -> Self {
        let (frames, queue) = mpsc::channel(FRAMES_QUEUED_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let writer =
            tokio::spawn(write_all(connection.clone(), queue, queued_bytes.clone(), rates.up_to(&peer).cloned()));
        let reader = Reader { peer, link: number, events, inbound_bytes, down: rates.down_from(&peer).cloned() };
        tokio::spawn(reader.run(connection.clone()));
        Self { number, connection, frames, queued_bytes, dropped: AtomicU64::new(0), writer }
    }

    /// Which connection of this process this is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Queues a message, or drops it when the queue is full.
    pub(super) fn send(&self, to: PeerId, message: &Message) {
        let frame = frame(message);
        let bytes = frame.len();
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if queued > BYTES_QUEUED_MAX || self.frames.try_send(frame).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // At 1, 2, 4, 8 …: a person should look, but not at a flood.
            if dropped.is_power_of_two() {
                tracing::warn!(peer = ?to, dropped, "a peer's queue is full or closed: message dropped");
            }
        }
    }

    /// Closes at once, in favour of another connection of the same pair.
    pub(super) fn close_duplicate(self) {
        self.connection.close(CLOSE_DUPLICATE, b"duplicate");
    }

    /// Ends the queue, and gives the task that is done when everything was sent.
    pub(super) fn into_writer(self) -> tokio::task::JoinHandle<()> {
        self.writer
    }
}

fn frame(message: &Message) -> Bytes {
    let body = wire::encode(message);
    assert!(body.len() <= Message::BYTES_MAX, "a message of {} bytes exceeds {}", body.len(), Message::BYTES_MAX);
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + body.len());
    frame.put_u32_le(u32::try_from(body.len()).expect("BYTES_MAX fits in a u32"));
    frame.put_slice(&body);
    frame.freeze()
}

/// Sends frames until the queue ends, then waits until the other side has them, and closes.
async fn write_all(
    connection: Connection,
    mut queue: mpsc::Receiver<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    up: Option<Rate>,
) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    while let Some(frame) = queue.recv().await {
        let bytes = frame.len();
        let sent = write_frame(&mut stream, frame, up.as_ref()).await;
        queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if !sent {
            return;
        }
    }
    if stream.finish().is_ok() {
        // The outcome does not matter: the connection is closed either way.
        let _ = tokio::time::timeout(Duration::from_millis(FLUSH_MS_MAX), stream.stopped()).await;
    }
    connection.close(CLOSE_DONE, b"done");
}

/// Sends a frame; at a limited rate in parts, each when it may go.
async fn write_frame(stream: &mut SendStream, mut frame: Bytes, up: Option<&Rate>) -> bool {
    let whole = frame.len();
    while !frame.is_empty() {
        let part = match up {
            None => std::mem::take(&mut frame),
            Some(up) => {
                let part = frame.split_to(frame.len().min(PART_BYTES));
                up.take_of(part.len(), whole).await;
                part
            }
        };
        if let Err(error) = stream.write_chunk(part).await {
            tracing::trace!(%error, "a stream ended while sending");
            return false;
        }
    }
    true
}

struct Reader {
    peer: PeerId,
    link: u64,
    events: mpsc::Sender<LinkEvent>,
    inbound_bytes: Arc<Semaphore>,
    down: Option<Rate>,
}

impl Reader {
    /// Reads frames until the connection ends; the last event is always `Closed`.
    async fn run(self, connection: Connection) {
        let reason = match connection.accept_uni().await {
            Ok(mut stream) => self.read_all(&connection, &mut stream).await,
            Err(error) => error.to_string(),
        };
        // Errors only when the transport is gone.
        let _ = self.events.send(LinkEvent::Closed { peer: self.peer, link: self.link, reason }).await;
    }

    async fn read_all(&self, connection: &Connection, stream: &mut RecvStream) -> String {
        loop {
            let mut length = [0; LENGTH_BYTES];
            if let Err(error) = stream.read_exact(&mut length).await {
                return match error {
                    ReadExactError::FinishedEarly(_) => "the other side is done".to_owned(),
                    ReadExactError::ReadError(error) => error.to_string(),
                };
            }
            let length = u32::from_le_bytes(length) as usize;
            if length > Message::BYTES_MAX {
                let error = format!("a frame of {length} bytes is larger than the limit of {}", Message::BYTES_MAX);
                self.undecodable(error.clone()).await;
                connection.close(CLOSE_OVERSIZED, b"oversized frame");
                return error;
            }
            if let Err(reason) = self.read_message(stream, length).await {
                return reason;
            }
        }
    }

    async fn read_message(&self, stream: &mut RecvStream, length: usize) -> Result<(), String> {
        let permits = u32::try_from(length.clamp(1, BYTES_INBOUND_MAX)).expect("a frame fits in a u32");
        let permit = self.inbound_bytes.clone().acquire_many_owned(permits).await.map_err(|error| error.to_string())?;
        let began = Instant::now();
        let mut body = Vec::with_capacity(length.min(READ_BYTES));
        while body.len() < length {
            let start = body.len();
            body.resize(length.min(start + READ_BYTES), 0);
            stream.read_exact(&mut body[start..]).await.map_err(|error| error.to_string())?;
            if let Some(down) = &self.down {
                down.take_of(body.len() - start, length).await;
            }
        }
        let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        match wire::decode::<Message>(&body) {
            Ok(message) => {
                let (from, link, message) = (self.peer, self.link, Box::new(message));
                let event = LinkEvent::Message { from, link, message, took_us, permit };
                self.events.send(event).await.map_err(|_| "the transport is gone".to_owned())
            }
            Err(error) => {
                self.undecodable(error.to_string()).await;
                Ok(())
            }
        }
    }

    async fn undecodable(&self, error: String) {
        // Errors only when the transport is gone.
        let _ = self.events.send(LinkEvent::Undecodable { from: self.peer, link: self.link, error }).await;
    }
}

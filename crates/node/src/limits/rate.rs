//! A bucket over bytes: how long to wait before so many more may go.
//!
//! Whoever sends or reads takes its bytes from the bucket and waits as long as the bucket says; the waits of all who take follow each
//! other, so that together they keep to the rate. Small control messages do not wait. They take their bytes all the same, so that the
//! others wait for them, too: rounds and blocks get through while a large blob is under way.
//!
//! Bytes are counted with what carries them: QUIC, UDP and IP headers are taken for a sixteenth. Acknowledgements are not counted.
//!
//! What a limit slows on the way in is the reading: QUIC's flow control then slows the sender, whose window is made to fit the rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wire::PeerId;

const US_PER_S: u64 = 1_000_000;
/// What was not used for longer than this is lost, in microseconds.
const SAVED_US_MAX: u64 = 100_000;
/// Headers are a sixteenth of what they carry.
const HEADERS_PART: u64 = 16;
/// A frame up to this size is control: it does not wait.
const CONTROL_BYTES_MAX: usize = 4 << 10;
/// Larger frames are written and read in parts of this size.
pub(crate) const PART_BYTES: usize = 16 << 10;

/// The bucket itself, in microseconds of a clock that never falls.
#[derive(Debug)]
struct Bucket {
    bits_per_s: u64,
    /// When all that was taken has gone.
    free_us: u64,
}

impl Bucket {
    /// Takes bytes; gives the microseconds until they may go.
    fn take(&mut self, now_us: u64, bytes: u64) -> u64 {
        let bytes = bytes.saturating_add(bytes / HEADERS_PART);
        let work_us = bytes.saturating_mul(8 * US_PER_S) / self.bits_per_s.max(1);
        self.free_us = self.free_us.max(now_us.saturating_sub(SAVED_US_MAX)).saturating_add(work_us);
        self.free_us.saturating_sub(now_us)
    }
}

/// A rate in one direction that many tasks share. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub struct Rate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bits_per_s: u64,
    started: Instant,
    bucket: Mutex<Bucket>,
    taken: AtomicU64,
}

impl Rate {
    /// A rate in bits per second, at least 1.
    pub fn new(bits_per_s: u64) -> Self {
        let bits_per_s = bits_per_s.max(1);
        let bucket = Mutex::new(Bucket { bits_per_s, free_us: 0 });
        Self { shared: Arc::new(Shared { bits_per_s, started: Instant::now(), bucket, taken: AtomicU64::new(0) }) }
    }

    /// The rate in bits per second.
    pub fn bits_per_s(&self) -> u64 {
        self.shared.bits_per_s
    }

    /// Bytes taken so far, without headers.
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Takes bytes, and waits until they may go.
    pub async fn take(&self, bytes: usize) {
        let wait_us = self.charge(bytes);
        if wait_us > 0 {
            tokio::time::sleep(Duration::from_micros(wait_us)).await;
        }
    }

    /// Takes the bytes of something that does not wait.
    pub fn borrow(&self, bytes: usize) {
        self.charge(bytes);
    }

    /// Takes the bytes of a frame that is `whole` bytes long: control does not wait.
    pub(crate) async fn take_of(&self, bytes: usize, whole: usize) {
        if whole <= CONTROL_BYTES_MAX { self.borrow(bytes) } else { self.take(bytes).await }
    }

    fn charge(&self, bytes: usize) -> u64 {
        let shared = &self.shared;
        let bytes = bytes as u64;
        shared.taken.fetch_add(bytes, Ordering::Relaxed);
        let now_us = u64::try_from(shared.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now_us, bytes)
    }
}

/// The rates of a machine. Its own peers among each other are not limited. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    up: Option<Rate>,
    down: Option<Rate>,
    own: Arc<[PeerId]>,
}

impl Rates {
    /// The rates to and from other machines, in bits per second; `own` are the peers of this one.
    pub fn new(up_bits_per_s: Option<u64>, down_bits_per_s: Option<u64>, own: &[PeerId]) -> Self {
        Self { up: up_bits_per_s.map(Rate::new), down: down_bits_per_s.map(Rate::new), own: own.into() }
    }

    /// Whether a peer is one of this machine.
    pub fn is_own(&self, peer: &PeerId) -> bool {
        self.own.contains(peer)
    }

    /// The rate of what goes to a peer.
    pub fn up_to(&self, peer: &PeerId) -> Option<&Rate> {
        self.up.as_ref().filter(|_| !self.is_own(peer))
    }

    /// The rate of what comes from a peer.
    pub fn down_from(&self, peer: &PeerId) -> Option<&Rate> {
        self.down.as_ref().filter(|_| !self.is_own(peer))
    }

    /// The rate of all that comes, in bits per second.
    pub(crate) fn down_bits_per_s(&self) -> Option<u64> {
        self.down.as_ref().map(Rate::bits_per_s)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(bits_per_s: u64) -> Bucket {
        Bucket { bits_per_s, free_us: 0 }
    }

    #[test]
    fn bytes_go_at_the_rate_and_a_pause_saves_little() {
        let mut bucket = bucket(8_000_000);
        // 16 kB and a sixteenth of headers: 17 kB at 1 MB/s.
        assert_eq!(bucket.take(0, 16_000), 17_000);
        assert_eq!(bucket.take(0, 16_000), 34_000, "one after the other");
        let saved = bucket.take(60_000_000, 16_000);
        assert_eq!(saved, 0, "a tenth of a second is saved");
        let burst: u64 = (0..20).filter(|_| bucket.take(60_000_000, 16_000) == 0).count() as u64;
        assert!((burst + 1) * 17_000 <= SAVED_US_MAX, "{burst} more went at once");
    }

    #[test]
    fn own_peers_are_not_limited_and_control_does_not_wait() {
        let (own, other) = (PeerId([1; 32]), PeerId([2; 32]));
        let rates = Rates::new(Some(1_000_000), None, &[own]);
        assert!(rates.up_to(&own).is_none() && rates.up_to(&other).is_some() && rates.down_from(&other).is_none());
        let up = rates.up_to(&other).expect("another machine").clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let began = Instant::now();
            up.take_of(1_000_000, CONTROL_BYTES_MAX).await;
            assert!(began.elapsed() < Duration::from_secs(4), "8 s at the rate");
            assert!(up.charge(0) > 1_000_000, "the others wait for it");
        });
        assert_eq!(up.taken(), 1_000_000);
    }

    proptest! {
        /// Whoever sends as soon as it may never has more behind it than the rate and what is saved.
        #[test]
        fn the_rate_is_kept(bits_per_s in 1_000_000_u64..1_000_000_000, sizes in proptest::collection::vec(1_u64..200_000, 1..60)) {
            let mut bucket = bucket(bits_per_s);
            let (mut now_us, mut bytes) = (1_000_000, 0);
            for size in sizes {
                now_us += bucket.take(now_us, size);
                bytes += size;
                let most = (now_us - 1_000_000 + SAVED_US_MAX) as u128 * u128::from(bits_per_s) / 8_000_000;
                // Rounding: less than a microsecond's bytes for each.
                prop_assert!(u128::from(bytes) <= most + u128::from(bits_per_s / 8_000_000 + 1) * 60);
            }
        }
    }
}

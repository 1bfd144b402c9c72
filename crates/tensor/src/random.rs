//! Counter-based random numbers: Philox 4×32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! A stream is named by a 32-byte key and a purpose; both go through BLAKE3 into Philox's 64-bit key and the upper half of its 128-bit
//! counter. Block `i` of a stream depends on nothing but the name and `i`, so any part of it can be drawn anywhere.

use crate::fault::{slip_f32, slip_u32};
use crate::math::{cos_f64, ln_f64, sin_f64};

/// A stream of random numbers. Cloning copies the position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    nonce: [u32; 2],
    counter: u64,
    block: [u32; 4],
    left: usize,
    spare: Option<u32>,
}

impl Stream {
    /// Makes the stream for `key` and `purpose`, at its start.
    pub fn new(key: [u8; 32], purpose: &str) -> Stream {
        let name = blake3::keyed_hash(&key, purpose.as_bytes());
        let word = |i: usize| {
            let bytes = name.as_bytes();
            u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        };
        Stream { key: [word(0), word(1)], nonce: [word(2), word(3)], counter: 0, block: [0; 4], left: 0, spare: None }
    }

    /// Returns block `counter` of the stream, wherever the stream stands.
    pub fn block(&self, counter: u64) -> [u32; 4] {
        philox([counter as u32, (counter >> 32) as u32, self.nonce[0], self.nonce[1]], self.key)
    }

    /// Moves to the start of block `counter`; a block is four 32-bit numbers.
    pub fn seek(&mut self, counter: u64) {
        self.counter = counter;
        self.left = 0;
        self.spare = None;
    }

    /// Draws 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.left == 0 {
            self.block = self.block(self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.left = 4;
        }
        self.left -= 1;
        slip_u32("random_bits", self.block[3 - self.left])
    }

    /// Draws 64 uniform bits, the low half first.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Draws a number from [0, 1): a multiple of 2⁻²⁴.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// Draws a standard normal number (Box–Muller on our own ln, sin and cos).
    pub fn normal(&mut self) -> f32 {
        if let Some(bits) = self.spare.take() {
            return f32::from_bits(bits);
        }
        let radius = (f64::from(self.next_u32()) + 1.0) / 4_294_967_296.0;
        let angle = f64::from(self.next_u32()) / 4_294_967_296.0 * std::f64::consts::TAU;
        let radius = (-2.0 * ln_f64(radius)).sqrt();
        self.spare = Some(((radius * sin_f64(angle)) as f32).to_bits());
        slip_f32("random_normal", (radius * cos_f64(angle)) as f32)
    }

    /// Draws an integer from 0..n without bias (Lemire, arXiv:1805.10941).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0) has no value to draw");
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Fills `out` with normal numbers of the given standard deviation.
    pub fn fill_normal(&mut self, std: f32, out: &mut [f32]) {
        for x in out {
            *x = self.normal() * std;
        }
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), expected);
    }

    #[test]
    fn blocks_are_random_access() {
        let mut stream = Stream::new([7; 32], "test");
        let drawn: Vec<u32> = (0..40).map(|_| stream.next_u32()).collect();
        for (i, block) in drawn.chunks(4).enumerate() {
            assert_eq!(stream.block(i as u64), block);
        }
        stream.seek(3);
        assert_eq!(stream.next_u32(), drawn[12]);
    }

    #[test]
    fn purposes_and_keys_separate_streams() {
        let first = Stream::new([1; 32], "init").next_u64();
        assert_ne!(first, Stream::new([1; 32], "data").next_u64());
        assert_ne!(first, Stream::new([2; 32], "init").next_u64());
        assert_eq!(first, Stream::new([1; 32], "init").next_u64());
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut stream = Stream::new([3; 32], "moments");
        let n = 100_000;
        let uniform: Vec<f64> = (0..n).map(|_| f64::from(stream.uniform())).collect();
        let mean = uniform.iter().sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.005, "uniform mean {mean}");
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)));
        let normal: Vec<f64> = (0..n).map(|_| f64::from(stream.normal())).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let variance = normal.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.03, "normal mean {mean}, variance {variance}");
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}

//! Inputs made of integers alone, so that no kernel under test has a part in them.

/// A generator of inputs, named by the kernel: SplitMix64 (Steele, Lea & Flood, 2014).
#[derive(Debug)]
pub(super) struct Inputs(u64);

impl Inputs {
    /// Starts the inputs of this name.
    pub(super) fn new(name: &str) -> Inputs {
        let hash = blake3::hash(name.as_bytes());
        Inputs(u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i])))
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// Token ids below `vocab`.
    pub(super) fn tokens(&mut self, len: usize, vocab: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(vocab as u64) as u32).collect()
    }

    /// Numbers in (-4, 4) in the shape of a bell, deviation 1.15: sums of four uniform ones, exact.
    pub(super) fn plain(&mut self, len: usize) -> Vec<f32> {
        let number = |bits: u64| {
            let sum: i32 = (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as i32).sum();
            (sum - (2 << 16)) as f32 / 32_768.0
        };
        (0..len).map(|_| number(self.bits())).collect()
    }

    /// As [`Inputs::plain`], with some zeros of both signs, tiny, subnormal and large numbers among them.
    pub(super) fn values(&mut self, len: usize) -> Vec<f32> {
        let mut values = self.plain(len);
        for x in &mut values {
            let bits = self.bits();
            let sign = (bits as u32) & 0x8000_0000;
            match bits >> 58 {
                0 => *x = 0.0,
                1 => *x = -0.0,
                2 => *x = f32::from_bits(sign | 0x1f00_0000 | (bits as u32 & 0x00ff_ffff)),
                3 => *x = f32::from_bits(sign | (bits as u32 & 0x007f_ffff)),
                4 => *x = f32::from_bits(sign | 0x4700_0000 | (bits as u32 & 0x00ff_ffff)),
                _ => {}
            }
        }
        values
    }

    /// As [`Inputs::values`], with an infinity of each sign and a NaN among them where there is room.
    pub(super) fn with_specials(&mut self, len: usize) -> Vec<f32> {
        let mut values = self.values(len);
        for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let place = self.below(len.max(1) as u64) as usize;
            if len > 3 {
                values[place] = special;
            }
        }
        values
    }

    /// Arguments for functions of one number: all binades of both signs, whole numbers and their halves, ties, limits, infinities
    /// and a NaN.
    pub(super) fn sweep(&mut self) -> Vec<f32> {
        let mut values = Vec::new();
        for exponent in 0..=255u32 {
            for _ in 0..12 {
                let bits = self.bits() as u32;
                let mantissa = if exponent == 255 { 0 } else { bits & 0x007f_ffff };
                values.push(f32::from_bits(bits & 0x8000_0000 | exponent << 23 | mantissa));
            }
        }
        for i in -210..=210i32 {
            let half = i as f32 / 2.0;
            values.extend([half, f32::from_bits(half.to_bits() ^ 1), f32::from_bits(half.to_bits() ^ 2)]);
        }
        let limits = [
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::EPSILON,
            f32::from_bits(1),
            f32::from_bits(0x007f_ffff),
            88.722_84,
            103.972_08,
        ];
        values.extend(limits.iter().flat_map(|x| [*x, -*x]));
        values.extend([0.0, -0.0, f32::NAN]);
        values
    }
}

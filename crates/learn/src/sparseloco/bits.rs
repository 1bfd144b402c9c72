//! A bit stream, least significant bit first, and the Rice code in it.

/// Writes bits.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    pending: u64,
    filled: u32,
}

impl Writer {
    pub(super) fn new(header: Vec<u8>) -> Self {
        Self { bytes: header, pending: 0, filled: 0 }
    }

    /// Appends the `count` low bits of `value`; `count` is at most 32.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        debug_assert!(count <= 32 && (count == 32 || value >> count == 0), "{value} in {count} bits");
        self.pending |= u64::from(value) << self.filled;
        self.filled += count;
        while self.filled >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    /// Appends a number: its quotient by 2^`parameter` in unary (ones, then a zero), then the remainder.
    pub(super) fn put_rice(&mut self, value: u32, parameter: u32) {
        let mut quotient = value >> parameter;
        while quotient >= 16 {
            self.put(0xffff, 16);
            quotient -= 16;
        }
        self.put((1 << quotient) - 1, quotient + 1);
        self.put(value & ((1 << parameter) - 1), parameter);
    }

    /// Fills the last byte with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Reads bits; every read past the end is `None`.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Takes `count` bits, at most 32.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let end = self.position.checked_add(count as usize)?;
        if end > self.bytes.len() * 8 {
            return None;
        }
        let mut value = 0u64;
        let first = self.position / 8;
        for (i, &byte) in self.bytes[first..end.div_ceil(8)].iter().enumerate() {
            value |= u64::from(byte) << (8 * i);
        }
        value >>= self.position % 8;
        self.position = end;
        Some((value & ((1u64 << count) - 1)) as u32)
    }

    /// Takes a Rice coded number below `limit`; `None` at the end of the bytes and for a larger number.
    pub(super) fn take_rice(&mut self, parameter: u32, limit: u32) -> Option<u32> {
        let mut quotient = 0u32;
        while self.take(1)? == 1 {
            quotient += 1;
            if quotient > limit >> parameter {
                return None;
            }
        }
        let value = (quotient << parameter) | self.take(parameter)?;
        (value < limit).then_some(value)
    }

    /// Whether what is left is less than a byte and all zeros, as [`Writer::finish`] leaves it.
    pub(super) fn at_end(&mut self) -> bool {
        let left = self.bytes.len() * 8 - self.position;
        left < 8 && self.take(left as u32) == Some(0)
    }
}

/// The parameter of the Rice code for the gaps between `keep` indices among `len`.
///
/// For gaps with a geometric law the best parameter `b` is the smallest with `2^b ≥ 0.481 · len / keep`: the next larger one
/// is better exactly while `(1 - keep/len)^(2^b)` exceeds 0.618. In integers, so that every machine agrees: 5 for 64 of 4096,
/// 3 for 256 of 4096.
pub fn rice_parameter(len: usize, keep: usize) -> u32 {
    (0..16).find(|&b| (25 * keep as u64) << b >= 12 * len as u64).unwrap_or(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(Vec::new());
        let values = [(5u32, 3u32), (0, 1), (u32::MAX, 32), (1, 7), (0x1234, 16)];
        values.iter().for_each(|&(value, count)| writer.put(value, count));
        (0..200).for_each(|value| writer.put_rice(value, value % 6));
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        for (value, count) in values {
            assert_eq!(reader.take(count), Some(value));
        }
        for value in 0..200 {
            assert_eq!(reader.take_rice(value % 6, 200), Some(value));
        }
        assert!(reader.at_end());
        assert_eq!(reader.take(1), None);
    }

    #[test]
    fn a_long_quotient_is_written_whole() {
        for value in [15, 16, 17, 31, 32, 4095] {
            let mut writer = Writer::new(Vec::new());
            writer.put_rice(value, 0);
            assert_eq!(Reader::new(&writer.finish()).take_rice(0, 4096), Some(value));
        }
    }

    #[test]
    fn a_number_at_its_limit_is_refused() {
        let mut writer = Writer::new(Vec::new());
        writer.put_rice(100, 3);
        let bytes = writer.finish();
        assert_eq!(Reader::new(&bytes).take_rice(3, 101), Some(100));
        assert_eq!(Reader::new(&bytes).take_rice(3, 100), None);
        assert_eq!(Reader::new(&[0xff; 64]).take_rice(3, 100), None);
    }

    #[test]
    fn the_parameter_is_the_cheapest() {
        for (len, keep) in
            [(4096, 64), (4096, 256), (4096, 512), (4096, 100), (4096, 4096), (128, 8), (3000, 47), (5, 1)]
        {
            let cost = |b: u32| {
                let q = 1.0 - keep as f64 / len as f64;
                f64::from(b) + 1.0 / (1.0 - q.powi(1 << b))
            };
            let best = (0..12).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap();
            let chosen = rice_parameter(len, keep);
            assert!(cost(chosen) <= cost(best) * 1.01, "{keep} of {len}: {chosen}, best {best}");
        }
        assert_eq!((rice_parameter(4096, 64), rice_parameter(4096, 256)), (5, 3));
    }
}

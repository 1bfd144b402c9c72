//! One chunk: which entries to send, and as which of four values.

use super::bits::{Reader, Writer, rice_parameter};

/// Bits of the level values of a chunk.
pub(super) const LEVEL_BITS: usize = 8 + 4 * 7;

/// The smallest and the largest power of two that level values are multiples of.
const EXPONENT_MIN: i32 = -105;
const EXPONENT_MAX: i32 = 10;

/// Appends a chunk and subtracts what was sent from its entries.
///
/// Bits: the level values (a shared exponent of 8 bits, four multiples of 7), the `keep` gaps in Rice code, the `keep` levels of two bits.
pub(super) fn encode(entries: &mut [f32], keep: usize, writer: &mut Writer) {
    let kept = largest(entries, keep);
    let quantised = quantise(entries, &kept);
    quantised.levels.write(writer);
    let values = quantised.levels.values();
    let parameter = rice_parameter(entries.len(), keep);
    let mut next = 0;
    for &index in &kept {
        writer.put_rice(index - next, parameter);
        next = index + 1;
    }
    for (&index, &level) in kept.iter().zip(&quantised.choices) {
        writer.put(u32::from(level), 2);
        entries[index as usize] -= values[usize::from(level)];
    }
}

/// The indices of the `keep` entries with the largest magnitude, ascending; of equal ones the lowest index wins.
fn largest(entries: &[f32], keep: usize) -> Vec<u32> {
    let mut keys: Vec<u64> =
        entries.iter().enumerate().map(|(index, e)| u64::from(!e.abs().to_bits()) << 32 | index as u64).collect();
    if keep < keys.len() {
        keys.select_nth_unstable(keep);
        keys.truncate(keep);
    }
    let mut indices: Vec<u32> = keys.into_iter().map(|key| key as u32).collect();
    indices.sort_unstable();
    indices
}

struct Quantised {
    /// The mean of each level's members, rounded; 0 for a level without members.
    levels: Levels,
    /// The level of each kept entry.
    choices: Vec<u8>,
}

/// Sorts the kept entries into four levels, cut at the mean and one standard deviation around it.
fn quantise(entries: &[f32], kept: &[u32]) -> Quantised {
    let member = |&index: &u32| f64::from(entries[index as usize]);
    let count = kept.len() as f64;
    let mean = kept.iter().map(member).sum::<f64>() / count;
    let deviation = (kept.iter().map(|index| (member(index) - mean).powi(2)).sum::<f64>() / count).sqrt();
    let cuts = [mean - deviation, mean, mean + deviation];
    let mut sums = [(0.0f64, 0u32); 4];
    let mut choices = Vec::with_capacity(kept.len());
    for index in kept {
        let value = member(index);
        let level = cuts.iter().filter(|&&cut| value >= cut).count();
        sums[level].0 += value;
        sums[level].1 += 1;
        choices.push(level as u8);
    }
    let levels = Levels::nearest(sums.map(|(sum, members)| sum / f64::from(members.max(1))));
    Quantised { levels, choices }
}

/// The four level values as they travel: a power of two for all, and a small multiple of it for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Levels {
    exponent: i32,
    multiples: [i32; 4],
}

impl Levels {
    /// Rounds each value to the nearest multiple (ties to even) of the power of two that gives the largest one six bits.
    fn nearest(values: [f64; 4]) -> Self {
        let largest = values.iter().fold(0.0f32, |largest, &value| largest.max((value as f32).abs()));
        let exponent = ((largest.to_bits() >> 23) as i32 - 127 - 5).clamp(EXPONENT_MIN, EXPONENT_MAX);
        let unit = f64::from(power_of_two(exponent));
        Self { exponent, multiples: values.map(|value| (value / unit).round_ties_even().clamp(-64.0, 63.0) as i32) }
    }

    /// The values, exactly.
    pub(super) fn values(self) -> [f32; 4] {
        self.multiples.map(|multiple| multiple as f32 * power_of_two(self.exponent))
    }

    fn write(self, writer: &mut Writer) {
        writer.put((self.exponent - EXPONENT_MIN) as u32, 8);
        self.multiples.iter().for_each(|&multiple| writer.put(multiple as u32 & 0x7f, 7));
    }

    /// Reads what [`Levels::write`] wrote: `None` at the end of the bytes, `Some(None)` for an exponent out of range.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let exponent = reader.take(8)? as i32 + EXPONENT_MIN;
        let mut multiples = [0; 4];
        for multiple in &mut multiples {
            let bits = reader.take(7)? as i32;
            *multiple = if bits < 64 { bits } else { bits - 128 };
        }
        Some((exponent <= EXPONENT_MAX).then_some(Self { exponent, multiples }))
    }
}

/// The exact power, for exponents of normal numbers.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitudes_win_and_ties_go_to_the_lowest_index() {
        assert_eq!(largest(&[1.0, -3.0, 2.0, 3.0, -0.5], 3), [1, 2, 3]);
        assert_eq!(largest(&[1.0, -1.0, 1.0, -1.0], 2), [0, 1]);
        assert_eq!(largest(&[0.0, -0.0, 0.0], 1), [0]);
        assert_eq!(largest(&[5.0, 6.0], 2), [0, 1]);
    }

    #[test]
    fn each_level_is_the_mean_of_its_members() {
        let entries = [-8.0, -2.0, -1.0, 1.0, 2.0, 8.0];
        let quantised = quantise(&entries, &[0, 1, 2, 3, 4, 5]);
        assert_eq!(quantised.choices, [0, 1, 1, 2, 2, 3]);
        assert_eq!(quantised.levels.values(), [-8.0, -1.5, 1.5, 8.0]);
    }

    #[test]
    fn equal_entries_share_one_level() {
        let quantised = quantise(&[0.25; 5], &[0, 1, 2, 3, 4]);
        assert!(quantised.choices.iter().all(|&level| level == quantised.choices[0]));
        assert_eq!(quantised.levels.values()[usize::from(quantised.choices[0])], 0.25);
    }

    #[test]
    fn level_values_are_rounded_to_a_64th_of_the_largest() {
        for scale in [1.0, 3e-5, 1e-20, 7e3] {
            let exact = [-1.7 * scale, -0.9 * scale, 0.0, 1.99 * scale];
            let rounded = Levels::nearest(exact).values();
            for (value, rounded) in exact.iter().zip(rounded) {
                assert!((value - f64::from(rounded)).abs() <= 2.0 * scale / 63.0, "{value} became {rounded}");
            }
        }
    }

    #[test]
    fn extreme_level_values_stay_finite_and_in_range() {
        for (value, expected) in [(1e30, 63.0 * 1024.0), (-1e30, -65_536.0), (1e-38, 0.0), (0.0, 0.0)] {
            assert_eq!(Levels::nearest([value; 4]).values(), [expected; 4]);
        }
    }

    #[test]
    fn level_values_are_read_as_written() {
        for values in [[-1.0, -0.5, 0.5, 1.0], [0.0; 4], [-1e30, 1e-9, 1e9, 1e30]] {
            let levels = Levels::nearest(values);
            let mut writer = Writer::new(Vec::new());
            levels.write(&mut writer);
            let bytes = writer.finish();
            assert_eq!(bytes.len(), LEVEL_BITS.div_ceil(8));
            assert_eq!(Levels::read(&mut Reader::new(&bytes)), Some(Some(levels)));
        }
        assert_eq!(Levels::read(&mut Reader::new(&[0xff; 5])), Some(None));
        assert_eq!(Levels::read(&mut Reader::new(&[0; 4])), None);
    }
}

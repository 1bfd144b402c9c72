//! How long a round is open, from how long the rounds before it took.
//!
//! Source: the deadline of the network design, median + k·MAD, here over whole rounds: a round closes by itself when all of its work is
//! claimed, and the deadline only ends one in which work is lost or somebody is much slower than before.
//!
//! Who is away is not waited for longer: a round of one stage that only members missed who had not even attested changes nothing.
//!
//! The charter bounds it on both sides. A round that had to be closed with work undone gives the next one twice its time, so that a run
//! whose units take longer than its founder thought finds its pace.

use std::collections::VecDeque;

use wire::Charter;

/// Rounds that count.
const ROUNDS_COUNTED: usize = 9;
/// As few are not enough for a median.
const ROUNDS_NEEDED: usize = 3;
/// A round gets so many times the median of those before it.
const MEDIANS: u64 = 3;
/// And so many times the median absolute deviation.
const DEVIATIONS: u64 = 8;

/// How long rounds take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// How long the last complete rounds took, in microseconds, the newest last.
    took_us: VecDeque<u64>,
    /// The time of the next round; none before the first round closed.
    round_us: Option<u64>,
}

impl Pace {
    /// The time that the next round gets, in microseconds.
    pub(crate) fn round_us(&self, charter: &Charter) -> u64 {
        self.round_us.unwrap_or(charter.round_us_first)
    }

    /// Notes a round that closed: how long it was open, and whether all of its work was claimed.
    pub(crate) fn note(&mut self, charter: &Charter, took_us: u64, complete: bool) {
        let before = self.round_us(charter);
        let wanted = if complete {
            if self.took_us.len() == ROUNDS_COUNTED {
                self.took_us.pop_front();
            }
            self.took_us.push_back(took_us);
            self.typical().unwrap_or(before)
        } else {
            before.saturating_mul(2)
        };
        self.round_us = Some(wanted.clamp(charter.round_us_first, charter.round_us_max));
    }

    /// What complete rounds suggest; none while they are few.
    fn typical(&self) -> Option<u64> {
        if self.took_us.len() < ROUNDS_NEEDED {
            return None;
        }
        let median = median(self.took_us.iter().copied());
        let deviation = median_of_distances(&self.took_us, median);
        Some(median.saturating_mul(MEDIANS).saturating_add(deviation.saturating_mul(DEVIATIONS)))
    }
}

fn median_of_distances(values: &VecDeque<u64>, from: u64) -> u64 {
    median(values.iter().map(|value| value.abs_diff(from)))
}

/// The middle one, the upper of two.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

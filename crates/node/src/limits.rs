//! What a person lets this machine give to a run: processor time, memory, traffic, and hours.
//!
//! | limit | written as | kept by |
//! |---|---|---|
//! | processor | `50%` of all cores | fewer threads, and pauses between steps ([`Governor`]) |
//! | memory | `4G` | a plan that is refused before anything is founded or joined ([`crate::memory`]) |
//! | up, down | `5M`, in bit/s | a bucket over what goes to other machines and comes from them ([`Rate`]) |
//! | when | `idle` or `22:00-07:00` | pauses ([`crate::pausing`]) |
//!
//! No limit changes a result: sums never depend on the number of threads, nor on when something was computed.

mod governor;
mod load;
mod rate;
mod when;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use governor::{Governor, Worker, process_cpu_seconds};
pub(crate) use load::child_cpu_seconds;
pub use load::{BUSY_ABOVE, IDLE_BELOW, IdleWatch, LoadMeter, LoadUnknown};
pub(crate) use rate::PART_BYTES;
pub use rate::{Rate, Rates};
pub use when::{Hours, When, local_minute};

use crate::links::spec::{parse_rate, rate_text};

/// The lowest rate that can be asked for, in bits per second: others give a peer up that sends blobs more slowly than about half of it
/// ([`crate::blobs::FETCH_BYTES_PER_SECOND_MIN`]).
pub const RATE_BITS_PER_S_MIN: u64 = 1_000_000;

/// What a machine gives. The default limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time.
    pub cpu: Option<CpuShare>,
    /// Bytes of memory that a peer may take. One in a process of its own ends when it takes more.
    pub memory: Option<u64>,
    /// Bits per second to other machines.
    pub up_bits_per_s: Option<u64>,
    /// Bits per second from other machines.
    pub down_bits_per_s: Option<u64>,
    /// When it works.
    pub when: When,
}

impl Limits {
    /// The part of each of `parts` processes that share the processor and the line.
    pub(crate) fn part(&self, parts: usize) -> Self {
        let parts = parts.max(1);
        let of = |rate: Option<u64>| rate.map(|rate| (rate / parts as u64).max(1));
        Self {
            cpu: self.cpu.map(|cpu| cpu.part(parts)),
            up_bits_per_s: of(self.up_bits_per_s),
            down_bits_per_s: of(self.down_bits_per_s),
            ..self.clone()
        }
    }
}

/// A part of the processor time of all cores together, in parts of ten thousand: `50%`, `12.5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuShare(u32);

impl CpuShare {
    const WHOLE: u32 = 10_000;

    /// The share as a fraction, above 0 and at most 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// Seconds of processor time per second on a machine with so many cores.
    pub fn cores(self, cores: usize) -> f64 {
        self.fraction() * cores as f64
    }

    fn part(self, parts: usize) -> Self {
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        Self((self.0 / parts).max(1))
    }
}

impl FromStr for CpuShare {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let unreadable = || LimitError::Cpu { text: text.to_owned() };
        let number = text.trim().strip_suffix('%').ok_or_else(unreadable)?.trim();
        if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(unreadable());
        }
        let percent: f64 = number.parse().map_err(|_| unreadable())?;
        if !(1.0..=100.0).contains(&percent) {
            return Err(LimitError::CpuRange { text: text.to_owned() });
        }
        Ok(Self((percent * 100.0).round() as u32))
    }
}

impl fmt::Display for CpuShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

/// A text is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No share of the processor.
    #[error("`{text}` is no share of the processor")]
    Cpu {
        /// The text.
        text: String,
    },
    /// A share outside of its range.
    #[error("`{text}` is out of range: a share of the processor is 1% to 100%")]
    CpuRange {
        /// The text.
        text: String,
    },
    /// No rate.
    #[error("`{text}` is no rate")]
    Rate {
        /// The text.
        text: String,
    },
    /// A rate with which a peer cannot take part.
    #[error(
        "`{text}` is too slow: a peer that sends or fetches less than {} bit/s is given up by others",
        rate_text(Some(RATE_BITS_PER_S_MIN))
    )]
    Slow {
        /// The text.
        text: String,
    },
    /// Neither hours nor `idle`.
    #[error("`{text}` is no time to work in")]
    When {
        /// The text.
        text: String,
    },
    /// Hours that begin when they end.
    #[error("`{text}` begins when it ends")]
    NoTime {
        /// The text.
        text: String,
    },
}

impl LimitError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Cpu { .. } | Self::CpuRange { .. } => "`--cpu 50%` gives half of all cores",
            Self::Rate { .. } => "write bits per second with k, M or G: `5M` is five million bits a second",
            Self::Slow { .. } => "give more, or `--when 22:00-07:00` to give nothing by day",
            Self::When { .. } => {
                "`--when idle` works while other programs need little, `--when 22:00-07:00` in these hours"
            }
            Self::NoTime { .. } => "leave `--when` out to work at all times",
        }
    }
}

/// Reads a limit of a rate, as `--link` has it: `5M` for five million bits per second.
///
/// # Errors
/// [`LimitError`] when it is none, or too slow to take part.
pub fn parse_limit(text: &str) -> Result<u64, LimitError> {
    let rate = parse_rate(text.trim()).ok_or_else(|| LimitError::Rate { text: text.to_owned() })?;
    if rate < RATE_BITS_PER_S_MIN { Err(LimitError::Slow { text: text.to_owned() }) } else { Ok(rate) }
}

/// A rate as people write it: `5M`.
pub fn limit_text(bits_per_s: u64) -> String {
    rate_text(Some(bits_per_s))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_and_rates_are_read_as_people_write_them() {
        for (text, fraction, written) in
            [("50%", 0.5, "50%"), (" 12.5 %", 0.125, "12.5%"), ("100%", 1.0, "100%"), ("1%", 0.01, "1%")]
        {
            let share: CpuShare = text.parse().unwrap();
            assert_eq!((share.fraction(), share.to_string()), (fraction, written.to_owned()), "{text}");
        }
        assert_eq!("25%".parse::<CpuShare>().unwrap().cores(2), 0.5);
        for (text, bits, written) in
            [("5M", 5_000_000, "5M"), ("1500k", 1_500_000, "1.5M"), ("1G", 1_000_000_000, "1G")]
        {
            assert_eq!(parse_limit(text), Ok(bits), "{text}");
            assert_eq!(limit_text(bits), written);
        }
    }

    #[test]
    fn what_is_no_limit_is_told_with_what_to_write() {
        let cpu = |text: &str| text.parse::<CpuShare>().map(|_| ());
        let rate = |text: &str| parse_limit(text).map(|_| ());
        for (got, said) in [
            (cpu("half"), "`half` is no share"),
            (cpu("50"), "`50` is no share"),
            (cpu("%"), "`%` is no share"),
            (cpu("+5%"), "`+5%` is no share"),
            (cpu("NaN%"), "`NaN%` is no share"),
            (cpu("0%"), "1% to 100%"),
            (cpu("101%"), "1% to 100%"),
            (rate("fast"), "`fast` is no rate"),
            (rate("-"), "`-` is no rate"),
            (rate(""), "`` is no rate"),
            (rate("5m"), "`5m` is no rate"),
            (rate("300k"), "less than 1M bit/s"),
        ] {
            let error = got.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn processes_that_share_a_machine_get_a_part_each() {
        let limits = Limits {
            cpu: Some("50%".parse().unwrap()),
            memory: Some(7),
            up_bits_per_s: Some(9_000_000),
            down_bits_per_s: None,
            when: When::Idle,
        };
        let part = limits.part(3);
        assert!((part.cpu.unwrap().fraction() - 0.5 / 3.0).abs() < 1e-3);
        assert_eq!((part.up_bits_per_s, part.down_bits_per_s, part.memory), (Some(3_000_000), None, Some(7)));
        assert_eq!(part.when, When::Idle);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = (text.parse::<CpuShare>(), parse_limit(&text), text.parse::<When>());
        }

        #[test]
        fn a_share_that_was_written_is_read_back(hundredths in 100_u32..=10_000) {
            let share = CpuShare(hundredths);
            prop_assert_eq!(share.to_string().parse::<CpuShare>(), Ok(share));
        }
    }
}

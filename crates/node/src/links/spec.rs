//! What a person asks of a link, and how it is written.
//!
//! ```text
//! 80M/20M,50ms±10ms,1%
//! │   │    │    │   └ datagrams lost on the way
//! │   │    │    └ how far round trips differ from their mean
//! │   │    └ round-trip time to another peer with the same link, half of it in each direction
//! │   └ up, bits per second
//! └ down, bits per second; alone for both directions, `-` for no limit
//! ```
//!
//! Any part may be left out. `+-` is the same as `±`.

use std::fmt;
use std::str::FromStr;

/// The slowest link, in bits per second.
pub const BITS_PER_S_MIN: u64 = 1_000;
/// The fastest link that is still limited, in bits per second.
pub const BITS_PER_S_MAX: u64 = 1_000_000_000_000;
/// The longest round-trip time, in microseconds.
pub const ROUND_TRIP_US_MAX: u64 = 60_000_000;
/// All datagrams, in parts per million.
pub const LOSS_PPM_MAX: u32 = 1_000_000;

/// The access link of one peer, as its owner sees it. The default limits nothing.
///
/// Round-trip time, jitter and loss are those of the way to another peer with the same link. Between two different links,
/// delay and jitter are the mean of both, and a datagram survives each end's half of the loss: `√(1−p)·√(1−q)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSpec {
    /// Rate towards the peer, in bits per second; none is unlimited.
    pub down_bits_per_s: Option<u64>,
    /// Rate from the peer, in bits per second; none is unlimited.
    pub up_bits_per_s: Option<u64>,
    /// Round-trip time as `ping` shows it, without waiting in queues, in microseconds. Half of it per direction.
    pub round_trip_us: u64,
    /// Round trips vary evenly by up to this much around their mean, in microseconds; at most the round-trip time.
    pub jitter_us: u64,
    /// Datagrams lost on their way in one direction, in parts per million.
    pub loss_ppm: u32,
}

/// A text is no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkSpecError {
    /// There is nothing in it.
    #[error("a link without any part")]
    Empty,
    /// A part that is neither a rate nor a time nor a share.
    #[error("`{part}` is no rate, round-trip time or loss of a link")]
    Part {
        /// The part.
        part: String,
    },
    /// A part that is given twice.
    #[error("`{part}` gives the {what} of a link a second time")]
    Twice {
        /// The part.
        part: String,
        /// What it gives.
        what: &'static str,
    },
    /// A value outside of its range.
    #[error("`{part}` is out of range: the {what} of a link is {range}")]
    Range {
        /// The part.
        part: String,
        /// What it gives.
        what: &'static str,
        /// What is permitted.
        range: &'static str,
    },
}

impl LinkSpecError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty | Self::Part { .. } => {
                "write DOWN/UP,ROUND-TRIP,LOSS such as `80M/20M,50ms,1%`: rates in bit/s with k, M or G, times in us, ms or \
                 s (`50ms+-10ms` with jitter); any part may be left out"
            }
            Self::Twice { .. } => "leave one of the two out",
            Self::Range { .. } => "`80M/20M,50ms,1%` is an ordinary home, `10M/1M,100ms+-20ms,3%` a bad one",
        }
    }
}

const RATE_RANGE: &str = "1k to 1000G bit/s";
const TIME_RANGE: &str = "at most 60s";
const JITTER_RANGE: &str = "at most its round-trip time";
const LOSS_RANGE: &str = "0 to 100%";

/// Factors of units, as powers of ten.
const RATE_UNITS: [(&str, u32); 5] = [("G", 9), ("M", 6), ("k", 3), ("K", 3), ("", 0)];
const TIME_UNITS: [(&str, u32); 3] = [("us", 0), ("ms", 3), ("s", 6)];

impl FromStr for LinkSpec {
    type Err = LinkSpecError;

    fn from_str(text: &str) -> Result<Self, LinkSpecError> {
        if text.trim().is_empty() {
            return Err(LinkSpecError::Empty);
        }
        let mut spec = Self::default();
        let mut given: Vec<&'static str> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let what = spec.take(part)?;
            if given.contains(&what) {
                return Err(LinkSpecError::Twice { part: part.to_owned(), what });
            }
            given.push(what);
        }
        Ok(spec)
    }
}

impl LinkSpec {
    /// Whether it limits, delays and loses nothing.
    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }

    /// Reads one part, and says what it gives.
    fn take(&mut self, part: &str) -> Result<&'static str, LinkSpecError> {
        let unreadable = || LinkSpecError::Part { part: part.to_owned() };
        let range = |what, range| LinkSpecError::Range { part: part.to_owned(), what, range };
        if let Some(number) = part.strip_suffix('%') {
            let ppm = decimal(number.trim(), 4).ok_or_else(unreadable)?;
            let ppm = u32::try_from(ppm).ok().filter(|ppm| *ppm <= LOSS_PPM_MAX);
            self.loss_ppm = ppm.ok_or_else(|| range("loss", LOSS_RANGE))?;
            return Ok("loss");
        }
        if part.ends_with('s') {
            let (mean, jitter) = split_jitter(part);
            let time = |text| with_unit(text, &TIME_UNITS).ok_or_else(unreadable);
            self.round_trip_us = time(mean)?;
            self.jitter_us = jitter.map(time).transpose()?.unwrap_or(0);
            if self.round_trip_us > ROUND_TRIP_US_MAX {
                return Err(range("round-trip time", TIME_RANGE));
            }
            if self.jitter_us > self.round_trip_us {
                return Err(range("jitter", JITTER_RANGE));
            }
            return Ok("round-trip time");
        }
        let rate = |text: &str| match text.trim() {
            "-" => Ok(None),
            text => match with_unit(text, &RATE_UNITS).ok_or_else(unreadable)? {
                bits @ BITS_PER_S_MIN..=BITS_PER_S_MAX => Ok(Some(bits)),
                _ => Err(range("rate", RATE_RANGE)),
            },
        };
        let (down, up) = part.split_once('/').unwrap_or((part, part));
        (self.down_bits_per_s, self.up_bits_per_s) = (rate(down)?, rate(up)?);
        Ok("rate")
    }
}

fn split_jitter(part: &str) -> (&str, Option<&str>) {
    let split = part.split_once('±').or_else(|| part.split_once("+-"));
    split.map_or((part, None), |(mean, jitter)| (mean.trim(), Some(jitter.trim())))
}

/// A decimal number with one of `units`, times ten to the unit's power; none when it is no whole number then.
fn with_unit(text: &str, units: &[(&str, u32)]) -> Option<u64> {
    let end = text.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, power) = units.iter().find(|(name, _)| *name == unit.trim())?;
    decimal(number, *power)
}

/// A decimal number times ten to the `power`; none when it is no whole number then, or too large.
fn decimal(text: &str, power: u32) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let places = u32::try_from(fraction.len()).ok()?;
    let scale = 10_u64.pow(power.checked_sub(places)?);
    let value = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let whole = value(whole)?.checked_mul(10_u64.pow(power))?;
    whole.checked_add(value(fraction)?.checked_mul(scale)?)
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match (self.down_bits_per_s, self.up_bits_per_s) {
            (None, None) => {}
            (down, up) if down == up => parts.push(rate_text(down)),
            (down, up) => parts.push(format!("{}/{}", rate_text(down), rate_text(up))),
        }
        match (self.round_trip_us, self.jitter_us) {
            (0, _) => {}
            (mean, 0) => parts.push(time_text(mean)),
            (mean, jitter) => parts.push(format!("{}±{}", time_text(mean), time_text(jitter))),
        }
        if self.loss_ppm > 0 {
            parts.push(format!("{}%", scaled(self.loss_ppm.into(), 4)));
        }
        if parts.is_empty() {
            parts.push(time_text(0));
        }
        f.write_str(&parts.join(","))
    }
}

/// Reads a rate in bits per second, with or without a unit; none when it is not one, or out of range.
pub(crate) fn parse_rate(text: &str) -> Option<u64> {
    with_unit(text, &RATE_UNITS).filter(|bits| (BITS_PER_S_MIN..=BITS_PER_S_MAX).contains(bits))
}

/// A rate as people write it; `-` for no limit.
pub(crate) fn rate_text(bits_per_s: Option<u64>) -> String {
    let Some(bits) = bits_per_s else { return "-".to_owned() };
    let unit = RATE_UNITS.iter().find(|(_, power)| bits >= 10_u64.pow(*power));
    unit.map_or_else(|| bits.to_string(), |(name, power)| format!("{}{name}", scaled(bits, *power)))
}

fn time_text(us: u64) -> String {
    format!("{}ms", scaled(us, 3))
}

/// `value` over ten to the `power`, exactly.
fn scaled(value: u64, power: u32) -> String {
    let scale = 10_u64.pow(power);
    let places = power as usize;
    let text = format!("{}.{:0places$}", value / scale, value % scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> LinkSpec {
        text.parse().unwrap_or_else(|error| panic!("`{text}`: {error}"))
    }

    #[test]
    fn links_are_read_as_people_write_them() {
        let home = LinkSpec {
            down_bits_per_s: Some(80_000_000),
            up_bits_per_s: Some(20_000_000),
            round_trip_us: 50_000,
            jitter_us: 0,
            loss_ppm: 10_000,
        };
        assert_eq!(parsed("80M/20M,50ms,1%"), home);
        assert_eq!(parsed(" 1%, 0.05s ,80000k/0.02G"), home, "any order, any unit");
        let jittery = LinkSpec { jitter_us: 10_000, ..home };
        assert_eq!(parsed("80M/20M,50ms±10ms,1%"), jittery);
        assert_eq!(parsed("80M/20M,50ms+-10ms,1%"), jittery);
        assert_eq!(
            parsed("1.5M"),
            LinkSpec { down_bits_per_s: Some(1_500_000), up_bits_per_s: Some(1_500_000), ..Default::default() }
        );
        assert_eq!(parsed("-/20M").down_bits_per_s, None);
        assert_eq!(parsed("250us").round_trip_us, 250);
        assert_eq!(parsed("0.25%").loss_ppm, 2_500);
        assert!(parsed("0ms").is_clear());
    }

    #[test]
    fn links_are_written_in_one_way() {
        for (text, canonical) in [
            ("80M/20M,50ms,1%", "80M/20M,50ms,1%"),
            ("1%,50ms+-5ms", "50ms±5ms,1%"),
            ("80M/80M", "80M"),
            ("1500k/-", "1.5M/-"),
            ("1.25s", "1250ms"),
            ("100us,0.0001%", "0.1ms,0.0001%"),
            ("1000G", "1000G"),
            ("0%", "0ms"),
        ] {
            assert_eq!(parsed(text).to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_link_is_told_with_what_to_write() {
        for (text, said) in [
            ("", "without any part"),
            ("fast", "`fast` is no rate"),
            ("80m", "`80m` is no rate"),
            ("80M/", "`80M/` is no rate"),
            ("80M/20M/5M", "`80M/20M/5M` is no rate"),
            ("50", "out of range"),
            ("50 ms ms", "`50 ms ms` is no rate"),
            ("80M,,1%", "`` is no rate"),
            ("80M,20M", "`20M` gives the rate of a link a second time"),
            ("10ms,20ms", "a second time"),
            ("-1%", "`-1%` is no rate"),
            ("101%", "0 to 100%"),
            ("61s", "at most 60s"),
            ("10ms+-11ms", "at most its round-trip time"),
            ("2000G", "1k to 1000G"),
            ("999", "1k to 1000G"),
            ("0.1us", "`0.1us` is no rate"),
            ("99999999999999999999M", "is no rate"),
        ] {
            let error = text.parse::<LinkSpec>().unwrap_err();
            assert!(error.to_string().contains(said), "`{text}`: {error}");
            assert!(!error.hint().is_empty());
        }
    }

    fn any_spec() -> impl Strategy<Value = LinkSpec> {
        let rate = || proptest::option::of(BITS_PER_S_MIN..=BITS_PER_S_MAX);
        let times = (0..=ROUND_TRIP_US_MAX).prop_flat_map(|mean| (Just(mean), 0..=mean));
        (rate(), rate(), times, 0..=LOSS_PPM_MAX).prop_map(|(down, up, (mean, jitter), loss_ppm)| LinkSpec {
            down_bits_per_s: down,
            up_bits_per_s: up,
            round_trip_us: mean,
            jitter_us: jitter,
            loss_ppm,
        })
    }

    proptest! {
        #[test]
        fn a_link_that_was_written_is_read_back(spec in any_spec()) {
            prop_assert_eq!(spec.to_string().parse::<LinkSpec>(), Ok(spec));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<LinkSpec>();
        }
    }
}

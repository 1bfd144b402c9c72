//! When a machine works: at all times, in some hours of the day, or while its other programs need little.

use std::fmt;
use std::str::FromStr;

use chrono::Timelike;

use super::LimitError;

const MINUTES_PER_HOUR: u32 = 60;
const HOURS_PER_DAY: u32 = 24;

/// When a machine works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// At all times.
    #[default]
    Always,
    /// While other programs need little of the processor.
    Idle,
    /// In these hours of every day.
    Hours(Hours),
}

/// A part of the day in the machine's local time: minutes since midnight. It may go past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u32,
    until: u32,
}

impl Hours {
    /// Whether a minute of the day, counted from midnight, is in these hours.
    pub fn contain(&self, minute: u32) -> bool {
        match self.from < self.until {
            true => (self.from..self.until).contains(&minute),
            false => minute >= self.from || minute < self.until,
        }
    }

    /// When they begin, as people write it: `22:00`.
    pub fn begin(&self) -> String {
        clock(self.from)
    }

    /// When they end, as people write it: `07:00`.
    pub fn end(&self) -> String {
        clock(self.until)
    }
}

impl FromStr for When {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let unreadable = || LimitError::When { text: text.to_owned() };
        if text.trim().eq_ignore_ascii_case("idle") {
            return Ok(Self::Idle);
        }
        let (from, until) = text.split_once('-').ok_or_else(unreadable)?;
        let minute = |text: &str| minute(text.trim()).ok_or_else(unreadable);
        let hours = Hours { from: minute(from)?, until: minute(until)? };
        if hours.from == hours.until {
            Err(LimitError::NoTime { text: text.to_owned() })
        } else {
            Ok(Self::Hours(hours))
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Idle => f.write_str("idle"),
            Self::Hours(hours) => write!(f, "{}-{}", hours.begin(), hours.end()),
        }
    }
}

/// `HH:MM` as minutes since midnight; `24:00` is midnight, too.
fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || minutes.len() != 2 || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let valid = minutes < MINUTES_PER_HOUR && (hours < HOURS_PER_DAY || (hours, minutes) == (HOURS_PER_DAY, 0));
    valid.then_some((hours * MINUTES_PER_HOUR + minutes) % (HOURS_PER_DAY * MINUTES_PER_HOUR))
}

fn clock(minute: u32) -> String {
    format!("{:02}:{:02}", minute / MINUTES_PER_HOUR, minute % MINUTES_PER_HOUR)
}

/// The minute of the day as the clock of this machine shows it, counted from midnight.
pub fn local_minute() -> u32 {
    let now = chrono::Local::now();
    now.hour() * MINUTES_PER_HOUR + now.minute()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_as_people_write_them_and_may_pass_midnight() {
        for (text, written, inside, outside) in [
            ("22:00-07:00", "22:00-07:00", [22 * 60, 23 * 60 + 59, 0, 6 * 60 + 59], [7 * 60, 12 * 60, 21 * 60 + 59]),
            (" 9:30 - 17:05 ", "09:30-17:05", [570, 600, 1000, 1024], [0, 569, 1025]),
            ("18:00-24:00", "18:00-00:00", [1080, 1200, 1400, 1439], [0, 1, 1079]),
        ] {
            let When::Hours(hours) = text.parse().unwrap() else { panic!("`{text}` gives hours") };
            assert_eq!(When::Hours(hours).to_string(), written);
            assert!(inside.iter().all(|minute| hours.contain(*minute)), "{text}");
            assert!(!outside.iter().any(|minute| hours.contain(*minute)), "{text}");
        }
        assert_eq!("Idle".parse(), Ok(When::Idle));
        assert!(local_minute() < 24 * 60);
    }

    #[test]
    fn what_are_no_hours_is_told() {
        for text in
            ["", "always", "22:00", "22-07", "22:0-07:00", "25:00-07:00", "24:01-07:00", "12:60-13:00", "+1:00-2:00"]
        {
            assert_eq!(text.parse::<When>(), Err(LimitError::When { text: text.to_owned() }));
        }
        assert!(matches!("07:00-7:00".parse::<When>(), Err(LimitError::NoTime { .. })));
        assert!(matches!("00:00-24:00".parse::<When>(), Err(LimitError::NoTime { .. })));
    }
}

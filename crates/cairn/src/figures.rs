//! Numbers as people read them: three significant digits and a unit.

/// `1234567` → `1.23 M`.
pub(crate) fn count(value: f64) -> String {
    let (scaled, unit) = scale(value);
    let digits = if unit.is_empty() && scaled.fract() == 0.0 { 0 } else { digits(scaled) };
    format!("{scaled:.digits$}{unit}")
}

/// `3456.0` → `3.46 kB`.
pub(crate) fn bytes(value: f64) -> String {
    let (scaled, unit) = scale(value);
    let digits = if unit.is_empty() && scaled.fract() == 0.0 { 0 } else { digits(scaled) };
    let space = if unit.is_empty() { " " } else { "" };
    format!("{scaled:.digits$}{space}{unit}B")
}

/// `4G` → 4,000,000,000 and `4Gi` → 4,294,967,296; without a unit, bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().trim_end_matches(['B', 'b']).to_ascii_lowercase();
    let factor: f64 = match unit.as_str() {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1_048_576.0,
        "gi" => 1_073_741_824.0,
        "ti" => 1_099_511_627_776.0,
        _ => return Err("not a number of bytes such as `4G`, `512M` or `4Gi`".to_owned()),
    };
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok((number * factor) as u64),
        _ => Err("not a number of bytes such as `4G`, `512M` or `4Gi`".to_owned()),
    }
}

/// `500B` → 500,000,000,000; `k`, `M`, `B` or `G`, and `T`.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = || "not a number such as `512`, `4M` or `500B`".to_owned();
    let text = text.trim().to_ascii_lowercase();
    let units = [("k", 1e3), ("m", 1e6), ("b", 1e9), ("g", 1e9), ("t", 1e12)];
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((&text, 1.0));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let value = number * factor;
    if (1.0..=1e18).contains(&value) { Ok(value as u64) } else { Err(wrong()) }
}

/// `90s`, `10m`, `6h` or `2d` → seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    let wrong = || "not a time such as `90s`, `10m`, `6h` or `2d`".to_owned();
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
    let unit = units.iter().find_map(|(unit, seconds)| Some((text.trim().strip_suffix(unit)?, seconds)));
    let (number, seconds) = unit.ok_or_else(wrong)?;
    let value = number.parse::<f64>().map_err(|_| wrong())? * seconds;
    if (1e-3..=1e10).contains(&value) { Ok(value) } else { Err(wrong()) }
}

/// `90000.0` → `1 d 01 h`, and `400` days → `1.10 years`; shorter times as [`duration`].
pub(crate) fn long_duration(seconds: f64) -> String {
    const DAY: f64 = 86_400.0;
    match seconds {
        s if s < 2.0 * DAY => duration(s),
        s if s < 365.0 * DAY => format!("{} d {:02} h", (s / DAY) as u64, (s % DAY / 3600.0) as u64),
        s => format!("{:.2} years", s / (365.25 * DAY)),
    }
}

/// `80.4` → `1 m 20 s`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.max(0.0).round() as u64 } else { 0 };
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} m {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} m", whole / 3600, whole % 3600 / 60),
    }
}

/// Micro-shares as shares with three decimals.
pub(crate) fn shares(micro: u64) -> String {
    format!("{}.{:03}", micro / 1_000_000, micro % 1_000_000 / 1_000)
}

fn scale(value: f64) -> (f64, &'static str) {
    const UNITS: [(f64, &str); 4] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    UNITS.iter().find(|(size, _)| value.abs() >= *size).map_or((value, ""), |(size, unit)| (value / size, unit))
}

fn digits(scaled: f64) -> usize {
    match scaled.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_their_units() {
        assert_eq!(parse_bytes("4G"), Ok(4_000_000_000));
        assert_eq!(parse_bytes("1.5gb"), Ok(1_500_000_000));
        assert_eq!(parse_bytes("2Gi"), Ok(2 << 30));
        assert_eq!(parse_bytes("300"), Ok(300));
        for bad in ["", "G", "4X", "-4G", "1.2.3M", "4 G G"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_and_times_are_read_with_their_units() {
        assert_eq!(parse_count("500B"), Ok(500_000_000_000));
        assert_eq!(
            (parse_count("1.5M"), parse_count("2t"), parse_count("7")),
            (Ok(1_500_000), Ok(2_000_000_000_000), Ok(7))
        );
        assert_eq!(
            (parse_seconds("6h"), parse_seconds("1.5m"), parse_seconds("2d")),
            (Ok(21_600.0), Ok(90.0), Ok(172_800.0))
        );
        for bad in ["", "B", "-1", "0", "4X", "1e30", "many", "nan"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
        for bad in ["", "6", "h", "-1h", "0s", "6 hours", "nans"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(long_duration(3.0 * 86_400.0 + 7200.0), "3 d 02 h");
        assert_eq!(long_duration(2.0 * 365.25 * 86_400.0), "2.00 years");
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(count(7.0), "7");
        assert_eq!(count(1_234_567.0), "1.23 M");
        assert_eq!(count(12_345.0), "12.3 k");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(0.25), "0.25 B");
        assert_eq!(bytes(3_456.0), "3.46 kB");
        assert_eq!(duration(80.4), "1 m 20 s");
        assert_eq!(duration(7_384.0), "2 h 03 m");
        assert_eq!(duration(f64::NAN), "0 s");
        assert_eq!(shares(12_345_678), "12.345");
    }
}

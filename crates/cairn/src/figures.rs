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

//! Who takes part: groups of equal peers, as people write them.
//!
//! ```text
//! 200×(24GB,25TFLOPS,80/20Mbps,60ms) + 8×(64GB,40TFLOPS,1Gbps,20ms)
//! │    │    │        │         └ round-trip time to another peer
//! │    │    │        └ down/up, or one rate for both; without it, not limited
//! │    │    └ peak rate of f32 multiply-adds
//! │    └ memory that a peer may take
//! └ how many; `x` and `*` are as good as `×`
//! ```
//!
//! `2cores` among the parts says that the peers of the group share two processors of one machine, each of that speed.

use std::str::FromStr;

use serde::Deserialize;

/// Most peers of a plan: as many as a run may have members.
pub const PEERS_MAX: u32 = wire::charter::MEMBERS_MAX;

/// What one peer has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerSpec {
    /// Memory that it may take, in bytes.
    pub memory_bytes: u64,
    /// Peak rate of f32 multiply-adds of what one pass runs on, in FLOP/s.
    pub flops: f64,
    /// Rate of its uplink in bits per second; infinite when nothing limits it.
    pub up_bits_per_s: f64,
    /// Rate of its downlink in bits per second; infinite when nothing limits it.
    pub down_bits_per_s: f64,
    /// Round-trip time to another peer of this kind, in seconds.
    pub round_trip_s: f64,
}

/// Equal peers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerGroup {
    /// How many.
    pub count: u32,
    /// What each of them has.
    pub peer: PeerSpec,
    /// Processors that all of them share, when they are on one machine: so many compute at once, less than whole ones when other programs
    /// compute, too. None gives each peer its own.
    pub processors: Option<f64>,
}

/// A text does not say what peers there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// A group is not written as count and parts.
    #[error("`{text}` is no group of peers")]
    Group {
        /// The text of the group.
        text: String,
    },
    /// A part cannot be read.
    #[error("`{part}` is no memory, speed, rate, round-trip time or number of cores")]
    Part {
        /// The part.
        part: String,
    },
    /// A part is missing or given twice.
    #[error("a group of peers has its {what} {fault}")]
    Parts {
        /// What it is.
        what: &'static str,
        /// `not given` or `given twice`.
        fault: &'static str,
    },
    /// A number is out of range.
    #[error("`{part}` is out of range: {range}")]
    Range {
        /// The part.
        part: String,
        /// What is permitted.
        range: &'static str,
    },
    /// A file is not the TOML of groups of peers.
    #[error("{0}")]
    File(String),
}

impl PeersError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File(_) => {
                "write `[[peers]]` with `count = 200`, `memory = \"24GB\"`, `speed = \"25TFLOPS\"`, `link = \"80/20Mbps\"` and \
                 `round_trip = \"60ms\"`"
            }
            _ => {
                "write `200×(24GB,25TFLOPS,80/20Mbps,60ms)`: memory, peak speed, down/up, round trip; join groups by `+`"
            }
        }
    }
}

const COUNT_RANGE: &str = "1 to 16384 peers";
const MEMORY_RANGE: &str = "from 1MB";
const SPEED_RANGE: &str = "from 1MFLOPS";
const RATE_RANGE: &str = "1kbps to 10Tbps";
const TIME_RANGE: &str = "at most 60s";
const CORES_RANGE: &str = "1 to 1024 cores";

/// Units of what a person writes, the longer ones first.
const BYTE_UNITS: [(&str, f64); 10] = [
    ("TiB", 1_099_511_627_776.0),
    ("GiB", 1_073_741_824.0),
    ("MiB", 1_048_576.0),
    ("TB", 1e12),
    ("GB", 1e9),
    ("MB", 1e6),
    ("Ti", 1_099_511_627_776.0),
    ("Gi", 1_073_741_824.0),
    ("G", 1e9),
    ("M", 1e6),
];
const SPEED_UNITS: [(&str, f64); 6] =
    [("PFLOPS", 1e15), ("TFLOPS", 1e12), ("GFLOPS", 1e9), ("MFLOPS", 1e6), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9)];
const RATE_UNITS: [(&str, f64); 4] = [("Tbps", 1e12), ("Gbps", 1e9), ("Mbps", 1e6), ("kbps", 1e3)];
const TIME_UNITS: [(&str, f64); 3] = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];

/// What a group has so far.
#[derive(Debug, Default)]
struct Parts {
    memory: Option<f64>,
    speed: Option<f64>,
    link: Option<(f64, f64)>,
    round_trip: Option<f64>,
    processors: Option<u32>,
}

impl PeerGroup {
    /// Reads groups joined by `+`.
    ///
    /// # Errors
    /// [`PeersError`] names the part that cannot be read, is missing, given twice, or out of range.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, PeersError> {
        let groups = text.split('+').map(str::parse).collect::<Result<Vec<Self>, _>>()?;
        check_count(&groups)?;
        Ok(groups)
    }

    /// Reads the groups of a TOML file: tables `[[peers]]` with `count`, `memory`, `speed`, and `link`, `round_trip` and `processors` where
    /// there are any, written as in [`PeerGroup::parse_all`].
    ///
    /// # Errors
    /// As [`PeerGroup::parse_all`], and when the text is not such a file.
    pub fn from_toml(text: &str) -> Result<Vec<Self>, PeersError> {
        let file: File = toml::from_str(text).map_err(|error| PeersError::File(error.message().to_owned()))?;
        let groups = file.peers.into_iter().map(FileGroup::read).collect::<Result<Vec<_>, _>>()?;
        check_count(&groups)?;
        Ok(groups)
    }
}

fn check_count(groups: &[PeerGroup]) -> Result<(), PeersError> {
    let count: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
    match (1..=u64::from(PEERS_MAX)).contains(&count) {
        true => Ok(()),
        false => Err(PeersError::Range { part: format!("{count} peers"), range: COUNT_RANGE }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    peers: Vec<FileGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileGroup {
    count: u32,
    memory: String,
    speed: String,
    link: Option<String>,
    round_trip: Option<String>,
    processors: Option<u32>,
}

impl FileGroup {
    fn read(self) -> Result<PeerGroup, PeersError> {
        let mut parts = Parts::default();
        let texts = [Some(self.memory), Some(self.speed), self.link, self.round_trip];
        texts.into_iter().flatten().try_for_each(|part| parts.take(part.trim()))?;
        if let Some(processors) = self.processors {
            parts.take(&format!("{processors}cores"))?;
        }
        parts.group(self.count, &format!("count = {}", self.count))
    }
}

impl FromStr for PeerGroup {
    type Err = PeersError;

    fn from_str(text: &str) -> Result<Self, PeersError> {
        let text = text.trim();
        let wrong = || PeersError::Group { text: text.to_owned() };
        let (count, rest) = text.split_once(['×', 'x', '*']).ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let inside = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
        let mut parts = Parts::default();
        inside.split(',').try_for_each(|part| parts.take(part.trim()))?;
        parts.group(count, text)
    }
}

impl Parts {
    fn take(&mut self, part: &str) -> Result<(), PeersError> {
        let range = |range| PeersError::Range { part: part.to_owned(), range };
        let within = |value: f64, low: f64, high: f64, said| match (low..=high).contains(&value) {
            true => Ok(value),
            false => Err(range(said)),
        };
        if let Some(cores) = part.strip_suffix("cores").or_else(|| part.strip_suffix("core")) {
            let cores: u32 = cores.trim().parse().map_err(|_| PeersError::Part { part: part.to_owned() })?;
            let cores = (1..=1024).contains(&cores).then_some(cores).ok_or_else(|| range(CORES_RANGE))?;
            return put(&mut self.processors, cores, "number of cores");
        }
        if let Some(speed) = with_unit(part, &SPEED_UNITS) {
            return put(&mut self.speed, within(speed, 1e6, 1e21, SPEED_RANGE)?, "speed");
        }
        if let Some(link) = rates(part) {
            let (down, up) = (within(link.0, 1e3, 1e13, RATE_RANGE)?, within(link.1, 1e3, 1e13, RATE_RANGE)?);
            return put(&mut self.link, (down, up), "link");
        }
        if let Some(seconds) = with_unit(part, &TIME_UNITS) {
            return put(&mut self.round_trip, within(seconds, 0.0, 60.0, TIME_RANGE)?, "round-trip time");
        }
        if let Some(bytes) = with_unit(part, &BYTE_UNITS) {
            return put(&mut self.memory, within(bytes, 1e6, 1e18, MEMORY_RANGE)?, "memory");
        }
        Err(PeersError::Part { part: part.to_owned() })
    }

    fn group(self, count: u32, text: &str) -> Result<PeerGroup, PeersError> {
        if !(1..=PEERS_MAX).contains(&count) {
            return Err(PeersError::Range { part: text.to_owned(), range: COUNT_RANGE });
        }
        let missing = |what| PeersError::Parts { what, fault: "not given" };
        let (down, up) = self.link.unwrap_or((f64::INFINITY, f64::INFINITY));
        let peer = PeerSpec {
            memory_bytes: self.memory.ok_or_else(|| missing("memory"))? as u64,
            flops: self.speed.ok_or_else(|| missing("speed"))?,
            up_bits_per_s: up,
            down_bits_per_s: down,
            round_trip_s: self.round_trip.unwrap_or(0.0),
        };
        Ok(PeerGroup { count, peer, processors: self.processors.map(f64::from) })
    }
}

fn put<T>(place: &mut Option<T>, value: T, what: &'static str) -> Result<(), PeersError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(PeersError::Parts { what, fault: "given twice" }),
    }
}

/// Reads a rate such as `1Gbps`, in bits per second.
///
/// # Errors
/// [`PeersError`] when it is none, or out of range.
pub fn parse_rate(text: &str) -> Result<f64, PeersError> {
    let part = || text.to_owned();
    match with_unit(text.trim(), &RATE_UNITS) {
        None => Err(PeersError::Part { part: part() }),
        Some(rate) if (1e3..=1e13).contains(&rate) => Ok(rate),
        Some(_) => Err(PeersError::Range { part: part(), range: RATE_RANGE }),
    }
}

/// `80/20Mbps`, `1Gbps/200Mbps` or `100Mbps`.
fn rates(part: &str) -> Option<(f64, f64)> {
    let (down, up) = part.split_once('/').unwrap_or((part, part));
    let up_rate = with_unit(up, &RATE_UNITS)?;
    let unit = up.trim().trim_start_matches(|symbol: char| symbol.is_ascii_digit() || symbol == '.');
    Some((with_unit(down, &RATE_UNITS).or_else(|| with_unit(&format!("{down}{unit}"), &RATE_UNITS))?, up_rate))
}

/// A decimal number with one of `units`.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_as_people_write_them() {
        let home = PeerSpec {
            memory_bytes: 24_000_000_000,
            flops: 25e12,
            up_bits_per_s: 20e6,
            down_bits_per_s: 80e6,
            round_trip_s: 0.06,
        };
        let group = PeerGroup { count: 200, peer: home, processors: None };
        for text in [
            "200×(24GB,25TFLOPS,80/20Mbps,60ms)",
            "200x(24GB, 25TFLOPS, 80/20Mbps, 60ms)",
            " 200 * (60ms,80Mbps/20Mbps,25TFLOP/s,24G) ",
        ] {
            assert_eq!(PeerGroup::parse_all(text), Ok(vec![group]), "{text}");
        }
        let two = PeerGroup::parse_all("2×(1GiB,100GFLOPS)+3×(2GB,1TFLOPS,1Gbps,2cores)").unwrap();
        assert_eq!((two[0].peer.memory_bytes, two[0].peer.up_bits_per_s), (1 << 30, f64::INFINITY));
        assert_eq!((two[1].count, two[1].processors, two[1].peer.down_bits_per_s), (3, Some(2.0), 1e9));
    }

    #[test]
    fn a_file_says_the_same() {
        let text = "[[peers]]\ncount = 200\nmemory = \"24GB\"\nspeed = \"25TFLOPS\"\nlink = \"80/20Mbps\"\n\
                    round_trip = \"60ms\"\n\n[[peers]]\ncount = 2\nmemory = \"4GB\"\nspeed = \"90GFLOPS\"\nprocessors = 2\n";
        let line = "200×(24GB,25TFLOPS,80/20Mbps,60ms)+2×(4GB,90GFLOPS,2cores)";
        assert_eq!(PeerGroup::from_toml(text), PeerGroup::parse_all(line));
        for (text, said) in [("peers = 3", "invalid type"), ("", "missing field"), ("[[peers]]\ncount = 1\n", "memory")]
        {
            let error = PeerGroup::from_toml(text).unwrap_err();
            assert!(error.to_string().contains(said) && error.hint().contains("[[peers]]"), "`{text}`: {error}");
        }
    }

    #[test]
    fn what_is_no_group_is_told_with_what_to_write() {
        for (text, said) in [
            ("", "`` is no group"),
            ("24GB", "is no group"),
            ("many×(24GB,25TFLOPS)", "is no group"),
            ("2×24GB,25TFLOPS", "is no group"),
            ("2×(24GB)", "speed not given"),
            ("2×(25TFLOPS)", "memory not given"),
            ("2×(24GB,25TFLOPS,32GB)", "memory given twice"),
            ("2×(24GB,25TFLOPS,fast)", "`fast` is no memory"),
            ("2×(24GB,25TFLOPS,80/20)", "`80/20` is no memory"),
            ("0×(24GB,25TFLOPS)", "out of range"),
            ("9999999×(24GB,25TFLOPS)", "out of range"),
            ("9000×(24GB,25TFLOPS)+9000×(24GB,25TFLOPS)", "18000 peers"),
            ("1×(24GB,25TFLOPS,61s)", "at most 60s"),
            ("1×(24GB,25TFLOPS,0Mbps)", "1kbps"),
            ("1×(24GB,25TFLOPS,0cores)", "cores"),
            ("1×(24GB,1.2.3TFLOPS)", "is no memory"),
        ] {
            let error = PeerGroup::parse_all(text).unwrap_err();
            assert!(error.to_string().contains(said), "`{text}`: {error}");
            assert!(!error.hint().is_empty());
        }
    }
}

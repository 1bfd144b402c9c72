//! A codec as people write it: `full,int8`, `full,int8..int4`, `subspace:16,f32`, `projector:16,int4`.

use std::fmt;
use std::str::FromStr;

use super::{Precision, Space};

/// The rate of a learned basis, as a fraction of the matrices', unless a codec says another.
pub const BASIS_RATE: f32 = 0.1;

/// Which numbers travel between stages, and how they are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codec {
    /// Which numbers.
    pub space: Space,
    /// How they are written.
    pub precision: Precision,
    /// How small they may become where links are slow; none when they may not.
    pub coarsest: Option<Precision>,
}

/// A text is no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no codec: {what}")]
pub struct CodecError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl FromStr for Codec {
    type Err = CodecError;

    fn from_str(text: &str) -> Result<Self, CodecError> {
        let wrong = |what| CodecError { text: text.to_owned(), what };
        let (space, precision) = text.split_once(',').unwrap_or((text, "f32"));
        let named = |name: &str| {
            let found = Precision::ALL.into_iter().find(|known| known.name() == name.trim());
            found.ok_or_else(|| wrong("the precision must be f32, bf16, int8 or int4"))
        };
        let (precision, coarsest) = match precision.split_once("..") {
            Some((finest, coarsest)) => (named(finest)?, Some(named(coarsest)?)),
            None => (named(precision)?, None),
        };
        if coarsest.is_some_and(|coarsest| coarsest >= precision) {
            return Err(wrong("a range of precisions begins with the finer one, as in `int8..int4`"));
        }
        let mut parts = space.trim().split(':');
        let name = parts.next().unwrap_or_default();
        let (rank, rate) = (parts.next(), parts.next());
        let rank = rank.map(|rank| rank.parse().map_err(|_| wrong("the rank must be a whole number"))).transpose()?;
        let rate = rate.map(|rate| rate.parse().map_err(|_| wrong("the rate must be a number"))).transpose()?;
        let space = match (name, rank, rate, parts.next()) {
            ("full", None, None, None) => Space::Full,
            ("subspace", Some(rank), None, None) => Space::Subspace { rank },
            ("projector", Some(rank), rate, None) => Space::Projector { rank, rate: rate.unwrap_or(BASIS_RATE) },
            _ => return Err(wrong("write `full`, `subspace:RANK` or `projector:RANK`, a comma and a precision")),
        };
        Ok(Self { space, precision, coarsest })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = match self.coarsest {
            Some(coarsest) => format!("{}..{}", self.precision.name(), coarsest.name()),
            None => self.precision.name().to_owned(),
        };
        match self.space {
            Space::Full => write!(f, "full,{precision}"),
            Space::Subspace { rank } => write!(f, "subspace:{rank},{precision}"),
            Space::Projector { rank, rate } if rate == BASIS_RATE => write!(f, "projector:{rank},{precision}"),
            Space::Projector { rank, rate } => write!(f, "projector:{rank}:{rate},{precision}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_read_as_they_are_written() {
        for text in [
            "full,f32",
            "full,int8",
            "full,f32..int4",
            "subspace:16,bf16",
            "projector:16,int8..int4",
            "projector:8:0.5,int8",
        ] {
            assert_eq!(text.parse::<Codec>().unwrap().to_string(), text);
        }
        assert_eq!("full".parse::<Codec>().unwrap().precision, Precision::F32);
        for (text, what) in [
            ("full,int3", "precision"),
            ("full,int8..int3", "precision"),
            ("full,int4..int8", "the finer one"),
            ("full,int8..int8", "the finer one"),
            ("subspace,int8", "RANK"),
            ("subspace:x,int8", "whole number"),
            ("projector:4:fast,int8", "a number"),
            ("full:3,int8", "RANK"),
            ("", "RANK"),
        ] {
            let said = text.parse::<Codec>().unwrap_err().to_string();
            assert!(said.contains(what), "`{text}`: {said}");
        }
    }
}

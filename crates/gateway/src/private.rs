//! People's text, wrapped so that no log line can show it.

use std::fmt;

/// A text that prints its length only.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Private(pub(crate) String);

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl From<String> for Private {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_text_shows_its_length_only() {
        assert_eq!(format!("{:?}", Some(Private("secret".into()))), "Some(<6 bytes>)");
    }
}

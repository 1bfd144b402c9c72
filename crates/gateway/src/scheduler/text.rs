//! From the bytes of tokens to text that may be sent: whole characters, and nothing that may become a stop string.

use std::sync::Arc;

/// Holds back what cannot be sent yet.
#[derive(Debug)]
pub(crate) struct Outlet {
    stops: Arc<[String]>,
    held: Vec<u8>,
}

impl Outlet {
    pub(crate) fn new(stops: Arc<[String]>) -> Self {
        Self { stops, held: Vec::new() }
    }

    /// Takes the bytes of a token. Returns the text that is certain by now, and whether a stop string ended it; the stop
    /// string itself is not part of the text.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        self.held.extend_from_slice(bytes);
        let found = self.stops.iter().filter_map(|stop| position(&self.held, stop.as_bytes())).min();
        if let Some(at) = found {
            let text = String::from_utf8_lossy(&self.held[..at]).into_owned();
            self.held.clear();
            return (text, true);
        }
        let uncertain = self.stops.iter().map(|stop| overlap(&self.held, stop.as_bytes())).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - uncertain.max(unfinished(&self.held)));
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held = rest;
        (text, false)
    }

    /// What is left when no more tokens come; a character that was never completed gives U+FFFD.
    pub(crate) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

fn position(text: &[u8], stop: &[u8]) -> Option<usize> {
    text.windows(stop.len()).position(|window| window == stop)
}

/// Bytes at the end of `text` that `stop` begins with, fewer than all of `stop`.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&length| text.ends_with(&stop[..length])).unwrap_or(0)
}

/// Bytes at the end that may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let invalid = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(invalid) {
        Err(error) if error.error_len().is_none() => invalid.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlet(stops: &[&str]) -> Outlet {
        Outlet::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    /// All text, and whether it was stopped, when `bytes` come in parts of `size`.
    fn all(stops: &[&str], bytes: &[u8], size: usize) -> (String, bool) {
        let mut outlet = outlet(stops);
        let mut text = String::new();
        for part in bytes.chunks(size) {
            let (more, stopped) = outlet.push(part);
            text += &more;
            if stopped {
                return (text, true);
            }
        }
        text += &outlet.finish();
        (text, false)
    }

    #[test]
    fn text_ends_before_the_first_stop_however_it_is_cut() {
        let text = "one — two\n\nthree STOP four".as_bytes();
        for size in 1..text.len() {
            assert_eq!(all(&["STOP", "\n\n"], text, size), ("one — two".into(), true), "parts of {size}");
            assert_eq!(all(&["STOP"], text, size).0, "one — two\n\nthree ", "parts of {size}");
            assert_eq!(all(&["STOPPED", "\n\n\n"], text, size).0.as_bytes(), text, "parts of {size}");
        }
    }

    #[test]
    fn a_possible_stop_is_held_until_it_is_none() {
        let mut outlet = outlet(&["aab"]);
        assert_eq!(outlet.push(b"xa"), ("x".into(), false));
        assert_eq!(outlet.push(b"a"), (String::new(), false));
        assert_eq!(outlet.push(b"a"), ("a".into(), false));
        assert_eq!(outlet.push(b"b"), (String::new(), true));
    }

    #[test]
    fn characters_are_sent_whole_and_broken_ones_are_replaced() {
        let mut outlet = outlet(&[]);
        assert_eq!(outlet.push(&[b'a', 0xE2, 0x80]), ("a".into(), false));
        assert_eq!(outlet.push(&[0x94]), ("—".into(), false));
        assert_eq!(outlet.push(&[0xE2, b'b']), ("\u{FFFD}b".into(), false));
        assert_eq!(outlet.push(&[0xF0]), (String::new(), false));
        assert_eq!(outlet.finish(), "\u{FFFD}");
    }
}

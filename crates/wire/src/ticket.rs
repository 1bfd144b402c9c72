//! Tickets: one line of text that is all that a machine needs to join a run.
//!
//! A ticket names the run, the validator that orders its blocks, where that one listens, and through which relays peers of the run can be
//! reached that have no address of their own. It is no secret and no permission: who has the run's id can check everything that is told
//! under it.
//!
//! Form: `cairn` and, in lower-case base32 without padding, a version, the canonical bytes and the first [`CHECK_BYTES`] of their BLAKE3
//! hash. A line that was cut, or in which a letter changed, is told apart from one of another version.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use data_encoding::BASE32_NOPAD_NOCASE;

use crate::charter::RunId;
use crate::encoding::{DecodeError, Wire, decode, encode};
use crate::hash::Hash;
use crate::identity::PeerId;

/// Most addresses in a ticket.
pub const ADDRESSES_MAX: usize = 8;
/// Most relays of a run.
pub const RELAYS_MAX: usize = 4;
/// Most bytes of a relay's address.
pub const RELAY_BYTES_MAX: usize = 80;
/// What a ticket begins with.
pub const PREFIX: &str = "cairn";
/// Bytes against typing errors.
pub const CHECK_BYTES: usize = 4;
/// The version of the form.
pub const TICKET_VERSION: u8 = 2;

/// Where a run can be joined.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ticket {
    /// The run.
    pub run: RunId,
    /// The peer that orders its blocks.
    pub validator: PeerId,
    /// Where that peer listens: up to [`ADDRESSES_MAX`], the likeliest first.
    pub addresses: Vec<SocketAddr>,
    /// The run's relays, as `http://` or `https://` addresses: up to [`RELAYS_MAX`], and at least one where there is no address.
    pub relays: Vec<String>,
}

impl Wire for Ticket {
    const NAME: &'static str = "ticket";
    const BYTES_MAX: usize = 768;

    fn validate(&self) -> Result<(), &'static str> {
        if self.addresses.len() > ADDRESSES_MAX || self.relays.len() > RELAYS_MAX {
            return Err("a ticket must have at most 8 addresses and 4 relays");
        }
        if self.addresses.is_empty() && self.relays.is_empty() {
            return Err("a ticket must have an address or a relay");
        }
        if !self.relays.iter().all(|relay| is_relay(relay)) {
            return Err("a relay must be an `http://` or `https://` address of at most 80 plain letters");
        }
        if !self.addresses.iter().all(is_dialable) {
            return Err("an address must be one that others can dial");
        }
        Ok(())
    }
}

/// A text is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It begins otherwise, or has other letters.
    #[error("a ticket is one word that begins with `{PREFIX}`, of letters and the digits 2 to 7")]
    Foreign,
    /// Letters are missing or changed.
    #[error("the ticket is damaged: a part is missing, or a letter changed")]
    Damaged,
    /// A newer or older program made it.
    #[error("the ticket has version {got}, and this program reads version {TICKET_VERSION}")]
    Version {
        /// Its version.
        got: u8,
    },
    /// It says what no ticket can say.
    #[error(transparent)]
    Content(#[from] DecodeError),
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![TICKET_VERSION];
        bytes.extend(encode(self));
        let check = check(&bytes);
        bytes.extend(check);
        write!(f, "{PREFIX}{}", BASE32_NOPAD_NOCASE.encode(&bytes).to_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let letters = text.trim().strip_prefix(PREFIX).ok_or(TicketError::Foreign)?;
        if letters.len() > 2 * (Self::BYTES_MAX + CHECK_BYTES) {
            return Err(TicketError::Damaged);
        }
        let bytes = BASE32_NOPAD_NOCASE.decode(letters.as_bytes()).map_err(|error| match error.kind {
            data_encoding::DecodeKind::Symbol => TicketError::Foreign,
            _ => TicketError::Damaged,
        })?;
        let (content, written) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(TicketError::Damaged)?;
        if check(content) != *written {
            return Err(TicketError::Damaged);
        }
        match content.split_first() {
            Some((&TICKET_VERSION, body)) => Ok(decode(body)?),
            Some((&got, _)) => Err(TicketError::Version { got }),
            None => Err(TicketError::Damaged),
        }
    }
}

/// Whether others can dial an address.
pub(crate) fn is_dialable(address: &SocketAddr) -> bool {
    !address.ip().is_unspecified() && address.port() != 0
}

/// Whether a text can name a relay.
fn is_relay(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty())
        && text.len() <= RELAY_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let Hash(hash) = Hash::derive("cairn v1 ticket", &[bytes]);
    std::array::from_fn(|place| hash[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        let addresses = vec!["192.0.2.7:7071".parse().unwrap(), "[2001:db8::1]:7071".parse().unwrap()];
        Ticket { run: RunId(Hash([7; 32])), validator: PeerId([9; 32]), addresses, relays: Vec::new() }
    }

    #[test]
    fn a_ticket_comes_back_from_its_text() {
        let text = ticket().to_string();
        assert!(text.starts_with(PREFIX) && text.len() < 180, "{text}");
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!("  {text}\n").parse(), Ok(ticket()), "as it was copied");
        let letters = text[PREFIX.len()..].to_uppercase();
        assert_eq!(format!("{PREFIX}{letters}").parse(), Ok(ticket()));
    }

    #[test]
    fn what_is_no_ticket_says_why() {
        let text = ticket().to_string();
        let parse = |text: &str| text.parse::<Ticket>().unwrap_err();
        assert_eq!(parse("hello"), TicketError::Foreign);
        assert_eq!(parse("cairn"), TicketError::Damaged);
        assert_eq!(parse("cairn-0189"), TicketError::Foreign);
        for end in (PREFIX.len()..text.len()).step_by(3) {
            assert_eq!(parse(&text[..end]), TicketError::Damaged, "{end}");
        }
        for place in PREFIX.len()..text.len() {
            let mut letters = text.clone().into_bytes();
            letters[place] = if letters[place] == b'a' { b'b' } else { b'a' };
            assert!(String::from_utf8(letters).unwrap().parse::<Ticket>().is_err(), "{place}");
        }
        assert_eq!(parse(&format!("cairn{}", "a".repeat(5000))), TicketError::Damaged);
        let mut other = vec![TICKET_VERSION + 1];
        other.extend(check(&other));
        let other = format!("{PREFIX}{}", BASE32_NOPAD_NOCASE.encode(&other));
        assert_eq!(parse(&other), TicketError::Version { got: TICKET_VERSION + 1 });
    }

    #[test]
    fn addresses_are_ones_that_can_be_dialled() {
        let with = |address: &str| Ticket { addresses: vec![address.parse().unwrap()], ..ticket() };
        assert_eq!(with("127.0.0.1:1").validate(), Ok(()));
        for address in ["0.0.0.0:7071", "[::]:7071", "192.0.2.7:0"] {
            assert!(with(address).validate().is_err(), "{address}");
            assert!(matches!(with(address).to_string().parse::<Ticket>(), Err(TicketError::Content(_))));
        }
        assert!(Ticket { addresses: Vec::new(), ..ticket() }.validate().is_err());
    }

    #[test]
    fn relays_stand_in_for_addresses() {
        let behind = |relay: &str| Ticket { addresses: Vec::new(), relays: vec![relay.to_owned()], ..ticket() };
        for relay in ["http://192.0.2.9:3340", "https://relay.example"] {
            assert_eq!(behind(relay).to_string().parse(), Ok(behind(relay)), "{relay}");
        }
        let long = format!("https://{}", "a".repeat(RELAY_BYTES_MAX));
        for relay in ["", "http://", "192.0.2.9:3340", "ftp://192.0.2.9", "http://two words", "http://\u{e4}", &long] {
            assert!(behind(relay).validate().is_err(), "{relay}");
        }
        let many = vec!["http://192.0.2.9:3340".to_owned(); RELAYS_MAX + 1];
        assert!(Ticket { relays: many, ..ticket() }.validate().is_err());
    }
}

//! Runs in the local network: who lets others in says so by multicast DNS, and who looks for a run listens.
//!
//! Source: RFC 6762, by the crate iroh-mdns-address-lookup, under a service name of our own ([`SERVICE`]). An announcement holds the
//! validator's id, its addresses, the first relay, and as text the run's id and what people call the run: all of a [`Ticket`].
//!
//! Trust: as much as in a ticket, none. The run's id is a hash over its terms, which [`crate::join`] checks; that a name belongs to the run
//! one is looking for, only a person can tell, so the terminal shows the id.
//!
//! What it deliberately does not do: announce runs of machines that only listen on loopback, or anything beyond the local network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use iroh::address_lookup::{AddressLookup, EndpointData, EndpointInfo};
use iroh::{EndpointId, TransportAddr};
use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};
use wire::ticket::{ADDRESSES_MAX, RELAYS_MAX};
use wire::{PeerId, RunId, Ticket, Wire};

/// What announcements are found under.
pub const SERVICE: &str = "cairn-run-1";
/// How long a search listens: announcements are asked for about every second.
pub const SEARCH: Duration = Duration::from_secs(4);
/// Most runs that a search takes note of.
pub const FOUND_MAX: usize = 64;

/// An announcement. Dropping it ends it.
#[derive(Debug)]
pub struct Announcement {
    _lookup: MdnsAddressLookup,
}

/// Multicast DNS cannot be used here.
#[derive(Debug, thiserror::Error)]
#[error("the local network cannot be asked: {0}")]
pub struct LanError(String);

/// A run that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearby {
    /// What people call it.
    pub name: String,
    /// How to join it.
    pub ticket: Ticket,
}

/// Announces a run under its name, from now on.
///
/// # Errors
/// [`LanError`] when the network does not permit it, and when the ticket has no address that others could use.
pub fn announce(ticket: &Ticket, name: &str) -> Result<Announcement, LanError> {
    let addresses = ticket.addresses.iter().filter(|address| !address.ip().is_loopback()).copied();
    let relays = ticket.relays.iter().filter_map(|relay| relay.parse().ok()).map(TransportAddr::Relay);
    let ways: Vec<TransportAddr> = addresses.map(TransportAddr::Ip).chain(relays).collect();
    if ways.is_empty() {
        return Err(LanError("the run has no address in it".to_owned()));
    }
    let text = format!("{} {name}", ticket.run.0);
    let text = text.parse().map_err(|_| LanError("the run's name is too long".to_owned()))?;
    let id = EndpointId::from_bytes(&ticket.validator.0).map_err(|error| LanError(error.to_string()))?;
    let builder = MdnsAddressLookup::builder().service_name(SERVICE);
    let lookup = builder.build(id).map_err(|error| LanError(format!("{error:#}")))?;
    lookup.publish(&EndpointData::new(ways).with_user_data(text));
    Ok(Announcement { _lookup: lookup })
}

/// Listens for so long, and gives the runs that were heard of, by name.
///
/// # Errors
/// [`LanError`] when the network does not permit it.
pub async fn search(time: Duration) -> Result<Vec<Nearby>, LanError> {
    let builder = MdnsAddressLookup::builder().service_name(SERVICE).advertise(false);
    let lookup = builder.build(iroh::SecretKey::generate().public()).map_err(|error| LanError(format!("{error:#}")))?;
    let mut events = lookup.subscribe().await;
    let mut found = BTreeMap::new();
    let listening = async {
        while let Some(event) = events.next().await {
            if let DiscoveryEvent::Discovered { endpoint_info, .. } = event
                && let Some(nearby) = nearby(&endpoint_info)
                && found.len() < FOUND_MAX
            {
                found.insert((nearby.name.clone(), nearby.ticket.run), nearby);
            }
        }
    };
    // The end of the time is the ordinary end.
    let _ = tokio::time::timeout(time, listening).await;
    Ok(found.into_values().collect())
}

/// What an announcement says; none when it makes no sense.
fn nearby(info: &EndpointInfo) -> Option<Nearby> {
    let text = info.data.user_data()?.to_string();
    let (run, name) = text.split_once(' ')?;
    let run = RunId(run.parse().ok()?);
    let addresses: Vec<SocketAddr> = info.data.ip_addrs().copied().take(ADDRESSES_MAX).collect();
    let relays = info.data.relay_urls().take(RELAYS_MAX).map(|url| url.as_str().trim_end_matches('/').to_owned());
    let ticket = Ticket { run, validator: PeerId(*info.endpoint_id.as_bytes()), addresses, relays: relays.collect() };
    ticket.validate().ok()?;
    // What strangers write is shown on a terminal.
    let name: String = name.chars().filter(|letter| !letter.is_control()).take(64).collect();
    Some(Nearby { name, ticket })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> EndpointInfo {
        let address = TransportAddr::Ip("192.0.2.7:7071".parse().unwrap());
        let data = EndpointData::new(vec![address]).with_user_data(text.parse().unwrap());
        EndpointInfo::from_parts(iroh::SecretKey::from_bytes(&[7; 32]).public(), data)
    }

    #[test]
    fn an_announcement_is_a_ticket_with_a_name() {
        let run = "11".repeat(32);
        let found = nearby(&info(&format!("{run} Jane\u{7} Austen"))).unwrap();
        assert_eq!((found.name.as_str(), found.ticket.run.0.to_string()), ("Jane Austen", run));
        assert_eq!(found.ticket.addresses, ["192.0.2.7:7071".parse().unwrap()]);
        assert_eq!(found.ticket.to_string().parse(), Ok(found.ticket));
        for wrong in ["", "hello", "hello world", "1111 short"] {
            assert_eq!(nearby(&info(wrong)), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_run_on_loopback_is_not_announced() {
        let ticket = nearby(&info(&format!("{} x", "22".repeat(32)))).unwrap().ticket;
        let here = Ticket { addresses: vec!["127.0.0.1:7071".parse().unwrap()], ..ticket };
        assert!(announce(&here, "x").is_err());
    }
}

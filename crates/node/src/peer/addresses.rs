//! Who tells whom where peers listen.
//!
//! The peers of one machine are told by whoever starts them. A peer of another machine knows the validator only; the validator tells it where
//! the others are and them where it is, as soon as it is connected. A peer believes the validators of its run, and only as far as a hint
//! goes: what it was told by its own machine, and what it saw itself, count for more.

use std::net::SocketAddr;

use wire::message::ADDRESSES_PER_MESSAGE_MAX;
use wire::{Message, PeerAddress, PeerId};

use super::shell::Shell;

impl Shell {
    /// Introduces a peer that has just connected, and the others to it, where this peer is a validator: all but those that the own machine
    /// started, which know each other.
    pub(super) fn introduce_each_other(&mut self, newcomer: PeerId) {
        if !self.is_validator() {
            return;
        }
        let is_guest = |peer: &PeerId| !self.known.contains_key(peer);
        let others: Vec<PeerId> = self.peer.connected().filter(|peer| *peer != newcomer).collect();
        let news: Vec<PeerId> = others.iter().copied().filter(|peer| is_guest(&newcomer) || is_guest(peer)).collect();
        let all: Vec<PeerAddress> = news.iter().filter_map(|peer| self.address_of(*peer)).collect();
        for part in all.chunks(ADDRESSES_PER_MESSAGE_MAX) {
            self.transport.send(newcomer, &Message::Addresses(part.to_vec()));
        }
        if let Some(address) = self.address_of(newcomer).filter(|_| is_guest(&newcomer)) {
            for other in others {
                self.transport.send(other, &Message::Addresses(vec![address]));
            }
        }
    }

    /// Notes what a validator says of others.
    pub(super) fn take_addresses(&mut self, from: PeerId, all: &[PeerAddress]) {
        if !self.peer.ledger().is_validator(&from) {
            return;
        }
        let dialer = self.transport.dialer();
        let sender = dialer.address_of(from);
        for PeerAddress { peer, address } in all.iter().filter(|known| known.peer != self.peer.id()) {
            let here = sender.filter(|_| address.ip().is_loopback()).map(|sender| sender.ip());
            dialer.note_rumour(*peer, SocketAddr::new(here.unwrap_or(address.ip()), address.port()));
        }
    }

    fn address_of(&self, peer: PeerId) -> Option<PeerAddress> {
        let address = self.transport.dialer().address_of(peer)?;
        Some(PeerAddress { peer, address })
    }
}

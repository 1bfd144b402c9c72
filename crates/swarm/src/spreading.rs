//! How a new block reaches everybody.
//!
//! Purpose: a validator's uplink carries a block a few times, however many members there are.
//!
//! Message sequence: a validator makes a block → it sends it to everybody with whom it is connected, while members are few. Of many it sends it to
//! those at distances of 1, 2, 4 and so on after itself in the ring of the members' ids, each with the number of members up to the next
//! (`PassedBlock`) → each passes it on in the same way within that number, to whom it is connected already ([`Links::seek_members`]).
//!
//! Source: the broadcast over a structured ring of El-Ansary et al., "Efficient broadcast in structured P2P networks" (IPTPS 2003).
//!
//! Safety: a block is passed on once, after it was checked and applied, to at most as many as the number of members has bits. Liveness: whoever is
//! missed, since somebody before it is away or sees other members, hears of the block by an announcement (`blocks.rs`).
//!
//! [`Links::seek_members`]: crate::links::Links::seek_members

use std::sync::Arc;

use wire::{Block, Message, PeerId};

use crate::limits::EXCHANGE_MAX;
use crate::{Output, Peer};

/// Members that are tried in place of one that is not connected.
const SUBSTITUTES: usize = 8;

impl Peer {
    /// The members of the open round when there are too many for everybody to be connected with all.
    pub(crate) fn many_members(&self) -> Option<Arc<[PeerId]>> {
        let open = self.ledger.round().filter(|open| open.members.len() > EXCHANGE_MAX + 1)?;
        Some(Arc::clone(&open.members))
    }

    /// Sends a block that this peer made to those that are level, and the new height to those that are not.
    pub(crate) fn spread(&mut self, block: &Block, out: &mut Vec<Output>) {
        let (height, many) = (block.header.body.height, self.many_members());
        let in_ring = |peer: &PeerId| many.as_ref().is_some_and(|members| members.binary_search(peer).is_ok());
        for to in self.links.up().filter(|peer| !in_ring(peer)).collect::<Vec<_>>() {
            if self.links.height_of(to) >= height {
                self.links.raise_height(to, height + 1);
                out.push(Output::Send { to, message: Message::Block(block.clone()) });
            } else {
                self.greet(to, out);
            }
        }
        self.pass_on(block, u32::MAX, out);
    }

    /// Passes a block that was applied just now on to those of the `reach` members after this peer for whom it is to.
    pub(crate) fn pass_on(&mut self, block: &Block, reach: u32, out: &mut Vec<Output>) {
        let Some(members) = self.many_members().filter(|_| reach > 0) else { return };
        let height = block.header.body.height;
        let place = members.partition_point(|peer| *peer < self.id);
        let others = members.len() - usize::from(members.get(place) == Some(&self.id));
        // The one after this peer has distance 1.
        let first = place + usize::from(others < members.len());
        let at = |distance: usize| members[(first + distance - 1) % members.len()];
        let mut end = usize::try_from(reach).unwrap_or(usize::MAX).min(others).saturating_add(1);
        for distance in (0..usize::BITS - 1).rev().map(|bit| 1_usize << bit) {
            if distance >= end {
                continue;
            }
            let mut candidates = (distance..end).take(SUBSTITUTES);
            let up = candidates.find(|distance| self.links.is_up(at(*distance)));
            if let Some((to, reach)) = up.map(|distance| (at(distance), end - distance - 1))
                && self.links.height_of(to) <= height
            {
                if self.links.height_of(to) == height {
                    self.links.raise_height(to, height + 1);
                }
                let reach = u32::try_from(reach).unwrap_or(u32::MAX);
                out.push(Output::Send { to, message: Message::PassedBlock { block: block.clone(), reach } });
            }
            end = distance;
        }
    }
}

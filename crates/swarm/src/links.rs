//! Connections: whom a peer dials, what it knows about the other ends, and whom it bars.
//!
//! A peer dials the validators and up to [`NEIGHBOURS_MAX`] others, drawn by a hash of both ids, so that the graph is random
//! but repeatable. In a run of several stages it also dials its neighbours in the pipeline, as long as they are that; in one of a single stage
//! the members of the round, so that payloads come from those who made them and not all from a validator, or [`EXCHANGE_MAX`] of many. Of two peers that
//! know each other, the one with the smaller id dials at once and the other only after the first retry delay; a validator is dialled by
//! the others. A lost connection is dialled again for ever, with backoff.

use std::collections::BTreeMap;

use wire::{Hash, PeerId};

use crate::backoff::{Backoff, Pace};
use crate::limits::{EXCHANGE_MAX, FAULTS_PER_LINK_MAX, LINKS_MAX, NEIGHBOURS_MAX};
use crate::{Output, Time};

/// One other peer, connected or to be connected.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Whether the connection is up.
    up: bool,
    /// Whether it greeted properly on this connection.
    greeted: bool,
    /// Blocks that the other end has, as far as known.
    height: u64,
    /// The own height that the other end was told last.
    told_height: u64,
    /// Requests for blocks that it left unanswered, or answered uselessly, in a row.
    unanswered: u32,
    /// Faults on this connection.
    faults: u32,
    /// When to dial, for a peer that is to be dialled.
    dial: Option<Time>,
    /// Whether it is dialled only as a neighbour in the pipeline, or as a member of the round.
    sought: bool,
    backoff: Backoff,
    barred_until: Time,
}

/// All connections of a peer.
#[derive(Debug)]
pub(crate) struct Links {
    validators: Vec<PeerId>,
    links: BTreeMap<PeerId, Link>,
    pace: Pace,
    /// No link is due to be dialled before this, as far as looked; a validator among many has many, and is asked with every input.
    dials_from: Time,
    /// No other end has more blocks than this.
    tallest: u64,
}

impl Links {
    /// Chooses whom to dial, and when first.
    pub(crate) fn new(own: PeerId, validators: &[PeerId], known: &[PeerId], pace: Pace, now: Time) -> Self {
        let mut others: Vec<PeerId> =
            known.iter().copied().filter(|peer| *peer != own && !validators.contains(peer)).collect();
        others.sort_by_cached_key(|peer| Hash::derive("cairn v1 neighbour", &[&own.0, &peer.0]));
        others.dedup();
        others.truncate(NEIGHBOURS_MAX);
        let is_validator = validators.contains(&own);
        let mut links = BTreeMap::new();
        for peer in validators.iter().filter(|peer| **peer != own).chain(&others) {
            let at_once = !is_validator && (validators.contains(peer) || own < *peer);
            let dial = if at_once { now } else { now.after(pace.first_us()) };
            links.insert(*peer, Link { dial: Some(dial), ..Link::default() });
        }
        Self { validators: validators.to_vec(), links, pace, dials_from: now, tallest: 0 }
    }

    /// Notes a connection. False when it is refused: the peer is barred, or there are too many.
    pub(crate) fn connected(&mut self, peer: PeerId, now: Time) -> bool {
        self.dials_from = Time::default();
        if !self.links.contains_key(&peer) && self.links.len() >= LINKS_MAX {
            self.links.retain(|_, link| link.up || link.dial.is_some());
            if self.links.len() >= LINKS_MAX {
                return false;
            }
        }
        let link = self.links.entry(peer).or_default();
        if now < link.barred_until {
            return false;
        }
        *link = Link { up: true, dial: link.dial, sought: link.sought, backoff: link.backoff, ..Link::default() };
        true
    }

    /// Notes that a connection is gone, and plans to dial it again if it is one to be dialled.
    pub(crate) fn disconnected(&mut self, peer: PeerId, now: Time) {
        self.dials_from = Time::default();
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.up = false;
        if link.dial.is_some() {
            let delay = link.backoff.next_us(&self.pace);
            link.dial = Some(now.after(delay).max(link.barred_until));
        } else if link.barred_until <= now {
            self.links.remove(&peer);
        }
    }

    /// Seeks members of a round, given in ascending order, whose payloads are needed: all, or those that follow this peer at distances of 1, 2,
    /// 4 and so on. With these links news and blobs reach everybody in few steps, however many there are.
    pub(crate) fn seek_members(&mut self, own: PeerId, members: &[PeerId], now: Time) {
        let place = members.partition_point(|peer| *peer < own);
        let others: Vec<PeerId> = if members.len() <= EXCHANGE_MAX + 1 {
            members.iter().copied().filter(|peer| *peer != own).collect()
        } else {
            let distances = (0..usize::BITS).map(|bit| 1_usize << bit).take_while(|distance| *distance < members.len());
            distances.take(EXCHANGE_MAX).map(|distance| members[(place + distance) % members.len()]).collect()
        };
        self.seek(&others, now);
    }

    /// Makes these the neighbours in the pipeline, which are dialled besides those that always are. Who is no longer one is not dialled
    /// again.
    pub(crate) fn seek(&mut self, neighbours: &[PeerId], now: Time) {
        self.dials_from = Time::default();
        for (_, link) in self.links.iter_mut().filter(|(peer, link)| link.sought && !neighbours.contains(peer)) {
            (link.sought, link.dial) = (false, None);
        }
        self.links.retain(|_, link| link.up || link.dial.is_some() || now < link.barred_until);
        for peer in neighbours {
            if !self.links.contains_key(peer) && self.links.len() >= LINKS_MAX {
                return;
            }
            let link = self.links.entry(*peer).or_default();
            if link.dial.is_none() {
                (link.sought, link.dial) = (true, Some(now.max(link.barred_until)));
            }
        }
    }

    /// Dials what is due. A dial that is not answered is due again after the retry delay.
    pub(crate) fn dial_due(&mut self, now: Time, out: &mut Vec<Output>) {
        if now < self.dials_from {
            return;
        }
        for (peer, link) in &mut self.links {
            if !link.up && link.dial.is_some_and(|at| at <= now) {
                link.dial = Some(now.after(link.backoff.next_us(&self.pace)));
                out.push(Output::Connect(*peer));
            }
        }
        let due = self.links.values().filter(|link| !link.up).filter_map(|link| link.dial).min();
        self.dials_from = due.unwrap_or(Time::MAX);
    }

    /// When the next dial is due; too early when links changed since the last were dialled.
    pub(crate) fn next_dial(&self) -> Option<Time> {
        (self.dials_from < Time::MAX).then_some(self.dials_from)
    }

    /// Notes the other end's height, as it says or as its blocks show.
    pub(crate) fn note_height(&mut self, peer: PeerId, height: u64) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.height = height;
            self.tallest = self.tallest.max(height);
        }
    }

    /// Raises the other end's height to at least `height`.
    pub(crate) fn raise_height(&mut self, peer: PeerId, height: u64) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.height = link.height.max(height);
            self.tallest = self.tallest.max(height);
        }
    }

    /// Notes that the other end greeted properly: the next failure to connect is a first one again.
    pub(crate) fn greeted(&mut self, peer: PeerId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.greeted = true;
            link.backoff.reset();
        }
    }

    /// Notes whether a request for blocks was of use.
    pub(crate) fn note_answer(&mut self, peer: PeerId, useful: bool) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.unanswered = if useful { 0 } else { link.unanswered.saturating_add(1) };
        }
    }

    /// Counts a fault. True when it was one too many: the peer is barred for the longest retry delay.
    pub(crate) fn note_fault(&mut self, peer: PeerId, now: Time) -> bool {
        let Some(link) = self.links.get_mut(&peer) else { return false };
        link.faults = link.faults.saturating_add(1);
        if link.faults < FAULTS_PER_LINK_MAX {
            return false;
        }
        self.bar(peer, now);
        true
    }

    /// Bars a peer for the longest retry delay.
    pub(crate) fn bar(&mut self, peer: PeerId, now: Time) {
        self.dials_from = Time::default();
        if let Some(link) = self.links.get_mut(&peer) {
            link.up = false;
            link.barred_until = now.after(self.pace.max_us());
            if link.dial.is_some() {
                link.dial = Some(link.barred_until);
            }
        }
    }

    /// Whether the connection to a peer is up.
    pub(crate) fn is_up(&self, peer: PeerId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.up)
    }

    /// The peers whose connections are up, ascending.
    pub(crate) fn up(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.links.iter().filter(|(_, link)| link.up).map(|(peer, _)| *peer)
    }

    /// The validators whose connections are up.
    pub(crate) fn validators_up(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.validators.iter().copied().filter(|peer| self.is_up(*peer))
    }

    /// Blocks that the other end has, as far as known.
    pub(crate) fn height_of(&self, peer: PeerId) -> u64 {
        self.links.get(&peer).map_or(0, |link| link.height)
    }

    /// Whether the other end greeted and has no more than `height` blocks.
    pub(crate) fn is_greeted_at_most(&self, peer: PeerId, height: u64) -> bool {
        self.links.get(&peer).is_some_and(|link| link.up && link.greeted && link.height <= height)
    }

    /// The best peer to ask for blocks from `height` on: fewest useless answers, then a validator, then the highest.
    pub(crate) fn best_source(&self, height: u64) -> Option<PeerId> {
        if self.tallest <= height {
            return None;
        }
        let ahead = self.links.iter().filter(|(_, link)| link.up && link.height > height);
        ahead
            .min_by_key(|(peer, link)| (link.unanswered, !self.validators.contains(peer), u64::MAX - link.height))
            .map(|(peer, _)| *peer)
    }

    /// The connected peers that are neither known to have `height` blocks nor told of it, at most so many; notes that they are told now.
    pub(crate) fn take_untold(&mut self, height: u64, most: usize) -> Vec<PeerId> {
        let untold =
            self.links.iter_mut().filter(|(_, link)| link.up && link.height < height && link.told_height < height);
        // Whom nobody told for longest comes first.
        let mut untold: Vec<(&PeerId, &mut Link)> = untold.collect();
        if untold.len() > most {
            untold.sort_by_key(|(_, link)| link.told_height);
            untold.truncate(most);
        }
        let told = untold.into_iter().map(|(peer, link)| {
            link.told_height = height;
            *peer
        });
        told.collect()
    }

    /// Whether [`Links::take_untold`] would name somebody.
    pub(crate) fn any_untold(&self, height: u64) -> bool {
        self.links.values().any(|link| link.up && link.height < height && link.told_height < height)
    }

    /// Notes that the other end was told the own height.
    pub(crate) fn told(&mut self, peer: PeerId, height: u64) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.told_height = height;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn dialled(links: &mut Links, now: Time) -> BTreeSet<PeerId> {
        let mut out = Vec::new();
        links.dial_due(now, &mut out);
        let peers = out.into_iter().map(|output| match output {
            Output::Connect(peer) => peer,
            other => panic!("{other:?}"),
        });
        peers.collect()
    }

    #[test]
    fn members_of_a_round_are_dialled_while_they_are_members_and_a_few_of_many() {
        let id = |byte: u8| PeerId([byte; 32]);
        let (own, validator, now) = (id(1), id(9), Time::default());
        let mut links = Links::new(own, &[validator], &[own], Pace::new(100, 1_000, own), now);
        assert_eq!(dialled(&mut links, now), [validator].into(), "who joined knows the validator only");
        links.seek_members(own, &[own, id(2), id(3), validator], now);
        assert_eq!(dialled(&mut links, now), [id(2), id(3)].into());
        links.seek_members(own, &[own, id(3), validator], now);
        let later = now.after(10_000_000);
        assert_eq!(dialled(&mut links, later), [id(3), validator].into(), "the other is no member any more");
        let many: Vec<PeerId> = (1..=100).map(id).collect();
        let mut links = Links::new(own, &[], &[], Pace::new(100, 1_000, own), now);
        links.seek_members(own, &many, now);
        assert_eq!(dialled(&mut links, now), [2, 3, 5, 9, 17, 33, 65].map(id).into());
        let mut links = Links::new(id(98), &[], &[], Pace::new(100, 1_000, own), now);
        links.seek_members(id(98), &many, now);
        assert_eq!(dialled(&mut links, now), [99, 100, 2, 6, 14, 30, 62].map(id).into(), "round the end");
    }
}

//! Blobs that a peer is getting, and those it has.
//!
//! Every wanted blob is asked for once, and again when all its providers failed (with backoff) or when nothing was heard
//! for the longest retry delay. A blob that is no longer wanted is forgotten here; its transfer may end unnoticed.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, PeerId};

use crate::backoff::{Backoff, Pace};
use crate::limits::PROVIDERS_MAX;
use crate::{Output, Time};

/// A blob that is needed.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    /// Its size as announced.
    pub(crate) bytes: u64,
    /// Who may have it, the likeliest first.
    pub(crate) providers: Vec<PeerId>,
}

#[derive(Debug)]
struct Want {
    need: Need,
    asked: Vec<PeerId>,
    failed: BTreeSet<PeerId>,
    backoff: Backoff,
    at: Time,
}

/// All blobs of a peer that matter to the protocol.
#[derive(Debug)]
pub(crate) struct Fetches {
    own: PeerId,
    wants: BTreeMap<Hash, Want>,
    held: BTreeSet<Hash>,
    pace: Pace,
}

impl Fetches {
    /// Nothing wanted, nothing held.
    pub(crate) fn new(own: PeerId, pace: Pace) -> Self {
        Self { own, wants: BTreeMap::new(), held: BTreeSet::new(), pace }
    }

    /// Whether a blob is here.
    pub(crate) fn holds(&self, hash: &Hash) -> bool {
        self.held.contains(hash)
    }

    /// Notes a blob that is here: fetched, or made here. True when it was not known to be.
    pub(crate) fn hold(&mut self, hash: Hash) -> bool {
        self.wants.remove(&hash);
        self.held.insert(hash)
    }

    /// Notes that blobs are given up.
    pub(crate) fn forget(&mut self, hashes: &[Hash]) {
        for hash in hashes {
            self.held.remove(hash);
            self.wants.remove(hash);
        }
    }

    /// Makes the wanted blobs exactly `needs`, less those that are here; the new ones are due to be asked for now. Of those that are asked for
    /// already others may be named as providers now, for the next time.
    pub(crate) fn set_needs(&mut self, needs: BTreeMap<Hash, Need>, now: Time) {
        self.wants.retain(|hash, _| needs.contains_key(hash));
        for (hash, need) in needs {
            if self.held.contains(&hash) {
                continue;
            }
            if let Some(want) = self.wants.get_mut(&hash) {
                want.need = need;
                continue;
            }
            let (asked, failed, backoff) = (Vec::new(), BTreeSet::new(), Backoff::default());
            self.wants.insert(hash, Want { need, asked, failed, backoff, at: now });
        }
    }

    /// Adds a wanted blob, unless it is here, until the next [`Fetches::set_needs`].
    pub(crate) fn add_need(&mut self, hash: Hash, need: Need, now: Time) {
        if !self.held.contains(&hash) {
            let (asked, failed, backoff) = (Vec::new(), BTreeSet::new(), Backoff::default());
            self.wants.entry(hash).or_insert(Want { need, asked, failed, backoff, at: now });
        }
    }

    /// Notes that a provider failed; when it was the last one asked, the blob is asked for again later. Returns how often
    /// all providers failed.
    pub(crate) fn provider_failed(&mut self, hash: Hash, from: PeerId, now: Time) -> u32 {
        let Some(want) = self.wants.get_mut(&hash) else { return 0 };
        if !want.asked.contains(&from) {
            return want.backoff.failures();
        }
        want.failed.insert(from);
        if want.failed.len() >= want.asked.len() {
            want.failed.clear();
            want.asked.clear();
            want.at = now.after(want.backoff.next_us(&self.pace));
        }
        want.backoff.failures()
    }

    /// Asks for what is due. After a failure, or when nobody is named, `others` are asked too.
    pub(crate) fn ask_due(&mut self, others: &[PeerId], now: Time, out: &mut Vec<Output>) {
        for (hash, want) in &mut self.wants {
            if want.at <= now {
                let others = if want.need.providers.is_empty() || want.backoff.failures() > 0 { others } else { &[] };
                let mut providers: Vec<PeerId> = Vec::new();
                for peer in want.need.providers.iter().chain(others) {
                    if *peer != self.own && !providers.contains(peer) && providers.len() < PROVIDERS_MAX {
                        providers.push(*peer);
                    }
                }
                want.at = now.after(self.pace.max_us());
                want.failed.clear();
                want.asked.clone_from(&providers);
                out.push(Output::Fetch { hash: *hash, bytes: want.need.bytes, providers });
            }
        }
    }

    /// When something is due to be asked for again.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.wants.values().map(|want| want.at).min()
    }
}

//! What goes wrong: crashes, partitions, broken connections; and how it all ends.

use super::Simulation;
use crate::checks::Violation;
use crate::events::Event;

impl Simulation {
    /// A host loses everything but its disk, and starts again later.
    pub(super) fn crash(&mut self, place: usize) {
        self.trace.add(self.now, place, "crash", [0, 0]);
        self.counts.crashes += 1;
        self.hosts[place].crash();
        for other in self.network.connected(place) {
            self.break_link(place, other);
        }
        let down_us = self.draw.between(100_000, self.config.faults.down_us_max.max(100_000));
        self.events.add(self.now.after(down_us), Event::Start { host: place });
    }

    /// A connection breaks: both ends notice later, what is under way is lost.
    pub(super) fn break_link(&mut self, one: usize, two: usize) {
        if !self.network.disconnect(one, two) {
            return;
        }
        self.counts.breaks += 1;
        let epoch = self.network.epoch(one, two);
        for (host, other) in [(one, two), (two, one)] {
            let at = self.now.after(self.draw.between(1_000, 2_000_000));
            let life = self.hosts[host].life;
            self.events.add(at, Event::Broken { host, other, life, epoch });
        }
    }

    /// The network splits in two for a while.
    pub(super) fn split(&mut self) -> Result<(), Violation> {
        if self.healed.is_some() {
            return Ok(());
        }
        self.trace.add(self.now, 0, "split", [0, 0]);
        self.counts.partitions += 1;
        let island = (0..self.hosts.len()).map(|_| self.draw.chance(300_000)).collect();
        self.network.set_island(Some(island));
        for (one, two) in self.network.cut() {
            self.break_link(one, two);
        }
        let mean = self.config.faults.partition_us_mean;
        let whole = self.now.after(self.draw.between(1_000_000, mean));
        self.events.add(whole, Event::Rejoin);
        let again = self.draw.between(1_000_000, mean * 2);
        self.events.add(whole.after(again), Event::Split);
        Ok(())
    }

    /// Ends all faults: whoever is down starts, whatever is split is joined.
    pub(super) fn heal(&mut self) {
        self.trace.add(self.now, 0, "heal", [0, 0]);
        self.healed = Some(self.now);
        self.network.set_island(None);
        for host in 0..self.hosts.len() {
            if self.hosts[host].peer.is_none() {
                self.events.add(self.now, Event::Start { host });
            }
        }
    }
}

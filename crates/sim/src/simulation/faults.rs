//! What goes wrong: crashes, partitions, broken connections, by chance or by schedule; and how it all ends.

use swarm::Input;

use super::Simulation;
use crate::checks::Violation;
use crate::events::Event;
use crate::schedule::Act;

/// Silence after which a connection counts as broken, in microseconds: as long as the transport's of `node`.
const SILENCE_US_MAX: u64 = 8_000_000;
/// The time over which hosts start that were down together, in microseconds.
const STARTS_US: u64 = 1_000_000;

impl Simulation {
    /// A host loses everything but its disk, and starts again later: after `down_us` microseconds, or after a time that is drawn.
    pub(super) fn crash(&mut self, place: usize, down_us: Option<u64>) {
        self.trace.add(self.now, place, "crash", [0, 0]);
        self.counts.crashes += 1;
        self.stop(place);
        let drawn_us = self.draw.between(100_000, self.config.faults.down_us_max.max(100_000));
        let down_us = down_us.unwrap_or(drawn_us);
        self.events.add(self.now.after(down_us), Event::Start { host: place });
    }

    /// Ends a host's peer; its disk stays.
    pub(super) fn stop(&mut self, place: usize) {
        self.hosts[place].crash();
        for other in self.network.connected(place) {
            self.break_link(place, other);
        }
    }

    /// Does the next act of the schedule, unless the faults ended.
    pub(super) fn act(&mut self, place: usize) -> Result<(), Violation> {
        self.acts_done = place + 1;
        if self.healed.is_some() {
            return Ok(());
        }
        self.trace.add(self.now, 0, "act", [place as u64, 0]);
        match self.config.schedule[place].act.clone() {
            Act::Kill { host, down_us } => self.kill(&[host], down_us, 0),
            Act::KillStage { stage, down_us } => {
                let replicas: Vec<usize> =
                    (0..self.config.peers).filter(|host| usize::from(self.hosts[*host].stage()) == stage).collect();
                self.kill(&replicas, down_us, STARTS_US);
            }
            Act::KillAll { down_us } => {
                let all: Vec<usize> = (0..self.config.peers).collect();
                self.kill(&all, down_us, STARTS_US);
            }
            Act::Suspend { host, us } => {
                let until = self.now.after(us);
                let host_life = self.hosts[host].life;
                self.hosts[host].asleep_until = until;
                let silent = Event::Silent { host, life: host_life };
                self.events.add(self.now.after(SILENCE_US_MAX), silent);
            }
            Act::Split { island, us } => {
                self.split_off(|host| island.contains(&host));
                self.events.add(self.now.after(us), Event::Rejoin);
            }
            Act::Pause { host, .. } => return self.pause(host),
            Act::Resume { host } => return self.resume(host),
            Act::Leave { host } => return self.handle(host, Input::Stop),
            Act::Link { host, link } => self.network.set_link(host, link),
        }
        Ok(())
    }

    /// A host pauses, also over crashes; with sums in memory it is made anew.
    fn pause(&mut self, place: usize) -> Result<(), Violation> {
        let host = &mut self.hosts[place];
        host.config.paused = true;
        if host.peer.as_ref().is_some_and(|peer| peer.counts().is_some()) {
            self.crash(place, Some(0));
            return Ok(());
        }
        self.handle(place, Input::Pause)
    }

    fn resume(&mut self, place: usize) -> Result<(), Violation> {
        self.hosts[place].config.paused = false;
        self.handle(place, Input::Resume)
    }

    /// Crashes those of the hosts that are up; each starts again after `down_us` and up to `spread_us` more.
    fn kill(&mut self, hosts: &[usize], down_us: u64, spread_us: u64) {
        for host in hosts {
            let extra_us = self.draw.below(spread_us + 1);
            if self.hosts[*host].peer.is_some() {
                self.crash(*host, Some(down_us.saturating_add(extra_us)));
            }
        }
    }

    /// Breaks the connections of a host that sleeps for too long.
    pub(super) fn silence(&mut self, place: usize, life: u32) {
        let host = &self.hosts[place];
        if host.life == life && host.asleep_until > self.now {
            for other in self.network.connected(place) {
                self.break_link(place, other);
            }
        }
    }

    /// Lets an event of a sleeping host wait until it wakes.
    pub(super) fn postpone(&mut self, place: usize, event: Event) {
        let host = &mut self.hosts[place];
        if let Event::Tick { life, .. } = event {
            if host.life != life || host.tick_at != Some(self.now) {
                return;
            }
            host.tick_at = Some(host.asleep_until);
        }
        self.events.add(host.asleep_until, event);
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

    /// Splits hosts off from the others.
    fn split_off(&mut self, island: impl Fn(usize) -> bool) {
        self.counts.partitions += 1;
        self.network.set_island(Some((0..self.hosts.len()).map(island).collect()));
        for (one, two) in self.network.cut() {
            self.break_link(one, two);
        }
    }

    /// The network splits in two for a while.
    pub(super) fn split(&mut self) -> Result<(), Violation> {
        if self.healed.is_some() {
            return Ok(());
        }
        self.trace.add(self.now, 0, "split", [0, 0]);
        let island: Vec<bool> = (0..self.hosts.len()).map(|_| self.draw.chance(300_000)).collect();
        self.split_off(|host| island[host]);
        let mean = self.config.faults.partition_us_mean;
        let whole = self.now.after(self.draw.between(1_000_000, mean));
        self.events.add(whole, Event::Rejoin);
        let again = self.draw.between(1_000_000, mean * 2);
        self.events.add(whole.after(again), Event::Split);
        Ok(())
    }

    /// Ends all faults: whoever is down starts, whoever pauses goes on, whatever is split is joined.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.trace.add(self.now, 0, "heal", [0, 0]);
        self.healed = Some(self.now);
        self.network.set_island(None);
        for host in 0..self.hosts.len() {
            if self.hosts[host].peer.is_none() {
                self.events.add(self.now, Event::Start { host });
            }
        }
        (0..self.config.peers).try_for_each(|host| self.resume(host))
    }
}

//! Peers that leave and come back.

use swarm::pipeline::PipelineConfig;

use super::{Event, Flow, Place, Step, micros};

impl Flow<'_> {
    /// Draws when a peer leaves: times that it stays have an exponential law.
    pub(super) fn plan_departure(&mut self, peer: u32) {
        let Some(mean_s) = self.options.life_s else { return };
        let stays_s = self.exponential(mean_s);
        let life = self.peers[peer as usize].life;
        self.events.add(self.now.after(micros(stays_s)), Event::Leave { peer, life });
    }

    fn exponential(&mut self, mean_s: f64) -> f64 {
        let unit = ((self.random.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        -unit.ln() * mean_s
    }

    pub(super) fn on_leave(&mut self, peer: u32, life: u32) {
        if self.peers[peer as usize].life != life {
            return;
        }
        self.report.departures += 1;
        let stage = self.peers[peer as usize].stage;
        if self.peers[peer as usize].running {
            self.free_processor(peer);
        }
        let now = self.now;
        self.peers[peer as usize].leave(now);
        self.lose(peer, stage);
        let away_s = self.exponential(self.options.away_s);
        let down = self.work.groups[self.peers[peer as usize].group].peer.down_bits_per_s;
        let fetch_s = 8.0 * self.found.costs[stage as usize].state as f64 / down;
        self.events.add(self.now.after(micros(away_s + fetch_s)), Event::Back { peer });
    }

    /// What a peer had is lost: its callers notice after a while.
    fn lose(&mut self, peer: u32, stage: u32) {
        if !self.open {
            return;
        }
        let config = PipelineConfig::default();
        let after_us = if stage == 0 { config.takeover_us } else { config.redo_us };
        for unit in 0..self.found.units {
            let cell = self.cell_mut(unit, stage);
            if cell.owner != peer || cell.step == Step::Nowhere {
                continue;
            }
            let done = cell.step == Step::Done;
            cell.version = cell.version.wrapping_add(1);
            cell.step = Step::Nowhere;
            let place = Place { unit, stage, version: cell.version };
            if done {
                self.left += 1;
                self.report.redone += 1;
            } else {
                self.report.rerouted += 1;
            }
            self.events.add(self.now.after(after_us), Event::Noticed(place));
        }
    }

    /// A peer is back: it takes part from the next round on, or at once when its stage has nobody.
    pub(super) fn on_back(&mut self, peer: u32) {
        let stage = self.peers[peer as usize].stage;
        self.peers[peer as usize].ready = true;
        let alone = !self.members[stage as usize].iter().any(|other| self.peers[*other as usize].there);
        if !alone {
            return;
        }
        self.enter(peer);
        if self.open {
            // Units of this stage that nobody has.
            for unit in 0..self.found.units {
                if !self.is_held(unit, stage) {
                    self.call(unit, stage);
                }
            }
        } else if self.stalled {
            self.start_round();
        }
    }

    /// Lets those in who came back during the round.
    pub(super) fn admit(&mut self) {
        for peer in 0..self.peers.len() as u32 {
            if self.peers[peer as usize].ready {
                self.enter(peer);
            }
        }
    }

    fn enter(&mut self, peer: u32) {
        let now = self.now;
        self.peers[peer as usize].enter(now);
        self.plan_departure(peer);
    }
}

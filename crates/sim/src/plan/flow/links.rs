//! Messages over two access links.

use swarm::Time;

use super::{Flow, micros};

impl Flow<'_> {
    /// When a message of so many bytes arrives that is sent now. The receiver's downlink takes it while the sender's uplink gives it.
    pub(super) fn send(&mut self, from: u32, to: u32, bytes: u64) -> Time {
        let bits = 8.0 * bytes as f64 / self.work.calibration.link;
        let link = |peer: u32| self.work.groups[self.peers[peer as usize].group].peer;
        let (sender, receiver) = (link(from), link(to));
        let way_us = micros((sender.round_trip_s + receiver.round_trip_s) / 4.0);
        let start = self.now.max(self.peers[from as usize].up_free);
        let left = start.after(micros(bits / sender.up_bits_per_s));
        self.peers[from as usize].up_free = left;
        let begins = start.after(way_us).max(self.peers[to as usize].down_free);
        let arrives = begins.after(micros(bits / receiver.down_bits_per_s)).max(left.after(way_us));
        self.peers[to as usize].down_free = arrives;
        arrives
    }
}

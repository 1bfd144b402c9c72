//! Which replica gets a unit: that with the smallest virtual runtime.

use super::{Event, Flow, Place, Step};

impl Flow<'_> {
    /// Gives a unit to a replica of a stage: in the first stage in turn, later by the caller's virtual runtimes. Without a replica it waits
    /// until one comes.
    pub(super) fn call(&mut self, unit: u32, stage: u32) {
        let caller = match stage.checked_sub(1) {
            None => None,
            Some(before) => {
                let cell = self.cell(unit, before);
                if matches!(cell.step, Step::Nowhere | Step::Called) {
                    // The caller is gone, too: whoever gets its unit calls.
                    return;
                }
                Some(cell.owner)
            }
        };
        let Some(owner) = self.choose(unit, stage, caller) else { return };
        let cell = self.cell_mut(unit, stage);
        cell.version = cell.version.wrapping_add(1);
        (cell.step, cell.owner) = (Step::Called, owner);
        let place = Place { unit, stage, version: cell.version };
        match caller {
            None => self.on_input(place),
            Some(caller) => {
                let arrives = self.send(caller, owner, self.found.costs[stage as usize].message);
                self.events.add(arrives, Event::Input(place));
            }
        }
    }

    fn choose(&mut self, unit: u32, stage: u32, caller: Option<u32>) -> Option<u32> {
        let members = &self.members[stage as usize];
        let there = |at: &usize| self.peers[members[*at] as usize].there;
        // Callers start at different replicas, as the hash of both ids has it in a run.
        let offset = caller.map_or(unit, |caller| caller.wrapping_mul(7)) as usize;
        let turn = |at: usize| (at + members.len() - offset % members.len()) % members.len();
        let chosen = match caller {
            None => (0..members.len()).filter(there).min_by_key(|at| {
                let peer = &self.peers[members[*at] as usize];
                // The time that its units take, with this one.
                ((peer.forwards.len() as u64 + 1) * peer.unit_us(), turn(*at))
            }),
            Some(caller) => {
                let routes = &self.peers[caller as usize].routes;
                (0..members.len()).filter(there).min_by_key(|at| (routes[*at], turn(*at)))
            }
        }?;
        let owner = members[chosen];
        if let Some(caller) = caller {
            let cost = self.peers[owner as usize].unit_us().max(1);
            self.peers[caller as usize].routes[chosen] += cost;
        }
        Some(owner)
    }
}

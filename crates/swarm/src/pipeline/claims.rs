//! Which units are in blocks, by stage.

use std::collections::BTreeSet;

use wire::PeerId;

/// The claims of the open round: a bit for every unit of every stage, and who committed.
#[derive(Debug)]
pub(crate) struct Claims {
    stages: Vec<Vec<bool>>,
    committed: BTreeSet<PeerId>,
}

impl Claims {
    /// No claims.
    pub(crate) fn new(stages: usize, units: usize) -> Self {
        Self { stages: vec![vec![false; units]; stages], committed: BTreeSet::new() }
    }

    /// Makes room for units that the round did not have before.
    pub(crate) fn grow(&mut self, units: usize) {
        for claimed in &mut self.stages {
            claimed.resize(units.max(claimed.len()), false);
        }
    }

    /// Notes a commitment. Stages and units that do not exist are ignored.
    pub(crate) fn note(&mut self, peer: PeerId, stage: u16, units: &[u32]) {
        self.committed.insert(peer);
        let Some(claimed) = self.stages.get_mut(usize::from(stage)) else { return };
        for unit in units {
            if let Some(claimed) = claimed.get_mut(*unit as usize) {
                *claimed = true;
            }
        }
    }

    /// Whether the unit is claimed in the stage.
    pub(crate) fn has(&self, stage: usize, index: u32) -> bool {
        self.stages.get(stage).and_then(|units| units.get(index as usize)).copied().unwrap_or(false)
    }

    /// Whether the unit is claimed in the stage and all later ones: nobody needs to look after it there.
    pub(crate) fn has_from(&self, stage: usize, index: u32) -> bool {
        (stage..self.stages.len()).all(|stage| self.has(stage, index))
    }

    /// Whether the peer committed: it counts no further units.
    pub(crate) fn committed(&self, peer: PeerId) -> bool {
        self.committed.contains(&peer)
    }
}

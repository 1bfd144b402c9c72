//! What must hold at every moment, whatever goes wrong.

mod violation;

use std::collections::{BTreeMap, BTreeSet};

use swarm::pipeline::PipelineConfig;
use swarm::{Fault, FaultKind, Peer, Time};
use wire::{Action, Block, Commitment, Hash, PeerId, Signable, UnitId};

use crate::config::SimConfig;
use crate::trainer::stage;

pub use self::violation::Violation;

/// What came of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundReport {
    /// When the first honest peer saw it closed.
    pub closed: Time,
    /// Its units, in each stage.
    pub units: u32,
    /// Units, over all stages, that no commitment claims.
    pub lost: u64,
    /// Claims, over all stages, beyond one for each unit.
    pub twice: u64,
}

/// What the checkers remember.
#[derive(Debug)]
pub(crate) struct Checks {
    /// Whether nothing goes wrong, so that nothing may be lost.
    calm: bool,
    /// Whether receipts are what the stages' states give: there are several stages and no adversaries.
    exact: bool,
    stages: u16,
    /// The digest of each block's header, in which the ledger's root is.
    ledgers: Vec<Hash>,
    /// The state root of each stage and round.
    states: BTreeMap<(u16, u64), Hash>,
    /// Units of all committed receipts of closed rounds, by stage.
    paid: BTreeSet<(u16, UnitId)>,
    /// Units of the committed receipts of the open round, by stage.
    open: Vec<(u16, UnitId)>,
    /// Units of the open round.
    units: u32,
    /// What receipts of the open round must say, by unit: in every stage the hash over what came in, and over what went out.
    references: BTreeMap<u32, Vec<(Hash, Hash)>>,
    /// All committed payloads, by peer and round.
    payloads: BTreeMap<(PeerId, u64), Hash>,
    rounds: Vec<RoundReport>,
}

impl Checks {
    /// Nothing was seen yet.
    pub(crate) fn new(config: &SimConfig) -> Self {
        Self {
            calm: config.is_calm(),
            exact: config.stages > 1 && config.adversaries.is_empty(),
            stages: u16::try_from(config.stages).expect("a simulated number of stages"),
            ledgers: Vec::new(),
            states: BTreeMap::new(),
            paid: BTreeSet::new(),
            open: Vec::new(),
            units: 0,
            references: BTreeMap::new(),
            payloads: BTreeMap::new(),
            rounds: Vec::new(),
        }
    }

    /// Blocks that any honest peer has.
    pub(crate) fn height(&self) -> u64 {
        self.ledgers.len() as u64
    }

    /// Rounds that closed.
    pub(crate) fn rounds_closed(&self) -> u64 {
        self.rounds.len() as u64
    }

    /// What came of the rounds that closed.
    pub(crate) fn rounds(&self) -> &[RoundReport] {
        &self.rounds
    }

    /// Whether a payload is in a block.
    pub(crate) fn is_committed(&self, peer: PeerId, round: u64, payload: Hash) -> bool {
        self.payloads.get(&(peer, round)) == Some(&payload)
    }

    /// Checks a block when the validator stores it: every payload in it has a holder besides its peer.
    pub(crate) fn ordered(block: &Block, holds: impl Fn(&Hash) -> bool) -> Result<(), Violation> {
        for transaction in &block.transactions {
            if let Action::Commit(commitment) = &transaction.body.action
                && !holds(&commitment.payload)
            {
                return Err(Violation::Unheld { height: block.header.body.height, payload: commitment.payload });
            }
        }
        Ok(())
    }

    /// Checks that an honest peer's pipeline keeps to its settings.
    pub(crate) fn bounds(peer: &Peer, config: &PipelineConfig) -> Result<(), Violation> {
        let Some(pipeline) = peer.pipeline() else { return Ok(()) };
        let done = u32::try_from(pipeline.done().len()).unwrap_or(u32::MAX);
        let bounds = [
            ("bytes", pipeline.held_bytes(), config.held_bytes_max),
            ("calls that wait", u64::from(pipeline.queued()), u64::from(config.calls_queued_max)),
            ("units under way", u64::from(pipeline.under_way()), u64::from(config.window_max)),
            ("units counted", u64::from(done), u64::from(config.units_max)),
        ];
        match bounds.into_iter().find(|(_, got, most)| got > most) {
            Some((what, got, most)) => Err(Violation::Unbounded { peer: peer.id(), what, got, most }),
            None => Ok(()),
        }
    }

    /// Checks an honest peer of a stage after it did something.
    pub(crate) fn peer(
        &mut self,
        peer: &Peer,
        stage: u16,
        now: Time,
        checked_height: &mut u64,
    ) -> Result<(), Violation> {
        let ledger = peer.ledger();
        let height = ledger.height();
        if height > *checked_height {
            let shares: u64 = ledger.accounts().iter().map(|account| account.shares).sum();
            if shares != ledger.supply() {
                return Err(Violation::Supply { height, shares, supply: ledger.supply() });
            }
            for block in &peer.blocks()[usize::try_from(*checked_height).expect("a simulated height")..] {
                self.block(peer, block)?;
            }
            let stated = ledger.head().map(|head| head.body.ledger_root);
            if let Some(expected) = stated.filter(|stated| *stated != ledger.root()) {
                return Err(Violation::Fork { peer: peer.id(), height, expected, got: ledger.root() });
            }
            self.receipts(peer, height, now)?;
            *checked_height = height;
        }
        let Some(model) = peer.model() else { return Ok(()) };
        let expected = *self.states.entry((stage, model.round)).or_insert(model.state_root);
        if expected != model.state_root {
            let (round, got) = (model.round, model.state_root);
            return Err(Violation::States { peer: peer.id(), round, expected, got });
        }
        Ok(())
    }

    /// Checks a block that a peer has, and counts its receipts the first time.
    fn block(&mut self, peer: &Peer, block: &Block) -> Result<(), Violation> {
        let header = &block.header.body;
        let place = usize::try_from(header.height).expect("a simulated height");
        let digest = header.digest();
        if let Some(expected) = self.ledgers.get(place).copied() {
            let height = header.height + 1;
            return if expected == digest {
                Ok(())
            } else {
                Err(Violation::Fork { peer: peer.id(), height, expected, got: digest })
            };
        }
        self.ledgers.push(digest);
        for transaction in &block.transactions {
            let Action::Commit(commitment) = &transaction.body.action else { continue };
            self.payloads.insert((transaction.signer, commitment.round), commitment.payload);
            let mut units = BTreeSet::new();
            for receipt in commitment.receipts.iter().map(|receipt| &receipt.body) {
                if !units.insert(receipt.index) {
                    let (height, stage, unit) = (header.height, receipt.stage, receipt.unit);
                    return Err(Violation::PaidTwice { height, stage, unit });
                }
                self.open.push((receipt.stage, receipt.unit));
            }
            if self.exact {
                self.bytes(peer, transaction.signer, commitment)?;
            }
        }
        Ok(())
    }

    /// Compares receipts with what the stages' states give.
    fn bytes(&mut self, peer: &Peer, signer: PeerId, commitment: &Commitment) -> Result<(), Violation> {
        let round = commitment.round;
        let root = |stage| peer.ledger().state_root(stage, round);
        let Some(roots) = (0..self.stages).map(root).collect::<Option<Vec<Hash>>>() else { return Ok(()) };
        for receipt in commitment.receipts.iter().map(|receipt| &receipt.body) {
            let of_unit = || stage::reference(&roots, receipt.unit);
            let reference = self.references.entry(receipt.index).or_insert_with(of_unit);
            let got = (receipt.trace_root, receipt.output_root);
            if reference.get(usize::from(receipt.stage)) != Some(&got) {
                let (stage, index) = (receipt.stage, receipt.index);
                return Err(Violation::WrongBytes { peer: signer, round, stage, index });
            }
        }
        Ok(())
    }

    /// When a peer with the newest block sees a round closed, the receipts of that round are paid: once each.
    fn receipts(&mut self, peer: &Peer, height: u64, now: Time) -> Result<(), Violation> {
        let totals = peer.ledger().totals();
        let newest = height == self.height();
        if newest && totals.rounds != self.rounds_closed() {
            let before = self.paid.len();
            let claims = std::mem::take(&mut self.open);
            let claimed = claims.len() as u64;
            self.paid.extend(claims);
            self.references.clear();
            let (counted, held) = (totals.receipts, self.paid.len() as u64);
            let accounts: u64 = peer.ledger().accounts().iter().map(|account| account.receipts).sum();
            if counted != held || accounts != held {
                return Err(Violation::Receipts { height, counted, held });
            }
            let paid = held - before as u64;
            let lost = (u64::from(self.units) * u64::from(self.stages)).saturating_sub(paid);
            self.close(RoundReport { closed: now, units: self.units, lost, twice: claimed - paid })?;
        }
        if newest {
            self.units = peer.ledger().round().map_or(0, |open| open.units);
        }
        Ok(())
    }

    /// Notes what came of a round. When nothing went wrong, nothing is lost and nothing counted twice.
    fn close(&mut self, report: RoundReport) -> Result<(), Violation> {
        let round = self.rounds_closed();
        self.rounds.push(report);
        match (report.lost, report.twice) {
            (lost @ 1.., _) if self.calm => Err(Violation::UnitsLost { round, units: lost }),
            (_, units @ 1..) if self.calm || self.stages == 1 => Err(Violation::CountedTwice { round, units }),
            _ => Ok(()),
        }
    }

    /// Checks an accusation by an honest peer. That a payload cannot be had may be the network's doing, and that two gave different bytes
    /// for a unit shows only that one of them lied.
    pub(crate) fn fault(by: PeerId, honest: bool, liars: bool, fault: &Fault) -> Result<(), Violation> {
        let excused = match &fault.kind {
            FaultKind::UnavailablePayload => true,
            FaultKind::Stage(kind) => liars && !kind.is_certain(),
            _ => false,
        };
        if honest && !excused {
            return Err(Violation::Accused { by, peer: fault.peer, kind: Box::new(fault.kind.clone()) });
        }
        Ok(())
    }
}

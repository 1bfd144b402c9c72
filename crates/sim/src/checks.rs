//! What must hold at every moment, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use swarm::{Fault, FaultKind, HaltReason, JobId, Peer, TimeoutReason};
use wire::{Action, Block, Hash, PeerId, Signable, UnitId};

/// Something that must never happen did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Shares were made or lost.
    #[error("at height {height} the accounts hold {shares} shares, the supply is {supply}")]
    Supply {
        /// Blocks applied.
        height: u64,
        /// Sum over accounts.
        shares: u64,
        /// What the ledger says was minted.
        supply: u64,
    },
    /// A unit was paid twice.
    #[error("unit {unit:?} of block {height} was paid before")]
    PaidTwice {
        /// The block.
        height: u64,
        /// The unit.
        unit: UnitId,
    },
    /// The ledger counts other receipts than the blocks hold.
    #[error("the ledger counts {counted} receipts at height {height}, the blocks hold {held}")]
    Receipts {
        /// Blocks applied.
        height: u64,
        /// Receipts paid, by the ledger.
        counted: u64,
        /// Receipts of closed rounds, by the blocks.
        held: u64,
    },
    /// Two honest peers have different blocks or ledgers of one height.
    #[error("`{peer:?}` has block or ledger {got:?} at height {height}, others have {expected:?}")]
    Fork {
        /// Who differs from the first.
        peer: PeerId,
        /// Blocks applied.
        height: u64,
        /// The first peer's ledger root.
        expected: Hash,
        /// Its root.
        got: Hash,
    },
    /// Two honest peers have different states of one round.
    #[error("`{peer:?}` has state {got:?} of round {round}, others have {expected:?}")]
    States {
        /// Who differs from the first.
        peer: PeerId,
        /// The round.
        round: u64,
        /// The first peer's root.
        expected: Hash,
        /// Its root.
        got: Hash,
    },
    /// An honest peer accused an honest peer.
    #[error("`{by:?}` accuses the honest `{peer:?}`: {kind}")]
    Accused {
        /// Who accuses.
        by: PeerId,
        /// Who is accused.
        peer: PeerId,
        /// Of what.
        kind: Box<FaultKind>,
    },
    /// An honest peer halted.
    #[error("the honest `{peer:?}` halted: {reason}")]
    Halted {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: HaltReason,
    },
    /// A second job was started while one was running.
    #[error("`{peer:?}` started job {second:?} while {running:?} was running")]
    TwoJobs {
        /// Who.
        peer: PeerId,
        /// The running job.
        running: JobId,
        /// The second.
        second: JobId,
    },
    /// A job that cannot be done.
    #[error("`{peer:?}` asked for {what}")]
    BadJob {
        /// Who.
        peer: PeerId,
        /// What is wrong.
        what: &'static str,
    },
    /// The validator ordered a payload that only its peer has.
    #[error("block {height} orders payload {payload:?}, which the validator does not hold")]
    Unheld {
        /// The block.
        height: u64,
        /// The payload.
        payload: Hash,
    },
    /// A peer asks to be called again and again without time going on.
    #[error("`{peer:?}` spins on its timeout for {reason:?}")]
    Spinning {
        /// Who.
        peer: PeerId,
        /// The timeout's reason.
        reason: Option<TimeoutReason>,
    },
    /// Trained tokens vanished from the residual, or went out twice.
    #[error("`{peer:?}` lost track of {tokens} trained tokens")]
    ResidualLost {
        /// Who.
        peer: PeerId,
        /// How many.
        tokens: u64,
    },
    /// The run did not end in time after all faults ended.
    #[error("no end after the faults: {state}")]
    Stuck {
        /// Where it stands.
        state: String,
    },
}

/// What the checkers remember.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The digest of each block's header, in which the ledger's root is.
    ledgers: Vec<Hash>,
    /// The state root of each round.
    states: BTreeMap<u64, Hash>,
    /// Units of all committed receipts of closed rounds.
    paid: BTreeSet<UnitId>,
    /// Units of the committed receipts of the open round.
    open: Vec<UnitId>,
    /// All committed payloads, by peer and round.
    payloads: BTreeMap<(PeerId, u64), Hash>,
    rounds_closed: u64,
}

impl Checks {
    /// Blocks that any honest peer has.
    pub(crate) fn height(&self) -> u64 {
        self.ledgers.len() as u64
    }

    /// Rounds that closed.
    pub(crate) fn rounds_closed(&self) -> u64 {
        self.rounds_closed
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

    /// Checks an honest peer after it did something.
    pub(crate) fn peer(&mut self, peer: &Peer, checked_height: &mut u64) -> Result<(), Violation> {
        let ledger = peer.ledger();
        let height = ledger.height();
        if height > *checked_height {
            let shares: u64 = ledger.accounts().iter().map(|account| account.shares).sum();
            if shares != ledger.supply() {
                return Err(Violation::Supply { height, shares, supply: ledger.supply() });
            }
            for block in &peer.blocks()[usize::try_from(*checked_height).expect("a simulated height")..] {
                self.block(peer.id(), block)?;
            }
            let stated = ledger.head().map(|head| head.body.ledger_root);
            if let Some(expected) = stated.filter(|stated| *stated != ledger.root()) {
                return Err(Violation::Fork { peer: peer.id(), height, expected, got: ledger.root() });
            }
            self.receipts(peer, height)?;
            *checked_height = height;
        }
        let Some(model) = peer.model() else { return Ok(()) };
        let expected = *self.states.entry(model.round).or_insert(model.state_root);
        if expected != model.state_root {
            let (round, got) = (model.round, model.state_root);
            return Err(Violation::States { peer: peer.id(), round, expected, got });
        }
        Ok(())
    }

    /// Checks a block that a peer has, and counts its receipts the first time.
    fn block(&mut self, peer: PeerId, block: &Block) -> Result<(), Violation> {
        let header = &block.header.body;
        let place = usize::try_from(header.height).expect("a simulated height");
        let digest = header.digest();
        if let Some(expected) = self.ledgers.get(place).copied() {
            let height = header.height + 1;
            return if expected == digest {
                Ok(())
            } else {
                Err(Violation::Fork { peer, height, expected, got: digest })
            };
        }
        self.ledgers.push(digest);
        for transaction in &block.transactions {
            let Action::Commit(commitment) = &transaction.body.action else { continue };
            self.payloads.insert((transaction.signer, commitment.round), commitment.payload);
            self.open.extend(commitment.receipts.iter().map(|receipt| receipt.body.unit));
        }
        Ok(())
    }

    /// When a peer with the newest block sees a round closed, the receipts of that round are paid: once each.
    fn receipts(&mut self, peer: &Peer, height: u64) -> Result<(), Violation> {
        let totals = peer.ledger().totals();
        if height != self.height() || totals.rounds == self.rounds_closed {
            return Ok(());
        }
        self.rounds_closed = totals.rounds;
        for unit in std::mem::take(&mut self.open) {
            if !self.paid.insert(unit) {
                return Err(Violation::PaidTwice { height, unit });
            }
        }
        let (counted, held) = (totals.receipts, self.paid.len() as u64);
        let accounts: u64 = peer.ledger().accounts().iter().map(|account| account.receipts).sum();
        if counted != held || accounts != held {
            return Err(Violation::Receipts { height, counted, held });
        }
        Ok(())
    }

    /// Checks an accusation by an honest peer. That a payload cannot be had may be the network's doing.
    pub(crate) fn fault(by: PeerId, honest: bool, fault: &Fault) -> Result<(), Violation> {
        if honest && fault.kind != FaultKind::UnavailablePayload {
            return Err(Violation::Accused { by, peer: fault.peer, kind: Box::new(fault.kind.clone()) });
        }
        Ok(())
    }
}

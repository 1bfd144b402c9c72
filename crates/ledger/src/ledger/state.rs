//! The replicated state and its root.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use wire::merkle::{self, Tree};
use wire::{Action, BlockHeader, Charter, Commitment, Hash, PeerId, RunId, Signed, Transaction};

use crate::accounts::{Account, Accounts, Changes};
use crate::error::Rejection;
use crate::ledger::membership::Join;
use crate::ledger::pace::Pace;
use crate::ledger::round::{CommittedSet, Entry, RoundOpen};

/// Most accounts of a run.
pub const ACCOUNTS_MAX: usize = 65_536;
/// Rounds in a row that a member may miss (see [`Account::missed`]); at this number it is dropped, and may join again.
pub const MISSED_ROUNDS_MAX: u32 = 3;
/// Closed committed sets that the ledger keeps.
pub const ROUNDS_KEPT: usize = 64;

/// Leaves of the ledger's tree before the accounts: totals and round.
pub(crate) const LEAVES_BEFORE_ACCOUNTS: usize = 2;
/// The place of the totals in the ledger's tree.
pub(crate) const TOTALS_LEAF: usize = 0;

/// What a run amounts to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// The run.
    pub run: RunId,
    /// Shares minted, in micro-shares: the sum over all accounts.
    pub supply: u64,
    /// Tokens of all paid units, once for each stage that they passed.
    pub tokens: u64,
    /// Receipts paid.
    pub receipts: u64,
    /// Rounds closed.
    pub rounds: u64,
    /// Hash chain over the committed sets.
    pub history: Hash,
}

/// A root that became canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// The round that starts from the state.
    pub round: u64,
    /// The stage whose state it is.
    pub stage: u16,
    /// The state's root.
    pub root: Hash,
}

/// What a block did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The block's height.
    pub height: u64,
    /// The set of the round that it closed.
    pub closed: Option<Arc<CommittedSet>>,
    /// The round that it opened, or opened again with new members because all of a stage had left or let it pass.
    pub opened: Option<u64>,
    /// The starting roots that became canonical, in the order in which they did.
    pub canonical: Vec<Canonical>,
    /// Members whose attestation was found to differ from the canonical root, in the order of the discovery.
    pub divergent: Vec<PeerId>,
    /// Members dropped for [`MISSED_ROUNDS_MAX`] missed rounds, or for their silence in a deserted stage.
    pub dropped: Vec<PeerId>,
    /// Whether the run is finished after it.
    pub finished: bool,
}

impl Applied {
    /// Whether the block's time changed nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.opened.is_none() && self.canonical.is_empty()
    }
}

/// The fixed terms that the fold needs.
pub(crate) struct Terms<'a> {
    pub(crate) run: RunId,
    pub(crate) charter: &'a Charter,
}

/// One leaf of the ledger's tree.
#[derive(BorshSerialize)]
pub(crate) enum Leaf {
    Totals(Totals),
    Round(Option<RoundLeaf>),
    Account(Account),
}

impl Leaf {
    pub(crate) fn hash(&self) -> Hash {
        merkle::leaf(&borsh::to_vec(self).expect("writing to a vector cannot fail"))
    }
}

/// What the tree says of the open round.
#[derive(BorshSerialize)]
pub(crate) struct RoundLeaf {
    round: u64,
    beacon: Hash,
    opened_us: u64,
    deadline_us: u64,
    members: Hash,
    commitments: u64,
    state_roots: Vec<Option<Hash>>,
    coarser: Vec<u8>,
    transcript: Hash,
}

/// Everything that blocks change.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) head: Option<Signed<BlockHeader>>,
    pub(crate) accounts: Accounts,
    /// The stage to which each operator is bound, where the charter splits the weights; it follows from the accounts.
    pub(crate) operators: BTreeMap<PeerId, u16>,
    /// Accounts that take part from the next round on.
    pub(crate) joining: usize,
    pub(crate) round: Option<RoundOpen>,
    pub(crate) members_root: Hash,
    pub(crate) recent: VecDeque<Arc<CommittedSet>>,
    /// The payloads of the rounds in `recent`, sorted.
    pub(crate) payloads: Arc<[Hash]>,
    pub(crate) pace: Pace,
    pub(crate) totals: Totals,
    pub(crate) tree: Tree,
}

impl State {
    pub(crate) fn new(run: RunId) -> Self {
        let totals = Totals { run, supply: 0, tokens: 0, receipts: 0, rounds: 0, history: Hash::default() };
        let mut state = Self {
            head: None,
            accounts: Accounts::default(),
            operators: BTreeMap::new(),
            joining: 0,
            round: None,
            members_root: Hash::default(),
            recent: VecDeque::new(),
            payloads: Arc::default(),
            pace: Pace::default(),
            totals,
            tree: Tree::new(Vec::new()),
        };
        state.rebuild();
        state
    }

    /// Whether the final state of every stage is attested.
    pub(crate) fn is_finished(&self, charter: &Charter) -> bool {
        self.round.as_ref().is_some_and(|round| round.round == charter.rounds && round.run_root().is_some())
    }

    /// Accepts one transaction whose signatures were checked.
    pub(crate) fn admit(
        &mut self,
        terms: &Terms<'_>,
        transaction: &Signed<Transaction>,
        applied: &mut Applied,
    ) -> Result<(), Rejection> {
        self.check(terms, transaction)?;
        let signer = transaction.signer;
        match &transaction.body.action {
            Action::Join { sequence, stage, operator } => {
                let join = Join { sequence: *sequence, stage: *stage, operator: operator.as_ref() };
                self.join(terms, signer, &join);
            }
            Action::Leave { .. } => self.leave(signer),
            Action::Attest(attestation) => self.attest(signer, attestation.state_root, applied),
            Action::Commit(commitment) => self.commit(signer, commitment),
        }
        self.take_majorities(false, applied);
        Ok(())
    }

    fn commit(&mut self, signer: PeerId, commitment: &Commitment) {
        let round = self.round.as_mut().expect("checked: a round is open");
        let rank = round.rank(&signer).expect("checked: the signer is a member");
        let account = self.accounts.get_mut(&signer).expect("a member has an account");
        let entry = Entry {
            stage: round.stages[rank],
            peer: signer,
            payload: commitment.payload,
            payload_bytes: commitment.payload_bytes,
            tokens: commitment.tokens(),
            residual_root: commitment.residual_root,
        };
        round.commit(rank, entry, commitment, account.receipts_root);
        account.counter += commitment.receipts.len() as u64;
    }

    fn attest(&mut self, signer: PeerId, root: Hash, applied: &mut Applied) {
        let round = self.round.as_mut().expect("checked: a round is open");
        let rank = round.rank(&signer).expect("checked: the signer is a member");
        round.attest(rank, root);
        if round.state_root_of(round.stages[rank]).is_some_and(|canonical| canonical != root) {
            self.record_divergence(signer, applied);
        }
    }

    /// Makes roots canonical that a majority attests, and records who differs. `late` once the deadline has passed.
    pub(crate) fn take_majorities(&mut self, late: bool, applied: &mut Applied) {
        let Some(round) = &mut self.round else { return };
        let taken = round.take_majorities(late);
        if taken.is_empty() {
            return;
        }
        let number = round.round;
        let differs =
            |peer: &PeerId| round.stage_of(peer).is_some_and(|of| taken.iter().any(|(stage, _)| *stage == of));
        let divergent: Vec<PeerId> = round.divergent().map(|(peer, _)| peer).filter(differs).collect();
        let canonical = taken.into_iter().map(|(stage, root)| Canonical { round: number, stage, root });
        applied.canonical.extend(canonical);
        for peer in divergent {
            self.record_divergence(peer, applied);
        }
    }

    fn record_divergence(&mut self, peer: PeerId, applied: &mut Applied) {
        let account = self.accounts.get_mut(&peer).expect("a member has an account");
        account.divergences += 1;
        applied.divergent.push(peer);
    }

    /// Brings the tree up to date and gives its root.
    pub(crate) fn seal(&mut self) -> Hash {
        match self.accounts.settle_changes() {
            Changes::Places(places) if 4 * places.len() <= self.accounts.all().len() => {
                for place in places {
                    let leaf = Leaf::Account(self.accounts.all()[place]).hash();
                    self.tree.set(LEAVES_BEFORE_ACCOUNTS + place, leaf);
                }
                for (index, leaf) in self.first_leaves().into_iter().enumerate() {
                    self.tree.set(index, leaf);
                }
            }
            Changes::Shape | Changes::Places(_) => self.rebuild(),
        }
        self.tree.root()
    }

    fn rebuild(&mut self) {
        let accounts = self.accounts.all().iter().map(|account| Leaf::Account(*account).hash());
        self.tree = Tree::new(self.first_leaves().into_iter().chain(accounts).collect());
    }

    fn first_leaves(&self) -> [Hash; LEAVES_BEFORE_ACCOUNTS] {
        let round = self.round.as_ref().map(|round| RoundLeaf {
            round: round.round,
            beacon: round.beacon,
            opened_us: round.opened_us,
            deadline_us: round.deadline_us,
            members: self.members_root,
            commitments: round.commitments_len() as u64,
            state_roots: round.state_roots.clone(),
            coarser: round.coarser.to_vec(),
            transcript: round.transcript,
        });
        [Leaf::Totals(self.totals).hash(), Leaf::Round(round).hash()]
    }
}

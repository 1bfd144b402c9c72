//! The ledger of one run.
//!
//! Message sequence of a round: members attest the state that the round starts from (not needed in round 0, whose state
//! the charter names) → more than half agree: it is canonical → each member commits its payload with the receipts of
//! exactly its units → the round closes when every member that has units and stays has committed, or at the first block
//! from the deadline on when a quorum has → shares are minted, joins and leaves take effect, the next round opens in the
//! same block. After the last round the members attest the final state: then the run is finished.
//!
//! With several stages every member is in one of them. Each stage has its own states and majorities; a member attests,
//! and needs, only those of its stage. Any member may claim any unit of the round for its stage; in each stage the first
//! claim of a unit is paid. The round closes when every unit is claimed in every stage, or at the first block from the
//! deadline on when a quorum has committed and somebody of every stage.
//!
//! Source: training design sections 1 to 3, verification design section 2.
//!
//! Deviations: a member counts in the majority of its stage from the round after that in which it first attested or committed there,
//! because a peer that has just joined learns the state by the very root that the majority names, and may take long to get it; a member
//! that has announced its leave is not waited for.
//! Stages are small, so half of a stage's voters suffice once an eighth of the round's time has passed, where no other root has as
//! many; and who has joined or moved to a stage in which nobody committed until then takes part in the same round.
//!
//! Safety: every block is all or nothing; a transaction is accepted at most once; supply is the sum of shares; in each
//! stage a unit is paid at most once, and with one stage to the member it was assigned to. What was accepted is paid when
//! the round closes. Liveness: a round ends when its members commit, or leave. With one stage it does not end while more
//! than half of its voters have vanished without a leave: they have to come back. With several a stage whose members have
//! vanished waits for others to join it.

pub(crate) mod check;
pub(crate) mod membership;
pub(crate) mod pace;
pub(crate) mod round;
pub(crate) mod settle;
pub(crate) mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use wire::identity::Signable;
use wire::transaction::TRANSACTIONS_PER_BLOCK_MAX;
use wire::{
    Action, Block, BlockHeader, Charter, Hash, Identity, PeerId, Receipt, RunId, Signed, Transaction, Transactions,
    Verified, VerifiedBlock, Wire, encode,
};

use crate::accounts::{Account, Standing};
use crate::error::{BlockError, Rejection};
use crate::piece::{PIECE_VERSION, Piece};
use round::{CommittedSet, RoundOpen};
use settle::BlockPoint;
use state::{Applied, LEAVES_BEFORE_ACCOUNTS, State, TOTALS_LEAF, Terms, Totals};

/// Most bytes of transactions in a proposed block: below what a block may have, so that 64 KiB are left for the rest.
pub const BLOCK_BYTES_PROPOSED_MAX: usize = Block::BYTES_MAX - 64 * 1024;

/// The ledger of one run: a pure fold over its blocks. A clone is cheap and shares the state.
#[derive(Clone, Debug)]
pub struct Ledger {
    charter: Arc<Signed<Charter>>,
    run: RunId,
    state: Arc<State>,
}

impl Ledger {
    /// The ledger before the first block.
    ///
    /// # Panics
    /// When the charter is not well formed, which decoding ensures.
    pub fn new(charter: &Verified<Charter>) -> Self {
        let charter: &Signed<Charter> = charter;
        assert_eq!(charter.body.validate(), Ok(()), "a charter is validated when it is decoded");
        let run = charter.body.run_id();
        Self { charter: Arc::new(charter.clone()), run, state: Arc::new(State::new(run)) }
    }

    /// Whether a transaction would be accepted on top of the head.
    ///
    /// # Errors
    /// [`Rejection`] says why it would change nothing.
    pub fn check(&self, transaction: &Verified<Transaction>) -> Result<(), Rejection> {
        self.state.check(&self.terms(), transaction)
    }

    /// Makes and signs the next block from transactions, in their order; it leaves out those that are rejected and those
    /// for which there is no room. `None` when nothing would change, or when `identity` is no validator. A `time_us`
    /// before the head's time is raised to it.
    pub fn propose(
        &self,
        identity: &Identity,
        time_us: u64,
        transactions: Vec<Verified<Transaction>>,
    ) -> Option<Block> {
        if !self.is_validator(&identity.id()) {
            return None;
        }
        let time_us = time_us.max(self.time_us());
        let mut next = State::clone(&self.state);
        let mut applied = self.blank();
        let mut accepted = Vec::new();
        let mut bytes = 0;
        for transaction in transactions {
            let size = encode::<Signed<Transaction>>(&transaction).len();
            let room = accepted.len() < TRANSACTIONS_PER_BLOCK_MAX && bytes + size <= BLOCK_BYTES_PROPOSED_MAX;
            if room && next.admit(&self.terms(), &transaction, &mut applied).is_ok() {
                bytes += size;
                accepted.push(transaction.into_signed());
            }
        }
        let accepted = Transactions::from(accepted);
        let transactions_root = accepted.root();
        let parent = self.head_digest();
        next.settle(&self.terms(), BlockPoint { time_us, parent, transactions_root }, &mut applied);
        if accepted.is_empty() && applied.is_idle() {
            return None;
        }
        let (run, height, ledger_root) = (self.run, self.height(), next.seal());
        let header = BlockHeader { run, height, parent, time_us, transactions_root, ledger_root };
        Some(Block { header: identity.sign(header), transactions: accepted })
    }

    /// Applies the next block, after checking everything: run, height, parent, time, validator, signatures,
    /// transactions and root.
    ///
    /// # Errors
    /// [`BlockError`], and then the ledger is what it was.
    pub fn apply(&mut self, block: &Block) -> Result<Applied, BlockError> {
        self.check_header(block)?;
        block.check_signatures()?;
        self.fold(block)
    }

    /// Applies the next block as [`Ledger::apply`] does, without checking its signatures again.
    ///
    /// # Errors
    /// As [`Ledger::apply`].
    pub fn apply_verified(&mut self, block: &VerifiedBlock) -> Result<Applied, BlockError> {
        self.check_header(block)?;
        self.fold(block)
    }

    /// The run's terms.
    pub fn charter(&self) -> &Charter {
        &self.charter.body
    }

    /// The run's terms as their founder signed them.
    pub fn signed_charter(&self) -> &Signed<Charter> {
        &self.charter
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Blocks applied: the height of the next.
    pub fn height(&self) -> u64 {
        self.state.head.as_ref().map_or(0, |head| head.body.height + 1)
    }

    /// The header of the last block.
    pub fn head(&self) -> Option<&Signed<BlockHeader>> {
        self.state.head.as_ref()
    }

    /// What the next block must name as its parent: the digest of the last header, or the run's id before the first.
    pub fn head_digest(&self) -> Hash {
        self.state.head.as_ref().map_or(self.run.0, |head| head.body.digest())
    }

    /// Time of the last block in microseconds, 0 before the first.
    pub fn time_us(&self) -> u64 {
        self.state.head.as_ref().map_or(0, |head| head.body.time_us)
    }

    /// The root of the state: a Merkle root over totals, round and accounts.
    pub fn root(&self) -> Hash {
        self.state.tree.root()
    }

    /// The open round; `None` before the first.
    pub fn round(&self) -> Option<&RoundOpen> {
        self.state.round.as_ref()
    }

    /// The time in microseconds from which a block without transactions closes the open round: its deadline once a
    /// quorum has committed, `None` before that. With several stages also when such a block would let others into a deserted stage, and
    /// [some time](RoundOpen::late_us) before the deadline when it would make a root canonical.
    pub fn closes_at_us(&self) -> Option<u64> {
        let round = self.round()?;
        if round.has_late_majority() {
            return Some(round.late_us());
        }
        self.state.is_due_at_deadline(&self.terms()).then_some(round.deadline_us)
    }

    /// The root of the state that a stage starts a round from, when it is canonical and the round is open or among the
    /// last [`ROUNDS_KEPT`](crate::ROUNDS_KEPT) closed.
    pub fn state_root(&self, stage: u16, round: u64) -> Option<Hash> {
        match self.round() {
            Some(open) if open.round == round => open.state_root_of(stage),
            _ => self.committed(round)?.state_in.get(usize::from(stage)).copied(),
        }
    }

    /// The newest canonical root of a stage and the round that starts from it.
    pub fn newest_state(&self, stage: u16) -> Option<(u64, Hash)> {
        let open = self.round()?;
        let closed = self.state.recent.back().map(|set| set.round);
        let rounds = std::iter::once(open.round).chain(closed);
        rounds.into_iter().find_map(|round| self.state_root(stage, round).map(|root| (round, root)))
    }

    /// Whether a payload is in the committed set of one of the last [`ROUNDS_KEPT`](crate::ROUNDS_KEPT) closed rounds.
    pub fn lists_payload(&self, payload: &Hash) -> bool {
        self.state.payloads.binary_search(payload).is_ok()
    }

    /// The committed set of a closed round, of the last [`ROUNDS_KEPT`](crate::ROUNDS_KEPT).
    pub fn committed(&self, round: u64) -> Option<&Arc<CommittedSet>> {
        let first = self.state.recent.front()?.round;
        self.state.recent.get(usize::try_from(round.checked_sub(first)?).ok()?)
    }

    /// The committed sets that are kept, oldest first.
    pub fn recent(&self) -> impl DoubleEndedIterator<Item = &Arc<CommittedSet>> {
        self.state.recent.iter()
    }

    /// A peer's account.
    pub fn account(&self, peer: &PeerId) -> Option<&Account> {
        self.state.accounts.get(peer)
    }

    /// All accounts, ordered by peer.
    pub fn accounts(&self) -> &[Account] {
        self.state.accounts.all()
    }

    /// The number that a peer's next join or leave must carry.
    pub fn next_sequence(&self, peer: &PeerId) -> u64 {
        self.account(peer).map_or(0, |account| account.sequence)
    }

    /// The counter that a peer's next receipt must carry.
    pub fn next_counter(&self, peer: &PeerId) -> u64 {
        self.account(peer).map_or(0, |account| account.counter)
    }

    /// What the run amounts to so far.
    pub fn totals(&self) -> &Totals {
        &self.state.totals
    }

    /// Shares minted so far, in micro-shares.
    pub fn supply(&self) -> u64 {
        self.state.totals.supply
    }

    /// Whether all rounds are closed and the final state of every stage is attested.
    pub fn finished(&self) -> bool {
        self.state.is_finished(self.charter())
    }

    /// Whether the weights may leave their stages now: a pure function of the charter and the closed rounds.
    pub fn weights_are_open(&self) -> bool {
        self.charter().release.is_open(self.totals().rounds)
    }

    /// Whether an operator may have a member in a stage: where the charter splits the weights, only in the one in which it ever had one.
    ///
    /// # Errors
    /// [`Rejection::OperatorElsewhere`].
    pub fn check_operator(&self, operator: PeerId, stage: u16) -> Result<(), Rejection> {
        self.state.check_stage_of(&self.terms(), operator, stage)
    }

    /// The stage that a member should join from the next round on, if it should and has not yet: one in which the others wait for its members,
    /// or which has one member only. Nobody is forced to, and nobody else waits for it. Validators stay where they are, as does everybody
    /// where the charter splits the weights.
    pub fn advised_stage(&self, peer: &PeerId) -> Option<u16> {
        let round = self.round()?;
        let stage = round.advised_stage(peer)?;
        let account = self.account(peer)?;
        (account.standing == Standing::Member && round.stage_of(peer) == Some(account.stage)).then_some(stage)
    }

    /// Whether a key may sign blocks.
    pub fn is_validator(&self, peer: &PeerId) -> bool {
        self.charter().validators.binary_search(peer).is_ok()
    }

    /// The receipts of `peer` that are paid, from all blocks of the run: what its piece must hold. Of the closed rounds
    /// those are the receipts whose unit nobody of the stage claimed before.
    pub fn paid_receipts<'a>(
        &self,
        peer: &PeerId,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Vec<Signed<Receipt>> {
        let open = self.round().map_or(0, |round| round.round);
        let transactions = blocks.into_iter().flat_map(|block| &block.transactions);
        let receipts = transactions.filter_map(|transaction| match &transaction.body.action {
            Action::Commit(commitment) => Some(&commitment.receipts),
            Action::Join { .. } | Action::Leave { .. } | Action::Attest(_) => None,
        });
        let (mut round, mut claimed, mut paid) = (0, BTreeSet::new(), Vec::new());
        for receipt in receipts.flatten().take_while(|receipt| receipt.body.round < open) {
            if receipt.body.round != round {
                round = receipt.body.round;
                claimed.clear();
            }
            if claimed.insert((receipt.body.stage, receipt.body.index)) && receipt.signer == *peer {
                paid.push(receipt.clone());
            }
        }
        paid
    }

    /// The piece of `peer` as of the head, with its paid receipts (see [`Ledger::paid_receipts`]; the ledger keeps
    /// none). `None` before the first block, and when the peer has no account.
    pub fn piece(&self, peer: &PeerId, receipts: Vec<Signed<Receipt>>) -> Option<Piece> {
        let place = self.state.accounts.place(peer)?;
        Some(Piece {
            version: PIECE_VERSION,
            charter: Signed::clone(&self.charter),
            header: self.head()?.clone(),
            totals: self.state.totals,
            totals_proof: self.state.tree.proof(TOTALS_LEAF)?,
            account: self.state.accounts.all()[place],
            account_proof: self.state.tree.proof(LEAVES_BEFORE_ACCOUNTS + place)?,
            receipts,
        })
    }

    fn terms(&self) -> Terms<'_> {
        Terms { run: self.run, charter: &self.charter.body }
    }

    fn blank(&self) -> Applied {
        let (canonical, divergent, dropped) = (Vec::new(), Vec::new(), Vec::new());
        let height = self.height();
        Applied { height, closed: None, opened: None, canonical, divergent, dropped, finished: false }
    }

    /// Checks everything that is cheap: where the block says it belongs.
    fn check_header(&self, block: &Block) -> Result<(), BlockError> {
        let (signer, header) = (block.header.signer, &block.header.body);
        if header.run != self.run {
            return Err(BlockError::WrongRun { expected: self.run, got: header.run });
        }
        if header.height != self.height() {
            return Err(BlockError::WrongHeight { expected: self.height(), got: header.height });
        }
        let parent = self.head_digest();
        if header.parent != parent {
            return Err(BlockError::WrongParent { height: header.height, expected: parent, got: header.parent });
        }
        if header.time_us < self.time_us() {
            return Err(BlockError::TimeBackwards { parent: self.time_us(), got: header.time_us });
        }
        if !self.is_validator(&signer) {
            return Err(BlockError::ForeignValidator { signer });
        }
        block.validate().map_err(|field| BlockError::Malformed { field })?;
        if header.transactions_root != block.transactions.root() {
            return Err(BlockError::WrongTransactions);
        }
        Ok(())
    }

    /// Applies a block whose header and signatures were checked.
    fn fold(&mut self, block: &Block) -> Result<Applied, BlockError> {
        let header = &block.header.body;
        let mut next = State::clone(&self.state);
        let mut applied = self.blank();
        for (index, transaction) in block.transactions.iter().enumerate() {
            let signer = transaction.signer;
            next.admit(&self.terms(), transaction, &mut applied).map_err(|rejection| BlockError::Rejected {
                index,
                signer,
                rejection,
            })?;
        }
        let (time_us, parent, transactions_root) = (header.time_us, header.parent, header.transactions_root);
        next.settle(&self.terms(), BlockPoint { time_us, parent, transactions_root }, &mut applied);
        if block.transactions.is_empty() && applied.is_idle() {
            return Err(BlockError::Idle);
        }
        let got = next.seal();
        if got != header.ledger_root {
            return Err(BlockError::WrongRoot { expected: header.ledger_root, got });
        }
        next.head = Some(block.header.clone());
        self.state = Arc::new(next);
        Ok(applied)
    }
}

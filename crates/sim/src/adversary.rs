//! Peers that do not follow the protocol. Each runs an honest peer inside and changes what it says: a file per lie.

mod copycat;
mod divergent;
mod forger;
mod garbage;
mod stale;

use ledger::Ledger;
use wire::{Action, Commitment, Identity, Message, Receipt, RunId, Signed, Transaction};

use crate::events::Parcel;
use crate::random::Random;

/// A kind of misbehaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adversary {
    /// Commits another peer's payload as its own.
    Copycat,
    /// Claims to have worked from an older state.
    Stale,
    /// Sends bad signatures, and receipts for others' units.
    Forger,
    /// States wrong roots.
    Divergent,
    /// Sends bytes that are no messages.
    Garbage,
}

impl Adversary {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Copycat, Self::Stale, Self::Forger, Self::Divergent, Self::Garbage];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copycat => "copycat",
            Self::Stale => "stale",
            Self::Forger => "forger",
            Self::Divergent => "divergent",
            Self::Garbage => "garbage",
        }
    }

    /// The kind with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|adversary| adversary.name() == name)
    }

    /// What this adversary sends where an honest peer would send `message`; nothing to keep silent.
    pub(crate) fn twist(self, liar: &Liar<'_>, message: Message, draw: &mut Random) -> Option<Parcel> {
        let message = match (self, message) {
            (Self::Garbage, message) => return Some(garbage::twist(&message, draw)),
            (Self::Copycat, Message::Submit(transaction)) => copycat::twist(liar, transaction)?,
            (Self::Stale, Message::Submit(transaction)) => stale::twist(liar, transaction),
            (Self::Forger, Message::Submit(transaction)) => forger::twist(liar, transaction, draw),
            (Self::Divergent, Message::Submit(transaction)) => divergent::twist(liar, transaction),
            (_, message) => return Some(Parcel::Message(Box::new(message))),
        };
        Some(Parcel::Message(Box::new(Message::Submit(message))))
    }
}

/// What a liar has to lie with.
pub(crate) struct Liar<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) ledger: &'a Ledger,
}

impl Liar<'_> {
    fn run(&self) -> RunId {
        self.ledger.run()
    }

    /// Signs an action as its own.
    fn sign(&self, action: Action) -> Signed<Transaction> {
        self.identity.sign(Transaction { run: self.run(), action })
    }

    /// Signs a commitment again after changing its receipts.
    fn change_receipts(&self, mut commitment: Commitment, change: impl Fn(&mut Receipt)) -> Signed<Transaction> {
        for receipt in &mut commitment.receipts {
            let mut body = receipt.body.clone();
            change(&mut body);
            *receipt = self.identity.sign(body);
        }
        self.sign(Action::Commit(commitment))
    }
}

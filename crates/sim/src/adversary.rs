//! Peers that do not follow the protocol. Each runs an honest peer inside and changes what it says: a file per lie.

mod boaster;
mod copycat;
mod divergent;
mod falsifier;
mod flooder;
mod forger;
mod garbage;
mod misshaper;
mod replayer;
mod silent;
mod stale;

use ledger::Ledger;
use swarm::pipeline::StageResult;
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
    /// In a run of several stages: gives other outputs and gradients than it should, of the right shape.
    Falsifier,
    /// In a run of several stages: gives outputs and gradients of no shape that a stage could use.
    Misshaper,
    /// In a run of several stages: takes calls and never answers.
    Silent,
    /// In a run of several stages: repeats calls and replies of earlier rounds.
    Replayer,
    /// In a run of several stages: sends everything many times.
    Flooder,
    /// In a run of several stages: says that it has counted all units before it has.
    Boaster,
}

impl Adversary {
    /// Those that lie in what is signed or framed.
    pub const SIGNERS: [Self; 5] = [Self::Copycat, Self::Stale, Self::Forger, Self::Divergent, Self::Garbage];

    /// Those that lie to their neighbours in a run of several stages.
    pub const NEIGHBOURS: [Self; 6] =
        [Self::Falsifier, Self::Misshaper, Self::Silent, Self::Replayer, Self::Flooder, Self::Boaster];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copycat => "copycat",
            Self::Stale => "stale",
            Self::Forger => "forger",
            Self::Divergent => "divergent",
            Self::Garbage => "garbage",
            Self::Falsifier => "falsifier",
            Self::Misshaper => "misshaper",
            Self::Silent => "silent",
            Self::Replayer => "replayer",
            Self::Flooder => "flooder",
            Self::Boaster => "boaster",
        }
    }

    /// The kind with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::SIGNERS.into_iter().chain(Self::NEIGHBOURS).find(|adversary| adversary.name() == name)
    }

    /// What this adversary gives where its stage's trainer computed `result`.
    pub(crate) fn falsify(self, result: StageResult) -> StageResult {
        if self == Self::Falsifier { falsifier::falsify(result) } else { result }
    }

    /// What this adversary sends where an honest peer would send `message`; `memory` is what it keeps to say later.
    pub(crate) fn twist(
        self,
        liar: &Liar<'_>,
        message: Message,
        memory: &mut Vec<Message>,
        draw: &mut Random,
    ) -> Vec<Parcel> {
        let parcel = |message| Parcel::Message(Box::new(message));
        let submit = |transaction| vec![parcel(Message::Submit(transaction))];
        match (self, message) {
            (Self::Garbage, message) => vec![garbage::twist(&message, draw)],
            (Self::Copycat, Message::Submit(transaction)) => {
                copycat::twist(liar, transaction).map_or_else(Vec::new, submit)
            }
            (Self::Stale, Message::Submit(transaction)) => submit(stale::twist(liar, transaction)),
            (Self::Forger, Message::Submit(transaction)) => submit(forger::twist(liar, transaction, draw)),
            (Self::Divergent, Message::Submit(transaction)) => submit(divergent::twist(liar, transaction)),
            (Self::Misshaper, message) => vec![parcel(misshaper::twist(message, draw))],
            (Self::Silent, message) => silent::twist(message).map(parcel).into_iter().collect(),
            (Self::Replayer, message) => replayer::twist(message, memory).into_iter().map(parcel).collect(),
            (Self::Flooder, message) => flooder::twist(message).into_iter().map(parcel).collect(),
            (Self::Boaster, message) => boaster::twist(liar, message).into_iter().map(parcel).collect(),
            (_, message) => vec![parcel(message)],
        }
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

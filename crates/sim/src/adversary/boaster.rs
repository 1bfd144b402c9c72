//! Says from the first call of a round on that it has counted every unit of it, so that the others stop counting.
//!
//! Caught by nothing, and stops nobody: of a member of stage 0 it is believed for the units that are its own, of another for none that the
//! first stage has not got back. What it costs are units that passed it, which it may keep to itself in any case.

use wire::{Message, StageSealed};

use super::Liar;

pub(super) fn twist(liar: &Liar<'_>, message: Message) -> Vec<Message> {
    match (&message, liar.ledger.round()) {
        (Message::StageCall(_) | Message::StageReply(_), Some(open)) if open.units > 0 => {
            let boast = StageSealed { round: open.round, units: (0..open.units).collect() };
            vec![Message::StageSealed(boast), message]
        }
        // The true word would come too late anyway.
        (Message::StageSealed(_), _) => Vec::new(),
        _ => vec![message],
    }
}

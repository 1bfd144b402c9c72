//! Gives outputs and gradients that no stage could use: cut short, too long, or without numbers.
//!
//! Caught by: the trainer looks at every shape before it computes; the unit is done by another replica.

use wire::Message;

use crate::random::Random;
use crate::trainer::stage::NO_NUMBERS;

pub(super) fn twist(mut message: Message, draw: &mut Random) -> Message {
    match &mut message {
        Message::StageCall(call) => damage(&mut call.input, draw),
        Message::StageReply(reply) => damage(&mut reply.gradient, draw),
        _ => {}
    }
    message
}

fn damage(bytes: &mut Vec<u8>, draw: &mut Random) {
    // A call without bytes is a question, and a reply must have some.
    if bytes.len() < 2 {
        return;
    }
    match draw.below(3) {
        0 => bytes.truncate(1 + draw.index(bytes.len() - 1)),
        1 => bytes.resize(bytes.len() * 2, 1),
        _ => bytes[0] = NO_NUMBERS,
    }
}

//! Says what it said in earlier rounds once more, beside what it should say.
//!
//! Caught by: a call of another round is refused and a reply of an earlier one ignored. Nothing is counted for it.

use wire::Message;

/// Messages that it remembers.
const MEMORY_MAX: usize = 64;

pub(super) fn twist(message: Message, memory: &mut Vec<Message>) -> Vec<Message> {
    let Some(round) = round_of(&message) else { return vec![message] };
    let old = memory.iter().find(|other| round_of(other).is_some_and(|other| other < round)).cloned();
    if memory.len() == MEMORY_MAX {
        memory.remove(0);
    }
    memory.push(message.clone());
    old.into_iter().chain([message]).collect()
}

fn round_of(message: &Message) -> Option<u64> {
    match message {
        Message::StageCall(call) => Some(call.round),
        Message::StageReply(reply) => Some(reply.round),
        _ => None,
    }
}

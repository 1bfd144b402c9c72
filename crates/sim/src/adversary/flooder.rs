//! Sends every call and every reply many times.
//!
//! Caught by: calls of one peer for one unit are counted, and it is no longer answered.

use wire::Message;

/// How often it sends each.
const TIMES: usize = 40;

pub(super) fn twist(message: Message) -> Vec<Message> {
    match message {
        Message::StageCall(_) | Message::StageReply(_) => vec![message; TIMES],
        other => vec![other],
    }
}

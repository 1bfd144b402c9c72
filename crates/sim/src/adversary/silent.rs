//! Takes calls and never answers them, neither by a reply nor by a refusal. It keeps its connections, attests and is paid for what it
//! adds up.
//!
//! Caught by: a call has a deadline, after which another replica is called and this one is called less.

use wire::Message;

pub(super) fn twist(message: Message) -> Option<Message> {
    (!matches!(message, Message::StageReply(_) | Message::StageRefusal(_))).then_some(message)
}

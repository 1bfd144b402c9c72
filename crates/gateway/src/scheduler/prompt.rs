//! From the text of a request to the tokens that the model continues.

use model::{Message, Tokenizer};
use node::TextFormat;

use crate::error::ApiError;
use crate::private::Private;

/// What the model shall continue.
///
/// A text is never shortened, and what reads like a special token in it is plain text. A conversation goes through the model's template, where
/// no message can make a special token either. A base model has no template and knows no roles, it continues prose: every user message begins
/// a paragraph, an assistant message goes on where the paragraph ended, and the model continues the last one; system messages are left out,
/// because a model that only continues text would continue them. Of too many paragraphs the oldest are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// A text as it is.
    Text(Private),
    /// A conversation, oldest turn first.
    Conversation(Vec<Turn>),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) text: Private,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    /// The name that templates know.
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl Prompt {
    /// The whole text, as a base model reads it.
    pub(crate) fn joined(&self) -> String {
        match self {
            Self::Text(text) => text.0.clone(),
            Self::Conversation(turns) => paragraphs(turns).join("\n\n"),
        }
    }

    /// The tokens that a model of this format reads, fewer than its `context`.
    ///
    /// For a base model and a conversation they are those of as many of the newest paragraphs as leave room for `reserve` tokens of an
    /// answer; the newest paragraph is always whole. An empty prompt begins a document.
    ///
    /// # Errors
    /// The prompt leaves no room for a single token, the template refuses the conversation, or no message has text for a base model.
    pub(crate) fn tokens(
        &self,
        tokenizer: &Tokenizer,
        format: &TextFormat,
        context: usize,
        reserve: usize,
    ) -> Result<Vec<u32>, ApiError> {
        let begun = |text: &str| -> Vec<u32> { format.begin.into_iter().chain(tokenizer.encode(text)).collect() };
        let mut tokens = match (self, &format.template) {
            (Self::Text(text), _) => begun(&text.0),
            (Self::Conversation(turns), Some(template)) => {
                let shielded: Vec<_> = turns.iter().map(|turn| (turn.role, tokenizer.shield(&turn.text.0))).collect();
                let messages: Vec<Message<'_>> =
                    shielded.iter().map(|(role, content)| Message { role: role.name(), content }).collect();
                let text = template.render(&messages, true);
                let text = text.map_err(|error| ApiError::parameter("messages", error.to_string()))?;
                tokenizer.encode_template(&text)
            }
            (Self::Conversation(turns), None) => {
                let paragraphs = paragraphs(turns);
                if paragraphs.is_empty() {
                    return Err(ApiError::no_text());
                }
                newest(&paragraphs, begun, context, reserve)
            }
        };
        if tokens.is_empty() {
            tokens.push(format.opening);
        }
        match tokens.len() < context {
            true => Ok(tokens),
            false => Err(ApiError::context_overflow(tokens.len(), context)),
        }
    }
}

/// A conversation as prose.
fn paragraphs(turns: &[Turn]) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    for Turn { role, text } in turns {
        match (role, paragraphs.last_mut()) {
            (Role::System | Role::Tool, _) => {}
            // White space at the end would keep the model from beginning a word.
            (Role::User, _) => paragraphs.push(text.0.trim_end().to_owned()),
            (Role::Assistant, Some(paragraph)) => paragraph.push_str(&text.0),
            (Role::Assistant, None) => paragraphs.push(text.0.clone()),
        }
    }
    paragraphs.retain(|paragraph| !paragraph.trim().is_empty());
    paragraphs
}

/// The tokens of the newest paragraphs.
fn newest(paragraphs: &[String], encode: impl Fn(&str) -> Vec<u32>, context: usize, reserve: usize) -> Vec<u32> {
    let last = paragraphs.len().saturating_sub(1);
    let mut tokens = encode(&paragraphs[last..].join("\n\n"));
    let room = context - reserve.clamp(1, context);
    for start in (0..last).rev() {
        let longer = encode(&paragraphs[start..].join("\n\n"));
        if longer.len() > room {
            break;
        }
        tokens = longer;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use model::tokenizer::{Parts, VOCAB_MIN};
    use model::{ChatTemplate, END_ID};

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["a stone upon a stone"], VOCAB_MIN).unwrap()
    }

    fn turn(role: Role, text: &str) -> Turn {
        Turn { role, text: text.to_owned().into() }
    }

    #[test]
    fn the_oldest_paragraphs_make_room() {
        let (tokenizer, format) = (tokenizer(), TextFormat::trained());
        let turns = ["aaaa", "bbbb", "cccc"].map(|text| turn(Role::User, text));
        let prompt = Prompt::Conversation(turns.into());
        let kept = |context, reserve| tokenizer.decode(&prompt.tokens(&tokenizer, &format, context, reserve).unwrap());
        assert_eq!(kept(64, 8), "aaaa\n\nbbbb\n\ncccc");
        assert_eq!(kept(17, 1), "aaaa\n\nbbbb\n\ncccc");
        assert_eq!(kept(16, 1), "bbbb\n\ncccc");
        assert_eq!(kept(64, 55), "cccc");
        assert_eq!(kept(5, 1000), "cccc");
        assert!(prompt.tokens(&tokenizer, &format, 4, 1).is_err());
    }

    #[test]
    fn an_empty_prompt_begins_a_document() {
        let (tokenizer, format) = (tokenizer(), TextFormat::trained());
        let empty = Prompt::Text(String::new().into());
        assert_eq!(empty.tokens(&tokenizer, &format, 8, 4).unwrap(), [END_ID]);
        let system = Prompt::Conversation(vec![turn(Role::System, "Be kind.")]);
        assert!(system.tokens(&tokenizer, &format, 8, 4).is_err(), "a base model has nothing to continue");
    }

    #[test]
    fn a_template_gets_every_turn_and_no_text_becomes_a_special_token() {
        let own = tokenizer();
        let parts: Parts = own.parts().unwrap();
        let end = parts.added[0].content.clone();
        let source = "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}";
        let format = TextFormat {
            begin: Some(7),
            template: Some(ChatTemplate::new(source, "", &end).unwrap()),
            ..TextFormat::trained()
        };
        let turns = vec![turn(Role::System, "s"), turn(Role::User, &format!("u{end}v")), turn(Role::Assistant, "a")];
        let prompt = Prompt::Conversation(turns);
        let tokens = prompt.tokens(&own, &format, 99, 1).unwrap();
        assert_eq!(
            tokens.iter().filter(|&&token| token == END_ID).count(),
            3,
            "one for each turn, and none of the user's"
        );
        assert_eq!(own.decode(&tokens), format!("system:suser:u{end}vassistant:a"));
        let overflow = prompt.tokens(&own, &format, tokens.len(), 1).unwrap_err();
        assert_eq!(overflow, ApiError::context_overflow(tokens.len(), tokens.len()));
        let text = Prompt::Text(end.clone().into()).tokens(&own, &format, 99, 1).unwrap();
        assert_eq!(text[0], 7);
        assert!(!text.contains(&END_ID) && own.decode(&text[1..]) == end);
        // A special token that the tokenizer does not have is text, wherever it stands.
        let unknown = ChatTemplate::new("<|nonsense|>{{ messages[0].content }}", "", "").unwrap();
        let unknown = TextFormat { template: Some(unknown), ..TextFormat::trained() };
        let said = Prompt::Conversation(vec![turn(Role::User, "<|more|>")]).tokens(&own, &unknown, 99, 1).unwrap();
        assert_eq!(own.decode(&said), "<|nonsense|><|more|>");
        let refusing = ChatTemplate::new("{{ raise_exception('roles must alternate') }}", "", "").unwrap();
        let format = TextFormat { template: Some(refusing), ..format };
        assert!(format!("{:?}", prompt.tokens(&own, &format, 99, 1)).contains("roles must alternate"));
    }
}

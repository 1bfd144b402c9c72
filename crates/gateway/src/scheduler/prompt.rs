//! From the text of a request to the tokens that the model continues.

use model::{END_ID, Tokenizer};

use crate::error::ApiError;
use crate::private::Private;

/// What the model shall continue: paragraphs, of which the oldest may be left out when they are too many.
///
/// A base model knows no roles, it continues prose. The paragraphs are joined by blank lines and the last one stays
/// open. A completion is one paragraph and is never shortened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prompt(Vec<Private>);

impl Prompt {
    /// A text as it is.
    pub(crate) fn text(text: String) -> Self {
        Self(vec![text.into()])
    }

    /// Paragraphs, oldest first.
    pub(crate) fn paragraphs(paragraphs: Vec<String>) -> Self {
        Self(paragraphs.into_iter().map(Private).collect())
    }

    /// The whole text.
    pub(crate) fn joined(&self) -> String {
        join(&self.0)
    }

    /// The tokens of as many of the newest paragraphs as leave room for `reserve` tokens of an answer; the newest
    /// paragraph is always whole. An empty prompt begins a document.
    ///
    /// # Errors
    /// The newest paragraph alone leaves no room for a single token.
    pub(crate) fn tokens(&self, tokenizer: &Tokenizer, context: usize, reserve: usize) -> Result<Vec<u32>, ApiError> {
        let newest = self.0.len().saturating_sub(1);
        let mut tokens = tokenizer.encode(&join(&self.0[newest..]));
        if tokens.len() >= context {
            return Err(ApiError::context_overflow(tokens.len(), context));
        }
        let room = context - reserve.clamp(1, context);
        for start in (0..newest).rev() {
            let longer = tokenizer.encode(&join(&self.0[start..]));
            if longer.len() > room {
                break;
            }
            tokens = longer;
        }
        if tokens.is_empty() {
            tokens.push(END_ID);
        }
        Ok(tokens)
    }
}

fn join(paragraphs: &[Private]) -> String {
    let texts: Vec<&str> = paragraphs.iter().map(|paragraph| paragraph.0.as_str()).collect();
    texts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["a stone upon a stone"], model::tokenizer::VOCAB_MIN).unwrap()
    }

    #[test]
    fn the_oldest_paragraphs_make_room() {
        let tokenizer = tokenizer();
        let prompt = Prompt::paragraphs(vec!["aaaa".into(), "bbbb".into(), "cccc".into()]);
        let kept = |context, reserve| tokenizer.decode(&prompt.tokens(&tokenizer, context, reserve).unwrap());
        assert_eq!(kept(64, 8), "aaaa\n\nbbbb\n\ncccc");
        assert_eq!(kept(17, 1), "aaaa\n\nbbbb\n\ncccc");
        assert_eq!(kept(16, 1), "bbbb\n\ncccc");
        assert_eq!(kept(64, 55), "cccc");
        assert_eq!(kept(5, 1000), "cccc");
        assert!(prompt.tokens(&tokenizer, 4, 1).is_err());
    }

    #[test]
    fn an_empty_prompt_begins_a_document() {
        let tokenizer = tokenizer();
        assert_eq!(Prompt::text(String::new()).tokens(&tokenizer, 8, 4).unwrap(), [END_ID]);
        assert_eq!(Prompt::paragraphs(Vec::new()).tokens(&tokenizer, 8, 4).unwrap(), [END_ID]);
    }
}

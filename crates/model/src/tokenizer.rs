//! Byte-level BPE: text to token ids and back.
//!
//! Source: the byte-level scheme of GPT-2 as implemented by the Hugging Face `tokenizers` crate; a tokenizer is the
//! `tokenizer.json` of that crate, so other tools read it. Those that this program trains have one special token, [`END`];
//! those of pretrained models ([`Tokenizer::from_parts`]) have others, and may split text by another expression.
//!
//! Deviations: text is encoded word by word, cut before white space, where the scheme's splitting expression always ends
//! a match, and each word once: the result is the same, in a fraction of the time and memory; and text never becomes a special token, so a
//! prompt that contains `<|end|>` cannot end a document. Only [`Tokenizer::encode_template`] makes special tokens. The file is
//! read by our own description of it, because the library's reader panics on some damaged files.

mod file;
mod parts;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerImpl};

pub use self::parts::{AddedText, Parts, Splitting};

/// The special token that separates documents and opens a prompt; its id is 0.
pub const END: &str = "<|end|>";

/// The id of [`END`].
pub const END_ID: u32 = 0;

/// Most bytes of a `tokenizer.json` that is accepted.
pub const TOKENIZER_BYTES_MAX: usize = 64 << 20;

/// The smallest vocabulary: one token for each byte, and [`END`].
pub const VOCAB_MIN: usize = 257;

/// Least bytes that the library is trained on at a time; a piece ends at the next white space.
const PIECE_BYTES: usize = 1 << 15;

/// Longest word whose tokens are kept while a text is encoded, in bytes.
const KNOWN_BYTES: usize = 64;

/// Most words whose tokens are kept while a text is encoded.
const KNOWN_WORDS: usize = 1 << 17;

/// Hides a special token's text inside of other text from [`Tokenizer::encode_template`]; for private use in Unicode.
const SHIELD: char = '\u{f8fe}';

type Inner = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, ByteLevel, ByteLevel>;

/// A byte-level BPE tokenizer with its `tokenizer.json`.
pub struct Tokenizer {
    inner: Inner,
    json: Vec<u8>,
    /// The bytes of each token; empty for a special token.
    pieces: Vec<Vec<u8>>,
    /// Texts that become one token in templates, longest first.
    added: Vec<AddedText>,
    /// Whether the encoding of a text is that of its words, joined.
    by_words: bool,
}

/// Why a tokenizer could not be trained or read.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The vocabulary has no room for every byte.
    #[error("tokenizer: a vocabulary of {vocab} is too small; at least {VOCAB_MIN} are needed")]
    VocabTooSmall {
        /// The size that was asked for.
        vocab: usize,
    },
    /// The text does not give as many tokens as were asked for.
    #[error("tokenizer: the text gives only {got} tokens of the {vocab} asked for")]
    TextTooSmall {
        /// The size that was asked for.
        vocab: usize,
        /// The size that the text gives.
        got: usize,
    },
    /// The file is larger than any tokenizer.
    #[error("tokenizer: {bytes} bytes, and at most {TOKENIZER_BYTES_MAX} are read")]
    TooLarge {
        /// The size of the file.
        bytes: usize,
    },
    /// The bytes are no `tokenizer.json`.
    #[error("tokenizer: not a `tokenizer.json`: {reason}")]
    Corrupt {
        /// What the reader said.
        reason: String,
    },
    /// The file is a tokenizer, but of a kind that this crate does not use.
    #[error("tokenizer: `{field}` is not that of a byte-level BPE with `{END}` as token {END_ID}")]
    Foreign {
        /// The part of the file that differs.
        field: &'static str,
    },
    /// A pretrained model's tokenizer is of a kind that this crate does not know.
    #[error("tokenizer: `{field}` is {found}, and must be {expected}")]
    Unsupported {
        /// The part of the tokenizer.
        field: &'static str,
        /// What it is.
        found: String,
        /// What is supported.
        expected: &'static str,
    },
}

impl Tokenizer {
    /// Trains a tokenizer with exactly `vocab` tokens; the same texts give the same bytes.
    ///
    /// # Errors
    /// The vocabulary is below [`VOCAB_MIN`] or above what the texts give.
    pub fn train<'a>(texts: impl IntoIterator<Item = &'a str>, vocab: usize) -> Result<Self, TokenizerError> {
        if vocab < VOCAB_MIN {
            return Err(TokenizerError::VocabTooSmall { vocab });
        }
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocab)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END, true)])
            .build();
        let mut tokenizer = parts::assemble(BPE::default(), Splitting::Plain, false);
        let pieces: Vec<&str> = texts.into_iter().flat_map(pieces).collect();
        tokenizer.train(&mut trainer, pieces.into_iter()).map_err(|e| corrupt(&e))?;
        let got = tokenizer.get_vocab_size(true);
        if got != vocab {
            return Err(TokenizerError::TextTooSmall { vocab, got });
        }
        let json = tokenizer.to_string(false).map_err(|e| corrupt(&e))?;
        Self::from_bytes(json.as_bytes())
    }

    /// Reads a `tokenizer.json` of this program.
    ///
    /// # Errors
    /// The bytes are too many, no tokenizer, or a tokenizer of another kind than byte-level BPE with [`END`] first.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let file = file::read(bytes)?;
        file.check_own()?;
        let parts = file.parts()?;
        let pieces = parts.pieces()?;
        if !parts::every_byte(&pieces) || pieces.iter().filter(|piece| piece.is_empty()).count() != 1 {
            return Err(TokenizerError::Foreign { field: "model.vocab" });
        }
        Self::build(parts, pieces, bytes.to_vec())
    }

    /// Reads the `tokenizer.json` of a pretrained model.
    ///
    /// # Errors
    /// The bytes are too many, no tokenizer, or a tokenizer of another kind than byte-level BPE with a known [`Splitting`].
    pub fn from_hugging_face(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let parts = file::read(bytes)?.parts()?;
        let pieces = parts.pieces()?;
        Self::build(parts, pieces, bytes.to_vec())
    }

    /// Makes the tokenizer of a pretrained model from what another kind of file says; its `tokenizer.json` is written anew, and
    /// the same parts give the same bytes. Bytes that have no token of their own are lost from texts.
    ///
    /// # Errors
    /// A token that is no byte-level text, an id that is too large or taken twice, or a merge of tokens that are not there.
    pub fn from_parts(parts: Parts) -> Result<Self, TokenizerError> {
        let pieces = parts.pieces()?;
        let mut tokenizer = Self::build(parts, pieces, Vec::new())?;
        let mut whole = tokenizer.inner.clone();
        let mut added: Vec<&AddedText> = tokenizer.added.iter().collect();
        added.sort_by_key(|added| added.id);
        for AddedText { id, content, special } in added {
            whole.add_tokens(&[AddedToken::from(content.as_str(), *special).normalized(false)]);
            if whole.token_to_id(content) != Some(*id) {
                let (found, expected) = (format!("`{content}` as token {id}"), "ids that continue the vocabulary's");
                return Err(TokenizerError::Unsupported { field: "added_tokens", found, expected });
            }
        }
        tokenizer.json = whole.to_string(false).map_err(|e| corrupt(&e))?.into_bytes();
        Ok(tokenizer)
    }

    /// Puts a tokenizer together. The library gets no added tokens: it would look for them in every text.
    fn build(parts: Parts, pieces: Vec<Vec<u8>>, json: Vec<u8>) -> Result<Self, TokenizerError> {
        let Parts { vocab, merges, splitting, compose, whole_words, mut added } = parts;
        let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
        let model = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(whole_words).build();
        let inner = parts::assemble(model.map_err(|e| corrupt(&e))?, splitting, compose);
        added.sort_by_key(|added| std::cmp::Reverse(added.content.len()));
        let by_words = matches!(splitting, Splitting::Plain | Splitting::Digits);
        Ok(Self { inner, json, pieces, added, by_words })
    }

    /// The `tokenizer.json`, byte for byte as it was read or trained.
    pub fn to_bytes(&self) -> &[u8] {
        &self.json
    }

    /// The BLAKE3 hash of [`Tokenizer::to_bytes`].
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.json).as_bytes()
    }

    /// Number of tokens, special ones included.
    pub fn vocab(&self) -> usize {
        self.pieces.len()
    }

    /// The id of an added token, such as `<|im_end|>`.
    pub fn added(&self, content: &str) -> Option<u32> {
        self.added.iter().find(|added| added.content == content).map(|added| added.id)
    }

    /// The text of an added token.
    pub fn added_text(&self, id: u32) -> Option<&str> {
        self.added.iter().find(|added| added.id == id).map(|added| added.content.as_str())
    }

    /// What it is made of, read again from its `tokenizer.json`.
    ///
    /// # Errors
    /// None for a tokenizer that was made by the functions of this type.
    pub fn parts(&self) -> Result<Parts, TokenizerError> {
        file::read(&self.json)?.parts()
    }

    /// Makes a text safe to put into a template: none of its characters becomes part of an added token in
    /// [`Tokenizer::encode_template`], which takes it as it was.
    pub fn shield<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if text.contains(SHIELD) {
            text = Cow::Owned(text.replace(SHIELD, ""));
        }
        for AddedText { content, .. } in &self.added {
            let first = content.chars().next().map_or(0, char::len_utf8);
            if text.contains(content.as_str()) {
                let shielded = format!("{}{SHIELD}{}", &content[..first], &content[first..]);
                text = Cow::Owned(text.replace(content.as_str(), &shielded));
            }
        }
        text
    }

    /// Turns a rendered template into token ids: what reads like an added token becomes one, the longest first, unless
    /// [`Tokenizer::shield`] hid it.
    pub fn encode_template(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let found = rest.char_indices().find_map(|(at, _)| {
                let added = self.added.iter().find(|added| rest[at..].starts_with(&added.content));
                added.map(|added| (at, added))
            });
            let (plain, added) = found.map_or((rest, None), |(at, added)| (&rest[..at], Some(added)));
            ids.extend(self.encode(&plain.replace(SHIELD, "")));
            rest = &rest[plain.len() + added.map_or(0, |added| added.content.len())..];
            ids.extend(added.map(|added| added.id));
        }
        ids
    }

    /// Turns text into token ids; `<|end|>` in the text is ordinary text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        if !self.by_words {
            let mut ids = Vec::new();
            self.encode_piece(text, &mut ids);
            return ids;
        }
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut known: HashMap<&str, Range<usize>> = HashMap::new();
        for word in words(text) {
            if let Some(range) = known.get(word) {
                ids.extend_from_within(range.clone());
                continue;
            }
            let start = ids.len();
            self.encode_piece(word, &mut ids);
            if word.len() <= KNOWN_BYTES && known.len() < KNOWN_WORDS {
                known.insert(word, start..ids.len());
            }
        }
        ids
    }

    /// Appends the tokens of a piece. Where the library's splitting expression gives up, as on very long runs of white space,
    /// the piece is halved, so that no text is lost.
    fn encode_piece(&self, text: &str, ids: &mut Vec<u32>) {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => ids.extend_from_slice(encoding.get_ids()),
            Err(_) => {
                let middle = text.floor_char_boundary(text.len() / 2);
                let middle = if middle == 0 { text.chars().next().map_or(0, char::len_utf8) } else { middle };
                if middle < text.len() {
                    self.encode_piece(&text[..middle], ids);
                    self.encode_piece(&text[middle..], ids);
                }
            }
        }
    }

    /// The bytes of a token; none for a special or an unknown one.
    pub fn bytes_of(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Turns token ids into text; special tokens give nothing, and bytes that are not UTF-8 give U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes_of(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder that is fed one token at a time.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, pending: Vec::new() }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab", &self.vocab()).finish_non_exhaustive()
    }
}

/// Decodes a stream of tokens; what it returns is always whole characters.
///
/// The pieces joined, and the one of [`TextStream::finish`], equal [`Tokenizer::decode`] of all the tokens.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u8>,
}

impl TextStream<'_> {
    /// Takes a token and returns the text that it completes, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        self.pending.extend_from_slice(self.tokenizer.bytes_of(id));
        let held = incomplete_tail(&self.pending);
        let rest = self.pending.split_off(self.pending.len() - held);
        let whole = std::mem::replace(&mut self.pending, rest);
        String::from_utf8_lossy(&whole).into_owned()
    }

    /// Returns what is left; a character that was never completed gives U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// How many bytes at the end may be the start of a character that is still to be completed.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let invalid = last.invalid();
    match std::str::from_utf8(invalid) {
        Err(error) if error.error_len().is_none() => invalid.len(),
        _ => 0,
    }
}

/// Cuts text into words whose encodings, joined, are the encoding of the whole: each is a run of white space and what
/// follows it.
///
/// No alternative of the splitting expression continues from something that is not white space into white space, and
/// only its white-space alternatives look ahead; so a cut in front of a run of white space changes nothing.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let end = rest[start..].find(char::is_whitespace).map_or(rest.len(), |length| start + length);
        let (word, tail) = rest.split_at(end);
        rest = tail;
        (!word.is_empty()).then_some(word)
    })
}

/// Joins words to pieces of about [`PIECE_BYTES`].
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        for word in words(rest) {
            end += word.len();
            if end >= PIECE_BYTES {
                break;
            }
        }
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

fn corrupt(error: &dyn fmt::Display) -> TokenizerError {
    TokenizerError::Corrupt { reason: error.to_string() }
}

#[cfg(test)]
mod tests;

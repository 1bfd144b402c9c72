//! Byte-level BPE: text to token ids and back.
//!
//! Source: the byte-level scheme of GPT-2 as implemented by the Hugging Face `tokenizers` crate; a tokenizer is the
//! `tokenizer.json` of that crate, so other tools read it.
//!
//! Deviations: text is encoded word by word, cut before white space, where the scheme's splitting expression always ends
//! a match, and each word once: the result is the same, in a fraction of the time and memory; and text never becomes a special token, so a
//! prompt that contains `<|end|>` cannot end a document. The file is read by our own description of it, because the
//! library's reader panics on some damaged files.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenizers::models::bpe::{BPE, BpeTrainer, Vocab};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerImpl};

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

type Inner = TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel>;

/// A byte-level BPE tokenizer with its `tokenizer.json`.
pub struct Tokenizer {
    inner: Inner,
    json: Vec<u8>,
    /// The bytes of each token; empty for a special token.
    pieces: Vec<Vec<u8>>,
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
        let mut tokenizer = assemble(BPE::default());
        let pieces: Vec<&str> = texts.into_iter().flat_map(pieces).collect();
        tokenizer.train(&mut trainer, pieces.into_iter()).map_err(|e| corrupt(&e))?;
        let got = tokenizer.get_vocab_size(true);
        if got != vocab {
            return Err(TokenizerError::TextTooSmall { vocab, got });
        }
        let json = tokenizer.to_string(false).map_err(|e| corrupt(&e))?;
        Self::from_bytes(json.as_bytes())
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The bytes are too many, no tokenizer, or a tokenizer of another kind than byte-level BPE with [`END`] first.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        if bytes.len() > TOKENIZER_BYTES_MAX {
            return Err(TokenizerError::TooLarge { bytes: bytes.len() });
        }
        let file: File = serde_json::from_slice(bytes).map_err(|e| corrupt(&e))?;
        file.check()?;
        let pieces = file.token_bytes()?;
        let vocab: Vocab = file.model.vocab.into_iter().collect();
        let model = BPE::builder().vocab_and_merges(vocab, file.model.merges).build().map_err(|e| corrupt(&e))?;
        let mut inner = assemble(model);
        inner.add_special_tokens(&[AddedToken::from(END, true)]);
        inner.set_encode_special_tokens(true);
        Ok(Self { inner, json: bytes.to_vec(), pieces })
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

    /// Turns text into token ids; `<|end|>` in the text is ordinary text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut known: HashMap<&str, Range<usize>> = HashMap::new();
        for word in words(text) {
            if let Some(range) = known.get(word) {
                ids.extend_from_within(range.clone());
                continue;
            }
            let encoding = self.inner.encode_fast(word, false).expect("every byte has a token, which was checked");
            let start = ids.len();
            ids.extend_from_slice(encoding.get_ids());
            if word.len() <= KNOWN_BYTES && known.len() < KNOWN_WORDS {
                known.insert(word, start..ids.len());
            }
        }
        ids
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

fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

fn assemble(model: BPE) -> Inner {
    let mut tokenizer = Inner::new(model);
    tokenizer.with_pre_tokenizer(Some(byte_level()));
    tokenizer.with_decoder(Some(byte_level()));
    tokenizer
}

fn corrupt(error: &dyn fmt::Display) -> TokenizerError {
    TokenizerError::Corrupt { reason: error.to_string() }
}

/// The parts of a `tokenizer.json` that matter here.
#[derive(Deserialize)]
struct File {
    truncation: Option<IgnoredAny>,
    padding: Option<IgnoredAny>,
    added_tokens: Vec<FileToken>,
    normalizer: Option<IgnoredAny>,
    pre_tokenizer: Option<FilePart>,
    decoder: Option<FilePart>,
    model: FileModel,
}

#[derive(Deserialize)]
struct FileToken {
    id: u32,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct FilePart {
    #[serde(rename = "type")]
    kind: String,
    add_prefix_space: Option<bool>,
    use_regex: Option<bool>,
}

#[derive(Deserialize)]
struct FileModel {
    #[serde(rename = "type")]
    kind: String,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    vocab: BTreeMap<String, u32>,
    merges: Vec<(String, String)>,
}

impl File {
    fn check(&self) -> Result<(), TokenizerError> {
        let byte_level = |part: &Option<FilePart>| part.as_ref().is_some_and(|part| part.kind == "ByteLevel");
        let as_ours = |part: &FilePart| part.add_prefix_space == Some(false) && part.use_regex != Some(false);
        let model = &self.model;
        let plain = model.dropout.is_none()
            && model.continuing_subword_prefix.as_deref().unwrap_or("").is_empty()
            && model.end_of_word_suffix.as_deref().unwrap_or("").is_empty();
        let end_only = match &self.added_tokens[..] {
            [token] => token.id == END_ID && token.content == END && token.special,
            _ => false,
        };
        let checks = [
            ("model", model.kind == "BPE" && plain),
            ("normalizer", self.normalizer.is_none()),
            ("pre_tokenizer", byte_level(&self.pre_tokenizer) && self.pre_tokenizer.as_ref().is_some_and(as_ours)),
            ("decoder", byte_level(&self.decoder)),
            ("truncation", self.truncation.is_none()),
            ("padding", self.padding.is_none()),
            ("added_tokens", end_only && model.vocab.get(END) == Some(&END_ID)),
        ];
        match checks.iter().find(|(_, sound)| !sound) {
            Some(&(field, _)) => Err(TokenizerError::Foreign { field }),
            None => Ok(()),
        }
    }

    /// The bytes of each token in the order of the ids, which must have no gap; every single byte must be there.
    fn token_bytes(&self) -> Result<Vec<Vec<u8>>, TokenizerError> {
        const FOREIGN: TokenizerError = TokenizerError::Foreign { field: "model.vocab" };
        let mut pieces = vec![Vec::new(); self.model.vocab.len()];
        let mut single = [false; 256];
        for (token, &id) in self.model.vocab.iter().filter(|&(_, &id)| id != END_ID) {
            let bytes = bytes_of_token(token).filter(|bytes| !bytes.is_empty()).ok_or(FOREIGN)?;
            if let [byte] = bytes[..] {
                single[usize::from(byte)] = true;
            }
            let piece = pieces.get_mut(id as usize).filter(|piece| piece.is_empty()).ok_or(FOREIGN)?;
            *piece = bytes;
        }
        let gaps = pieces.iter().filter(|piece| piece.is_empty()).count();
        if gaps != 1 || single.contains(&false) {
            return Err(FOREIGN);
        }
        Ok(pieces)
    }
}

/// The bytes that a token of the byte-level alphabet stands for.
fn bytes_of_token(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of_char).collect()
}

/// GPT-2 writes a printable byte as itself and the others, in order, as the characters from U+0100 on.
fn byte_of_char(c: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(c);
    if let Ok(byte) = u8::try_from(code) {
        return printable(byte).then_some(byte);
    }
    (0..=255u8).filter(|&byte| !printable(byte)).nth(code.checked_sub(256)? as usize)
}

#[cfg(test)]
mod tests;

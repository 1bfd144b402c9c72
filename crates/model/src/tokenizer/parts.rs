//! What a byte-level BPE tokenizer is made of, whichever file it came from.

use std::collections::BTreeMap;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NFC, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

use super::{Inner, TokenizerError};

/// Most token ids of a tokenizer.
const VOCAB_MAX: usize = 1 << 20;

/// Most added tokens of a tokenizer.
const ADDED_MAX: usize = 1 << 13;

/// The splitting expression of Llama 3: numbers in groups of up to three digits.
pub(super) const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The splitting expression of Qwen 2 and 3: every digit alone.
pub(super) const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// How text is cut before merges are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splitting {
    /// The expression of GPT-2.
    Plain,
    /// Every digit alone, then the expression of GPT-2: SmolLM.
    Digits,
    /// The expression of Llama 3.
    Llama3,
    /// The expression of Qwen 2 and 3.
    Qwen2,
}

impl Splitting {
    /// The splitting that a GGUF file means by `tokenizer.ggml.pre`.
    ///
    /// # Errors
    /// The name is not known.
    pub fn from_gguf(name: &str) -> Result<Self, TokenizerError> {
        match name {
            "gpt-2" | "gpt2" => Ok(Self::Plain),
            "smollm" => Ok(Self::Digits),
            "llama3" | "llama-v3" | "llama-bpe" => Ok(Self::Llama3),
            "qwen2" => Ok(Self::Qwen2),
            _ => Err(TokenizerError::Unsupported {
                field: "tokenizer.ggml.pre",
                found: format!("`{name}`"),
                expected: "`gpt-2`, `smollm`, `llama-bpe` or `qwen2`",
            }),
        }
    }

    /// The name in `tokenizer.ggml.pre` of a GGUF file.
    pub fn gguf_name(self) -> &'static str {
        match self {
            Self::Plain => "gpt-2",
            Self::Digits => "smollm",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
        }
    }
}

/// A text that is one token where templates use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedText {
    /// The token.
    pub id: u32,
    /// Its text; not empty.
    pub content: String,
    /// Whether it is left out of decoded text.
    pub special: bool,
}

/// A byte-level BPE tokenizer in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Tokens, written in the alphabet of GPT-2, and their ids.
    pub vocab: BTreeMap<String, u32>,
    /// Pairs of tokens that become one, the first first.
    pub merges: Vec<(String, String)>,
    /// How text is cut.
    pub splitting: Splitting,
    /// Whether text is brought to Unicode's form NFC first.
    pub compose: bool,
    /// Whether a word that is a token is taken whole, even where merges would not reach it.
    pub whole_words: bool,
    /// Tokens besides, which may also be in the vocabulary.
    pub added: Vec<AddedText>,
}

impl Parts {
    /// The bytes of each token by id: empty for special tokens and for ids that nobody uses.
    pub(super) fn pieces(&self) -> Result<Vec<Vec<u8>>, TokenizerError> {
        let unsupported = |field, found: String, expected| TokenizerError::Unsupported { field, found, expected };
        if self.added.len() > ADDED_MAX {
            return Err(unsupported("added_tokens", self.added.len().to_string(), "at most 8192 tokens"));
        }
        if let Some(empty) = self.added.iter().find(|added| added.content.is_empty()) {
            return Err(unsupported("added_tokens", format!("an empty text for token {}", empty.id), "a text"));
        }
        let ids = self.vocab.values().chain(self.added.iter().map(|added| &added.id));
        let largest = ids.max().copied().unwrap_or(0);
        if largest as usize >= VOCAB_MAX || self.vocab.is_empty() {
            return Err(unsupported("model.vocab", format!("up to token {largest}"), "1 to 1048576 tokens"));
        }
        let mut pieces = vec![None; largest as usize + 1];
        for added in &self.added {
            let bytes = if added.special { Vec::new() } else { added.content.clone().into_bytes() };
            if pieces[added.id as usize].replace(bytes).is_some() {
                return Err(unsupported("added_tokens", format!("token {} twice", added.id), "one text for each id"));
            }
        }
        for (token, &id) in &self.vocab {
            if self.added.iter().any(|added| added.id == id && added.content == *token) {
                continue;
            }
            let bytes = bytes_of_token(token).filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or_else(|| unsupported("model.vocab", format!("`{token}`"), "a byte-level text"))?;
            if pieces[id as usize].replace(bytes).is_some() {
                return Err(unsupported("model.vocab", format!("token {id} twice"), "one text for each id"));
            }
        }
        Ok(pieces.into_iter().map(Option::unwrap_or_default).collect())
    }
}

/// Whether every byte has a token of its own.
pub(super) fn every_byte(pieces: &[Vec<u8>]) -> bool {
    let mut single = [false; 256];
    for piece in pieces {
        if let [byte] = piece[..] {
            single[usize::from(byte)] = true;
        }
    }
    !single.contains(&false)
}

/// The library's tokenizer around a model.
pub(super) fn assemble(model: BPE, splitting: Splitting, compose: bool) -> Inner {
    let byte_level = |split| ByteLevel::new(false, true, split);
    let sequence = |first: PreTokenizerWrapper, split| {
        PreTokenizerWrapper::Sequence(Sequence::new(vec![first, PreTokenizerWrapper::ByteLevel(byte_level(split))]))
    };
    let expression = |expression: &str| {
        let pattern = SplitPattern::Regex(expression.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        sequence(PreTokenizerWrapper::Split(split.expect("the expressions are constants, and tested")), false)
    };
    let mut tokenizer = Inner::new(model);
    tokenizer.with_normalizer(compose.then_some(NormalizerWrapper::NFC(NFC)));
    tokenizer.with_pre_tokenizer(Some(match splitting {
        Splitting::Plain => PreTokenizerWrapper::ByteLevel(byte_level(true)),
        Splitting::Digits => sequence(PreTokenizerWrapper::Digits(Digits::new(true)), true),
        Splitting::Llama3 => expression(LLAMA3),
        Splitting::Qwen2 => expression(QWEN2),
    }));
    tokenizer.with_decoder(Some(byte_level(true)));
    tokenizer
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

//! A `tokenizer.json`, read by our own description of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::parts::{AddedText, LLAMA3, Parts, QWEN2, Splitting};
use super::{END, END_ID, TOKENIZER_BYTES_MAX, TokenizerError, corrupt};

/// The parts of a `tokenizer.json` that matter here.
#[derive(Deserialize)]
pub(super) struct File {
    truncation: Option<IgnoredAny>,
    padding: Option<IgnoredAny>,
    #[serde(default)]
    added_tokens: Vec<FileToken>,
    normalizer: Option<FileNormalizer>,
    pre_tokenizer: Option<FileSplitter>,
    decoder: Option<FileDecoder>,
    model: FileModel,
}

#[derive(Deserialize)]
struct FileToken {
    id: u32,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct FileNormalizer {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct FileDecoder {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum FileSplitter {
    ByteLevel {
        add_prefix_space: Option<bool>,
        use_regex: Option<bool>,
    },
    Digits {
        individual_digits: bool,
    },
    Split {
        pattern: FilePattern,
        behavior: String,
        invert: bool,
    },
    Sequence {
        pretokenizers: Vec<FileSplitter>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
enum FilePattern {
    Regex(String),
    String(#[allow(dead_code)] IgnoredAny),
}

#[derive(Deserialize)]
struct FileModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: BTreeMap<String, u32>,
    merges: Vec<FileMerge>,
}

/// Older files join the two tokens of a merge with a space.
#[derive(Deserialize)]
#[serde(untagged)]
enum FileMerge {
    Pair(String, String),
    Joined(String),
}

/// Reads the description; says nothing about its kind yet.
pub(super) fn read(bytes: &[u8]) -> Result<File, TokenizerError> {
    if bytes.len() > TOKENIZER_BYTES_MAX {
        return Err(TokenizerError::TooLarge { bytes: bytes.len() });
    }
    serde_json::from_slice(bytes).map_err(|e| corrupt(&e))
}

impl File {
    /// Whether it is a tokenizer of this program: no normaliser, the plain splitting, and [`END`] first.
    pub(super) fn check_own(&self) -> Result<(), TokenizerError> {
        let end_only = match &self.added_tokens[..] {
            [token] => token.id == END_ID && token.content == END && token.special,
            _ => false,
        };
        let plain = self.pre_tokenizer.as_ref().and_then(FileSplitter::splitting) == Some(Splitting::Plain);
        let checks = [
            ("model", self.plain_model() && !self.model.ignore_merges && self.model.kind.is_some()),
            ("normalizer", self.normalizer.is_none()),
            ("pre_tokenizer", plain),
            ("decoder", self.byte_level_decoder()),
            ("truncation", self.truncation.is_none()),
            ("padding", self.padding.is_none()),
            ("added_tokens", end_only && self.model.vocab.get(END) == Some(&END_ID)),
        ];
        match checks.iter().find(|(_, sound)| !sound) {
            Some(&(field, _)) => Err(TokenizerError::Foreign { field }),
            None => Ok(()),
        }
    }

    fn plain_model(&self) -> bool {
        let model = &self.model;
        model.kind.as_deref().unwrap_or("BPE") == "BPE"
            && model.dropout.is_none()
            && !model.byte_fallback
            && model.continuing_subword_prefix.as_deref().unwrap_or("").is_empty()
            && model.end_of_word_suffix.as_deref().unwrap_or("").is_empty()
    }

    fn byte_level_decoder(&self) -> bool {
        self.decoder.as_ref().is_some_and(|decoder| decoder.kind == "ByteLevel")
    }

    /// Its parts, when it is a byte-level BPE with a known splitting.
    pub(super) fn parts(self) -> Result<Parts, TokenizerError> {
        let unsupported =
            |field, expected| TokenizerError::Unsupported { field, found: "of another kind".to_owned(), expected };
        if !self.plain_model() {
            return Err(unsupported("model", "a BPE without dropout, prefix, suffix and fallback"));
        }
        if !self.byte_level_decoder() {
            return Err(unsupported("decoder", "`ByteLevel`"));
        }
        let compose = match &self.normalizer {
            None => false,
            Some(normalizer) if normalizer.kind == "NFC" => true,
            Some(_) => return Err(unsupported("normalizer", "absent or `NFC`")),
        };
        let splitting = self.pre_tokenizer.as_ref().and_then(FileSplitter::splitting);
        let splitting =
            splitting.ok_or_else(|| unsupported("pre_tokenizer", "that of GPT-2, SmolLM, Llama 3 or Qwen 2"))?;
        let merges = self.model.merges.into_iter().map(FileMerge::pair).collect::<Result<_, _>>()?;
        let added = self.added_tokens.into_iter();
        let added = added.map(|FileToken { id, content, special }| AddedText { id, content, special }).collect();
        let (vocab, whole_words) = (self.model.vocab, self.model.ignore_merges);
        Ok(Parts { vocab, merges, splitting, compose, whole_words, added })
    }
}

impl FileSplitter {
    /// The splitting that it is, if it is one of ours.
    fn splitting(&self) -> Option<Splitting> {
        match self {
            _ if self.is_byte_level(true) => Some(Splitting::Plain),
            Self::Sequence { pretokenizers } => match &pretokenizers[..] {
                [Self::Digits { individual_digits: true }, last] if last.is_byte_level(true) => Some(Splitting::Digits),
                [Self::Split { pattern: FilePattern::Regex(pattern), behavior, invert: false }, last]
                    if behavior == "Isolated" && last.is_byte_level(false) =>
                {
                    [(LLAMA3, Splitting::Llama3), (QWEN2, Splitting::Qwen2)]
                        .into_iter()
                        .find_map(|(known, splitting)| (pattern == known).then_some(splitting))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it is the byte level of GPT-2, with or without its splitting expression.
    fn is_byte_level(&self, splits: bool) -> bool {
        match self {
            Self::ByteLevel { add_prefix_space, use_regex } => {
                *add_prefix_space == Some(false) && use_regex.unwrap_or(true) == splits
            }
            _ => false,
        }
    }
}

impl FileMerge {
    fn pair(self) -> Result<(String, String), TokenizerError> {
        match self {
            Self::Pair(a, b) => Ok((a, b)),
            Self::Joined(both) => match both.split_once(' ') {
                Some((a, b)) => Ok((a.to_owned(), b.to_owned())),
                None => Err(TokenizerError::Corrupt { reason: format!("a merge of one token: `{both}`") }),
            },
        }
    }
}

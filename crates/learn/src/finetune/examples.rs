//! What a model is fine-tuned on: running text, or conversations of which only the answers count.
//!
//! Text is one row of tokens, a document after the other, each opened by the model's separator; a step trains on windows that
//! start at random places, and every token counts. Conversations are lines of JSON, `{"messages": [{"role", "content"}, ...]}`,
//! rendered through the model's own template; only the tokens that the model itself would have to write count: each answer up to
//! the token that ends it. One conversation is one sequence: cut where it is longer, padded where it is shorter. The
//! conversations are taken in an order that is drawn anew for every pass.
//!
//! A template may drop from the history what it showed of an answer (some drop reasoning); such a conversation becomes a
//! sequence for each answer, so that every answer follows the history that the model will see.
//!
//! The last twentieth is held out, or what a `manifest.toml` in the folder says.

use std::fs;
use std::path::{Path, PathBuf};

use model::{IGNORED, Message, Pretrained, TemplateError};
use serde::Deserialize;
use tensor::random::Stream;

use super::Settings;
use crate::data::files::{HELDOUT_DIVISOR, TEXT_BYTES_MAX, io_error, read_parts, read_text};
use crate::data::{Batch, CorpusError};
use crate::recipe::BatchShape;

/// Texts of tokens that separate documents in the training of the supported families, the likeliest first.
const SEPARATORS: [&str; 2] = ["<|endoftext|>", "<|end_of_text|>"];

/// Most sequences that the held-out loss is measured on.
const HELDOUT_SEQUENCES: usize = 16;

/// The data of a run, as tokens of the model.
#[derive(Debug)]
pub struct Examples {
    kind: Kind,
    /// Fills the end of short sequences; what it is does not matter.
    padding: u32,
}

#[derive(Debug)]
enum Kind {
    Text { train: Vec<u32>, heldout: Vec<u32> },
    Chat { train: Vec<Sequence>, heldout: Vec<Sequence>, cut: usize },
}

/// Tokens, and which of them count.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sequence {
    tokens: Vec<u32>,
    counts: Vec<bool>,
}

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExamplesError {
    /// The files cannot be read, or are no text.
    #[error(transparent)]
    Text(#[from] CorpusError),
    /// There are texts and conversations.
    #[error("`{path}` has both `.txt` and `.jsonl` files")]
    Mixed {
        /// The folder.
        path: PathBuf,
    },
    /// A line is no conversation.
    #[error("`{path}`, line {line}: {reason}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The model has no chat template, so conversations cannot be written as it reads them.
    #[error("`{path}` has conversations, and the model has no chat template")]
    NoTemplate {
        /// The data.
        path: PathBuf,
    },
    /// There is too little of it.
    #[error("too little data: the {part} part has {got} {unit}, and at least {needed} are needed")]
    TooSmall {
        /// Which part, in words.
        part: &'static str,
        /// What is counted.
        unit: &'static str,
        /// How much there is.
        got: usize,
        /// How much is needed.
        needed: usize,
    },
}

impl ExamplesError {
    /// What the user can do about it, as one line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Text(error) => error.hint(),
            Self::Mixed { .. } => "name one file, or a folder of one kind",
            Self::BadLine { .. } => {
                r#"a line is {"messages":[{"role":"user","content":"..."},{"role":"assistant","content":"..."}]}"#
            }
            Self::NoTemplate { .. } => "choose a model that was tuned for conversations, or give plain text",
            Self::TooSmall { .. } => "give more data, or choose a smaller `--tokens`",
        }
    }
}

impl Examples {
    /// Reads a file or a folder of `.txt` or `.jsonl` files for sequences of `tokens` tokens.
    ///
    /// # Errors
    /// The files cannot be read, hold no text or no conversations, or too little.
    pub fn read(path: &Path, model: &Pretrained, tokens: usize) -> Result<Self, ExamplesError> {
        let padding = separator(model).unwrap_or(0);
        let conversations = conversation_files(path)?;
        let kind = match conversations.is_empty() {
            true => text(&read_parts(path)?, model, tokens)?,
            false => chat(path, &conversations, model, tokens)?,
        };
        Ok(Self { kind, padding })
    }

    /// The batch of step `step`, from 0: a function of the data, the settings and the step.
    pub fn batch(&self, settings: &Settings, step: u64) -> Batch {
        let BatchShape { sequences, tokens } = settings.batch;
        let key = settings.key("cairn v1 fine-tuning data");
        match &self.kind {
            Kind::Text { train, .. } => {
                let mut stream = Stream::new(key, &format!("step {step}"));
                let places = (train.len() - tokens) as u64;
                let starts: Vec<usize> = (0..sequences).map(|_| stream.below(places) as usize).collect();
                Batch::cut(train, starts.into_iter(), tokens)
            }
            Kind::Chat { train, .. } => {
                let first = step * sequences as u64;
                let count = train.len() as u64;
                let (mut pass, mut order) = (first / count, order(key, first / count, train.len()));
                let mut chosen = Vec::with_capacity(sequences);
                for place in first..first + sequences as u64 {
                    if place / count != pass {
                        pass = place / count;
                        order = self::order(key, pass, train.len());
                    }
                    chosen.push(&train[order[(place % count) as usize]]);
                }
                self.pad(&chosen, tokens)
            }
        }
    }

    /// The held-out sequences that a model is measured on: evenly spaced, at most 16, `shape.sequences` at a time.
    pub fn heldout(&self, shape: BatchShape) -> Vec<Batch> {
        let spaced = |count: usize, last: usize| -> Vec<usize> {
            (0..count).map(|i| last * i / count.saturating_sub(1).max(1)).collect()
        };
        match &self.kind {
            Kind::Text { heldout, .. } => {
                let last = heldout.len() - shape.tokens - 1;
                let starts = spaced(HELDOUT_SEQUENCES.min(last + 1), last);
                let cut = |starts: &[usize]| Batch::cut(heldout, starts.iter().copied(), shape.tokens);
                starts.chunks(shape.sequences).map(cut).collect()
            }
            Kind::Chat { heldout, .. } => {
                let chosen = spaced(HELDOUT_SEQUENCES.min(heldout.len()), heldout.len() - 1);
                let chosen: Vec<&Sequence> = chosen.into_iter().map(|at| &heldout[at]).collect();
                chosen.chunks(shape.sequences).map(|chosen| self.pad(chosen, shape.tokens)).collect()
            }
        }
    }

    /// BLAKE3 of all tokens and which of them count.
    pub fn root(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("cairn v1 fine-tuning examples");
        let mut part = |tokens: &[u32], counts: &[bool]| {
            hasher.update(&(tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|token| {
                hasher.update(&token.to_le_bytes());
            });
            counts.iter().for_each(|&counts| {
                hasher.update(&[u8::from(counts)]);
            });
        };
        match &self.kind {
            Kind::Text { train, heldout } => [train, heldout].into_iter().for_each(|tokens| part(tokens, &[])),
            Kind::Chat { train, heldout, .. } => {
                train.iter().chain(heldout).for_each(|sequence| part(&sequence.tokens, &sequence.counts));
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// Bytes that the tokens take.
    pub fn bytes(&self) -> u64 {
        let count = match &self.kind {
            Kind::Text { train, heldout } => train.len() + heldout.len(),
            Kind::Chat { train, heldout, .. } => train.iter().chain(heldout).map(|s| s.tokens.len() * 2).sum(),
        };
        (count * size_of::<u32>()) as u64
    }

    /// What was read, in words for a person.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Text { train, heldout } => format!("{} tokens of text, {} held out", train.len(), heldout.len()),
            Kind::Chat { train, heldout, cut } => {
                let cut = if *cut > 0 { format!("; {cut} cut to the length of a sequence") } else { String::new() };
                format!("{} conversations, {} held out{cut}", train.len(), heldout.len())
            }
        }
    }

    fn pad(&self, chosen: &[&Sequence], tokens: usize) -> Batch {
        let mut batch = Batch { tokens: Vec::new(), targets: Vec::new() };
        for Sequence { tokens: ids, counts } in chosen {
            let length = (ids.len() - 1).min(tokens);
            batch.tokens.extend_from_slice(&ids[..length]);
            let targets = ids[1..].iter().zip(&counts[1..]).take(length);
            batch.targets.extend(targets.map(|(&id, &counts)| if counts { id } else { IGNORED }));
            batch.tokens.extend(std::iter::repeat_n(self.padding, tokens - length));
            batch.targets.extend(std::iter::repeat_n(IGNORED, tokens - length));
        }
        batch
    }
}

/// The token in front of each document.
fn separator(model: &Pretrained) -> Option<u32> {
    let added = SEPARATORS.iter().find_map(|text| model.tokenizer.added(text));
    added.or(model.begin).or(model.ends.first().copied())
}

/// A permutation of `0..count` (Fisher and Yates), drawn for one pass over the data.
fn order(key: [u8; 32], pass: u64, count: usize) -> Vec<usize> {
    let mut stream = Stream::new(key, &format!("pass {pass}"));
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, stream.below(last as u64 + 1) as usize);
    }
    order
}

/// The files with conversations, in the order of their names; none when the data is text.
fn conversation_files(path: &Path) -> Result<Vec<PathBuf>, ExamplesError> {
    let has = |path: &Path, wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    if !fs::metadata(path).map_err(io_error(path))?.is_dir() {
        return Ok(if has(path, "jsonl") { vec![path.to_owned()] } else { Vec::new() });
    }
    let (mut found, mut texts) = (Vec::new(), false);
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        let entry = entry.map_err(io_error(path))?.path();
        texts |= has(&entry, "txt");
        if has(&entry, "jsonl") {
            found.push(entry);
        }
    }
    found.sort();
    match texts && !found.is_empty() {
        true => Err(ExamplesError::Mixed { path: path.to_owned() }),
        false => Ok(found),
    }
}

fn text(parts: &[Vec<String>; 2], model: &Pretrained, tokens: usize) -> Result<Kind, ExamplesError> {
    let separator = separator(model);
    let [train, heldout] = parts.each_ref().map(|documents| {
        let mut tokens = Vec::new();
        for document in documents {
            tokens.extend(separator);
            tokens.extend(model.tokenizer.encode(document));
        }
        tokens
    });
    for (part, got) in [("training", train.len()), ("held-out", heldout.len())] {
        if got < tokens + 1 {
            return Err(ExamplesError::TooSmall { part, unit: "tokens", got, needed: tokens + 1 });
        }
    }
    Ok(Kind::Text { train, heldout })
}

#[derive(Deserialize)]
struct Line {
    messages: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

fn chat(path: &Path, files: &[PathBuf], model: &Pretrained, tokens: usize) -> Result<Kind, ExamplesError> {
    if model.template.is_none() {
        return Err(ExamplesError::NoTemplate { path: path.to_owned() });
    }
    let mut left = TEXT_BYTES_MAX;
    let mut conversations: Vec<Vec<Sequence>> = Vec::new();
    for file in files {
        let bytes = fs::metadata(file).map_err(io_error(file))?.len();
        left = left
            .checked_sub(bytes)
            .ok_or_else(|| CorpusError::TooLarge { path: path.to_owned(), max: TEXT_BYTES_MAX })?;
        for (number, line) in (1..).zip(read_text(file)?.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |reason: String| ExamplesError::BadLine { path: file.clone(), line: number, reason };
            let line: Line = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
            conversations.push(sequences(model, line).map_err(bad)?);
        }
    }
    let held_out = (conversations.len() / HELDOUT_DIVISOR).max(1);
    let at = conversations.len().saturating_sub(held_out);
    let mut cut = 0;
    // What is left of a conversation that is too long may hold no answer.
    let mut fitting = |conversations: Vec<Vec<Sequence>>| -> Vec<Sequence> {
        let all = conversations.into_iter().flatten();
        all.filter_map(|mut sequence| {
            cut += usize::from(sequence.tokens.len() > tokens + 1);
            sequence.tokens.truncate(tokens + 1);
            sequence.counts.truncate(tokens + 1);
            sequence.counts[1..].contains(&true).then_some(sequence)
        })
        .collect()
    };
    let heldout = fitting(conversations.split_off(at));
    let train = fitting(conversations);
    for (part, got) in [("training", train.len()), ("held-out", heldout.len())] {
        if got == 0 {
            return Err(ExamplesError::TooSmall { part, unit: "conversations with answers", got, needed: 1 });
        }
    }
    Ok(Kind::Chat { train, heldout, cut })
}

/// The sequences of a conversation: one, or one for each answer where the template changes the history.
fn sequences(model: &Pretrained, line: Line) -> Result<Vec<Sequence>, String> {
    let Line { messages } = line;
    // A template would write a role that it does not know as if it were one.
    if let Some(turn) = messages.iter().find(|turn| !["system", "user", "assistant"].contains(&turn.role.as_str())) {
        return Err(format!("the role `{}` is not `system`, `user` or `assistant`", turn.role.escape_debug()));
    }
    let contents: Vec<_> = messages.iter().map(|turn| model.tokenizer.shield(&turn.content)).collect();
    let shown: Vec<Message<'_>> =
        messages.iter().zip(&contents).map(|(turn, content)| Message { role: &turn.role, content }).collect();
    let template = model.template.as_ref().expect("conversations need a template");
    let failed = |error: TemplateError| error.to_string();
    let mut rendered: Vec<[String; 2]> = Vec::new();
    for (at, turn) in messages.iter().enumerate().filter(|(_, turn)| turn.role == "assistant") {
        let before = template.render(&shown[..at], true).map_err(failed)?;
        let after = template.render(&shown[..=at], false).map_err(failed)?;
        let answer = after.strip_prefix(before.as_str()).map(str::to_owned);
        let answer = answer.ok_or_else(|| {
            format!("the model's template does not write the {} turn after the words that ask for it", turn.role)
        })?;
        rendered.push([before, answer]);
    }
    if rendered.is_empty() {
        return Err("no message has the role `assistant`".to_owned());
    }
    let mut found: Vec<Sequence> = Vec::new();
    let mut so_far = String::new();
    for [before, answer] in rendered {
        let history = match before.strip_prefix(so_far.as_str()) {
            Some(more) if !found.is_empty() => more,
            _ => {
                found.push(Sequence { tokens: Vec::new(), counts: Vec::new() });
                so_far.clear();
                &before
            }
        };
        let sequence = found.last_mut().expect("one was begun");
        sequence.ask(model, history);
        sequence.answer(model, &answer);
        so_far = format!("{before}{answer}");
    }
    Ok(found)
}

impl Sequence {
    /// Appends what the model reads.
    fn ask(&mut self, model: &Pretrained, text: &str) {
        let tokens = model.tokenizer.encode_template(text);
        if let (true, Some(begin)) = (self.tokens.is_empty(), model.begin)
            && tokens.first() != Some(&begin)
        {
            self.tokens.push(begin);
        }
        self.tokens.extend(tokens);
        self.counts.resize(self.tokens.len(), false);
    }

    /// Appends what the model has to write: up to the token that ends it.
    fn answer(&mut self, model: &Pretrained, text: &str) {
        let tokens = model.tokenizer.encode_template(text);
        let written = tokens.iter().rposition(|token| model.ends.contains(token)).map_or(tokens.len(), |end| end + 1);
        let start = self.counts.len();
        self.tokens.extend(tokens);
        self.counts.resize(start + written, true);
        self.counts.resize(self.tokens.len(), false);
    }
}

#[cfg(test)]
mod tests;

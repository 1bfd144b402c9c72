//! A model from a directory as Hugging Face has them, and into one.
//!
//! Read are `config.json`, `tokenizer.json`, `model.safetensors` or the files of `model.safetensors.index.json`, and where they are
//! there `generation_config.json`, `tokenizer_config.json`, `chat_template.jinja` and the licence in the head of `README.md`.
//! No code of a directory is ever run, and no file outside of it is opened but through links that lie in it.
//!
//! Deviation: every tensor of the files must be one of the model's, so that a bias which this crate does not compute is an error;
//! left out are `rotary_emb.inv_freq`, which follows from the config, and a head that is tied.

mod config;
mod shards;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, View};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) use self::config::Family;
pub use self::config::read_config;
use self::config::{Described, token_ids};
use self::shards::Shards;
pub use self::shards::{HEADER_BYTES_MAX, SHARDS_MAX, Shard, TENSORS_MAX, read_index};
use super::{END_TEXTS, Pretrained, PretrainedError, SpecialTokens};
use crate::config::Config;
use crate::gguf::{f16_to_f32, f32_to_f16};
use crate::stage::{Stage, TensorInfo};
use crate::template::{ChatTemplate, TEMPLATE_BYTES_MAX};
use crate::tokenizer::{TOKENIZER_BYTES_MAX, Tokenizer};

/// Most bytes of a `config.json` and of its relatives that are read.
pub const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// Most bytes of a `README.md` that are looked at for the licence.
const README_BYTES: u64 = 1 << 16;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const README: &str = "README.md";

/// The parts of a `tokenizer_config.json` that matter here.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<NamedToken>,
    eos_token: Option<NamedToken>,
    unk_token: Option<NamedToken>,
    pad_token: Option<NamedToken>,
    add_bos_token: Option<bool>,
    chat_template: Option<Templates>,
}

/// A token by its text, which older files wrap.
#[derive(Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Text(String),
    Wrapped { content: String },
}

impl NamedToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Wrapped { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Templates {
    /// The template for plain conversations.
    fn usual(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Several(templates) => {
                templates.into_iter().find(|named| named.name == "default").map(|named| named.template)
            }
        }
    }
}

#[derive(Default, Deserialize)]
struct Generation {
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
}

/// The part of a `tokenizer.json` that says what it puts in front of every text.
#[derive(Deserialize)]
struct Processed {
    post_processor: Option<Value>,
}

/// The files of a model's directory that [`read`] uses, by their names there.
pub(super) fn files(folder: &Path) -> Result<Vec<String>, PretrainedError> {
    let mut files = vec![CONFIG.to_owned(), TOKENIZER.to_owned()];
    let optional = [GENERATION, TOKENIZER_CONFIG, TEMPLATE, README].into_iter();
    files.extend(optional.filter(|name| folder.join(name).is_file()).map(str::to_owned));
    let weights = shards::file_names(folder)?;
    if weights.first().is_some_and(|name| name != shards::SINGLE) {
        files.push(shards::INDEX.to_owned());
    }
    files.extend(weights);
    Ok(files)
}

/// Reads the model of a directory.
pub(super) fn read(folder: &Path) -> Result<Pretrained, PretrainedError> {
    let config_path = folder.join(CONFIG);
    let Described { config, begin: described_begin, ends: described_ends } =
        config::read(&config_path, &read_bounded(&config_path, CONFIG_BYTES_MAX)?)?;
    let json = read_bounded(&folder.join(TOKENIZER), TOKENIZER_BYTES_MAX as u64)?;
    let tokenizer = Tokenizer::from_hugging_face(&json)?;
    if tokenizer.vocab() > config.vocab {
        let (found, expected) =
            (config.vocab.to_string(), format!("at least {}, as many as tokens", tokenizer.vocab()));
        return Err(unsupported(&config_path, "vocab_size", found, expected));
    }
    let about: TokenizerConfig = read_json(&folder.join(TOKENIZER_CONFIG))?.unwrap_or_default();
    let generation: Generation = read_json(&folder.join(GENERATION))?.unwrap_or_default();
    let id = |token: &Option<NamedToken>| token.as_ref().and_then(|token| tokenizer.added(token.text()));
    let ids = |value: &Option<Value>| value.as_ref().map(token_ids).unwrap_or_default();
    let begin =
        id(&about.bos_token).or_else(|| ids(&generation.bos_token_id).into_iter().chain(described_begin).next());
    let mut ends: Vec<u32> = ids(&generation.eos_token_id).into_iter().chain(described_ends).collect();
    let end = id(&about.eos_token).or_else(|| ends.first().copied());
    ends.extend(END_TEXTS.iter().filter_map(|text| tokenizer.added(text)).chain(end));
    ends.retain(|end| (*end as usize) < config.vocab);
    ends.sort_unstable();
    ends.dedup();
    let special = SpecialTokens { begin, end, unknown: id(&about.unk_token), padding: id(&about.pad_token) };
    let text = |token: &Option<NamedToken>| token.as_ref().map(|token| token.text().to_owned()).unwrap_or_default();
    let (begin_text, end_text) = (text(&about.bos_token), text(&about.eos_token));
    let begins = about.add_bos_token.unwrap_or_else(|| puts_first(&json, &begin_text));
    let template = match template(folder)? {
        Some(template) => Some(template),
        None => about.chat_template.and_then(Templates::usual),
    };
    let (params, stored) = params(folder, &config)?;
    Ok(Pretrained {
        name: name_of(folder),
        short_name: name_of(folder),
        licence: licence(&folder.join(README)),
        stored,
        params,
        config,
        tokenizer,
        template: template.map(|source| ChatTemplate::new(&source, &begin_text, &end_text)).transpose()?,
        begin: begin.filter(|_| begins),
        ends,
        special,
    })
}

fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn template(folder: &Path) -> Result<Option<String>, PretrainedError> {
    let path = folder.join(TEMPLATE);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = read_bounded(&path, TEMPLATE_BYTES_MAX as u64)?;
    String::from_utf8(bytes).map(Some).map_err(|error| damaged(&path, error.to_string()))
}

/// Whether a tokenizer puts the token with this text in front of every text.
fn puts_first(json: &[u8], begin: &str) -> bool {
    let first = |value: &Value| value["single"][0]["SpecialToken"]["id"] == begin && !begin.is_empty();
    let Ok(Processed { post_processor: Some(processor) }) = serde_json::from_slice(json) else { return false };
    first(&processor) || processor["processors"].as_array().is_some_and(|parts| parts.iter().any(first))
}

/// The licence in the head of a model's page: the line `license: …` between two lines of dashes.
fn licence(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(README_BYTES).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    (lines.next()?.trim() == "---").then_some(())?;
    let stated = lines.take_while(|line| line.trim() != "---").find_map(|line| line.strip_prefix("license:"))?;
    let stated = stated.trim().trim_matches(['"', '\'']);
    (!stated.is_empty() && stated.len() <= 64).then(|| stated.to_owned())
}

/// The parameters, and the type that most of them are stored in.
fn params(folder: &Path, config: &Config) -> Result<(Vec<f32>, String), PretrainedError> {
    let mut shards = Shards::open(folder, &shards::file_names(folder)?)?;
    let layout = Stage::whole(*config)?.layout();
    // Everything is checked before room is made, so that a small file cannot ask for a large model.
    for TensorInfo { name, shape, .. } in layout.tensors() {
        let found = shards.shape(name).ok_or_else(|| damaged(folder, format!("tensor `{name}` is missing")))?;
        if !found.iter().copied().eq(shape.iter().map(|&size| size as u64)) {
            return Err(PretrainedError::WrongShape {
                name: name.clone(),
                found: found.to_vec(),
                expected: shape.clone(),
            });
        }
    }
    let left_out =
        |name: &str| name.ends_with(".rotary_emb.inv_freq") || (config.tied_head && name == "lm_head.weight");
    if let Some(name) = shards.names().find(|name| layout.get(name).is_none() && !left_out(name)) {
        let path = shards.path_of(name).unwrap_or(folder);
        return Err(damaged(path, format!("tensor `{}` does not belong to the model", name.escape_debug())));
    }
    let mut params = Vec::new();
    params.try_reserve_exact(layout.len()).map_err(|_| failed(folder, io::ErrorKind::OutOfMemory.into()))?;
    for tensor in layout.tensors() {
        shards.append(&tensor.name, &mut params)?;
    }
    Ok((params, Pretrained::commonest(shards.types())))
}

fn damaged(path: &Path, reason: impl Into<String>) -> PretrainedError {
    PretrainedError::Damaged { path: path.to_owned(), reason: reason.into() }
}

fn failed(path: &Path, source: io::Error) -> PretrainedError {
    PretrainedError::Io { path: path.to_owned(), source }
}

fn unsupported(path: &Path, field: &str, found: impl Into<String>, expected: impl Into<String>) -> PretrainedError {
    let file = path.file_name().map_or_else(String::new, |name| format!("{}: ", name.to_string_lossy()));
    PretrainedError::Unsupported { field: format!("{file}{field}"), found: found.into(), expected: expected.into() }
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, PretrainedError> {
    let file = File::open(path).map_err(|source| failed(path, source))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|source| failed(path, source))?;
    match bytes.len() as u64 > most {
        true => Err(damaged(path, format!("more than {most} bytes, and no more are read"))),
        false => Ok(bytes),
    }
}

/// A file that may be missing.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PretrainedError> {
    match path.is_file() {
        true => read_json_bytes(path, &read_bounded(path, CONFIG_BYTES_MAX)?).map(Some),
        false => Ok(None),
    }
}

/// Reads JSON; an error names the field.
fn read_json_bytes<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, PretrainedError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| match error.path().to_string() {
        field if field == "." => damaged(path, error.inner().to_string()),
        field => damaged(path, format!("`{}`: {}", field.escape_debug(), error.inner())),
    })?;
    reader.end().map_err(|error| damaged(path, error.to_string()))?;
    Ok(value)
}

/// Writes a model into a new directory, in f32 or in f16: `config.json`, `generation_config.json`, `model.safetensors`, `tokenizer.json`,
/// `tokenizer_config.json` and, where the model has one, `chat_template.jinja`.
pub(super) fn write(model: &Pretrained, folder: &Path, half: bool) -> Result<(), PretrainedError> {
    let io = |source| failed(folder, source);
    let name = folder.file_name().ok_or_else(|| io(io::ErrorKind::InvalidInput.into()))?;
    if folder.symlink_metadata().is_ok() {
        return Err(io(io::ErrorKind::AlreadyExists.into()));
    }
    let mut partial = name.to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = folder.with_file_name(partial);
    fs::create_dir(&partial).map_err(io)?;
    let written = write_files(model, &partial, half).and_then(|()| fs::rename(&partial, folder).map_err(io));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

fn write_files(model: &Pretrained, folder: &Path, half: bool) -> Result<(), PretrainedError> {
    let begin = model.special.begin;
    // The end that the tokenizer names comes first; other programs take the first where they take one.
    let mut ends: Vec<u32> = model.special.end.into_iter().chain(model.ends.iter().copied()).collect();
    ends.dedup();
    if let Some(first) = ends.first().copied() {
        ends.retain({
            let mut seen = false;
            move |&end| end != first || !std::mem::replace(&mut seen, true)
        });
    }
    let dtype = if half { "float16" } else { "float32" };
    write_json(&folder.join(CONFIG), &config::write(&model.config, dtype, begin, &ends)?)?;
    write_json(&folder.join(GENERATION), &json!({"bos_token_id": begin, "eos_token_id": ends}))?;
    write_file(&folder.join(TOKENIZER), &tokenizer_json(model))?;
    write_json(&folder.join(TOKENIZER_CONFIG), &tokenizer_config(model))?;
    if let Some(template) = &model.template {
        write_file(&folder.join(TEMPLATE), template.source().as_bytes())?;
    }
    let path = folder.join(shards::SINGLE);
    let layout = Stage::whole(model.config)?.layout();
    if half {
        check_halves(&path, layout.tensors(), &model.params)?;
    }
    let views = layout.tensors().iter().map(|tensor| {
        (tensor.name.as_str(), Values { shape: &tensor.shape, values: &model.params[tensor.range()], half })
    });
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(about), &path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => failed(&path, source),
        other => damaged(&path, other.to_string()),
    })?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(|source| failed(&path, source))
}

/// Values that are too large for f16 would become infinite.
fn check_halves(path: &Path, tensors: &[TensorInfo], params: &[f32]) -> Result<(), PretrainedError> {
    for tensor in tensors {
        let too_large = |value: &&f32| f16_to_f32(f32_to_f16(**value)).is_infinite();
        if let Some(value) = params[tensor.range()].iter().find(too_large) {
            return Err(damaged(path, format!("tensor `{}` has the value {value}, too large for F16", tensor.name)));
        }
    }
    Ok(())
}

/// A tensor whose bytes are made when they are written.
struct Values<'a> {
    shape: &'a [usize],
    values: &'a [f32],
    half: bool,
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        if self.half { Dtype::F16 } else { Dtype::F32 }
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(match self.half {
            true => self.values.iter().flat_map(|&value| f32_to_f16(value).to_le_bytes()).collect(),
            false => self.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.values.len() * if self.half { 2 } else { 4 }
    }
}

/// The `tokenizer.json`, as it was read. Where the model wants a first token and the file does not say so, it is made to.
fn tokenizer_json(model: &Pretrained) -> Vec<u8> {
    let bytes = model.tokenizer.to_bytes();
    let Some(id) = model.begin else { return bytes.to_vec() };
    let begin = model.special_text(Some(id)).unwrap_or_default();
    if puts_first(bytes, &begin) {
        return bytes.to_vec();
    }
    let Ok(mut json) = serde_json::from_slice::<Value>(bytes) else { return bytes.to_vec() };
    let token = json!({"SpecialToken": {"id": begin, "type_id": 0}});
    let (first, second) =
        (json!({"Sequence": {"id": "A", "type_id": 0}}), json!({"Sequence": {"id": "B", "type_id": 1}}));
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [token, first],
        "pair": [token, first, token, second],
        "special_tokens": {&begin: {"id": begin, "ids": [id], "tokens": [begin]}},
    });
    json.to_string().into_bytes()
}

fn tokenizer_config(model: &Pretrained) -> Value {
    let special = &model.special;
    let mut value = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.context,
        "clean_up_tokenization_spaces": false,
        "add_bos_token": model.begin.is_some(),
    });
    let named = [
        ("bos_token", special.begin),
        ("eos_token", special.end),
        ("unk_token", special.unknown),
        ("pad_token", special.padding),
    ];
    for (field, id) in named {
        if let Some(text) = model.special_text(id) {
            value[field] = json!(text);
        }
    }
    if let Some(template) = &model.template {
        value["chat_template"] = json!(template.source());
    }
    value
}

fn write_json(path: &Path, value: &Value) -> Result<(), PretrainedError> {
    write_file(path, format!("{value:#}\n").as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), PretrainedError> {
    let written = File::create(path).and_then(|mut file| {
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(|source| failed(path, source))
}

/// Where a model's directory is when somebody names a file of it.
pub(super) fn folder_of(path: &Path) -> Option<PathBuf> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    folder.join(CONFIG).is_file().then_some(folder)
}

//! Directories of Hugging Face and GGUF files: what is written is read again with the same bits, other programs read it (see
//! `golden/exported.py`), and whatever is wrong with a file is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::gguf::TensorType;
use model::pretrained::SpecialTokens;
use model::tokenizer::{AddedText, Parts, Splitting};
use model::{Attention, ChatTemplate, Config, Decoder, Pretrained, RopeScaling, Stage, Tokenizer, gguf};
use serde_json::{Value, json};
use tempfile::TempDir;
use tensor::Context;

use crate::support::{bits, params};

/// A tokenizer with a token for every byte, two merges and two special tokens.
fn tokenizer(splitting: Splitting) -> Tokenizer {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = (256..).map(|code| char::from_u32(code).unwrap());
    let mut letters: Vec<String> = (0..=255u8)
        .map(|byte| if printable(byte) { char::from(byte) } else { others.next().unwrap() }.to_string())
        .collect();
    letters.extend(["th".to_owned(), "the".to_owned()]);
    let vocab: BTreeMap<String, u32> = letters.into_iter().zip(0..).collect();
    let added = ["<|im_start|>", "<|im_end|>"].into_iter().zip(258..);
    Tokenizer::from_parts(Parts {
        vocab,
        merges: vec![("t".into(), "h".into()), ("th".into(), "e".into())],
        splitting,
        compose: splitting == Splitting::Qwen2,
        whole_words: splitting == Splitting::Llama3,
        added: added.map(|(content, id)| AddedText { id, content: content.to_owned(), special: true }).collect(),
    })
    .unwrap()
}

const TEMPLATE: &str =
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}";

fn pretrained(name: &str, config: Config, splitting: Splitting, begins: bool) -> Pretrained {
    let (start, end) = ("<|im_start|>", "<|im_end|>");
    Pretrained {
        name: name.to_owned(),
        short_name: name.to_owned(),
        licence: Some("cc0-1.0".to_owned()),
        stored: "F32".to_owned(),
        params: params(&Stage::whole(config).unwrap()),
        config,
        tokenizer: tokenizer(splitting),
        template: Some(ChatTemplate::new(TEMPLATE, start, end).unwrap()),
        begin: begins.then_some(258),
        ends: vec![259],
        special: SpecialTokens { begin: Some(258), end: Some(259), unknown: None, padding: Some(259) },
    }
}

/// The families and what they can have; more rows than tokens, as in Qwen's files.
fn models() -> Vec<Pretrained> {
    let base = Config {
        vocab: 264,
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        ff: 64,
        context: 64,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: false,
        attention: Attention::PLAIN,
    };
    let with = |attention| Config { attention, ..base };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 8192,
    };
    let linear = RopeScaling::Linear { factor: 2.0 };
    let plain = Attention::PLAIN;
    vec![
        pretrained("llama", base, Splitting::Digits, false),
        pretrained("llama-tied", Config { tied_head: true, kv_heads: 4, ..base }, Splitting::Digits, true),
        pretrained("llama3", with(Attention { rope_scaling: Some(llama3), ..plain }), Splitting::Llama3, true),
        pretrained("llama-linear", with(Attention { rope_scaling: Some(linear), ..plain }), Splitting::Plain, false),
        pretrained("qwen2", with(Attention { bias: true, ..plain }), Splitting::Qwen2, false),
        pretrained(
            "qwen3",
            Config { tied_head: true, head_dim: 16, ..with(Attention { query_key_norm: true, ..plain }) },
            Splitting::Qwen2,
            false,
        ),
    ]
}

/// The parts of a tokenizer. Whether added tokens are in the vocabulary as well makes no difference.
fn parts(model: &Pretrained) -> Parts {
    let mut parts = model.tokenizer.parts().unwrap();
    parts.vocab.retain(|token, id| !parts.added.iter().any(|added| added.content == *token && added.id == *id));
    parts.added.sort_by_key(|added| added.id);
    parts
}

fn assert_same(read: &Pretrained, written: &Pretrained) {
    let name = &written.name;
    assert_eq!(read.config, written.config, "{name}");
    assert!(bits(&read.params) == bits(&written.params), "{name}: other parameters");
    assert_eq!(parts(read), parts(written), "{name}");
    let source = |model: &Pretrained| model.template.as_ref().map(|template| template.source().to_owned());
    assert_eq!(source(read), source(written), "{name}");
    assert_eq!((read.begin, &read.ends, read.special), (written.begin, &written.ends, written.special), "{name}");
}

#[test]
fn what_is_written_in_f32_is_read_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for model in models() {
        let (directory, file) = (folder.path().join(&model.name), folder.path().join("model.gguf"));
        model.save_hugging_face(&directory, false).unwrap();
        let read = Pretrained::open(&directory).unwrap();
        assert_same(&read, &model);
        assert_eq!(read.name, model.name, "a directory names its model");
        model.save_gguf(&file, TensorType::F32).unwrap();
        let read = Pretrained::open(&file).unwrap();
        assert_same(&read, &model);
        assert_eq!((&read.name, &read.licence), (&model.name, &model.licence));
        // What was read is written with the same bytes again.
        let again = folder.path().join("again.gguf");
        read.save_gguf(&again, TensorType::F32).unwrap();
        assert!(fs::read(&again).unwrap() == fs::read(&file).unwrap(), "{}: another file", model.name);
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), models().len() + 2, "nothing is left over: {left:?}");
}

#[test]
fn smaller_types_round_matrices_and_keep_vectors() {
    let folder = tempfile::tempdir().unwrap();
    for model in models() {
        let layout = Stage::whole(model.config).unwrap().layout();
        let written = |name: &str, matrices: Option<TensorType>| {
            let path = folder.path().join(format!("{}-{name}", model.name));
            match matrices {
                Some(matrices) => model.save_gguf(&path, matrices).unwrap(),
                None => model.save_hugging_face(&path, true).unwrap(),
            }
            Pretrained::open(&path).unwrap().params
        };
        let (halves, f16, q8) =
            (written("halves", None), written("f16", Some(TensorType::F16)), written("q8", Some(TensorType::Q8_0)));
        for tensor in layout.tensors() {
            for (index, &value) in model.params[tensor.range()].iter().enumerate() {
                let at = tensor.offset + index;
                let rounded = gguf::f16_to_f32(gguf::f32_to_f16(value));
                assert_eq!(halves[at], rounded, "{}", tensor.name);
                let vector = tensor.shape.len() == 1;
                assert_eq!(f16[at], if vector { value } else { rounded }, "{}", tensor.name);
                // Half a step of the largest magnitude that these models have.
                assert!(
                    (q8[at] - value).abs() <= if vector { 0.0 } else { 0.01 },
                    "{}: {} of {value}",
                    tensor.name,
                    q8[at]
                );
            }
        }
        assert!(bits(&q8) != bits(&f16) && bits(&f16) != bits(&model.params), "{}: nothing was rounded", model.name);
    }
}

#[test]
fn a_checkpoint_of_this_program_becomes_a_model_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let text = include_str!("../../../../data/austen/persuasion.txt");
    let tokenizer = Tokenizer::train([&text[..text.floor_char_boundary(30_000)]], 400).unwrap();
    let stage = Stage::whole(Config { vocab: 400, ..models()[0].config }).unwrap();
    let checkpoint = model::Checkpoint { params: params(&stage), stage: stage.clone(), tokenizer: tokenizer.hash() };
    let path = folder.path().join("mine.safetensors");
    model::files::save(&path, &checkpoint).unwrap();
    assert!(Pretrained::open(&path).unwrap_err().to_string().contains("tokenizer.json"), "there is no tokenizer yet");
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_bytes()).unwrap();
    let model = Pretrained::open(&path).unwrap();
    assert_eq!((model.name.as_str(), &model.ends[..], model.opening()), ("mine", &[model::END_ID][..], model::END_ID));
    let (directory, file) = (folder.path().join("mine"), folder.path().join("mine.gguf"));
    model.save_hugging_face(&directory, false).unwrap();
    model.save_gguf(&file, TensorType::F32).unwrap();
    for path in [directory, file] {
        let read = Pretrained::open(&path).unwrap();
        assert_same(&read, &model);
        let sentence = "Sir Walter Elliot, of Kellynch Hall — 1760.";
        assert_eq!(read.tokenizer.encode(sentence), tokenizer.encode(sentence));
    }
    fs::write(folder.path().join("tokenizer.json"), Tokenizer::train([text], 300).unwrap().to_bytes()).unwrap();
    assert!(Pretrained::open(&path).unwrap_err().to_string().contains("not the tokenizer"));
}

/// A model's directory that a test may damage.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        models()[0].save_hugging_face(&place.path(), false).unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("model")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Changes a field of a JSON file; null removes it.
    fn set(&self, file: &str, field: &str, value: Value) {
        let path = self.file(file);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().remove(field)),
            value => json[field] = value,
        }
        fs::write(path, json.to_string()).unwrap();
    }

    /// Writes `model.safetensors` anew, with what `edit` makes of header and data.
    fn weights(&self, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) {
        let path = self.file("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
        let mut data = bytes[8 + size..].to_vec();
        edit(&mut header, &mut data);
        fs::write(path, shard(&header, &data)).unwrap();
    }

    fn error(&self) -> String {
        Pretrained::open(&self.path()).unwrap_err().to_string()
    }
}

fn shard(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes(), &header[..], data].concat()
}

const NORM: &str = "model.norm.weight";

#[test]
fn a_wrong_field_of_a_directory_is_named() {
    for (file, field, value, expected) in [
        ("config.json", "model_type", json!("mamba"), "model_type"),
        ("config.json", "hidden_size", json!("wide"), "`hidden_size`"),
        ("config.json", "hidden_size", Value::Null, "hidden_size"),
        ("config.json", "hidden_size", json!(-1), "`hidden_size`"),
        ("config.json", "hidden_size", json!(1u64 << 60), "`width`"),
        ("config.json", "num_hidden_layers", json!(1 << 20), "`layers`"),
        ("config.json", "num_hidden_layers", json!(3), "model.layers.2.input_layernorm.weight"),
        ("config.json", "num_hidden_layers", json!(1), "model.layers.1."),
        ("config.json", "intermediate_size", json!(65), "mlp.gate_proj"),
        ("config.json", "vocab_size", json!(200), "vocab_size"),
        ("config.json", "hidden_act", json!("gelu"), "hidden_act"),
        ("config.json", "attention_bias", json!(true), "attention_bias"),
        ("config.json", "mlp_bias", json!(true), "mlp_bias"),
        ("config.json", "use_sliding_window", json!(true), "use_sliding_window"),
        ("config.json", "layer_types", json!(["full_attention", "sliding_attention"]), "layer_types"),
        ("config.json", "partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("config.json", "quantization_config", json!({"bits": 4}), "quantization_config"),
        ("config.json", "rope_scaling", json!({"type": "yarn", "factor": 4.0}), "rope_scaling.rope_type"),
        ("config.json", "rope_scaling", json!({"rope_type": "linear"}), "rope_scaling.factor"),
        ("config.json", "rope_scaling", json!({"rope_type": "linear", "factor": 1e300}), "rope_scaling.factor"),
        ("config.json", "rms_norm_eps", json!(7), "norm_eps"),
        ("tokenizer.json", "model", json!({"type": "Unigram", "vocab": {}, "merges": []}), "`model`"),
        ("tokenizer.json", "model", json!([]), "tokenizer.json"),
        ("tokenizer.json", "pre_tokenizer", json!({"type": "Metaspace"}), "pre_tokenizer"),
        ("tokenizer_config.json", "bos_token", json!(7), "`bos_token`"),
        ("tokenizer_config.json", "chat_template", json!([{"name": 7}]), "`chat_template`"),
    ] {
        let place = Directory::new();
        place.set(file, field, value.clone());
        let said = place.error();
        assert!(said.contains(expected), "`{field}` as {value}: `{said}` does not name {expected}");
    }
    let place = Directory::new();
    fs::write(place.file("chat_template.jinja"), "{% if %}").unwrap();
    assert!(place.error().contains("chat template"), "{}", place.error());
    for name in ["config.json", "tokenizer.json"] {
        let place = Directory::new();
        fs::write(place.file(name), b"{\"model").unwrap();
        assert!(place.error().contains(name), "{}", place.error());
        fs::remove_file(place.file(name)).unwrap();
        assert!(place.error().contains(name), "{}", place.error());
    }
    let place = Directory::new();
    fs::remove_file(place.file("model.safetensors")).unwrap();
    assert!(place.error().contains("model.safetensors.index.json"), "{}", place.error());
}

#[test]
fn damaged_weights_are_named() {
    type Edit = fn(&mut Value, &mut Vec<u8>);
    let edits: [(&str, Edit); 12] = [
        ("is missing", |header, data| {
            // The last tensor by name, so that no gap is left.
            let end = header[NORM]["data_offsets"][0].as_u64().unwrap() as usize;
            header.as_object_mut().unwrap().remove(NORM);
            data.truncate(end);
        }),
        ("does not belong", |header, data| {
            let end = data.len();
            header["extra"] = json!({"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]});
            data.extend([0; 4]);
        }),
        ("overlaps", |header, _| header[NORM]["data_offsets"][0] = json!(0)),
        ("lies at bytes", |header, _| header[NORM]["data_offsets"][1] = json!(u64::MAX)),
        ("lies at bytes", |header, _| header[NORM]["data_offsets"] = json!([9, 3])),
        ("of which the header names", |_, data| data.extend([0; 8])),
        ("lies at bytes", |_, data| data.truncate(data.len() - 1)),
        ("is I64", |header, _| header[NORM]["dtype"] = json!("I64")),
        ("has 128 bytes", |header, _| header[NORM]["dtype"] = json!("BF16")),
        ("is [31]", |header, _| header[NORM]["shape"] = json!([31])),
        ("is [18446744073709551615, 32]", |header, _| header[NORM]["shape"] = json!([u64::MAX, 32])),
        ("has the value NaN at 3", |header, data| {
            let at = header[NORM]["data_offsets"][0].as_u64().unwrap() as usize;
            data[at + 12..at + 16].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
    ];
    for (expected, edit) in edits {
        let place = Directory::new();
        place.weights(edit);
        let said = place.error();
        assert!(said.contains(expected), "`{said}` does not say `{expected}`");
    }
    let entry = r#""a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let header = format!("{{{entry},{entry}}}");
    let twice = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    for (bytes, expected) in [
        (b"".to_vec(), "truncated"),
        (vec![0xFF; 64], "a header of"),
        ([&(1u64 << 20).to_le_bytes()[..], b"{}"].concat(), "truncated"),
        (shard(&json!({"a": 7}), &[]), "`a`"),
        (shard(&json!([]), &[]), "an object of tensors"),
        (twice, "twice"),
    ] {
        let place = Directory::new();
        fs::write(place.file("model.safetensors"), bytes).unwrap();
        let said = place.error();
        assert!(said.contains(expected), "`{said}` does not say `{expected}`");
    }
}

/// The same model in three files, of three types.
fn split(place: &Directory) -> BTreeMap<String, String> {
    let bytes = fs::read(place.file("model.safetensors")).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut map = BTreeMap::new();
    for (part, name) in
        ["model-1-of-3.safetensors", "model-2-of-3.safetensors", "model-3-of-3.safetensors"].iter().enumerate()
    {
        let (mut header, mut data) = (json!({}), Vec::new());
        let mut names: Vec<_> = whole.names().into_iter().collect();
        names.sort_unstable();
        for tensor in names.into_iter().skip(part).step_by(3) {
            let view = whole.tensor(tensor).unwrap();
            let values = view.data().as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value));
            let start = data.len();
            let dtype = match part {
                0 => {
                    data.extend(view.data());
                    "F32"
                }
                1 => {
                    data.extend(values.flat_map(|value| gguf::f32_to_f16(value).to_le_bytes()));
                    "F16"
                }
                _ => {
                    data.extend(values.flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()));
                    "BF16"
                }
            };
            header[tensor] = json!({"dtype": dtype, "shape": view.shape(), "data_offsets": [start, data.len()]});
            map.insert(tensor.to_owned(), (*name).to_owned());
        }
        fs::write(place.file(name), shard(&header, &data)).unwrap();
    }
    fs::remove_file(place.file("model.safetensors")).unwrap();
    map
}

fn write_index(place: &Directory, map: &BTreeMap<String, String>) {
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    fs::write(place.file("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn a_model_in_several_files_and_types_is_read() {
    let place = Directory::new();
    let map = split(&place);
    write_index(&place, &map);
    let (read, whole) = (Pretrained::open(&place.path()).unwrap(), &models()[0]);
    let layout = Stage::whole(whole.config).unwrap().layout();
    for tensor in layout.tensors() {
        let part = &map[&tensor.name];
        for (got, &value) in read.params[tensor.range()].iter().zip(&whole.params[tensor.range()]) {
            let expected = match &part[..7] {
                "model-1" => value,
                "model-2" => gguf::f16_to_f32(gguf::f32_to_f16(value)),
                _ => f32::from_bits(value.to_bits() & 0xFFFF_0000),
            };
            assert_eq!(got.to_bits(), expected.to_bits(), "{}", tensor.name);
        }
    }
    for hostile in
        ["../model.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "..", "", "model.bin", "c:x.safetensors"]
    {
        let mut map = map.clone();
        map.insert(NORM.to_owned(), hostile.to_owned());
        write_index(&place, &map);
        let said = place.error();
        assert!(said.contains(NORM) && said.contains("no file name"), "`{hostile}`: {said}");
    }
    let mut missing = map.clone();
    missing.insert(NORM.to_owned(), "model-4-of-3.safetensors".to_owned());
    write_index(&place, &missing);
    assert!(place.error().contains("model-4-of-3.safetensors"), "{}", place.error());
    write_index(&place, &BTreeMap::new());
    assert!(place.error().contains("names 0 files"), "{}", place.error());
    write_index(&place, &map);
    fs::copy(place.file("model-1-of-3.safetensors"), place.file("model-2-of-3.safetensors")).unwrap();
    assert!(place.error().contains("in another file"), "{}", place.error());
}

#[test]
fn what_cannot_be_exported_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let model = |edit: &dyn Fn(&mut Pretrained)| {
        let mut model = models().swap_remove(0);
        edit(&mut model);
        model
    };
    let large = model(&|model| model.params[0] = 1e9);
    let infinite = model(&|model| model.params[0] = f32::INFINITY);
    let both = models().swap_remove(4);
    let both = Config { attention: Attention { query_key_norm: true, ..both.config.attention }, ..both.config };
    let both = Pretrained { params: params(&Stage::whole(both).unwrap()), config: both, ..models().swap_remove(4) };
    let scaled = model(&|model| {
        model.config.attention.rope_scaling = Some(RopeScaling::Llama3 {
            factor: 3.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192,
        });
    });
    let said = [
        large.save_hugging_face(&path, true).unwrap_err().to_string(),
        large.save_gguf(&path, TensorType::F16).unwrap_err().to_string(),
        infinite.save_gguf(&path, TensorType::F32).unwrap_err().to_string(),
        both.save_hugging_face(&path, false).unwrap_err().to_string(),
        scaled.save_gguf(&path, TensorType::F32).unwrap_err().to_string(),
        models()[0].save_gguf(&path, TensorType::Q4K).unwrap_err().to_string(),
    ];
    for (said, expected) in said.iter().zip(["too large", "too large", "inf", "attention", "rope_scaling", "Q4_K"]) {
        assert!(said.contains(expected), "`{said}` does not say `{expected}`");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something is left over");
    fs::create_dir(&path).unwrap();
    assert!(models()[0].save_hugging_face(&path, false).is_err(), "a directory that is there is not touched");
}

#[test]
fn what_surrounds_the_weights_is_read_from_a_directory() {
    let place = Directory::new();
    fs::write(place.file("README.md"), "---\nlanguage: en\nlicense: apache-2.0\n---\n\nlicense: none\n").unwrap();
    place.set("generation_config.json", "eos_token_id", json!([259, 258]));
    fs::remove_file(place.file("chat_template.jinja")).unwrap();
    place.set("tokenizer_config.json", "bos_token", json!({"content": "<|im_start|>", "lstrip": false}));
    place.set("tokenizer_config.json", "add_bos_token", Value::Null);
    let templates = json!([{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ bos_token }}!"}]);
    place.set("tokenizer_config.json", "chat_template", templates);
    let model = Pretrained::open(&place.path()).unwrap();
    assert_eq!(model.licence.as_deref(), Some("apache-2.0"));
    assert_eq!((model.begin, &model.ends[..]), (None, &[258, 259][..]));
    assert_eq!(model.template.unwrap().render(&[], true).unwrap(), "<|im_start|>!");
    let processor = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}]});
    place.set("tokenizer.json", "post_processor", processor);
    assert_eq!(Pretrained::open(&place.path()).unwrap().begin, Some(258));
    place.set("tokenizer_config.json", "add_bos_token", json!(false));
    assert_eq!(Pretrained::open(&place.path()).unwrap().begin, None);
    // Version 5 of transformers moved the rotation's base.
    place.set("config.json", "rope_theta", Value::Null);
    place.set("config.json", "rope_parameters", json!({"rope_theta": 5e5, "rope_type": "default"}));
    let config = Pretrained::open(&place.file("model.safetensors")).unwrap().config;
    assert_eq!((config.rope_theta, config.attention.rope_scaling), (5e5, None));
    place.set("config.json", "rope_scaling", json!({"rope_type": "linear", "type": "linear", "factor": 4}));
    place.set("config.json", "rope_parameters", Value::Null);
    let config = Pretrained::open(&place.path()).unwrap().config;
    assert_eq!(config.attention.rope_scaling, Some(RopeScaling::Linear { factor: 4.0 }));
}

/// What transformers and llama.cpp said of the files that this program writes; `golden/exported.py` made it.
#[derive(serde::Deserialize)]
struct Said {
    prompt: Vec<u32>,
    /// By the name of the model.
    models: BTreeMap<String, Elsewhere>,
}

#[derive(serde::Deserialize)]
struct Elsewhere {
    /// BLAKE3 of what was read, by the file's name.
    files: BTreeMap<String, String>,
    transformers: Vec<u32>,
    llama_cpp: Vec<u32>,
}

/// Writes the files for `golden/exported.py` into the directory that `CAIRN_EXPORT_TO` names, when it does. In any case: the files have the
/// hashes of those that the others read, and the greedy tokens are theirs.
#[test]
fn other_programs_say_the_same_of_exported_models() {
    let scratch = tempfile::tempdir().unwrap();
    let wanted = std::env::var_os("CAIRN_EXPORT_TO").map(PathBuf::from);
    let folder = wanted.as_deref().unwrap_or(scratch.path());
    let said: Said = serde_json::from_str(include_str!("../golden/exported.json")).unwrap();
    let hash = |path: &Path| blake3::hash(&fs::read(path).unwrap()).to_hex().to_string();
    for model in models() {
        let (directory, file) = (folder.join(&model.name), folder.join(format!("{}.gguf", model.name)));
        model.save_hugging_face(&directory, false).unwrap();
        model.save_gguf(&file, TensorType::F32).unwrap();
        let Some(elsewhere) = said.models.get(&model.name) else {
            assert!(wanted.is_some(), "nothing is recorded of {}", model.name);
            continue;
        };
        for (name, expected) in &elsewhere.files {
            assert_eq!(hash(&folder.join(name)), *expected, "{name} is not the file that others read");
        }
        let own = greedy(&model, &said.prompt, elsewhere.transformers.len());
        assert_eq!(own, elsewhere.transformers, "{}: transformers", model.name);
        assert_eq!(own, elsewhere.llama_cpp, "{}: llama.cpp", model.name);
    }
}

fn greedy(model: &Pretrained, prompt: &[u32], count: usize) -> Vec<u32> {
    let ctx = Context::new(2);
    let mut decoder = Decoder::new(model.config, &model.params).unwrap();
    let mut cache = decoder.cache();
    let (mut next, mut said) = (prompt.to_vec(), Vec::new());
    for _ in 0..count {
        let logits = decoder.feed(&ctx, &mut cache, &next).unwrap();
        let best = (0u32..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        said.push(best);
        if model.ends.contains(&best) {
            break;
        }
        next = vec![best];
    }
    said
}

/// The real model through both formats: the same bits, tokens and template, and the greedy text that transformers and llama.cpp gave for the
/// exported files.
#[test]
fn a_real_model_survives_both_formats() {
    let Some(path) = std::env::var_os("CAIRN_SMOLLM2") else {
        println!("SKIPPED: CAIRN_SMOLLM2 does not name the file SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let model = Pretrained::open(Path::new(&path)).unwrap();
    assert_eq!((model.short_name.as_str(), model.stored.as_str()), ("smollm2-135M", "Q4_1"));
    let scratch = tempfile::tempdir().unwrap();
    let wanted = std::env::var_os("CAIRN_EXPORT_TO").map(PathBuf::from);
    let folder = wanted.as_deref().unwrap_or(scratch.path());
    let (directory, file, small) =
        (folder.join("smollm2"), folder.join("smollm2.gguf"), folder.join("smollm2-q8_0.gguf"));
    model.save_hugging_face(&directory, false).unwrap();
    model.save_gguf(&file, TensorType::F32).unwrap();
    model.save_gguf(&small, TensorType::Q8_0).unwrap();
    for path in [directory, file] {
        assert_same(&Pretrained::open(&path).unwrap(), &model);
    }
    let q8 = Pretrained::open(&small).unwrap();
    let worst = model.params.iter().zip(&q8.params).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let largest = model.params.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    assert!(worst > 0.0 && worst <= largest / 254.0 * 1.01, "{worst} of {largest}");

    let said: BTreeMap<String, String> = serde_json::from_str(include_str!("../golden/exported_smollm2.json")).unwrap();
    let own = model.tokenizer.decode(&greedy(&model, &model.tokenizer.encode_template(&said["prompt"]), 32));
    for (program, text) in said.iter().filter(|(program, _)| *program != "prompt") {
        assert_eq!(own, *text, "{program}");
    }
    assert_eq!(said.len(), 3, "a prompt, and two programs");
}

//! Models from GGUF files: a small one that the test writes, and a real one where it is at hand.

use model::gguf::{self, Array, Metadata, Strings, TensorSource, TensorType, Value};
use model::{Attention, Config, Message, Pretrained, Stage};
use tensor::Context;

use crate::support::{bits, config, params};

/// A tensor's name, dimensions with the fastest first, and values.
type Written = (String, Vec<u64>, Vec<f32>);

/// The characters of the first 27 byte tokens, two added ones.
fn tokenizer(metadata: &mut Metadata) {
    let letters: Vec<String> = ('a'..='z').map(String::from).chain(["Ġ".to_owned()]).collect();
    let tokens = letters.iter().map(String::as_str).chain(["<|im_start|>", "<|im_end|>"]);
    let kinds = (0..29).map(|id| if id < 27 { 1 } else { 3 }).collect();
    let entries = [
        ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Value::String("smollm".to_owned())),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(Strings::from_iter(tokens)))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds))),
        ("tokenizer.ggml.merges", Value::Array(Array::String(Strings::default()))),
        ("tokenizer.ggml.bos_token_id", Value::U32(27)),
        ("tokenizer.ggml.eos_token_id", Value::U32(28)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ("tokenizer.chat_template", Value::String("{{ bos_token }}{{ messages[0].content }}".to_owned())),
    ];
    for (key, value) in entries {
        metadata.insert(key, value);
    }
}

fn metadata(config: &Config, architecture: &str) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", Value::String(architecture.to_owned()));
    metadata.insert("general.license", Value::String("cc0".to_owned()));
    for (name, size) in [
        ("block_count", config.layers),
        ("context_length", config.context),
        ("embedding_length", config.width),
        ("feed_forward_length", config.ff),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
    ] {
        metadata.insert(format!("{architecture}.{name}"), Value::U32(size as u32));
    }
    metadata.insert(format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(config.norm_eps));
    metadata.insert(format!("{architecture}.rope.freq_base"), Value::F32(config.rope_theta));
    tokenizer(&mut metadata);
    metadata
}

/// The name and, for queries and keys of `llama`, the order of rows that converters write.
fn tensors(config: &Config, params: &[f32], architecture: &str) -> Vec<Written> {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let layout = Stage::whole(*config).unwrap().layout();
    let tensors = layout.tensors().iter().map(|tensor| {
        let name = names.iter().fold(tensor.name.clone(), |name, (theirs, ours)| name.replace(theirs, ours));
        let mut values = params[tensor.range()].to_vec();
        if architecture == "llama" && (name.contains("attn_q.w") || name.contains("attn_k.w")) {
            let (columns, half) = (tensor.shape[1], config.head_dim / 2);
            let head = config.head_dim * columns;
            let rows = values.chunks(head).flat_map(|head| {
                (0..half).flat_map(move |i| [i, half + i]).map(move |row| &head[row * columns..(row + 1) * columns])
            });
            values = rows.flatten().copied().collect();
        }
        (name, tensor.shape.iter().rev().map(|size| *size as u64).collect(), values)
    });
    tensors.collect()
}

fn file(metadata: &Metadata, tensors: &[Written]) -> Vec<u8> {
    let tensors: Vec<TensorSource<'_>> = tensors
        .iter()
        .map(|(name, dimensions, values)| TensorSource { name, dimensions, tensor_type: TensorType::F32, values })
        .collect();
    gguf::write(metadata, &tensors).unwrap()
}

#[test]
fn a_model_comes_back_from_the_file_that_a_converter_writes() {
    let plain = config();
    let tied = Config { tied_head: true, kv_heads: 1, ..plain };
    let biased = Config { attention: Attention { bias: true, ..Attention::PLAIN }, ..plain };
    let normed = Config { attention: Attention { query_key_norm: true, ..Attention::PLAIN }, tied_head: true, ..plain };
    for (architecture, config) in [("llama", plain), ("llama", tied), ("qwen2", biased), ("qwen3", normed)] {
        let params = params(&Stage::whole(config).unwrap());
        let bytes = file(&metadata(&config, architecture), &tensors(&config, &params, architecture));
        let model = Pretrained::from_gguf(&gguf::read(&bytes).unwrap()).unwrap();
        assert_eq!(model.config, config, "{architecture}");
        assert!(bits(&model.params) == bits(&params), "{architecture}: other parameters");
        assert_eq!((model.begin, &model.ends[..]), (Some(27), &[28][..]));
        assert_eq!((model.name.as_str(), model.licence.as_deref()), (architecture, Some("cc0")));
        let template = model.template.unwrap();
        let text = template.render(&[Message { role: "user", content: "ab c" }], true).unwrap();
        assert_eq!(model.tokenizer.encode_template(&text), [27, 0, 1, 26, 2]);
    }
}

#[test]
fn a_file_is_written_again_with_other_parameters() {
    let plain = Config { width: 64, ff: 36, ..config() };
    let biased = Config { attention: Attention { bias: true, ..Attention::PLAIN }, ..plain };
    for (architecture, config) in [("llama", plain), ("qwen2", biased)] {
        let params = params(&Stage::whole(config).unwrap());
        let before = file(&metadata(&config, architecture), &tensors(&config, &vec![0.5; params.len()], architecture));
        let before = Pretrained::from_gguf(&gguf::read(&before).unwrap()).unwrap();
        let changed = Pretrained { params: params.clone(), ..before };
        for (tensor_type, bound) in [(TensorType::F32, 0.0), (TensorType::F16, 1e-3), (TensorType::Q8_0, 1e-2)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model.gguf");
            changed.save_gguf(&path, tensor_type).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            changed.save_gguf(&path, tensor_type).unwrap();
            assert!(bytes == std::fs::read(&path).unwrap(), "the same parameters give the same bytes");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
            let read = gguf::read(&bytes).unwrap();
            let largest = read.tensors().iter().map(|tensor| tensor.range.len() as u64).max().unwrap();
            assert!(Pretrained::gguf_scratch_bytes(&config, tensor_type).unwrap() >= largest);
            let model = Pretrained::from_gguf(&read).unwrap();
            let worst = model.params.iter().zip(&params).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst <= bound, "{architecture} as {tensor_type:?}: {worst}");
            assert_eq!((model.config, model.begin, model.licence.as_deref()), (config, Some(27), Some("cc0")));
            // Rows of 36 are no whole blocks, and vectors stay as they are.
            let stored = |name: &str| read.tensor(name).unwrap().tensor_type;
            assert_eq!(stored("blk.0.ffn_up.weight"), tensor_type);
            assert_eq!(stored("blk.0.attn_norm.weight"), TensorType::F32);
            let narrow = if tensor_type == TensorType::Q8_0 { TensorType::F16 } else { tensor_type };
            assert_eq!(stored("blk.0.ffn_down.weight"), narrow);
        }
    }
}

#[test]
fn what_is_missing_or_not_computed_is_named() {
    let config = config();
    let values = params(&Stage::whole(config).unwrap());
    let message = |edit: &dyn Fn(&mut Metadata, &mut Vec<Written>)| {
        let (mut metadata, mut tensors) = (metadata(&config, "llama"), tensors(&config, &values, "llama"));
        edit(&mut metadata, &mut tensors);
        let bytes = file(&metadata, &tensors);
        Pretrained::from_gguf(&gguf::read(&bytes).unwrap()).unwrap_err().to_string()
    };
    let set = |key: &'static str, value: Value| {
        message(&move |metadata, _| {
            metadata.insert(key, value.clone());
        })
    };
    for (expected, got) in [
        ("general.architecture", set("general.architecture", Value::String("mamba".to_owned()))),
        ("llama.expert_count", set("llama.expert_count", Value::U32(8))),
        ("llama.rope.dimension_count", set("llama.rope.dimension_count", Value::U32(4))),
        ("llama.rope.scaling.type", set("llama.rope.scaling.type", Value::String("yarn".to_owned()))),
        ("tokenizer.ggml.model", set("tokenizer.ggml.model", Value::String("llama".to_owned()))),
        ("tokenizer.ggml.pre", set("tokenizer.ggml.pre", Value::String("viking".to_owned()))),
        ("chat template", set("tokenizer.chat_template", Value::String("{% if %}".to_owned()))),
        ("tokenizer.ggml.token_type", set("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1])))),
        ("`heads`", set("llama.attention.head_count_kv", Value::U32(3))),
        ("blk.1.ffn_up.weight", message(&|_, tensors| tensors.retain(|(name, ..)| name != "blk.1.ffn_up.weight"))),
        (
            "blk.2.attn_k.weight",
            message(&|_, tensors| {
                for (_, dimensions, _) in tensors.iter_mut().filter(|(name, ..)| name == "blk.2.attn_k.weight") {
                    dimensions.reverse();
                }
            }),
        ),
        (
            "blk.0.attn_output.bias",
            message(&|_, tensors| tensors.push(("blk.0.attn_output.bias".into(), vec![20], vec![0.0; 20]))),
        ),
        ("rope_freqs.weight", message(&|_, tensors| tensors.push(("rope_freqs.weight".into(), vec![3], vec![1.5; 3])))),
    ] {
        assert!(got.contains(expected), "`{got}` does not name {expected}");
    }
}

/// Largest difference of a log-probability from transformers, in float32 as we are.
const EXACT: f64 = 1e-3;
/// Largest and mean difference where one side rounds activations to 8 bits in blocks of 32, as llama.cpp does and quantised matrices here
/// do. llama.cpp's own differences from transformers are 0.439 and 0.089.
const QUANTISED: [f64; 2] = [0.6, 0.11];

#[derive(serde::Deserialize)]
struct Golden {
    text: String,
    tokens: Vec<u32>,
    /// llama.cpp's greedy token, and the likeliest ones with their log-probabilities by llama.cpp and by transformers.
    steps: Vec<(u32, Vec<Likely>)>,
}

/// A token and its log-probability by both.
type Likely = (u32, f64, f64);

/// How far log-probabilities are apart.
#[derive(Debug, Default)]
struct Apart {
    /// Largest and mean, from transformers.
    exact: [f64; 2],
    /// Largest and mean, from llama.cpp.
    quantised: [f64; 2],
}

/// What a decoder says of the golden texts. It must choose llama.cpp's tokens wherever two are not all but equally likely.
fn compare(model: &Pretrained, decoder: &mut model::Decoder) -> Apart {
    let ctx = Context::new(2);
    let golden: Vec<Golden> = serde_json::from_str(include_str!("../golden/smollm2.json")).unwrap();
    let (mut apart, mut count) = (Apart::default(), 0.0);
    for Golden { text, tokens, steps } in golden {
        assert_eq!(model.tokenizer.encode_template(&text), tokens, "tokens of {text:?}");
        let mut cache = decoder.cache();
        let mut next = tokens;
        for (token, likeliest) in steps {
            let logits = decoder.feed(&ctx, &mut cache, &next).unwrap();
            let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, logit| largest.max(*logit));
            let total: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
            let of = |token: u32| f64::from(logits[token as usize] - largest) - total.ln();
            for (token, quantised, precise) in &likeliest {
                for ([worst, sum], theirs) in [(&mut apart.quantised, quantised), (&mut apart.exact, precise)] {
                    let difference = (of(*token) - theirs).abs();
                    (*worst, *sum) = (worst.max(difference), *sum + difference);
                }
                count += 1.0;
            }
            let margin = likeliest[0].1 - likeliest[1].1;
            let best = (0u32..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert!(best == token || margin < QUANTISED[0], "after {text:?}: {best} instead of {token}");
            next = vec![token];
        }
    }
    for [_, mean] in [&mut apart.quantised, &mut apart.exact] {
        *mean /= count;
    }
    println!("{count} log-probabilities, largest and mean difference: {apart:?}");
    apart
}

fn within([worst, mean]: [f64; 2], [worst_max, mean_max]: [f64; 2]) -> bool {
    worst < worst_max && mean < mean_max
}

/// `SmolLM2-135M-Instruct.Q4_1.gguf`, 98 MB, where `CAIRN_SMOLLM2` says, beside llama.cpp and transformers; `golden/smollm2.py` made the file.
#[test]
fn a_real_model_says_what_others_say_of_it() {
    let Some(path) = std::env::var_os("CAIRN_SMOLLM2") else {
        println!("SKIPPED: CAIRN_SMOLLM2 does not name the file SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let file = gguf::load(path.as_ref()).unwrap();
    let model = Pretrained::from_gguf(&file).unwrap();
    assert_eq!((model.config.layers, model.config.width, model.config.parameters()), (30, 576, 134_515_008));
    let precise = compare(&model, &mut model::Decoder::new(model.config, &model.params).unwrap());
    assert!(precise.exact[0] < EXACT, "in f32: {precise:?}");
    assert!(within(precise.quantised, QUANTISED), "in f32: {precise:?}");
    let quantised = compare(&model, &mut model::decoder_from_gguf(&file).unwrap());
    assert!(within(quantised.exact, QUANTISED) && within(quantised.quantised, QUANTISED), "quantised: {quantised:?}");
}

/// Widths of whole blocks, so that matrices stay quantised.
fn blocked() -> Config {
    Config { vocab: 40, width: 64, heads: 4, kv_heads: 2, head_dim: 16, ff: 96, context: 64, ..config() }
}

#[test]
fn a_quantised_model_has_the_same_bits_however_it_is_fed_and_computed() {
    for config in [blocked(), Config { tied_head: true, ..blocked() }] {
        let params = params(&Stage::whole(config).unwrap());
        let written = tensors(&config, &params, "llama");
        let sources = written.iter().map(|(name, dimensions, values)| {
            let tensor_type = if dimensions.len() == 2 { TensorType::Q8_0 } else { TensorType::F32 };
            TensorSource { name, dimensions, tensor_type, values }
        });
        let bytes = gguf::write(&metadata(&config, "llama"), &sources.collect::<Vec<_>>()).unwrap();
        let file = gguf::read(&bytes).unwrap();
        let mut decoder = model::decoder_from_gguf(&file).unwrap();
        let tokens: Vec<u32> = (0..45).map(|i| i * 7 % 40).collect();
        let run = |decoder: &mut model::Decoder, ctx: &Context, piece: usize| {
            let mut cache = decoder.cache();
            let pieces = tokens.chunks(piece).map(|piece| bits(decoder.feed(ctx, &mut cache, piece).unwrap()));
            pieces.last().unwrap()
        };
        let expected = run(&mut decoder, &Context::scalar(), 1);
        for isa in tensor::Isa::available() {
            for (threads, piece) in [(1, 1), (2, 7), (2, 45)] {
                let got = run(&mut decoder, &Context::new(threads).with_isa(isa), piece);
                assert!(got == expected, "{} with {threads} threads in pieces of {piece}", isa.name());
            }
        }
        // The same model in f32 says nearly the same: activations are rounded to 8 bits.
        let model = Pretrained::from_gguf(&file).unwrap();
        let precise = run(&mut model::Decoder::new(config, &model.params).unwrap(), &Context::single(), 45);
        let (mut error, mut size) = (0.0, 0.0);
        for (got, precise) in expected.iter().zip(&precise) {
            let (got, precise) = (f64::from(f32::from_bits(*got)), f64::from(f32::from_bits(*precise)));
            (error, size) = (error + (got - precise).powi(2), size + precise.powi(2));
        }
        assert!(error > 0.0 && error < 0.1f64.powi(2) * size, "off by {} of {}", error.sqrt(), size.sqrt());
    }
}

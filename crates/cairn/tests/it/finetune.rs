//! Fine-tuning as a person runs it, on a model small enough for a test.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use model::gguf::{self, Array, Metadata, Strings, TensorSource, TensorType, Value};
use model::{Attention, Config, Pretrained, Stage};

use crate::program::{PATIENCE, Place, failed};

const CONFIG: Config = Config {
    vocab: 31,
    width: 32,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
    ff: 64,
    context: 64,
    rope_theta: 10_000.0,
    norm_eps: 1e-5,
    tied_head: true,
    attention: Attention::PLAIN,
};

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant {% endif %}";

/// Letters, a space and a full stop, and three special tokens.
fn metadata() -> Metadata {
    let letters: Vec<String> = ('a'..='z').map(String::from).chain(["Ġ".into(), ".".into()]).collect();
    let tokens = letters.iter().map(String::as_str).chain(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]);
    let mut metadata = Metadata::new();
    for (name, size) in [
        ("block_count", CONFIG.layers),
        ("context_length", CONFIG.context),
        ("embedding_length", CONFIG.width),
        ("feed_forward_length", CONFIG.ff),
        ("attention.head_count", CONFIG.heads),
        ("attention.head_count_kv", CONFIG.kv_heads),
    ] {
        metadata.insert(format!("llama.{name}"), Value::U32(size as u32));
    }
    for (key, value) in [
        ("general.architecture", Value::String("llama".into())),
        ("general.name", Value::String("small".into())),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(CONFIG.norm_eps)),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("smollm".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(Strings::from_iter(tokens)))),
        (
            "tokenizer.ggml.token_type",
            Value::Array(Array::I32((0..31).map(|id| if id < 28 { 1 } else { 3 }).collect())),
        ),
        ("tokenizer.ggml.merges", Value::Array(Array::String(Strings::default()))),
        ("tokenizer.ggml.eos_token_id", Value::U32(30)),
        ("tokenizer.chat_template", Value::String(TEMPLATE.into())),
    ] {
        metadata.insert(key, value);
    }
    metadata
}

/// Writes the small model.
fn write_model(path: &Path) {
    let stage = Stage::whole(CONFIG).unwrap();
    let (layout, params) = (stage.layout(), model::init(&stage, [1; 32]));
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let named: Vec<(String, Vec<u64>, &[f32])> = layout
        .tensors()
        .iter()
        .map(|tensor| {
            let name = names.iter().fold(tensor.name.clone(), |name, (theirs, ours)| name.replace(theirs, ours));
            (name, tensor.shape.iter().rev().map(|&size| size as u64).collect(), &params[tensor.range()])
        })
        .collect();
    let tensors: Vec<TensorSource<'_>> = named
        .iter()
        .map(|(name, dimensions, values)| TensorSource { name, dimensions, tensor_type: TensorType::F32, values })
        .collect();
    std::fs::write(path, gguf::write(&metadata(), &tensors).unwrap()).unwrap();
}

/// A place with the model, a text and conversations.
fn place() -> Place {
    let place = Place::new();
    write_model(&place.file("small.gguf"));
    let text = "the cat sat on the mat. the dog sat on the cat. ".repeat(80);
    std::fs::write(place.file("text.txt"), text).unwrap();
    let line = r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"cat"}]}"#;
    std::fs::write(place.file("talk.jsonl"), format!("{line}\n").repeat(8)).unwrap();
    place
}

fn arguments(place: &Place, data: &str, out: &str, more: &[&str]) -> Vec<String> {
    let path = |name: &str| place.file(name).to_str().unwrap().to_owned();
    let (model, data, out) = (path("small.gguf"), path(data), path(out));
    let mut all: Vec<String> =
        ["finetune", "--model", &model, "--data", &data, "--out", &out, "--tokens", "24"].map(str::to_owned).into();
    all.extend(more.iter().map(|argument| (*argument).to_owned()));
    all
}

fn finetune(place: &Place, data: &str, out: &str, more: &[&str]) -> Output {
    let arguments = arguments(place, data, out, more);
    place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn done(output: &Output) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

/// The held-out losses before and after.
fn losses(said: &str) -> [f64; 2] {
    let line = said.lines().find(|line| line.starts_with("held-out loss")).unwrap();
    let numbers: Vec<f64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    [numbers[0], numbers[1]]
}

#[test]
fn the_loss_falls_and_the_result_is_a_model_that_answers() {
    let place = place();
    for (data, more) in [
        ("text.txt", &["--full", "--lr", "0.01", "--steps", "40", "--type", "f32"][..]),
        ("text.txt", &["--lora", "8", "--lr", "0.02", "--steps", "60", "--type", "q8_0"]),
        ("talk.jsonl", &["--full", "--lr", "0.01", "--steps", "40"]),
    ] {
        let said = done(&finetune(&place, data, "out.gguf", more));
        let [before, after] = losses(&said);
        assert!(after < 0.8 * before, "{more:?}: {said}");
        let path = place.file("out.gguf");
        let model = Pretrained::from_gguf(&gguf::load(&path).unwrap()).unwrap();
        assert_eq!((model.config, model.name.as_str()), (CONFIG, "small"));
        let answer = place.run(&["chat", "hi", "--checkpoint", path.to_str().unwrap(), "--max-tokens", "4"]);
        assert!(answer.status.success());
        assert!(!place.file("out.gguf.run").exists(), "nothing is left behind");
    }
}

#[test]
fn adapters_alone_and_a_checkpoint() {
    let place = place();
    done(&finetune(&place, "text.txt", "adapters", &["--steps", "2", "--targets", "v_proj,q_proj"]));
    let config = std::fs::read_to_string(place.file("adapters").join("adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["target_modules"], serde_json::json!(["q_proj", "v_proj"]));
    assert!(place.file("adapters").join("adapter_model.safetensors").exists());
    done(&finetune(&place, "text.txt", "model.safetensors", &["--steps", "2"]));
    let loaded = model::files::load(&place.file("model.safetensors")).unwrap();
    assert_eq!(loaded.stage.config(), &CONFIG);
}

#[test]
fn the_same_command_gives_the_same_bytes_with_any_threads() {
    let place = place();
    for method in ["--full", "--lora=4"] {
        let mut results = Vec::new();
        for more in [["--threads", "1"], ["--threads", "2"]] {
            done(&finetune(&place, "text.txt", "out.gguf", &[&[method, "--steps", "6"], &more[..]].concat()));
            results.push(std::fs::read(place.file("out.gguf")).unwrap());
        }
        done(&finetune(&place, "text.txt", "out.gguf", &[method, "--steps", "6", "--recompute"]));
        results.push(std::fs::read(place.file("out.gguf")).unwrap());
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{method}");
    }
}

#[test]
fn a_killed_run_goes_on_with_the_same_bits() {
    let place = place();
    for method in ["--full", "--lora=4"] {
        let steps = ["--steps", "1500", "--save-every", "20", "--threads", "1", method];
        done(&finetune(&place, "text.txt", "whole.gguf", &steps));
        let mut lives = 0;
        let saved = place.file("killed.gguf.run");
        for _ in 0..2 {
            let before = std::fs::read(&saved).ok();
            let mut process = Command::new(env!("CARGO_BIN_EXE_cairn"))
                .args(arguments(&place, "text.txt", "killed.gguf", &steps))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + PATIENCE;
            // Until it has saved a state later than the last life's, or is done.
            while std::fs::read(&saved).ok() == before && process.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "no state was saved");
                std::thread::sleep(Duration::from_millis(1));
            }
            lives += usize::from(process.try_wait().unwrap().is_none());
            process.kill().unwrap();
            process.wait().unwrap();
        }
        assert!(lives > 0, "it was done before it could be killed");
        let said = done(&finetune(&place, "text.txt", "killed.gguf", &steps));
        assert!(said.contains("going on from step"), "{said}");
        let [whole, killed] = ["whole.gguf", "killed.gguf"].map(|name| std::fs::read(place.file(name)).unwrap());
        assert!(whole == killed, "{method}");
        assert!(!saved.exists());
    }
}

#[test]
fn a_saved_state_of_another_run_is_not_taken() {
    let place = place();
    let saved = place.file("out.gguf.run");
    std::fs::write(&saved, "something else").unwrap();
    let (code, said) = failed(&finetune(&place, "text.txt", "out.gguf", &["--steps", "2"]));
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("out.gguf.run") && said.contains("hint: remove"), "{said}");
}

#[test]
fn too_little_memory_is_refused_with_what_it_is_for_and_what_would_fit() {
    let place = place();
    let (code, said) = failed(&finetune(&place, "text.txt", "out.gguf", &["--memory", "1M"]));
    assert_eq!(code, 3, "{said}");
    for part in ["parameters", "gradients", "optimiser", "activations", "hint: this model does not fit"] {
        assert!(said.contains(part), "`{part}` in {said}");
    }
    let (code, said) = failed(&finetune(&place, "text.txt", "out.gguf", &["--batch", "2048", "--memory", "100M"]));
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("what would fit: `--batch 1024`") || said.contains("what would fit: `--batch 512`"),
        "{said}"
    );
    done(&finetune(&place, "text.txt", "out.gguf", &["--steps", "1", "--memory", "100M"]));
}

#[test]
fn every_bad_input_is_named() {
    let place = place();
    std::fs::write(place.file("bad.gguf"), "PK\u{3}\u{4}?").unwrap();
    std::fs::write(place.file("bad.jsonl"), "{\"messages\":[]}\n").unwrap();
    let bad_model = place.file("bad.gguf");
    let cases: [(&str, &[&str], i32, &str); 9] = [
        ("missing.txt", &[], 3, "missing.txt"),
        ("bad.jsonl", &[], 3, "line 1"),
        ("text.txt", &["--tokens", "65"], 3, "batch.tokens"),
        ("text.txt", &["--targets", "x_proj"], 3, "x_proj"),
        ("text.txt", &["--lr", "7"], 3, "`lr`"),
        ("text.txt", &["--alpha", "0"], 3, "lora.alpha"),
        ("text.txt", &["--full", "--lora", "4"], 2, "--lora"),
        ("text.txt", &["--memory", "many"], 2, "4G"),
        ("text.txt", &["--model", bad_model.to_str().unwrap()], 6, "GGUF"),
    ];
    for (data, more, wanted, part) in cases {
        let arguments = arguments(&place, data, "out.gguf", &[]);
        // A later option replaces an earlier one only where it may be given once.
        let kept: Vec<&str> = match more.first() {
            Some(option) => {
                let at = arguments.iter().position(|argument| argument == option);
                let skip = |i: usize| at.is_some_and(|at| i == at || i == at + 1);
                arguments.iter().enumerate().filter(|(i, _)| !skip(*i)).map(|(_, argument)| argument.as_str()).collect()
            }
            None => arguments.iter().map(String::as_str).collect(),
        };
        let (code, said) = failed(&place.run(&[&kept[..], more].concat()));
        assert_eq!(code, wanted, "{more:?}: {said}");
        assert!(said.contains(part), "{more:?}: `{part}` in {said}");
    }
    let (code, said) = failed(&finetune(&place, "text.txt", "out.txt", &["--full"]));
    assert_eq!(code, 3, "{said}");
}

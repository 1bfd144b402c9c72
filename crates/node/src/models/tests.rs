use std::collections::BTreeMap;

use model::gguf::TensorType;
use model::pretrained::SpecialTokens;
use model::tokenizer::VOCAB_MIN;
use model::{Attention, Config, Stage, Tokenizer};

use super::*;

fn pretrained(name: &str) -> Pretrained {
    let tokenizer = Tokenizer::train(["a stone upon a stone"], VOCAB_MIN).unwrap();
    let config = Config {
        vocab: VOCAB_MIN,
        width: 8,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        ff: 8,
        context: 16,
        rope_theta: 1e4,
        norm_eps: 1e-5,
        tied_head: true,
        attention: Attention::PLAIN,
    };
    Pretrained {
        name: name.to_owned(),
        short_name: name.to_owned(),
        licence: Some("cc0-1.0".to_owned()),
        stored: "F32".to_owned(),
        params: model::init(&Stage::whole(config).unwrap(), [7; 32]),
        config,
        tokenizer,
        template: None,
        begin: None,
        ends: vec![0],
        special: SpecialTokens { begin: Some(0), end: Some(0), ..SpecialTokens::default() },
    }
}

/// A data directory, and a GGUF file beside it.
fn place(name: &str) -> (tempfile::TempDir, Models, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.gguf");
    pretrained(name).save_gguf(&file, TensorType::F16).unwrap();
    let models = Models::new(&directory.path().join("home"));
    (directory, models, file)
}

fn go() -> AtomicBool {
    AtomicBool::new(false)
}

/// Everything in the store's directory but its lock.
fn left(models: &Models) -> Vec<String> {
    let entries = fs::read_dir(models.folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock").collect()
}

#[test]
fn an_imported_model_is_found_read_and_removed() {
    let (directory, models, file) = place("Pebble Model (small)");
    assert_eq!(models.list().unwrap(), []);
    let manifest = models.import(&file, None, &go()).unwrap();
    assert_eq!(manifest.name, "pebble-model-small");
    assert_eq!((manifest.title.as_str(), manifest.licence.as_deref()), ("Pebble Model (small)", Some("cc0-1.0")));
    assert_eq!((manifest.format.as_str(), manifest.stored.as_str(), manifest.chat), ("gguf", "F16", false));
    assert_eq!(manifest.parameters, pretrained("x").params.len() as u64);
    assert_eq!(manifest.bytes, file.metadata().unwrap().len());
    assert_eq!(manifest.blake3, blake3::hash(&fs::read(&file).unwrap()).to_hex().to_string());
    assert_eq!(models.list().unwrap(), std::slice::from_ref(&manifest));
    assert_eq!(models.find("pebble").unwrap(), manifest);
    assert!(matches!(models.find("pebbles"), Err(ModelsError::Unknown { .. })));
    assert!(matches!(models.find(""), Err(ModelsError::Ambiguous { .. })));
    let model = models.open(&manifest).unwrap();
    assert_eq!(model.config, pretrained("x").config);

    assert!(matches!(models.import(&file, None, &go()), Err(ModelsError::Taken { .. })));
    models.import(&file, Some("pebble"), &go()).unwrap();
    models.import(&file, Some("pebble-2"), &go()).unwrap();
    assert_eq!(models.find("pebble").unwrap().name, "pebble", "a whole name comes before beginnings");
    assert!(matches!(models.find("pebble-"), Err(ModelsError::Ambiguous { matching, .. }) if matching.len() == 2));
    assert!(matches!(models.remove("peb"), Err(ModelsError::Unknown { .. })), "only a whole name is removed");
    for name in ["pebble", "pebble-2", "pebble-model-small"] {
        models.remove(name).unwrap();
    }
    assert_eq!(left(&models), Vec::<String>::new());
    drop(directory);
}

#[test]
fn directories_and_checkpoints_are_imported_too() {
    let (directory, models, _) = place("x");
    let folder = directory.path().join("Qwen-Like");
    pretrained("x").save_hugging_face(&folder, false).unwrap();
    fs::write(folder.join("notes.txt"), "not part of the model").unwrap();
    let manifest = models.import(&folder, None, &go()).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.format.as_str()), ("qwen-like", "safetensors"));
    let names: BTreeMap<&str, u64> = manifest.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    assert!(
        names.contains_key("config.json") && names.contains_key("tokenizer.json") && !names.contains_key("notes.txt")
    );
    assert_eq!(models.open(&manifest).unwrap().params, pretrained("x").params);

    let model = pretrained("x");
    let path = directory.path().join("mine.safetensors");
    let stage = Stage::whole(model.config).unwrap();
    let checkpoint = model::Checkpoint { stage, tokenizer: model.tokenizer.hash(), params: model.params.clone() };
    model::files::save(&path, &checkpoint).unwrap();
    fs::write(directory.path().join("tokenizer.json"), model.tokenizer.to_bytes()).unwrap();
    let manifest = models.import(&path, None, &go()).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.format.as_str()), ("mine", "checkpoint"));
    assert_eq!(models.open(&manifest).unwrap().params, model.params);
}

#[test]
fn an_import_that_fails_or_is_stopped_leaves_nothing() {
    let (directory, models, file) = place("pebble");
    assert!(matches!(models.import(&file, None, &AtomicBool::new(true)), Err(ModelsError::Cancelled)));
    assert_eq!(left(&models), Vec::<String>::new());
    let bytes = fs::read(&file).unwrap();
    let cut = directory.path().join("cut.gguf");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(models.import(&cut, None, &go()), Err(ModelsError::Model(_))));
    for name in ["", "..", ".hidden", "a/b", "A", "a b", "é", "lock", &"a".repeat(65)] {
        assert!(matches!(models.import(&file, Some(name), &go()), Err(ModelsError::BadName { .. })), "{name}");
    }
    assert_eq!(left(&models), Vec::<String>::new());
    // What a crash leaves is not seen, and goes with the next change.
    fs::create_dir(models.folder().join(".partial-old")).unwrap();
    fs::write(models.folder().join(".partial-old/model.gguf"), "half").unwrap();
    assert_eq!(models.list().unwrap(), []);
    models.import(&file, None, &go()).unwrap();
    assert_eq!(left(&models), ["pebble"]);
    let held = DirectoryLock::take(models.folder()).unwrap();
    assert!(matches!(models.import(&file, Some("other"), &go()), Err(ModelsError::Busy)));
    drop(held);
}

#[test]
fn a_changed_file_and_a_damaged_manifest_are_noticed() {
    let (_directory, models, file) = place("pebble");
    let manifest = models.import(&file, None, &go()).unwrap();
    let stored = models.folder().join("pebble/model.gguf");
    let good = fs::read(&stored).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&stored, &bad).unwrap();
    let error = models.open(&manifest).unwrap_err();
    assert!(matches!(error, ModelsError::Changed { .. }) && error.hint().contains("rm pebble"), "{error}");
    fs::remove_file(&stored).unwrap();
    assert!(matches!(models.open(&manifest), Err(ModelsError::Changed { .. })));
    let path = models.folder().join("pebble").join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to) in
        [("\"pebble\"", "\"other\""), ("model.gguf", "../model.gguf"), ("\"version\": 1", "\"version\": 2"), ("{", "")]
    {
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        assert!(matches!(models.find("pebble"), Err(ModelsError::Store(_))), "{from}");
        assert_eq!(models.list().unwrap(), []);
    }
    models.remove("pebble").unwrap();
}

#[test]
fn names_are_made_from_titles() {
    for (title, expected) in [
        ("smollm2-135M", "smollm2-135m"),
        ("Meta Llama 3.2 1B Instruct", "meta-llama-3.2-1b-instruct"),
        ("../../etc/passwd", "etc-passwd"),
        ("模型", "model"),
        ("A very long title of a model that goes on and on", "a-very-long-title-of-a-model-that-goes"),
    ] {
        assert_eq!(made_name(title), expected);
    }
}

//! Importing, listing, exporting and removing models, as a person does it.

use std::fs;

use serde_json::Value;

use crate::program::{Place, failed, files_below};

/// A small model, trained for a few seconds, beside its tokenizer.
fn trained(place: &Place) -> String {
    let path = place.file("pebble.safetensors").to_str().unwrap().to_owned();
    let saved = place.run(&["train", "--solo", "--preset", "tiny", "--save", &path]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    path
}

/// A home with a small imported model.
pub(crate) fn import(place: &Place) {
    let path = trained(place);
    done(place, &["models", "import", &path]);
}

fn done(place: &Place, arguments: &[&str]) -> String {
    let output = place.run(arguments);
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {wrong}");
    said.into_owned()
}

#[test]
fn a_model_goes_in_is_used_goes_out_and_goes_away() {
    let place = Place::new();
    let path = trained(&place);
    assert!(done(&place, &["models", "ls"]).contains("cairn models import"));
    let said = done(&place, &["models", "import", &path]);
    assert!(said.contains("imported `pebble`") && said.contains("cairn chat --model pebble"), "{said}");
    let list: Value = serde_json::from_str(&done(&place, &["models", "ls", "--json"])).unwrap();
    assert_eq!(
        (&list[0]["name"], &list[0]["stored"], &list[0]["chat"]),
        (&"pebble".into(), &"F32".into(), &false.into())
    );
    let table = done(&place, &["models", "ls"]);
    assert!(table.starts_with("NAME") && table.contains("pebble") && table.contains("continues"), "{table}");
    let shown: Value = serde_json::from_str(&done(&place, &["models", "show", "peb", "--json"])).unwrap();
    assert_eq!(shown, list[0]);
    assert!(done(&place, &["models", "show", "peb"]).contains(shown["blake3"].as_str().unwrap()));

    let chat = |arguments: &[&str]| {
        done(&place, &[&["chat", "--max-tokens", "8", "--temperature", "0", "It was"], arguments].concat())
    };
    let text = chat(&["--model", "peb"]);
    assert!(text.starts_with("It was") && text.len() > 12, "{text}");
    assert_eq!(text, chat(&["--checkpoint", &path]), "the import says what the file says");
    for (format, value_type, out) in [
        ("safetensors", "f32", "directory"),
        ("gguf", "f32", "model.gguf"),
        ("gguf", "q8_0", "small.gguf"),
        ("gguf", "f16", "half.gguf"),
    ] {
        let out = place.file(out).to_str().unwrap().to_owned();
        done(&place, &["models", "export", "pebble", "--format", format, "--type", value_type, &out]);
        if value_type == "f32" {
            assert_eq!(text, chat(&["--checkpoint", &out]), "{out} says something else");
        }
        let (code, said) = failed(&place.run(&["models", "export", "pebble", "--format", format, &out]));
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("already") && said.contains("hint:"), "{said}");
    }
    assert!(done(&place, &["models", "rm", "pebble"]).contains("removed"));
    let left: Vec<_> = files_below(&place.home()).into_iter().filter(|path| !path.ends_with("lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn mistakes_with_models_are_told() {
    let place = Place::new();
    let path = trained(&place);
    let bad = place.file("bad.gguf");
    fs::write(&bad, b"GGUF\x03\0\0\0").unwrap();
    let bad = bad.to_str().unwrap();
    done(&place, &["models", "import", &path]);
    let out = place.file("no/such/place.gguf");
    for (arguments, expected, text) in [
        (&["models", "import", "/nowhere/at/all.gguf"][..], 3, "/nowhere/at/all.gguf"),
        (&["models", "import", bad], 6, "truncated"),
        (&["models", "import", &path], 3, "already"),
        (&["models", "import", &path, "--name", "../x"], 3, "cannot be a model's name"),
        (&["models", "show", "basalt"], 3, "there are: pebble"),
        (&["models", "rm", "peb"], 3, "no model `peb`"),
        (&["chat", "--model", "basalt", "Hi"], 3, "no model `basalt`"),
        (&["models", "export", "pebble", "--format", "safetensors", "--type", "q8_0", "x"], 3, "--format gguf"),
        (&["models", "export", "pebble", "--format", "gguf", out.to_str().unwrap()], 7, "place.gguf"),
    ] {
        let (code, said) = failed(&place.run(arguments));
        assert_eq!(code, expected, "{arguments:?}: {said}");
        assert!(said.contains(text) && said.contains("hint:"), "{arguments:?}: {said}");
    }
    assert_eq!(failed(&place.run(&["chat", "--model", "a", "--checkpoint", "b"])).0, 2);
    let stored = place.home().join("models/pebble/pebble.safetensors");
    let mut bytes = fs::read(&stored).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&stored, bytes).unwrap();
    let (code, said) = failed(&place.run(&["chat", "--model", "pebble", "Hi"]));
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("changed") && said.contains("cairn models rm pebble"), "{said}");
}

/// A full disk: a small file system of its own, which only root can make.
#[test]
fn a_full_disk_leaves_nothing_of_an_import() {
    let place = Place::new();
    let path = trained(&place);
    let size = fs::metadata(&path).unwrap().len();
    fs::create_dir(place.home()).unwrap();
    let options = format!("size={}k", size / 2 / 1024);
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "cairn-test"])
        .arg(place.home())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a full disk: this user cannot mount a small file system");
        return;
    }
    let (code, said) = failed(&place.run(&["models", "import", &path]));
    let left: Vec<_> = files_below(&place.home()).into_iter().filter(|path| !path.ends_with("lock")).collect();
    let unmounted = std::process::Command::new("umount").arg(place.home()).status();
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("disk is full") && said.contains("hint:"), "{said}");
    assert!(left.is_empty(), "{left:?}");
    assert!(unmounted.unwrap().success());
}

/// The path of a newcomer, where `CAIRN_SMOLLM2` names SmolLM2-135M-Instruct's GGUF file.
#[test]
fn an_imported_pretrained_model_answers_by_a_short_name() {
    let Ok(path) = std::env::var("CAIRN_SMOLLM2") else {
        println!("SKIPPED: CAIRN_SMOLLM2 does not name the file SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let place = Place::new();
    let said = done(&place, &["models", "import", &path]);
    assert!(said.contains("imported `smollm2-135m`: 135 M parameters, Q4_1") && said.contains("apache-2.0"), "{said}");
    let question = "What is the capital of Germany?";
    let said = done(&place, &["chat", "--model", "smollm2", "--temperature", "0", "--max-tokens", "60", question]);
    assert_eq!(said.trim(), "The capital of Germany is Berlin.");
}

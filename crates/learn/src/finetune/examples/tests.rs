use std::path::Path;

use model::{IGNORED, Lora};

use super::super::tests::{chat_model, model, settings};
use super::*;

fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn conversation(question: &str, answer: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"{question}"}},{{"role":"assistant","content":"{answer}"}}]}}"#)
}

/// The text of the targets that count.
fn counted(model: &Pretrained, batch: &Batch) -> String {
    let ids: Vec<u32> = batch.targets.iter().copied().filter(|id| *id != IGNORED).collect();
    let text: Vec<String> =
        ids.iter().map(|id| if *id == 0 { "<|end|>".into() } else { model.tokenizer.decode(&[*id]) }).collect();
    text.concat()
}

#[test]
fn only_answers_and_their_ends_count() {
    let model = chat_model();
    let lines = [
        r#"{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello."},{"role":"user","content":"So?"},{"role":"assistant","content":"No."}]}"#,
        "",
        &conversation("held", "out"),
    ];
    let (_folder, path) = written("talk.jsonl", &lines.join("\n"));
    let examples = Examples::read(&path, &model, 100).unwrap();
    let mut settings = settings(None);
    (settings.batch.sequences, settings.batch.tokens) = (1, 100);
    let batch = examples.batch(&settings, 0);
    assert_eq!((batch.tokens.len(), batch.targets.len()), (100, 100));
    assert_eq!(counted(&model, &batch), "Hello.<|end|>No.<|end|>");
    let shown: Vec<u32> = batch.tokens.iter().copied().filter(|id| *id != 0).collect();
    assert!(model.tokenizer.decode(&shown).starts_with("[system]Be kind.\n[user]Hi\n[assistant]Hello.\n[user]So?\n"));
    // A target is the token that follows its input.
    for (at, target) in batch.targets.iter().enumerate().filter(|(_, target)| **target != IGNORED) {
        assert_eq!(batch.tokens[at + 1], *target);
    }
    assert_eq!(counted(&model, &examples.heldout(settings.batch)[0]), "out<|end|>");
}

#[test]
fn what_people_wrote_never_becomes_a_special_token() {
    let model = chat_model();
    let line = conversation("x<|end|>y", "a<|end|>b");
    let (_folder, path) = written("talk.jsonl", &format!("{line}\n{line}"));
    let examples = Examples::read(&path, &model, 60).unwrap();
    let batch = &examples.heldout(BatchShape { sequences: 1, tokens: 60 })[0];
    let ends = batch.targets.iter().filter(|id| **id == model::END_ID).count();
    assert_eq!(ends, 1, "only the end of the answer");
}

#[test]
fn a_template_that_changes_the_history_gives_a_sequence_for_each_answer() {
    // It shows what was thought only in the last answer.
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and loop.last %}(hm){% endif %}\
        {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let model = model(Some(source));
    let line = r#"{"messages":[{"role":"user","content":"A"},{"role":"assistant","content":"b"},{"role":"user","content":"C"},{"role":"assistant","content":"d"}]}"#;
    let (_folder, path) = written("talk.jsonl", &format!("{line}\n{line}"));
    let examples = Examples::read(&path, &model, 60).unwrap();
    let batches = examples.heldout(BatchShape { sequences: 1, tokens: 60 });
    let texts: Vec<String> = batches.iter().map(|batch| counted(&model, batch)).collect();
    assert_eq!(texts, ["(hm)b<|end|>", "(hm)d<|end|>"]);
}

#[test]
fn long_conversations_are_cut_and_those_without_an_answer_left_dropped() {
    let model = chat_model();
    let long = conversation(&"word ".repeat(60), "late");
    let lines = [&conversation("a", &"so ".repeat(60)), &long, &conversation("held", "out")];
    let (_folder, path) = written("talk.jsonl", &lines.map(String::as_str).join("\n"));
    let examples = Examples::read(&path, &model, 32).unwrap();
    assert_eq!(examples.describe(), "1 conversations, 1 held out; 2 cut to the length of a sequence");
}

#[test]
fn every_pass_takes_each_conversation_once_in_another_order() {
    let model = chat_model();
    let lines: Vec<String> = (0..7).map(|i| conversation("q", &format!("{i}{i}{i}"))).collect();
    let (_folder, path) = written("talk.jsonl", &lines.join("\n"));
    let examples = Examples::read(&path, &model, 24).unwrap();
    let mut settings = settings(Some(Lora::all(2)));
    (settings.batch.sequences, settings.batch.tokens) = (3, 24);
    // Four steps of three are two passes over the six that are not held out.
    let batches: Vec<Batch> = (0..4).map(|step| examples.batch(&settings, step)).collect();
    let taken: Vec<String> = batches
        .iter()
        .flat_map(|batch| batch.tokens.chunks(24).zip(batch.targets.chunks(24)))
        .map(|(tokens, targets)| counted(&model, &Batch { tokens: tokens.to_vec(), targets: targets.to_vec() }))
        .collect();
    let (mut first, mut second) = (taken[..6].to_vec(), taken[6..].to_vec());
    assert_ne!(first, second);
    first.sort();
    second.sort();
    assert_eq!(first, second);
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(examples.batch(&settings, 2), batches[2]);
}

#[test]
fn text_is_cut_into_windows_where_every_token_counts() {
    let model = model(None);
    let text = include_str!("../../../../../data/austen/emma.txt").get(..30_000).unwrap();
    let (_folder, path) = written("text.txt", text);
    let examples = Examples::read(&path, &model, 16).unwrap();
    let settings = settings(None);
    let batch = examples.batch(&settings, 3);
    assert_eq!((batch.counted(), batch.tokens.len()), (32, 32));
    assert_eq!(batch, examples.batch(&settings, 3));
    assert_ne!(batch, examples.batch(&settings, 4));
    assert_ne!(batch, examples.batch(&Settings { seed: 6, ..settings.clone() }, 3));
    let heldout = examples.heldout(settings.batch);
    assert_eq!(heldout.iter().map(Batch::counted).sum::<usize>(), HELDOUT_SEQUENCES * 16);
}

#[test]
fn bad_data_is_named() {
    let (plain, chat) = (model(None), chat_model());
    let message = |model: &Pretrained, name: &str, text: &str| {
        let (_folder, path) = written(name, text);
        let error = Examples::read(&path, model, 16).unwrap_err();
        assert!(!error.hint().is_empty());
        error.to_string()
    };
    let good = conversation("a", "b");
    for (expected, got) in [
        ("is empty", message(&plain, "a.txt", " \n")),
        ("the training part has", message(&plain, "a.txt", "too short")),
        ("no chat template", message(&plain, "a.jsonl", &good)),
        ("line 2: ", message(&chat, "a.jsonl", &format!("{good}\n{{\"messages\": 7}}"))),
        (
            "line 1: no message has the role",
            message(&chat, "a.jsonl", r#"{"messages":[{"role":"user","content":"x"}]}"#),
        ),
        ("line 1: the role `tool`", message(&chat, "a.jsonl", r#"{"messages":[{"role":"tool","content":"x"}]}"#)),
        ("the training part has 0 conversations", message(&chat, "a.jsonl", &good)),
        ("the training part has 0 conversations", message(&chat, "a.jsonl", "\n\n")),
    ] {
        assert!(got.contains(expected), "`{got}` does not say `{expected}`");
    }
    assert!(Examples::read(Path::new("not/there"), &plain, 16).unwrap_err().to_string().contains("not/there"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "x").unwrap();
    std::fs::write(folder.path().join("b.jsonl"), &good).unwrap();
    assert!(matches!(Examples::read(folder.path(), &chat, 16), Err(ExamplesError::Mixed { .. })));
}

use std::fs;
use std::path::Path;

use super::*;
use crate::Recipe;
use crate::recipe::{BatchShape, VOCAB};

fn words(count: usize) -> String {
    (0..count).map(|i| format!("word{} and {}. ", i % 977, i * i % 7919)).collect()
}

#[test]
fn the_bundled_corpus_is_the_one_that_its_manifest_names() {
    let corpus = Corpus::bundled().unwrap();
    let roles: Vec<Role> = corpus.manifest().files.iter().map(|file| file.role).collect();
    assert_eq!(roles.iter().filter(|&&role| role == Role::Train).count(), 5);
    let heldout = &corpus.manifest().files[roles.iter().position(|&role| role == Role::Heldout).unwrap()];
    assert_eq!(heldout.name, "persuasion.txt");
    assert_eq!(corpus.tokenizer().vocab(), VOCAB);
    assert_eq!(corpus.manifest().to_bytes(), BUNDLED_MANIFEST.as_bytes());
    assert!(corpus.train.len() > 1_000_000 && corpus.heldout.len() > 100_000);
    assert_eq!(corpus.tokenizer().decode(&corpus.heldout[1..]), BUNDLED[3].1);
    for recipe in [Recipe::default_run(), Recipe::long_run(), Recipe::tiny()] {
        corpus.check_recipe(&recipe).unwrap();
    }
}

#[test]
fn training_the_bundled_tokenizer_again_gives_the_same_bytes() {
    let corpus = Corpus::bundled().unwrap();
    let files = corpus.manifest().files.iter().zip(BUNDLED);
    let training = files.filter(|(file, _)| file.role == Role::Train).map(|(_, (_, text))| text);
    let again = Tokenizer::train(training, VOCAB).unwrap();
    assert!(again.to_bytes() == BUNDLED_TOKENIZER, "the committed tokenizer is not what training gives");
}

#[test]
fn a_file_that_differs_from_the_manifest_is_named() {
    let manifest = Manifest::from_bytes(BUNDLED_MANIFEST.as_bytes()).unwrap();
    let mut texts = BUNDLED.to_vec();
    texts[2].1 = "other text";
    let error = manifest.check_files(&texts).unwrap_err();
    assert_eq!(error, ManifestError::WrongFile { name: "northanger-abbey.txt".to_owned() });
    let missing = manifest.check_files(&BUNDLED[..5]).unwrap_err();
    assert_eq!(missing, ManifestError::WrongFile { name: "sense-and-sensibility.txt".to_owned() });
}

#[test]
fn a_file_of_the_user_is_split_and_its_end_held_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.txt");
    let text = words(5000);
    fs::write(&path, &text).unwrap();
    let corpus = Corpus::from_path(&path).unwrap();
    let [train, heldout] = &corpus.manifest().files[..] else { panic!("two parts") };
    assert_eq!((train.role, heldout.role), (Role::Train, Role::Heldout));
    assert_eq!(train.bytes + heldout.bytes, text.len() as u64);
    assert!((text.len() as u64 / 20).abs_diff(heldout.bytes) < 8);
    assert!(text.ends_with(&corpus.tokenizer().decode(&corpus.heldout)));
    assert!(corpus.train.iter().all(|&id| (id as usize) < VOCAB));
    assert_eq!(corpus.manifest_hash(), Corpus::from_path(&path).unwrap().manifest_hash());
}

#[test]
fn a_folder_is_read_in_the_order_of_names_and_other_files_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("b.txt", words(3000)), ("a.txt", words(4000)), ("notes.md", "no".to_owned())] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let corpus = Corpus::from_path(folder.path()).unwrap();
    let names: Vec<&str> = corpus.manifest().files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "b.txt", "b.txt"]);
}

#[test]
fn a_manifest_in_the_folder_decides_what_is_held_out() {
    let folder = tempfile::tempdir().unwrap();
    let texts = [("a.txt", words(3000), Role::Heldout), ("b.txt", words(4000), Role::Train)];
    for (name, text, _) in &texts {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let mut manifest = Manifest {
        name: "mine".to_owned(),
        licence: "mine".to_owned(),
        tokenizer_blake3: String::new(),
        files: texts.iter().map(|(name, text, role)| ManifestFile::new(name, text, *role)).collect(),
    };
    let write = |manifest: &Manifest| fs::write(folder.path().join("manifest.toml"), manifest.to_bytes()).unwrap();
    write(&manifest);
    let corpus = Corpus::from_path(folder.path()).unwrap();
    assert_eq!(corpus.tokenizer().decode(&corpus.heldout), texts[0].1);
    manifest.files[0].blake3 = "00".repeat(32);
    write(&manifest);
    let error = Corpus::from_path(folder.path()).unwrap_err();
    assert!(matches!(error, CorpusError::Manifest(ManifestError::WrongFile { .. })), "{error}");
}

#[test]
fn kept_texts_give_the_same_corpus_and_every_damage_is_noticed() {
    let (own, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, text) in [("a.txt", words(4000)), ("b.txt", words(3000))] {
        fs::write(own.path().join(name), text).unwrap();
    }
    let texts = Texts::read(own.path()).unwrap().described(Some("letters"), Some("CC0")).unwrap();
    let corpus = texts.clone().into_corpus().unwrap();
    assert_eq!((corpus.manifest().name.as_str(), corpus.manifest().licence.as_str()), ("letters", "CC0"));
    let files: Vec<(String, Vec<u8>)> = texts.files().collect();
    assert_eq!(files.len(), 5, "three texts, the tokenizer and the manifest");
    for (name, bytes) in &files {
        fs::write(kept.path().join(name), bytes).unwrap();
    }
    let again = Corpus::from_path(kept.path()).unwrap();
    assert_eq!(again.manifest_hash(), corpus.manifest_hash());
    assert_eq!((&again.train, &again.heldout), (&corpus.train, &corpus.heldout));
    for (name, bytes) in &files {
        let mut wrong = bytes.clone();
        wrong[0] ^= 1;
        fs::write(kept.path().join(name), &wrong).unwrap();
        assert!(Corpus::from_path(kept.path()).is_err(), "{name} changed");
        fs::remove_file(kept.path().join(name)).unwrap();
        assert!(Corpus::from_path(kept.path()).is_err(), "{name} is gone");
        fs::write(kept.path().join(name), bytes).unwrap();
    }
    let same = Texts::read_again(own.path(), &corpus).unwrap();
    assert!(same.files().eq(files), "what is read again is what it was made of");
    fs::write(own.path().join("a.txt"), words(4001)).unwrap();
    let error = Texts::read_again(own.path(), &corpus).unwrap_err();
    assert!(error.to_string().contains("`a.txt` is not the file"), "{error}");
}

#[test]
fn a_manifest_of_somebody_else_is_checked_before_its_files_are_fetched() {
    let good = Corpus::bundled_manifest().unwrap();
    assert_eq!(good.check_stated(), Ok(()));
    assert_eq!(good.hash(), Corpus::bundled().unwrap().manifest_hash());
    type Edit = fn(&mut Manifest);
    let edits: [(&str, Edit); 7] = [
        ("no files", |m| m.files.clear()),
        ("1 GiB", |m| m.files[0].bytes = u64::MAX),
        ("hash of a file", |m| m.files[1].blake3 = "../../../etc/passwd".to_owned()),
        ("hash of a file", |m| m.files[1].blake3 = "AB".repeat(32)),
        ("hash of the tokenizer", |m| m.tokenizer_blake3.clear()),
        ("name and licence", |m| m.licence = "\u{1b}[2J".to_owned()),
        ("name of a file", |m| m.files[0].name = "x".repeat(2000)),
    ];
    for (part, edit) in edits {
        let mut bad = good.clone();
        edit(&mut bad);
        let said = bad.check_stated().unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn bad_text_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let latin = file("latin.txt", b"caf\xe9 au lait");
    let error = Corpus::from_path(&latin).unwrap_err();
    assert!(matches!(error, CorpusError::NotUtf8 { offset: 3, .. }), "{error}");
    assert!(error.to_string().contains("latin.txt") && error.hint().contains("iconv"));
    let error = Corpus::from_path(&file("empty.txt", b" \n")).unwrap_err();
    assert!(matches!(error, CorpusError::Empty { .. }), "{error}");
    let error = Corpus::from_path(&file("short.txt", b"Only a few words of text.")).unwrap_err();
    assert!(matches!(error, CorpusError::TooSmall { .. }), "{error}");
    let error = Corpus::from_path(Path::new("/no such file")).unwrap_err();
    assert!(matches!(error, CorpusError::Io { .. }), "{error}");
    let nothing = tempfile::tempdir().unwrap();
    let error = Corpus::from_path(nothing.path()).unwrap_err();
    assert!(matches!(error, CorpusError::NoFiles { .. }), "{error}");
}

#[test]
fn batches_follow_from_the_seed_alone() {
    let corpus = Corpus::bundled().unwrap();
    let shape = BatchShape { sequences: 3, tokens: 16 };
    let draw = |seed: u8| {
        let mut batches = Batches::new(&corpus, shape, [seed; 32]);
        let drawn: Vec<Batch> = (0..4).map(|_| batches.draw()).collect();
        (drawn, batches.root())
    };
    let (first, root) = draw(1);
    assert_eq!(draw(1), (first.clone(), root));
    assert_ne!(draw(2).1, root);
    for batch in &first {
        assert_eq!((batch.tokens.len(), batch.targets.len()), (48, 48));
        for (tokens, targets) in batch.tokens.chunks(16).zip(batch.targets.chunks(16)) {
            assert_eq!(tokens[1..], targets[..15]);
        }
    }
}

#[test]
fn evaluation_windows_cover_the_held_out_part_evenly() {
    let corpus = Corpus::bundled().unwrap();
    let batches = evaluation_windows(&corpus, 10, BatchShape { sequences: 4, tokens: 32 });
    assert_eq!(batches.iter().map(|batch| batch.tokens.len()).collect::<Vec<_>>(), [128, 128, 64]);
    assert_eq!(batches[0].tokens[..32], corpus.heldout[..32]);
    assert_eq!(batches[2].targets[32..], corpus.heldout[corpus.heldout.len() - 32..]);
}

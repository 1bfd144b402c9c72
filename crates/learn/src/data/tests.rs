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

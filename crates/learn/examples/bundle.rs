//! Trains the tokenizer of the bundled corpus and writes its manifest: `cargo run --release -p learn --example bundle`.
//!
//! Both files are committed; a test trains the tokenizer again and compares the bytes.

use std::fs;
use std::path::Path;

use learn::data::{Manifest, ManifestFile, Role};
use learn::recipe::VOCAB;
use model::Tokenizer;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/austen");
    let names =
        ["emma", "mansfield-park", "northanger-abbey", "persuasion", "pride-and-prejudice", "sense-and-sensibility"];
    let texts: Vec<(String, String, Role)> = names
        .iter()
        .map(|name| {
            let role = if *name == "persuasion" { Role::Heldout } else { Role::Train };
            let text = fs::read_to_string(folder.join(format!("{name}.txt"))).expect("the corpus is there");
            (format!("{name}.txt"), text, role)
        })
        .collect();
    let training = texts.iter().filter(|text| text.2 == Role::Train).map(|text| text.1.as_str());
    let tokenizer = Tokenizer::train(training, VOCAB).expect("five novels give enough tokens");
    let manifest = Manifest {
        name: "Six novels by Jane Austen".to_owned(),
        licence: "public domain".to_owned(),
        tokenizer_blake3: blake3::hash(tokenizer.to_bytes()).to_hex().to_string(),
        files: texts.iter().map(|(name, text, role)| ManifestFile::new(name, text, *role)).collect(),
    };
    fs::write(folder.join("tokenizer.json"), tokenizer.to_bytes()).expect("the folder is writable");
    fs::write(folder.join("manifest.toml"), manifest.to_bytes()).expect("the folder is writable");
    println!("tokenizer {} bytes, {} tokens", tokenizer.to_bytes().len(), tokenizer.vocab());
}

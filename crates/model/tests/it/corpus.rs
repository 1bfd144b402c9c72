//! Replays the corpora of the fuzz targets for directories of Hugging Face. Files named `good-…` must be read, others named `bad-…` must not.

use std::fs;
use std::io::Cursor;
use std::path::{Component, Path, PathBuf};

use model::Tokenizer;
use model::pretrained::hugging_face::{Shard, read_config, read_index};

/// Hands every file of a corpus to `read`, which does what the target does and says whether the file was read.
fn replay(target: &str, read: impl Fn(&[u8]) -> bool) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = [0, 0];
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let read = read(&fs::read(&path).unwrap());
        assert!(read || !name.starts_with("good-"), "{target}/{name} is not read");
        assert!(!read || !name.starts_with("bad-"), "{target}/{name} is read");
        count[usize::from(read)] += 1;
    }
    assert!(count[0] > 3 && count[1] > 0, "{target}: {count:?} files");
}

#[test]
fn weights() {
    replay("safetensors", |bytes| {
        let Ok(mut shard) = Shard::read(Path::new("model.safetensors"), Cursor::new(bytes)) else { return false };
        let names: Vec<String> = shard.names().map(str::to_owned).collect();
        for name in names {
            let mut values = Vec::new();
            if shard.append(&name, &mut values).is_ok() {
                assert_eq!(shard.shape(&name).unwrap().iter().product::<u64>(), values.len() as u64);
                assert!(values.len() <= bytes.len() && values.iter().all(|value| value.is_finite()));
            }
        }
        true
    });
}

#[test]
fn indices() {
    replay("index", |bytes| {
        let Ok(index) = read_index(Path::new("model.safetensors.index.json"), bytes) else { return false };
        for file in index.values() {
            let parts: Vec<_> = Path::new(file).components().collect();
            assert!(matches!(parts[..], [Component::Normal(_)]), "{file}");
        }
        true
    });
}

#[test]
fn configs() {
    replay("config", |bytes| match read_config(Path::new("config.json"), bytes) {
        Ok(config) => {
            config.validate().unwrap();
            true
        }
        Err(_) => false,
    });
}

#[test]
fn tokenizers() {
    replay("tokenizer", |bytes| {
        let Ok(tokenizer) = Tokenizer::from_hugging_face(bytes) else { return false };
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]);
        let shielded = tokenizer.shield(&text);
        for ids in [tokenizer.encode(&text), tokenizer.encode_template(&text), tokenizer.encode_template(&shielded)] {
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab()));
            tokenizer.decode(&ids);
        }
        tokenizer.parts().unwrap();
        true
    });
}

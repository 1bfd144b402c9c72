//! Any bytes are an index whose files are plain names, or give an error.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use model::pretrained::hugging_face::read_index;

fuzz_target!(|bytes: &[u8]| {
    let Ok(index) = read_index(Path::new("model.safetensors.index.json"), bytes) else { return };
    for file in index.values() {
        let parts: Vec<_> = Path::new(file).components().collect();
        assert!(matches!(parts[..], [Component::Normal(_)]), "{file}");
    }
});

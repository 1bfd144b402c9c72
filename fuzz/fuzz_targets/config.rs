//! Any bytes are a `config.json` with a sound config, or give an error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use model::pretrained::hugging_face::read_config;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = read_config(Path::new("config.json"), bytes) {
        config.validate().expect("what is read is sound");
    }
});

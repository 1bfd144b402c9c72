//! Any bytes are a `tokenizer.json` that encodes and decodes without a fault, or give an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_hugging_face(bytes) else { return };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]);
    for ids in [tokenizer.encode(&text), tokenizer.encode_template(&text), tokenizer.encode_template(&tokenizer.shield(&text))] {
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab()));
        tokenizer.decode(&ids);
    }
    let parts = tokenizer.parts().expect("what was read is read again");
    assert_eq!(Tokenizer::from_hugging_face(tokenizer.to_bytes()).expect("the same bytes").parts().expect("again"), parts);
});

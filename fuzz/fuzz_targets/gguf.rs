//! Any bytes are a well-formed GGUF file whose tensors can be asked for, or give an error; metadata survive a rewrite.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::gguf::{read, write};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = read(bytes) else { return };
    for tensor in file.tensors() {
        if let Ok(values) = file.tensor_f32(&tensor.name) {
            assert_eq!(values.len(), tensor.elements);
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
    if let Ok(written) = write(file.metadata(), &[]) {
        let again = read(&written).expect("what is written is read");
        assert_eq!(write(again.metadata(), &[]).expect("what is read is written"), written);
    }
});

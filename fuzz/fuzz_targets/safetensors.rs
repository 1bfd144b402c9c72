//! Any bytes are a safetensors file whose tensors can be asked for, or give an error.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use model::pretrained::hugging_face::Shard;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut shard) = Shard::read(Path::new("model.safetensors"), Cursor::new(bytes)) else { return };
    let names: Vec<String> = shard.names().map(str::to_owned).collect();
    for name in names {
        let mut values = Vec::new();
        if shard.append(&name, &mut values).is_ok() {
            assert_eq!(shard.shape(&name).expect("it is there").iter().product::<u64>(), values.len() as u64);
            assert!(values.len() <= bytes.len() && values.iter().all(|value| value.is_finite()));
        }
    }
});

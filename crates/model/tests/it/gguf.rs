//! GGUF files against the reference implementation (`golden/make_gguf.py` made the files), hostile ones, and a real one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::gguf::{self, Array, GgufError, Metadata, Strings, TensorSource, TensorType, Value};

use crate::support::bits;

const BLOCKS: &[u8] = include_bytes!("../golden/blocks.gguf");
const WRITTEN: &[u8] = include_bytes!("../golden/written.gguf");

#[test]
fn every_supported_type_gives_the_values_of_the_reference() {
    let golden = gguf::read(BLOCKS).unwrap();
    for tensor_type in TensorType::ALL.into_iter().filter(|tensor_type| tensor_type.is_supported()) {
        let name = format!("{tensor_type}.data");
        assert_eq!(golden.tensor(&name).unwrap().tensor_type, tensor_type);
        let values = golden.tensor_f32(&name).unwrap();
        let expected = golden.tensor_f32(&format!("{tensor_type}.values")).unwrap();
        assert!(values.len() >= 200, "only {} values of {tensor_type}", values.len());
        for (index, (value, expected)) in values.iter().zip(&expected).enumerate() {
            assert_eq!(value.to_bits(), expected.to_bits(), "{tensor_type} at {index}: {value} is not {expected}");
        }
        assert_eq!(values.len(), expected.len());
    }
}

#[test]
fn matrices_that_stay_quantised_have_the_values_of_the_reference() {
    let golden = gguf::read(BLOCKS).unwrap();
    let mut formats = 0;
    for tensor_type in TensorType::ALL {
        let Some(format) = tensor_type.quantised_format() else { continue };
        formats += 1;
        let name = format!("{tensor_type}.data");
        let expected = golden.tensor_f32(&format!("{tensor_type}.values")).unwrap();
        // The rows from the last to the first.
        let matrix = golden.quantised_matrix(&name, |row| 7 - row).unwrap().unwrap();
        assert_eq!((matrix.format(), matrix.rows()), (format, 8));
        let mut row = vec![0.0; matrix.cols()];
        for (at, expected) in expected.chunks(matrix.cols()).rev().enumerate() {
            matrix.row(at, &mut row);
            assert!(bits(&row) == bits(expected), "{tensor_type}: row {at} is {row:?} instead of {expected:?}");
        }
    }
    assert_eq!(formats, 5);
    assert!(golden.quantised_matrix("quantise.values", |row| row).unwrap().is_none(), "F32 is not quantised");
}

#[test]
fn quantised_rows_have_the_bytes_of_the_reference() {
    let golden = gguf::read(BLOCKS).unwrap();
    let values = golden.tensor_f32("quantise.values").unwrap();
    let expected = golden.data("quantise.data").unwrap();
    let mut blocks = vec![0; expected.len()];
    gguf::quantise_q8_0(&values, &mut blocks);
    for (block, (got, expected)) in blocks.chunks(34).zip(expected.chunks(34)).enumerate() {
        assert_eq!(got, expected, "block {block}");
    }
}

#[test]
fn a_file_has_the_bytes_that_the_reference_writes() {
    let integers = |values: &[i32]| Array::I32(values.to_vec());
    let entries = [
        ("general.architecture", Value::String("golden".into())),
        ("general.name", Value::String("Golden, größer".into())),
        ("general.quantization_version", Value::U32(2)),
        ("golden.bool", Value::Bool(true)),
        ("golden.bools", Value::Array(Array::Bool(vec![true, false, true]))),
        ("golden.f32", Value::F32(0.1)),
        ("golden.f32s", Value::Array(Array::F32(vec![1e-5, -2.5]))),
        ("golden.f64", Value::F64(0.1)),
        ("golden.f64s", Value::Array(Array::F64(vec![1e-300]))),
        ("golden.i16", Value::I16(-30_000)),
        ("golden.i32", Value::I32(-2_000_000_000)),
        ("golden.i32s", Value::Array(integers(&[-1, 0, 2_000_000_000]))),
        ("golden.i64", Value::I64(-(1 << 60))),
        ("golden.i8", Value::I8(-100)),
        ("golden.nested", Value::Array(Array::Array(vec![integers(&[1, 2]), integers(&[3])]))),
        ("golden.strings", Value::Array(Array::String(Strings::from_iter(["a", "", "ẞ\n"])))),
        ("golden.u16", Value::U16(60_000)),
        ("golden.u32", Value::U32(4_000_000_000)),
        ("golden.u64", Value::U64(1 << 63)),
        ("golden.u64s", Value::Array(Array::U64(vec![1 << 63, 1]))),
        ("golden.u8", Value::U8(200)),
        ("golden.u8s", Value::Array(Array::U8(b"bytes".to_vec()))),
    ];
    let mut metadata = Metadata::new();
    for (key, value) in entries {
        assert_eq!(metadata.insert(key, value), None);
    }
    let ramp = |columns: i32| -> Vec<f32> {
        (0..3).flat_map(|row| (0..columns).map(move |column| (row * 32 + column - 48) as f32 / 7.0)).collect()
    };
    let (five, seven, all) = (ramp(5), ramp(7), ramp(32));
    let tensors = [
        TensorSource { name: "ramp.f32", dimensions: &[5, 3], tensor_type: TensorType::F32, values: &five },
        TensorSource { name: "ramp.f16", dimensions: &[7, 3], tensor_type: TensorType::F16, values: &seven },
        TensorSource { name: "ramp.q8_0", dimensions: &[32, 3], tensor_type: TensorType::Q8_0, values: &all },
    ];
    assert_eq!(gguf::write(&metadata, &tensors).unwrap(), WRITTEN);
    let golden = gguf::read(WRITTEN).unwrap();
    assert_eq!(*golden.metadata(), metadata);
    assert_eq!(bits(&golden.tensor_f32("ramp.f32").unwrap()), bits(&five));
}

/// What the fuzz target does; files named `good-…` must be read, others named `bad-…` must not.
#[test]
fn the_corpus_replays() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/gguf");
    let mut good = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&path).unwrap();
        let file = gguf::read(&bytes);
        assert!(!(name.starts_with("good-") && file.is_err()), "{name}: {:?}", file.err());
        assert!(!(name.starts_with("bad-") && file.is_ok()), "{name} is read");
        if let Ok(file) = file {
            for tensor in file.tensors() {
                let values = file.tensor_f32(&tensor.name);
                assert!(!name.starts_with("good-") || values.is_ok(), "{name}: {:?}", values.err());
            }
            if let Ok(written) = gguf::write(file.metadata(), &[]) {
                let again = gguf::read(&written).unwrap();
                assert_eq!(gguf::write(again.metadata(), &[]).unwrap(), written, "{name}");
            }
            good += 1;
        }
    }
    assert!(good > 0, "no file of the corpus is read");
}

#[test]
fn a_file_on_the_disk_is_read_and_a_missing_one_named() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/written.gguf");
    let loaded = gguf::load(&path).unwrap();
    assert_eq!(loaded.tensors(), gguf::read(WRITTEN).unwrap().tensors());
    assert_eq!(loaded.data("ramp.q8_0").unwrap(), gguf::read(WRITTEN).unwrap().data("ramp.q8_0").unwrap());
    let error = gguf::load(Path::new("/nowhere/at/all.gguf")).unwrap_err();
    assert!(matches!(error, GgufError::Io { .. }));
    assert!(error.to_string().contains("/nowhere/at/all.gguf"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(gguf::load(folder.path()).is_err());
    fs::write(folder.path().join("empty.gguf"), []).unwrap();
    assert!(matches!(gguf::load(&folder.path().join("empty.gguf")), Err(GgufError::Truncated { .. })));
}

/// Reads a model that somebody else made: `SmolLM2-135M-Instruct.Q4_1.gguf`, 98 MB, where `CAIRN_SMOLLM2` says.
#[test]
fn a_real_model_is_read() {
    let Some(path) = std::env::var_os("CAIRN_SMOLLM2") else {
        println!("SKIPPED: CAIRN_SMOLLM2 does not name the file SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let file = gguf::load(Path::new(&path)).unwrap();
    let metadata = file.metadata();
    for (key, value) in metadata.iter() {
        println!("{key}: {}", summary(value));
    }
    assert_eq!(metadata.string("general.architecture").unwrap(), "llama");
    assert_eq!(metadata.u64("llama.block_count").unwrap(), 30);
    assert_eq!(metadata.u64("llama.embedding_length").unwrap(), 576);
    assert_eq!(metadata.string("tokenizer.ggml.model").unwrap(), "gpt2");
    let tokens = metadata.string_array("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.len(), 49_152);
    assert_eq!(tokens.iter().filter(|token| token.is_empty()).count(), 0);
    assert_eq!(metadata.i32_array("tokenizer.ggml.token_type").unwrap().len(), tokens.len());
    let merges = metadata.string_array("tokenizer.ggml.merges").unwrap();
    assert!(merges.iter().all(|merge| merge.split(' ').count() == 2), "{} merges", merges.len());

    // Nine tensors in each layer, the embedding, which is also the head, and the last norm.
    assert_eq!(file.tensors().len(), 30 * 9 + 2);
    let mut by_type: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (position, tensor) in file.tensors().iter().enumerate() {
        let values = file.tensor_f32(&tensor.name).unwrap();
        assert_eq!(values.len() as u64, tensor.dimensions.iter().product::<u64>());
        assert!(values.iter().any(|&value| value != 0.0), "{} is zero", tensor.name);
        let count = by_type.entry(tensor.tensor_type.name()).or_default();
        *count = (count.0 + 1, count.1 + values.len());
        if position < 12 {
            println!("{} {} {:?}", tensor.name, tensor.tensor_type, tensor.dimensions);
        }
    }
    println!("tensors and values by type: {by_type:?}");
    let parameters: usize = by_type.values().map(|(_, values)| values).sum();
    assert_eq!(parameters, 134_515_008);
}

fn summary(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("{} × {}", value.type_name(), array.len()),
        Value::String(text) if text.len() > 60 => format!("string of {} bytes", text.len()),
        other => format!("{other:?}"),
    }
}

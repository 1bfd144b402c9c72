use proptest::prelude::*;

use super::*;

mod bytes;
mod numbers;

fn metadata(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in entries {
        metadata.insert(key, value);
    }
    metadata
}

fn source<'a>(name: &'a str, dimensions: &'a [u64], tensor_type: TensorType, values: &'a [f32]) -> TensorSource<'a> {
    TensorSource { name, dimensions, tensor_type, values }
}

#[test]
fn a_file_survives_its_bytes() {
    let metadata = metadata([
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", Value::U32(2)),
        ("tokens", Value::Array(Array::String(Strings::from_iter(["<s>", "", "ä"])))),
        ("nested", Value::Array(Array::Array(vec![Array::Bool(vec![true]), Array::Array(Vec::new())]))),
    ]);
    let values: Vec<f32> = (0..96).map(|index| (index as f32 - 40.0) * 0.25).collect();
    let tensors = [
        source("b", &[3, 2, 1, 2], TensorType::F32, &values[..12]),
        source("../a", &[5], TensorType::F16, &values[..5]),
        source("c", &[32, 3], TensorType::Q8_0, &values),
    ];
    let bytes = write(&metadata, &tensors).unwrap();
    assert_eq!(bytes, write(&metadata, &tensors).unwrap());
    assert_eq!(bytes.len() % 32, 0);
    let file = read(&bytes).unwrap();
    assert_eq!((file.version(), file.alignment()), (3, 32));
    assert_eq!(file.metadata().u64(QUANTISATION_VERSION_KEY).unwrap(), 2);
    assert_eq!(file.metadata().len(), metadata.len() + 1);
    for (key, value) in metadata.iter() {
        assert_eq!(file.metadata().get(key), Some(value));
    }
    for (tensor, source) in file.tensors().iter().zip(&tensors) {
        assert_eq!((tensor.name.as_str(), &tensor.dimensions[..]), (source.name, source.dimensions));
        assert_eq!((tensor.tensor_type, tensor.elements), (source.tensor_type, source.values.len()));
        assert_eq!(tensor.range.start % 32, 0);
        assert_eq!(file.data(&tensor.name).unwrap(), &bytes[tensor.range.clone()]);
    }
    assert_eq!(file.tensor_f32("b").unwrap(), &values[..12]);
    assert_eq!(file.tensor_f32("../a").unwrap(), &values[..5]);
    for (got, value) in file.tensor_f32("c").unwrap().iter().zip(&values) {
        assert!((got - value).abs() <= 0.06, "{got} for {value}");
    }
    assert!(matches!(file.tensor("d"), Err(GgufError::MissingTensor { .. })));
    assert!(matches!(file.data("d"), Err(GgufError::MissingTensor { .. })));
}

#[test]
fn a_file_without_anything_is_a_file() {
    let bytes = write(&Metadata::new(), &[]).unwrap();
    assert_eq!(bytes.len(), 32);
    for end in [24, 32] {
        let file = read(&bytes[..end]).unwrap();
        assert!(file.metadata().is_empty() && file.tensors().is_empty());
    }
}

#[test]
fn integers_of_any_width_are_read_where_they_fit() {
    let metadata = metadata([
        ("u8", Value::U8(200)),
        ("i8", Value::I8(7)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(7)),
        ("u32", Value::U32(u32::MAX)),
        ("i32", Value::I32(7)),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MAX)),
        ("negative", Value::I8(-1)),
        ("u8s", Value::Array(Array::U8(vec![1, 255]))),
        ("i8s", Value::Array(Array::I8(vec![-1]))),
        ("u16s", Value::Array(Array::U16(vec![65_535]))),
        ("i16s", Value::Array(Array::I16(vec![-300]))),
        ("i32s", Value::Array(Array::I32(vec![i32::MIN]))),
        ("u32s", Value::Array(Array::U32(vec![1, u32::MAX]))),
        ("i64s", Value::Array(Array::I64(vec![-5]))),
        ("u64s", Value::Array(Array::U64(vec![5]))),
    ]);
    let expected = [200, 7, 60_000, 7, u64::from(u32::MAX), 7, u64::MAX, i64::MAX as u64];
    for (key, expected) in ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"].into_iter().zip(expected) {
        assert_eq!(metadata.u64(key).unwrap(), expected, "{key}");
    }
    let message = metadata.u64("negative").unwrap_err().to_string();
    assert_eq!(message, "gguf: metadata `negative` is -1, where an integer that fits a u64 is needed");
    assert_eq!(metadata.i32_array("u8s").unwrap(), [1, 255]);
    assert_eq!(metadata.i32_array("i8s").unwrap(), [-1]);
    assert_eq!(metadata.i32_array("u16s").unwrap(), [65_535]);
    assert_eq!(metadata.i32_array("i16s").unwrap(), [-300]);
    assert_eq!(metadata.i32_array("i32s").unwrap(), [i32::MIN]);
    assert_eq!(metadata.i32_array("i64s").unwrap(), [-5]);
    assert_eq!(metadata.i32_array("u64s").unwrap(), [5]);
    let message = metadata.i32_array("u32s").unwrap_err().to_string();
    assert!(message.contains("4294967295 at 1"), "{message}");
}

#[test]
fn each_getter_says_what_is_wrong() {
    let metadata = metadata([
        ("text", Value::String("x".into())),
        ("yes", Value::Bool(true)),
        ("half", Value::F32(0.5)),
        ("tenth", Value::F64(0.1)),
        ("texts", Value::Array(Array::String(Strings::from_iter(["a", "b"])))),
        ("halves", Value::Array(Array::F32(vec![0.5]))),
        ("tenths", Value::Array(Array::F64(vec![0.1]))),
    ]);
    assert_eq!(metadata.string("text").unwrap(), "x");
    assert!(metadata.bool("yes").unwrap());
    assert_eq!((metadata.f32("half").unwrap(), metadata.f32("tenth").unwrap()), (0.5, 0.1));
    assert_eq!(metadata.string_array("texts").unwrap().iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(metadata.f32_array("halves").unwrap(), [0.5]);
    assert_eq!(metadata.f32_array("tenths").unwrap(), [0.1]);
    let errors = [
        (metadata.string("yes").unwrap_err(), "`yes` is bool, where a string is needed"),
        (metadata.bool("text").unwrap_err(), "`text` is string, where a bool is needed"),
        (metadata.u64("half").unwrap_err(), "`half` is f32, where an integer that fits a u64 is needed"),
        (metadata.f32("texts").unwrap_err(), "`texts` is array of string, where an f32 is needed"),
        (metadata.string_array("text").unwrap_err(), "`text` is string, where an array of string is needed"),
        (metadata.f32_array("texts").unwrap_err(), "is array of string, where an array of f32 is needed"),
        (metadata.i32_array("halves").unwrap_err(), "is array of f32, where an array of integers that fit an i32"),
        (metadata.i32_array("yes").unwrap_err(), "`yes` is bool, where an array of integers"),
        (metadata.string("gone\n").unwrap_err(), "`gone\\n` is missing"),
    ];
    for (error, expected) in errors {
        let message = error.to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
}

#[test]
fn many_texts_are_kept_in_one() {
    let mut texts = Strings::from_iter(["", "ä", "bc"]);
    texts.push("");
    assert_eq!(texts.iter().collect::<Vec<_>>(), ["", "ä", "bc", ""]);
    assert_eq!((texts.len(), texts.get(2), texts.get(4)), (4, Some("bc"), None));
    assert!(!texts.is_empty() && Strings::default().is_empty());
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let none = Metadata::new();
    let (one, long) = ([1.0; 32], "n".repeat(64));
    let refused = |metadata: &Metadata, tensors: &[TensorSource<'_>], expected: &str| {
        let message = write(metadata, tensors).expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    };
    refused(&metadata([("", Value::U8(1))]), &[], "a metadata key ``: the name has 0 bytes");
    refused(&metadata([(ALIGNMENT_KEY, Value::U32(64))]), &[], "is to be written as 64");
    refused(&metadata([(ALIGNMENT_KEY, Value::U64(32))]), &[], "is to be written as u64");
    let deep = |levels| (0..levels).fold(Array::U8(vec![1]), |array, _| Array::Array(vec![array]));
    refused(&metadata([("deep", Value::Array(deep(4)))]), &[], "metadata `deep`: arrays in arrays more than 4 deep");
    write(&metadata([("deep", Value::Array(deep(3)))]), &[]).unwrap();
    let many = Array::Array(vec![Array::Array(Vec::new()); 1 << 16]);
    refused(&metadata([("many", Value::Array(many))]), &[], "arrays: 65537 entries");
    refused(&none, &[source("", &[1], TensorType::F32, &one[..1])], "a tensor ``: the name has 0 bytes");
    refused(&none, &[source(&long, &[1], TensorType::F32, &one[..1])], "has 64 bytes, and must have between 1 and 63");
    refused(&none, &[source("x", &[1], TensorType::F32, &one[..1]); 2], "tensor `x` is there twice");
    refused(&none, &[source("x", &[], TensorType::F32, &one[..1])], "`x` has 0 dimensions");
    refused(&none, &[source("x", &[1; 5], TensorType::F32, &one[..1])], "`x` has 5 dimensions");
    refused(&none, &[source("x", &[3, 0], TensorType::F32, &[])], "2 dimensions [3, 0]");
    refused(
        &none,
        &[source("x", &[16, 2], TensorType::Q8_0, &one)],
        "rows of 16 values, and Q8_0 needs a multiple of 32",
    );
    refused(&none, &[source("x", &[31], TensorType::F32, &one)], "`x` of [31] comes with 32 values");
    refused(&none, &[source("x", &[1 << 63, 2], TensorType::F32, &one)], "more than 1099511627776 values");
    refused(&none, &[source("x", &[32], TensorType::Q4_0, &one)], "`x`: type 2 (Q4_0) is not supported");
    let mut bad = one;
    bad[7] = f32::NAN;
    refused(&none, &[source("x", &[32], TensorType::F32, &bad)], "the value NaN at 7");
    bad[7] = -70_000.0;
    refused(&none, &[source("x", &[32], TensorType::F16, &bad)], "the value -70000 at 7, too large for F16");
    bad[7] = -1e7;
    refused(&none, &[source("x", &[32], TensorType::Q8_0, &bad)], "the value -10000000 at 7, too large for Q8_0");
    assert!(write(&metadata([(ALIGNMENT_KEY, Value::U32(32))]), &[source("x", &[32], TensorType::F32, &bad)]).is_ok());
}

fn any_array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(Array::U8),
        proptest::collection::vec(any::<i16>(), 0..5).prop_map(Array::I16),
        proptest::collection::vec(any::<f32>(), 0..5).prop_map(Array::F32),
        proptest::collection::vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        proptest::collection::vec(any::<u64>(), 0..5).prop_map(Array::U64),
        proptest::collection::vec(any::<String>(), 0..4).prop_map(|texts| Array::String(Strings::from_iter(texts))),
    ];
    flat.prop_recursive(3, 12, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Array::Array))
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        any_array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::vec((any::<String>(), any_value()), 0..6),
        shapes in proptest::collection::vec((1u64..4, 1u64..4, 0usize..3, any::<u32>()), 0..4),
    ) {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(format!("key {key}"), value);
        }
        let types = [TensorType::F32, TensorType::F16, TensorType::Q8_0];
        let shapes = shapes.into_iter().enumerate();
        let owned: Vec<(String, [u64; 2], TensorType, Vec<f32>)> = shapes.map(|(index, (columns, rows, kind, seed))| {
            let columns = columns * types[kind].block_len() as u64;
            let values = (0..columns * rows).map(|at| (at as f32).mul_add(0.37, seed as f32 * 1e-6).sin()).collect();
            (format!("tensor {index}"), [columns, rows], types[kind], values)
        }).collect();
        let sources = owned.iter().map(|(name, dimensions, kind, values)| source(name, dimensions, *kind, values));
        let tensors: Vec<TensorSource<'_>> = sources.collect();
        let bytes = write(&metadata, &tensors).unwrap();
        let file = read(&bytes).unwrap();
        // Bytes are compared, because NaN is not equal to itself.
        prop_assert_eq!(write(file.metadata(), &tensors).unwrap(), bytes.clone());
        for (tensor, (name, _, _, values)) in file.tensors().iter().zip(&owned) {
            let error = match tensor.tensor_type { TensorType::F32 => 0.0, TensorType::F16 => 5e-4, _ => 5e-3 };
            for (got, value) in file.tensor_f32(name).unwrap().iter().zip(values) {
                prop_assert!((got - value).abs() <= error, "{} for {} in {}", got, value, tensor.tensor_type);
            }
        }
    }
}

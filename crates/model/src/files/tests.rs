use proptest::prelude::*;

use super::*;
use crate::testing::tiny;

fn sample() -> Checkpoint {
    let stage = Stage::whole(tiny()).unwrap();
    let params = (0..stage.layout().len()).map(|i| (i as f32 - 1000.0) * 1e-3).collect();
    Checkpoint { stage, tokenizer: [7; 32], params }
}

/// Changes the header's text and keeps the body.
fn edited(bytes: &[u8], edit: impl FnOnce(String) -> String) -> Vec<u8> {
    let (header, body) = split_header(bytes).unwrap();
    let old = String::from_utf8(header.to_vec()).unwrap();
    let new = edit(old.clone());
    assert_ne!(old, new, "the edit changes nothing");
    [&(new.len() as u64).to_le_bytes()[..], new.as_bytes(), body].concat()
}

#[test]
fn a_checkpoint_survives_its_bytes_and_the_library_reads_it() {
    let checkpoint = sample();
    let bytes = encode(&checkpoint).unwrap();
    assert_eq!(bytes, encode(&checkpoint).unwrap());
    assert_eq!(decode(&bytes).unwrap(), checkpoint);
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let q = read.tensor("model.layers.1.self_attn.q_proj.weight").unwrap();
    let range = checkpoint.stage.layout().get("model.layers.1.self_attn.q_proj.weight").unwrap().range();
    let expected: Vec<u8> = checkpoint.params[range].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(q.data(), expected);
}

#[test]
fn one_stage_of_two_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stage.safetensors");
    let stage = Stage::new(tiny(), 1..2).unwrap();
    let params = vec![0.5; stage.layout().len()];
    let checkpoint = Checkpoint { stage, tokenizer: [1; 32], params };
    save(&path, &checkpoint).unwrap();
    save(&path, &checkpoint).unwrap();
    assert_eq!(load(&path).unwrap(), checkpoint);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
}

#[test]
fn a_missing_file_and_a_missing_folder_are_named() {
    let path = Path::new("/nowhere/at/all.safetensors");
    for error in [load(path).map(|_| ()), save(path, &sample())] {
        let message = error.unwrap_err().to_string();
        assert!(message.contains("/nowhere/at/all.safetensors"), "{message}");
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_an_error() {
    let mut bytes = encode(&sample()).unwrap();
    for length in (0..bytes.len()).step_by(13) {
        assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    bytes.extend([0; 4]);
    assert!(matches!(decode(&bytes), Err(FileError::WrongLength { .. })));
}

#[test]
fn each_damage_names_its_field() {
    let bytes = encode(&sample()).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    let cases: [(&str, &str, &str); 9] = [
        ("\"cairn\"", "\"carin\"", "metadata `cairn` is missing"),
        ("\\\"format\\\":1", "\\\"format\\\":9", "of format 9"),
        ("\\\"heads\\\":4", "\\\"heads\\\":3", "`heads` is 3"),
        ("\\\"layers\\\":[0,2]", "\\\"layers\\\":[2,2]", "layers 2..2"),
        ("\\\"tokenizer\\\":\\\"07", "\\\"tokenizer\\\":\\\"zz", "`tokenizer`"),
        (name, "model.layers.0.mlp.side_proj.weight", "side_proj"),
        ("\"dtype\":\"F32\"", "\"dtype\":\"I32\"", "I32"),
        ("\"shape\":[12]", "\"shape\":[3,4]", "F32 [3, 4]"),
        ("\\\"vocab\\\":23", "\\\"vocab\\\":24", "bytes of tensors"),
    ];
    for (from, to, expected) in cases {
        let damaged = edited(&bytes, |header| header.replacen(from, to, 1));
        let message = decode(&damaged).expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
}

#[test]
fn hostile_offsets_are_errors_where_the_library_overflows() {
    let bytes = encode(&sample()).unwrap();
    for to in ["\"data_offsets\":[18446744073709551500,18446744073709551604]", "\"data_offsets\":[9,3]"] {
        let damaged = edited(&bytes, |header| {
            let start = header.find("\"data_offsets\"").unwrap();
            let end = start + header[start..].find(']').unwrap() + 1;
            header.replace(&header[start..end], to)
        });
        assert!(matches!(decode(&damaged), Err(FileError::BadOffsets { .. })));
    }
    let overlap = edited(&bytes, |header| {
        // Two gains of the same shape at the same place leave a hole elsewhere.
        let offsets = |name: &str| {
            let start = header.find(name).unwrap();
            let start = start + header[start..].find("\"data_offsets\":").unwrap();
            header[start..start + header[start..].find(']').unwrap() + 1].to_owned()
        };
        let (a, b) = (offsets("layers.0.input_layernorm.weight"), offsets("layers.0.post_attention_layernorm.weight"));
        header.replace(&a, &b)
    });
    assert!(matches!(decode(&overlap), Err(FileError::BadOffsets { .. })));
}

#[test]
fn a_header_that_claims_to_be_huge_is_refused_at_once() {
    let mut bytes = u64::MAX.to_le_bytes().to_vec();
    bytes.extend(b"{}");
    assert!(matches!(decode(&bytes), Err(FileError::BadHeader { .. })));
    let mut bytes = 100u64.to_le_bytes().to_vec();
    bytes.extend(b"{}");
    assert!(matches!(decode(&bytes), Err(FileError::Truncated { bytes: 10, needed: 108 })));
}

#[test]
fn values_that_are_not_finite_are_refused_both_ways() {
    let mut checkpoint = sample();
    let mut bytes = encode(&checkpoint).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&bad.to_le_bytes());
        assert!(matches!(decode(&bytes), Err(FileError::NotFinite { .. })));
        checkpoint.params[5] = bad;
        match encode(&checkpoint) {
            Err(FileError::NotFinite { name, index: 5, .. }) => assert_eq!(name, "model.embed_tokens.weight"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn parameters_of_another_model_are_not_written() {
    let mut checkpoint = sample();
    checkpoint.params.pop();
    assert!(matches!(encode(&checkpoint), Err(FileError::BadStage(ConfigError::WrongParameters { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn random_bytes_after_a_sound_length_never_panic(text in "[\\[\\]{}:,\"0-9a-zA-Z_. ]{0,300}") {
        let bytes = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn damaged_checkpoints_never_panic(position in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encode(&sample()).unwrap();
        let header = split_header(&bytes).unwrap().0.len();
        let position = position.index(header + 16);
        bytes[position] = value;
        let _ = decode(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(decode(&bytes).is_err());
    }
}

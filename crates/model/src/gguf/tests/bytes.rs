//! Hostile and damaged files.

use super::*;

/// A file built by hand, so that each part can be wrong.
struct Raw {
    version: u32,
    tensor_count: Option<u64>,
    entry_count: Option<u64>,
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn raw() -> Raw {
    Raw {
        version: 3,
        tensor_count: None,
        entry_count: None,
        entries: Vec::new(),
        tensors: Vec::new(),
        data: Vec::new(),
    }
}

impl Raw {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([&text(key.as_bytes())[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], id: u32, offset: u64) -> Self {
        let mut listed = text(name.as_bytes());
        listed.extend((dimensions.len() as u32).to_le_bytes());
        listed.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
        listed.extend(id.to_le_bytes());
        listed.extend(offset.to_le_bytes());
        self.tensors.push(listed);
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        // Not zero, and as an f16 or an f32 finite.
        self.data = (0..bytes).map(|index| (index % 50 + 1) as u8).collect();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        bytes.extend(self.entries.iter().chain(&self.tensors).flatten());
        if !self.data.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
        }
        bytes.extend(&self.data);
        bytes
    }

    fn refused(&self, expected: &str) {
        let message = read(&self.bytes()).expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// One tensor of several types each, and every kind of metadata.
fn small() -> Vec<u8> {
    let types = [TensorType::F16, TensorType::Q4_1, TensorType::Q8_0, TensorType::Q6K, TensorType::Q5K];
    let mut file = raw()
        .entry("a", 8, &text("text".as_bytes()))
        .entry("b", 9, &array(8, 2, &[text(b"x"), text(b"")].concat()))
        .entry("c", 9, &array(9, 1, &array(7, 2, &[0, 1])))
        .entry("d", 12, &0.5f64.to_le_bytes())
        .entry("e", 3, &[1, 2])
        .entry(ALIGNMENT_KEY, 4, &32u32.to_le_bytes());
    let mut at = 0;
    for kind in types {
        file = file.tensor(kind.name(), &[kind.block_len() as u64], kind.id(), at as u64);
        at += kind.block_bytes().next_multiple_of(32);
    }
    file.data(at).bytes()
}

/// Reads whatever can be read.
fn use_all(bytes: &[u8]) -> bool {
    let Ok(file) = read(bytes) else { return false };
    for tensor in file.tensors() {
        assert!(tensor.range.end <= bytes.len());
        let stored = tensor.elements / tensor.tensor_type.block_len() * tensor.tensor_type.block_bytes();
        assert_eq!(file.data(&tensor.name).unwrap().len(), stored);
        if let Ok(values) = file.tensor_f32(&tensor.name) {
            assert!(values.len() == tensor.elements && values.iter().all(|value| value.is_finite()));
        }
    }
    true
}

#[test]
fn every_truncation_is_an_error_or_leaves_all_tensors() {
    let bytes = small();
    let file = read(&bytes).unwrap();
    let needed = file.tensors().iter().map(|tensor| tensor.range.end).max().unwrap();
    assert!(needed < bytes.len(), "the last tensor has no padding");
    for length in 0..bytes.len() {
        assert_eq!(use_all(&bytes[..length]), length >= needed, "{length} bytes");
    }
}

#[test]
fn every_changed_byte_is_an_error_or_leaves_a_well_formed_file() {
    let bytes = small();
    let mut read = 0;
    for position in 0..bytes.len() {
        for value in 0..=u8::MAX {
            let mut changed = bytes.clone();
            changed[position] = value;
            read += usize::from(use_all(&changed));
        }
    }
    assert!(read > 0 && read < bytes.len() * 256, "{read} files were read");
}

#[test]
fn versions_2_and_3_are_read_and_others_named() {
    for version in [2, 3] {
        let file = raw().entry("a", 0, &[9]).tensor("t", &[3], 24, 0).data(3);
        let bytes = Raw { version, ..file }.bytes();
        assert_eq!(read(&bytes).unwrap().version(), version);
    }
    for version in [0, 1, 4, u32::MAX] {
        Raw { version, ..raw() }.refused(&format!("version {version}, and 2 and 3 are read"));
    }
    Raw { version: 3u32.swap_bytes(), ..raw() }.refused("a big-endian file");
    let message = read(b"GGML\x01\x00\x00\x00").unwrap_err().to_string();
    assert_eq!(message, "gguf: the file begins with `GGML`, and a GGUF file with `GGUF`");
    assert!(read(b"\x1b[2J").unwrap_err().to_string().contains("\\x1b[2J"));
    assert!(matches!(read(b"GG"), Err(GgufError::Truncated { needed: 4, at: 0, bytes: 2, .. })));
}

#[test]
fn huge_counts_are_refused_before_anything_is_allocated() {
    for count in [1, 1 << 16, 1 << 40, u64::MAX] {
        Raw { tensor_count: Some(count), ..raw() }.refused(&format!("tensors: {count} entries"));
        Raw { entry_count: Some(count), ..raw() }.refused(&format!("metadata: {count} entries"));
        for kind in [0, 2, 4, 7, 8, 9, 10] {
            raw().entry("k", 9, &array(kind, count, &[])).refused(&format!("metadata `k`: {count} entries"));
        }
        raw().entry("k", 9, &array(9, 1, &array(9, count, &[]))).refused("metadata `k`");
    }
    for length in [100, u64::MAX] {
        raw().entry("k", 8, &length.to_le_bytes()).refused(&format!("metadata `k` needs {length} bytes"));
    }
    // As many as there are bytes for, but more than any model has.
    let many = Raw { tensor_count: Some(TENSORS_MAX + 1), ..raw() }.data(TENSORS_MAX as usize * 40);
    many.refused("tensors: 65537 entries, where there is room for at most 65536");
}

#[test]
fn a_header_that_goes_on_for_too_long_is_refused() {
    let half = HEADER_BYTES_MAX / 2;
    let filler = array(0, half, &vec![0; half as usize]);
    let file = raw().entry("a", 9, &filler);
    assert!(read(&file.bytes()).is_ok());
    let message = read(&file.entry("b", 9, &filler).bytes()).unwrap_err().to_string();
    assert!(message.contains("metadata `b`: 33554432 entries"), "{message}");
    let filler = text(&vec![b'x'; half as usize]);
    let file = raw().entry("a", 8, &filler).entry("b", 8, &filler);
    file.refused("metadata `b` goes on after byte 67108864");
}

#[test]
fn bad_metadata_are_named() {
    raw().entry("", 10, &[1; 8]).refused("metadata entry 0: the name has 0 bytes, and must have between 1 and 65535");
    raw().entry(&"k".repeat(65_536), 0, &[1]).refused("the name has 65536 bytes");
    raw().entry("a", 0, &[1]).entry("a", 1, &[2]).refused("metadata `a` is there twice");
    raw().entry("a", 13, &[0; 8]).refused("metadata `a`: type 13 of a value");
    raw().entry("a", 9, &array(99, 0, &[])).refused("metadata `a`: type 99 of a value");
    raw().entry("a", 7, &[2]).refused("metadata `a`: 2 as a truth value");
    raw().entry("a", 9, &array(7, 2, &[1, 3])).refused("metadata `a`: 3 as a truth value");
    raw().entry("a", 8, &text(b"ok\xff")).refused("metadata `a`: a text is not UTF-8 from its byte 2 on");
    raw().entry("a", 9, &array(8, 1, &text(b"\xc3"))).refused("metadata `a`: a text is not UTF-8 from its byte 0 on");
    raw().entry("\x1b[31m", 7, &[2]).refused("metadata `\\u{1b}[31m`");
    let mut bytes = raw().entry("key", 0, &[1]).bytes();
    bytes[33] = 0xff;
    assert!(matches!(read(&bytes), Err(GgufError::NotUtf8 { valid: 1, .. })));
}

#[test]
fn arrays_nest_to_a_limit() {
    let nested = |levels| (1..levels).fold(array(0, 1, &[7]), |inner, _| array(9, 1, &inner));
    assert!(read(&raw().entry("deep", 9, &nested(ARRAY_DEPTH_MAX)).bytes()).is_ok());
    raw().entry("deep", 9, &nested(ARRAY_DEPTH_MAX + 1)).refused("metadata `deep`: arrays in arrays more than 4 deep");
    raw().entry("deep", 9, &nested(10_000)).refused("more than 4 deep");
    let many = array(9, ARRAYS_MAX, &array(0, 0, &[]).repeat(ARRAYS_MAX as usize));
    raw().entry("many", 9, &many).refused("arrays: 65537 entries, where there is room for at most 65536");
}

#[test]
fn the_alignment_is_a_power_of_two() {
    for alignment in [0u32, 3, 48, 1 << 17, u32::MAX] {
        raw()
            .entry(ALIGNMENT_KEY, 4, &alignment.to_le_bytes())
            .refused(&format!("is {alignment}, and must be a power"));
    }
    raw().entry(ALIGNMENT_KEY, 8, &text(b"32")).refused("`general.alignment` is string");
    let file = |alignment: u64, offset| {
        let at = raw().entry(ALIGNMENT_KEY, 10, &alignment.to_le_bytes()).tensor("t", &[3], 24, offset);
        at.data(300)
    };
    for alignment in [1u64, 8, 32, 64] {
        let bytes = file(alignment, alignment).bytes();
        let read = read(&bytes).unwrap();
        assert_eq!(read.alignment(), alignment);
        assert_eq!(read.tensors()[0].range.start as u64 % alignment, 0);
    }
    file(64, 32).refused("tensor `t` has offset 32, which is not a multiple of 64");
}

#[test]
fn bad_tensors_are_named() {
    let one = |dimensions: &[u64], id, offset| raw().tensor("t", dimensions, id, offset).data(64);
    one(&[], 0, 0).refused("tensor `t` has 0 dimensions");
    one(&[1; 5], 0, 0).refused("tensor `t` has 5 dimensions");
    one(&[3, 0], 0, 0).refused("tensor `t` has 2 dimensions [3, 0]");
    one(&[1 << 32, 1 << 32], 0, 0).refused("more than 1099511627776 values");
    one(&[1 << 63, 2, 1 << 63, 2], 0, 0).refused("more than 1099511627776 values");
    one(&[u64::MAX], 0, 0).refused("more than 1099511627776 values");
    one(&[31], 8, 0).refused("tensor `t` has rows of 31 values, and Q8_0 needs a multiple of 32");
    one(&[16, 16], 12, 0).refused("rows of 16 values, and Q4_K needs a multiple of 256");
    one(&[32], 4, 0).refused("tensor `t` has type 4 (Q4_2), which is not known");
    one(&[32], 43, 0).refused("tensor `t` has type 43, which is not known");
    one(&[1], 0, 1).refused("offset 1, which is not a multiple of 32");
    one(&[1], 0, 64).refused("tensor `t` has 4 bytes at offset 64 of the data, and the file ends at offset 64");
    one(&[17], 0, 0).refused("tensor `t` has 68 bytes at offset 0");
    one(&[1], 0, u64::MAX - 31).refused("4 bytes at offset 18446744073709551584");
    raw().tensor("", &[1], 0, 0).data(64).refused("tensor 0: the name has 0 bytes, and must have between 1 and 256");
    raw().tensor(&"n".repeat(257), &[1], 0, 0).data(64).refused("the name has 257 bytes");
    assert!(read(&raw().tensor(&"n".repeat(256), &[1], 0, 0).data(64).bytes()).is_ok());
    for name in ["../../etc/passwd", "/", "a\0b", "C:\\x"] {
        let bytes = raw().tensor(name, &[1], 0, 0).data(64).bytes();
        assert_eq!(read(&bytes).unwrap().tensors()[0].name, name);
    }
}

#[test]
fn tensors_may_lie_in_any_order_but_not_overlap() {
    let two = |first, second| raw().tensor("a", &[9], 0, first).tensor("b", &[9], 0, second).data(160);
    for (first, second) in [(0, 64), (64, 0), (0, 96)] {
        assert!(read(&two(first, second).bytes()).is_ok());
    }
    two(0, 32).refused("the data of tensor `b` overlap those of `a`");
    two(32, 0).refused("the data of tensor `a` overlap those of `b`");
    two(0, 0).refused("overlap");
    raw().tensor("a", &[1], 0, 0).tensor("a", &[1], 0, 32).data(64).refused("tensor `a` is there twice");
}

#[test]
fn known_types_that_are_not_supported_say_so_when_asked_for() {
    for kind in TensorType::ALL.into_iter().filter(|kind| !kind.is_supported()) {
        let bytes = raw().tensor("t", &[kind.block_len() as u64, 2], kind.id(), 0).data(kind.block_bytes() * 2).bytes();
        let file = read(&bytes).unwrap();
        assert_eq!(file.data("t").unwrap().len(), kind.block_bytes() * 2);
        let message = file.tensor_f32("t").unwrap_err().to_string();
        assert_eq!(message, format!("gguf: tensor `t`: type {} ({kind}) is not supported here", kind.id()));
        let short = &bytes[..bytes.len() - 1];
        assert!(matches!(read(short), Err(GgufError::OutOfFile { .. })), "{kind}");
    }
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let mut bytes = raw().tensor("t", &[3], 0, 0).data(12).bytes();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&bad.to_le_bytes());
        let message = read(&bytes).unwrap().tensor_f32("t").unwrap_err().to_string();
        assert!(message.contains(&format!("tensor `t` has the value {bad} at 2")), "{message}");
    }
    let mut bytes = raw().tensor("t", &[64], 8, 0).data(68).bytes();
    let end = bytes.len();
    // An infinite scale of the second block.
    bytes[end - 34..end - 32].copy_from_slice(&0x7c00u16.to_le_bytes());
    assert!(matches!(read(&bytes).unwrap().tensor_f32("t"), Err(GgufError::NotFinite { index: 32, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn random_bytes_after_a_sound_start_never_panic(
        counts in (0u64..3, 0u64..3),
        rest in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..16, any::<u8>()], 0..300),
    ) {
        let mut bytes = Raw { tensor_count: Some(counts.0), entry_count: Some(counts.1), ..raw() }.bytes();
        bytes.extend(rest);
        use_all(&bytes);
    }

    #[test]
    fn damaged_files_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = small();
        for (position, value) in changes {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        use_all(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        use_all(&bytes);
    }
}

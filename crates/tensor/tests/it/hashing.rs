//! Tensor roots: golden values and sensitivity.

use tensor::{slice_root, tile_root};

use crate::support::normal;

#[test]
fn a_slice_root_is_the_hash_of_its_bytes() {
    let x = normal(1, 10_001);
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(slice_root(&x), *blake3::hash(&bytes).as_bytes());
    assert_eq!(slice_root(&[]), *blake3::hash(&[]).as_bytes());
}

#[test]
fn a_tile_root_names_sizes_and_every_value() {
    let (rows, cols) = (70, 45);
    let x = normal(2, rows * cols);
    let root = tile_root(rows, cols, &x);
    assert_ne!(root, tile_root(cols, rows, &x));
    for at in [0, 31, 32 * cols + 33, rows * cols - 1] {
        let mut changed = x.clone();
        changed[at] = f32::from_bits(changed[at].to_bits() ^ 1);
        assert_ne!(tile_root(rows, cols, &changed), root, "value {at}");
    }
}

#[test]
fn a_tile_root_is_built_from_tiles() {
    // 33 × 40: four tiles, three of them cut by the edge.
    let (rows, cols) = (33, 40);
    let x = normal(3, rows * cols);
    let tile = |row: usize, col: usize| {
        let rows = row..rows.min(row + 32);
        let bytes =
            rows.flat_map(|r| x[r * cols + col..r * cols + cols.min(col + 32)].iter().flat_map(|x| x.to_le_bytes()));
        blake3::hash(&bytes.collect::<Vec<u8>>())
    };
    let mut hasher = blake3::Hasher::new_derive_key("cairn v1 tile root");
    hasher.update(&33u64.to_le_bytes());
    hasher.update(&40u64.to_le_bytes());
    for (row, col) in [(0, 0), (0, 32), (32, 0), (32, 32)] {
        hasher.update(tile(row, col).as_bytes());
    }
    assert_eq!(tile_root(rows, cols, &x), *hasher.finalize().as_bytes());
}

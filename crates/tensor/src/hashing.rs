//! Commitments to tensors: BLAKE3 roots over little-endian f32 (verification, section 2).

/// Rows and columns of a committed tile; one tile is 4 KiB.
pub const TILE: usize = 32;

/// Computes the root of a matrix: the BLAKE3 hash of each 32 × 32 tile, row by row of tiles, folded into one hash with the sizes.
///
/// A tile at the edge holds only the values that exist, in row order. A K-slice of a GEMM operand is thus one tile.
///
/// # Panics
/// When `data` does not hold `rows · cols` values.
pub fn tile_root(rows: usize, cols: usize, data: &[f32]) -> [u8; 32] {
    assert_eq!(data.len(), rows * cols, "tile_root: size of the matrix");
    let mut root = blake3::Hasher::new_derive_key("cairn v1 tile root");
    root.update(&(rows as u64).to_le_bytes());
    root.update(&(cols as u64).to_le_bytes());
    let mut bytes = Vec::with_capacity(TILE * TILE * 4);
    for row in (0..rows).step_by(TILE) {
        for col in (0..cols).step_by(TILE) {
            bytes.clear();
            for line in row..rows.min(row + TILE) {
                let line = &data[line * cols + col..line * cols + cols.min(col + TILE)];
                bytes.extend(line.iter().flat_map(|x| x.to_le_bytes()));
            }
            root.update(blake3::hash(&bytes).as_bytes());
        }
    }
    *root.finalize().as_bytes()
}

/// Computes the plain BLAKE3 hash of the values as little-endian bytes.
pub fn slice_root(data: &[f32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = [0u8; 16 * 1024];
    for chunk in data.chunks(bytes.len() / 4) {
        for (bytes, x) in bytes.chunks_exact_mut(4).zip(chunk) {
            bytes.copy_from_slice(&x.to_le_bytes());
        }
        hasher.update(&bytes[..4 * chunk.len()]);
    }
    *hasher.finalize().as_bytes()
}

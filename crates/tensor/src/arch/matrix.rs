//! A mutable window of a row-major matrix that can be cut into disjoint tiles, so that threads may write them at once.

use std::marker::PhantomData;

/// A mutable window: `rows` rows of `cols` values, `stride` apart.
#[derive(Debug)]
pub(crate) struct MatMut<'a> {
    start: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    _slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: a window is the only way to reach its values while it lives, exactly like `&mut [f32]`, which is Send.
unsafe impl Send for MatMut<'_> {}

impl<'a> MatMut<'a> {
    /// Makes a window over all of `data`.
    ///
    /// # Panics
    /// When a row is longer than the stride or `data` is too short.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride || rows <= 1, "a row of {cols} values with a stride of {stride}");
        let need = if rows == 0 { 0 } else { (rows - 1) * stride + cols };
        assert!(data.len() >= need, "a matrix of {need} values in a slice of {}", data.len());
        MatMut { start: data.as_mut_ptr(), rows, cols, stride, _slice: PhantomData }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// The distance between rows.
    #[inline(always)]
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The place of one value, for the micro-kernel.
    #[inline(always)]
    pub(super) fn at(&mut self, row: usize, col: usize) -> *mut f32 {
        assert!(row < self.rows && col < self.cols, "({row}, {col}) in {} × {}", self.rows, self.cols);
        self.start.wrapping_add(row * self.stride + col)
    }

    /// The address of a value that need not be inside, for hints.
    #[inline(always)]
    pub(super) fn near(&self, row: usize, col: usize) -> *const f32 {
        self.start.wrapping_add(row * self.stride + col)
    }

    /// The first `rows` rows.
    pub(crate) fn top(&mut self, rows: usize) -> MatMut<'_> {
        assert!(rows <= self.rows, "the first {rows} rows of {}", self.rows);
        MatMut { start: self.start, rows, cols: self.cols, stride: self.stride, _slice: PhantomData }
    }

    /// Columns `from..from + cols`.
    pub(crate) fn columns(&mut self, from: usize, cols: usize) -> MatMut<'_> {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        let start = self.start.wrapping_add(from);
        MatMut { start, rows: self.rows, cols, stride: self.stride, _slice: PhantomData }
    }

    /// One row.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `new` checked that `rows` rows of `cols` values lie in the slice this window borrows mutably; cuts keep that.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.cols) }
    }

    /// Cuts the window into tiles of at most `tile_rows` × `tile_cols`, row by row of tiles.
    pub(crate) fn tiles(self, tile_rows: usize, tile_cols: usize) -> Vec<MatMut<'a>> {
        assert!(tile_rows > 0 && tile_cols > 0, "tiles of {tile_rows} × {tile_cols}");
        let mut tiles = Vec::with_capacity(self.rows.div_ceil(tile_rows) * self.cols.div_ceil(tile_cols));
        for row in (0..self.rows).step_by(tile_rows) {
            for col in (0..self.cols).step_by(tile_cols) {
                // SAFETY: `row < rows` and `col < cols`, so the offset lies in the window.
                let start = unsafe { self.start.add(row * self.stride + col) };
                tiles.push(MatMut {
                    start,
                    rows: tile_rows.min(self.rows - row),
                    cols: tile_cols.min(self.cols - col),
                    stride: self.stride,
                    _slice: PhantomData,
                });
            }
        }
        tiles
    }
}

//! Per-thread scratch memory that is kept between calls: fresh pages cost more than the kernels that use them.

use std::cell::RefCell;

/// Bytes that the kernels of a training step keep on all threads at once, besides the logits of a head: packed operands of
/// matrix products, and those of attention over sequences of `tokens` tokens with heads of `head_dim` entries.
pub fn scratch_bytes(threads: usize, tokens: usize, head_dim: usize) -> u64 {
    let attention = crate::attention::scratch_len(tokens, head_dim);
    // The worker that hands out a product's tasks packs their common operand and works on them, too.
    let products = 2 * crate::gemm::scratch_len();
    (threads.max(1) * (attention + products) * size_of::<f32>()) as u64
}

/// Buffers kept per thread; more than this many at once are freed after use.
const KEEP: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of a cache line: buffers start on one, because a vector that crosses two lines takes two loads.
const LINE: usize = 64;

/// A borrowed buffer with stale contents, which starts on a cache line; it returns to its thread's store when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    /// Values before the first cache line.
    start: usize,
    len: usize,
}

impl Scratch {
    /// Takes a buffer of `len` values of arbitrary content: the smallest that fits, else a new one.
    pub(crate) fn new(len: usize) -> Scratch {
        let slack = LINE / size_of::<f32>();
        let need = len + slack;
        #[cfg(test)]
        usage::taken(len);
        let kept = FREE.with_borrow_mut(|free| {
            let fits = free.iter().enumerate().filter(|(_, buffer)| buffer.len() >= need);
            let best = fits.min_by_key(|(_, buffer)| buffer.len()).map(|(i, _)| i);
            best.map(|i| free.swap_remove(i))
        });
        let buffer = kept.unwrap_or_else(|| vec![0.0; need]);
        let start = buffer.as_ptr().align_offset(LINE).min(slack);
        Scratch { buffer, start, len }
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.start..][..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        #[cfg(test)]
        usage::returned(self.len);
        let buffer = std::mem::take(&mut self.buffer);
        FREE.with_borrow_mut(|free| {
            free.push(buffer);
            if free.len() > KEEP {
                let smallest = (0..free.len()).min_by_key(|i| free[*i].len()).unwrap_or(0);
                free.swap_remove(smallest);
            }
        });
    }
}

/// How many values of scratch memory a thread uses at once, for tests of memory bounds.
#[cfg(test)]
pub(crate) mod usage {
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<usize> = const { Cell::new(0) };
        static PEAK: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn taken(len: usize) {
        NOW.set(NOW.get() + len);
        PEAK.set(PEAK.get().max(NOW.get()));
    }

    pub(super) fn returned(len: usize) {
        NOW.set(NOW.get() - len);
    }

    /// Runs `work` and returns the most values that it had in use at once on this thread.
    pub(crate) fn peak(work: impl FnOnce()) -> usize {
        PEAK.set(NOW.get());
        work();
        PEAK.get() - NOW.get()
    }
}

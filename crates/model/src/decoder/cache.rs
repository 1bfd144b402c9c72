//! The keys and values of sequences, in pages of 16 positions.
//!
//! Purpose: many sequences of different lengths share one bounded memory without holes, and sequences that begin alike share the
//! pages of their beginning. A page holds 16 positions of every layer in the layout of [`tensor::attention_cached`]. A clone of a
//! cache shares all pages; the first token that either feeds copies the last page when it is not full.
//! Source: paged attention (Kwon et al., arXiv:2309.06180). Deviation: pages are counted by reference, so nothing has to be freed by
//! hand, and a page spans all layers.

use std::sync::{Arc, Mutex, PoisonError};

use tensor::{CacheShape, PAGE};

use crate::config::Config;

/// Memory for the keys and values of many sequences. Cheap to clone; all clones are the same pool.
#[derive(Debug, Clone)]
pub struct CachePool(Arc<Home>);

#[derive(Debug)]
struct Home {
    shape: CacheShape,
    layers: usize,
    /// Most pages at once.
    limit: usize,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    used: usize,
    /// Pages that were given back; their contents are stale.
    free: Vec<Vec<f32>>,
}

/// The pool has no page left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolFull;

impl CachePool {
    /// A pool for a model's sequences, with pages for at least `tokens` tokens; memory is taken when it is needed, and kept.
    pub fn new(config: &Config, tokens: usize) -> Self {
        let Config { heads, kv_heads, head_dim, layers, .. } = *config;
        let shape = CacheShape { heads, kv_heads, head_dim };
        Self(Arc::new(Home { shape, layers, limit: tokens.div_ceil(PAGE), pages: Mutex::default() }))
    }

    /// An empty sequence.
    pub fn cache(&self) -> Cache {
        Cache { pool: self.clone(), length: 0, pages: Vec::new() }
    }

    /// Pages that are not in use.
    pub fn free_pages(&self) -> usize {
        self.0.limit - self.lock().used
    }

    /// Pages that a sequence of `tokens` tokens takes.
    pub fn pages_for(tokens: usize) -> usize {
        tokens.div_ceil(PAGE)
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.page_len() * size_of::<f32>()
    }

    fn page_len(&self) -> usize {
        self.0.layers * self.0.shape.page_len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pages> {
        // Nothing panics while it holds the lock in a state between two others.
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Page, PoolFull> {
        let mut pages = self.lock();
        if pages.used == self.0.limit {
            return Err(PoolFull);
        }
        pages.used += 1;
        let values = pages.free.pop();
        drop(pages);
        Ok(Page { values: values.unwrap_or_else(|| vec![0.0; self.page_len()]), pool: self.clone() })
    }
}

/// Sixteen positions of every layer; goes back to its pool when nobody has it any more.
#[derive(Debug)]
struct Page {
    values: Vec<f32>,
    pool: CachePool,
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut pages = self.pool.lock();
        pages.used -= 1;
        pages.free.push(std::mem::take(&mut self.values));
    }
}

/// The keys and values of one sequence's tokens, in every layer. A clone shares their memory until it goes on.
#[derive(Debug, Clone)]
pub struct Cache {
    pool: CachePool,
    length: usize,
    pages: Vec<Arc<Page>>,
}

impl Cache {
    /// An empty sequence with a pool of its own, which holds as many tokens as the model's context.
    pub fn new(config: &Config) -> Self {
        // A clone may need a copy of the last page.
        CachePool::new(config, config.context.saturating_mul(2)).cache()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets all tokens after the first `length`, as if they had never been fed.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.pages.truncate(self.length.div_ceil(PAGE));
    }

    /// Memory of its pages in bytes, those included that it shares with others.
    pub fn bytes(&self) -> usize {
        self.pages.len() * self.pool.page_bytes()
    }

    pub(super) fn fits(&self, config: &Config) -> bool {
        let Config { heads, kv_heads, head_dim, layers, .. } = *config;
        self.pool.0.shape == CacheShape { heads, kv_heads, head_dim } && self.pool.0.layers == layers
    }

    /// Gets pages of its own for the next `tokens` tokens. When there are too few, the sequence is as before.
    pub(super) fn reserve(&mut self, tokens: usize) -> Result<(), PoolFull> {
        if !self.length.is_multiple_of(PAGE)
            && let Some(last) = self.pages.last_mut()
            && Arc::get_mut(last).is_none()
        {
            let mut copy = self.pool.take()?;
            copy.values.copy_from_slice(&last.values);
            *last = Arc::new(copy);
        }
        let (held, needed) = (self.pages.len(), (self.length + tokens).div_ceil(PAGE));
        for _ in held..needed {
            match self.pool.take() {
                Ok(page) => self.pages.push(Arc::new(page)),
                Err(full) => {
                    self.pages.truncate(held);
                    return Err(full);
                }
            }
        }
        Ok(())
    }

    /// Writes rows `[tokens, kv_width]` of one layer behind the sequence, without counting them yet.
    ///
    /// # Panics
    /// When there was no [`Cache::reserve`] for them.
    pub(super) fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let shape = self.pool.0.shape;
        let width = shape.kv_heads * shape.head_dim;
        for (i, (key, value)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
            let at = self.length + i;
            let page = Arc::get_mut(&mut self.pages[at / PAGE]).expect("reserved pages belong to nobody else");
            let page = &mut page.values[layer * shape.page_len()..][..shape.page_len()];
            shape.store(page, at % PAGE, key, value);
        }
    }

    /// One layer's part of each page.
    pub(super) fn layer(&self, layer: usize) -> Vec<&[f32]> {
        let len = self.pool.0.shape.page_len();
        self.pages.iter().map(|page| &page.values[layer * len..][..len]).collect()
    }

    /// Counts tokens whose rows were stored in every layer.
    pub(super) fn grow(&mut self, tokens: usize) {
        self.length += tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny;

    fn rows(config: &Config, tokens: usize, seed: f32) -> Vec<f32> {
        (0..tokens * config.kv_width()).map(|i| seed + i as f32).collect()
    }

    fn feed(cache: &mut Cache, config: &Config, tokens: usize, seed: f32) {
        cache.reserve(tokens).expect("the pool has room");
        for layer in 0..config.layers {
            cache.store(layer, &rows(config, tokens, seed), &rows(config, tokens, -seed));
        }
        cache.grow(tokens);
    }

    fn contents(cache: &Cache, config: &Config) -> Vec<f32> {
        (0..config.layers).flat_map(|layer| cache.layer(layer).concat()).collect()
    }

    #[test]
    fn clones_share_pages_until_one_goes_on() {
        let config = tiny();
        let pool = CachePool::new(&config, 8 * PAGE);
        let mut first = pool.cache();
        feed(&mut first, &config, 2 * PAGE + 3, 1.0);
        assert_eq!((first.len(), pool.free_pages()), (2 * PAGE + 3, 5));
        let before = contents(&first, &config);
        let mut second = first.clone();
        assert_eq!(pool.free_pages(), 5, "a clone takes nothing");
        feed(&mut second, &config, 1, 9.0);
        assert_eq!(pool.free_pages(), 4, "the page that is not full was copied");
        assert_eq!(contents(&first, &config), before);
        feed(&mut first, &config, 1, 7.0);
        assert_eq!(pool.free_pages(), 4, "its page is its own again");
        drop(second);
        assert_eq!(pool.free_pages(), 5);
        drop(first);
        assert_eq!(pool.free_pages(), 8);
    }

    #[test]
    fn a_pool_that_is_too_small_leaves_the_sequence_as_it_was() {
        let config = tiny();
        let pool = CachePool::new(&config, 3 * PAGE);
        let (mut first, mut second) = (pool.cache(), pool.cache());
        feed(&mut first, &config, PAGE + 1, 1.0);
        assert_eq!(second.reserve(PAGE + 1), Err(PoolFull));
        assert_eq!((second.len(), second.bytes(), pool.free_pages()), (0, 0, 1));
        first.truncate(PAGE);
        assert_eq!(pool.free_pages(), 2);
        assert_eq!(second.reserve(PAGE + 1), Ok(()));
    }
}

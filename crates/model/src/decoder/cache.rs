//! The keys and values of one sequence.

use crate::config::Config;

/// The keys and values of one sequence's tokens, in every layer.
#[derive(Debug, Clone)]
pub struct Cache {
    kv_width: usize,
    length: usize,
    /// Keys and values of each layer, `[length, kv_width]`.
    layers: Vec<[Vec<f32>; 2]>,
}

impl Cache {
    /// An empty sequence; memory grows with the tokens.
    pub fn new(config: &Config) -> Self {
        let layers = vec![[Vec::new(), Vec::new()]; config.layers];
        Self { kv_width: config.kv_width(), length: 0, layers }
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
        for half in self.layers.iter_mut().flatten() {
            half.truncate(self.length * self.kv_width);
        }
    }

    /// Memory for the tokens in bytes.
    pub fn bytes(&self) -> usize {
        self.layers.len() * 2 * self.length * self.kv_width * size_of::<f32>()
    }

    pub(super) fn fits(&self, config: &Config) -> bool {
        self.kv_width == config.kv_width() && self.layers.len() == config.layers
    }

    /// Adds rows to one layer and returns all of its keys and values.
    pub(super) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> (&[f32], &[f32]) {
        let [all_keys, all_values] = &mut self.layers[layer];
        all_keys.extend_from_slice(keys);
        all_values.extend_from_slice(values);
        (all_keys, all_values)
    }

    /// Counts tokens whose rows were added to every layer.
    pub(super) fn grow(&mut self, tokens: usize) {
        self.length += tokens;
    }
}

//! A stage, which is a range of layers, and the layout of its parameters in one flat vector.

use std::ops::Range;

use crate::config::{Config, ConfigError};

/// A contiguous range of a model's layers.
///
/// The first stage also holds the embedding; the last also holds the final norm, the head and the loss. A model that is
/// not split is one stage that is first and last.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    config: Config,
    layers: Range<usize>,
}

impl Stage {
    /// Takes the layers `layers` of a model.
    ///
    /// # Errors
    /// The config is unsound, the range is empty or outside of the model, or a tied head would be in another stage than
    /// the embedding that it shares.
    pub fn new(config: Config, layers: Range<usize>) -> Result<Self, ConfigError> {
        config.validate()?;
        let Range { start, end } = layers;
        if start >= end || end > config.layers {
            return Err(ConfigError::BadLayers { start, end, layers: config.layers });
        }
        let stage = Self { config, layers };
        if config.tied_head && !(stage.is_first() && stage.is_last()) {
            return Err(ConfigError::TiedAcrossStages { start, end, layers: config.layers });
        }
        Ok(stage)
    }

    /// Takes the whole model as one stage.
    ///
    /// # Errors
    /// The config is unsound.
    pub fn whole(config: Config) -> Result<Self, ConfigError> {
        Self::new(config, 0..config.layers)
    }

    /// The shape of the whole model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The layers of this stage.
    pub fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    /// Whether this stage has the embedding.
    pub fn is_first(&self) -> bool {
        self.layers.start == 0
    }

    /// Whether this stage has the final norm, the head and the loss.
    pub fn is_last(&self) -> bool {
        self.layers.end == self.config.layers
    }

    /// The layout of this stage's parameters.
    pub fn layout(&self) -> Layout {
        Layout::new(self)
    }
}

/// What a tensor is for; optimisers and codecs treat the kinds differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A weight matrix inside a layer, stored `[out, in]`.
    Matrix,
    /// A norm's gain.
    Vector,
    /// A vector added to the output of a matrix.
    Bias,
    /// The embedding table, `[vocab, width]`; with a tied head it is the head's weight too.
    Embedding,
    /// The head's weight, `[vocab, width]`.
    Head,
    /// A basis of the coordinates that travel between two stages, `[width, rank]`; no stage computes with it.
    Basis,
}

/// One named tensor inside the flat parameter vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name that Hugging Face gives it in a Llama checkpoint.
    pub name: String,
    /// One or two sizes, row-major.
    pub shape: Vec<usize>,
    /// What it is for.
    pub kind: Kind,
    /// Position of its first value in the flat vector.
    pub offset: usize,
    /// Whether it writes to the residual stream, so that its initial values shrink with depth.
    pub writes_residual: bool,
}

impl TensorInfo {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values; never true for a tensor of a [`Layout`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its positions in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// The tensors of a stage in the order of the flat parameter vector, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<TensorInfo>,
    parts: Parts,
    len: usize,
}

impl Layout {
    fn new(stage: &Stage) -> Self {
        let Config { vocab, width, tied_head, .. } = *stage.config();
        let mut builder = Builder::default();
        let embedding =
            stage.is_first().then(|| builder.add("model.embed_tokens", &[vocab, width], Kind::Embedding, false));
        let layers = stage.layers().map(|layer| builder.layer(stage.config(), layer)).collect();
        let norm = stage.is_last().then(|| builder.add("model.norm", &[width], Kind::Vector, false));
        let head = match stage.is_last() {
            true if tied_head => embedding.clone(),
            true => Some(builder.add("lm_head", &[vocab, width], Kind::Head, false)),
            false => None,
        };
        Self { tensors: builder.tensors, parts: Parts { embedding, layers, norm, head }, len: builder.len }
    }

    /// Lays out other tensors than those of a stage, each with its name, shape and kind, for optimisers and codecs: no stage computes
    /// with such a vector.
    pub fn of(tensors: impl IntoIterator<Item = (String, Vec<usize>, Kind)>) -> Self {
        let mut len = 0;
        let place = |(name, shape, kind)| {
            let tensor = TensorInfo { name, shape, kind, offset: len, writes_residual: false };
            len = tensor.range().end;
            tensor
        };
        let tensors = tensors.into_iter().map(place).collect();
        let parts = Parts { embedding: None, layers: Vec::new(), norm: None, head: None };
        Self { tensors, parts, len }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters; never true for a stage.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensors in order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }
}

/// Where each part of a stage lies in the flat vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The embedding table, in the first stage.
    pub(crate) embedding: Option<Range<usize>>,
    /// The layers of the stage in order.
    pub(crate) layers: Vec<LayerParts>,
    /// The final norm's gain, in the last stage.
    pub(crate) norm: Option<Range<usize>>,
    /// The head's weight, in the last stage; the embedding table when the head is tied.
    pub(crate) head: Option<Range<usize>>,
}

/// Where the tensors of one layer lie in the flat vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerParts {
    pub(crate) input_norm: Range<usize>,
    pub(crate) q: Range<usize>,
    pub(crate) k: Range<usize>,
    pub(crate) v: Range<usize>,
    pub(crate) o: Range<usize>,
    pub(crate) post_norm: Range<usize>,
    pub(crate) gate: Range<usize>,
    pub(crate) up: Range<usize>,
    pub(crate) down: Range<usize>,
    /// Biases of the queries, keys and values.
    pub(crate) biases: Option<[Range<usize>; 3]>,
    /// Gains of the norms of each head's query and key.
    pub(crate) head_norms: Option<[Range<usize>; 2]>,
}

#[derive(Default)]
struct Builder {
    tensors: Vec<TensorInfo>,
    len: usize,
}

impl Builder {
    fn add(&mut self, module: &str, shape: &[usize], kind: Kind, writes_residual: bool) -> Range<usize> {
        let name = format!("{module}.{}", if kind == Kind::Bias { "bias" } else { "weight" });
        let tensor = TensorInfo { name, shape: shape.to_vec(), kind, offset: self.len, writes_residual };
        let range = tensor.range();
        self.len = range.end;
        self.tensors.push(tensor);
        range
    }

    fn layer(&mut self, config: &Config, layer: usize) -> LayerParts {
        let (width, q_width, kv_width, ff) = (config.width, config.q_width(), config.kv_width(), config.ff);
        let mut add = |name: &str, shape: &[usize], kind, writes| {
            self.add(&format!("model.layers.{layer}.{name}"), shape, kind, writes)
        };
        LayerParts {
            input_norm: add("input_layernorm", &[width], Kind::Vector, false),
            q: add("self_attn.q_proj", &[q_width, width], Kind::Matrix, false),
            k: add("self_attn.k_proj", &[kv_width, width], Kind::Matrix, false),
            v: add("self_attn.v_proj", &[kv_width, width], Kind::Matrix, false),
            o: add("self_attn.o_proj", &[width, q_width], Kind::Matrix, true),
            post_norm: add("post_attention_layernorm", &[width], Kind::Vector, false),
            gate: add("mlp.gate_proj", &[ff, width], Kind::Matrix, false),
            up: add("mlp.up_proj", &[ff, width], Kind::Matrix, false),
            down: add("mlp.down_proj", &[width, ff], Kind::Matrix, true),
            biases: config.attention.bias.then(|| {
                [("q", q_width), ("k", kv_width), ("v", kv_width)]
                    .map(|(name, width)| add(&format!("self_attn.{name}_proj"), &[width], Kind::Bias, false))
            }),
            head_norms: config.attention.query_key_norm.then(|| {
                ["q", "k"].map(|name| add(&format!("self_attn.{name}_norm"), &[config.head_dim], Kind::Vector, false))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny;

    #[test]
    fn the_tensors_fill_the_vector_without_gaps() {
        for tied_head in [false, true] {
            let config = Config { tied_head, ..tiny() };
            let layout = Stage::whole(config).unwrap().layout();
            let mut at = 0;
            for tensor in layout.tensors() {
                assert_eq!(tensor.offset, at, "{}", tensor.name);
                at += tensor.len();
            }
            assert_eq!(layout.len(), at);
            assert_eq!(layout.len() as u64, config.parameters());
            assert_eq!(layout.get("lm_head.weight").is_some(), !tied_head);
            assert_eq!(layout.get("model.layers.1.mlp.down_proj.weight").unwrap().shape, [config.width, config.ff]);
        }
    }

    #[test]
    fn the_stages_of_a_split_concatenate_to_the_whole() {
        let config = tiny();
        let whole = Stage::whole(config).unwrap().layout();
        let first = Stage::new(config, 0..1).unwrap();
        let last = Stage::new(config, 1..2).unwrap();
        assert!(first.is_first() && !first.is_last() && !last.is_first() && last.is_last());
        let names: Vec<String> = [first.layout(), last.layout()]
            .iter()
            .flat_map(|layout| layout.tensors().iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>())
            .collect();
        assert_eq!(names, whole.tensors().iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>());
        assert_eq!(first.layout().len() + last.layout().len(), whole.len());
    }

    #[test]
    fn impossible_stages_are_refused() {
        let config = tiny();
        for layers in [0..0, 1..3, 2..2] {
            assert!(matches!(Stage::new(config, layers), Err(ConfigError::BadLayers { .. })));
        }
        let tied = Config { tied_head: true, ..config };
        assert!(matches!(Stage::new(tied, 0..1), Err(ConfigError::TiedAcrossStages { .. })));
        assert!(Stage::whole(tied).is_ok());
    }
}

//! The weights of a decoder: values of f32, or quantised as in the model's file.

use std::sync::Arc;

use tensor::{Context, QuantisedMatrix, QuantisedRows, RopeTable, matmul_nn, matmul_quantised, quantise_rows};

use crate::config::{Config, ConfigError};
use crate::stage::{Kind, Stage, TensorInfo};

/// A tensor for a decoder.
#[derive(Debug)]
pub enum Weight {
    /// All values, row after row.
    Values(Vec<f32>),
    /// A matrix or table that stays quantised.
    Quantised(QuantisedMatrix),
}

/// A matrix to multiply rows with.
#[derive(Debug, Clone)]
pub(super) enum Matrix {
    /// `[in, out]`, so that the product of a single row reads it in the order in which it lies.
    Dense(Vec<f32>),
    /// `[out, in]`.
    Quantised(Arc<QuantisedMatrix>),
}

impl Matrix {
    fn new(weight: Weight, inputs: usize) -> Self {
        match weight {
            Weight::Values(values) => Self::Dense(transposed(&values, inputs)),
            Weight::Quantised(matrix) => Self::Quantised(Arc::new(matrix)),
        }
    }
}

/// Rows that are multiplied, and room for their quantised form.
pub(super) struct Input<'a> {
    pub(super) rows: usize,
    /// `[rows, in]`.
    pub(super) values: &'a [f32],
    pub(super) quantised: &'a mut QuantisedRows,
}

impl Input<'_> {
    /// Multiplies the rows with each matrix into its output `[rows, out]`, or adds the products to it.
    pub(super) fn times(self, ctx: &Context, products: Vec<(&Matrix, &mut [f32])>, accumulate: bool) {
        let Input { rows, values, quantised } = self;
        let mut together = Vec::new();
        for (matrix, out) in products {
            match matrix {
                Matrix::Dense(dense) => {
                    matmul_nn(ctx, rows, out.len() / rows, values.len() / rows, values, dense, out, accumulate);
                }
                Matrix::Quantised(matrix) => together.push((matrix.as_ref(), out)),
            }
        }
        if !together.is_empty() {
            quantise_rows(ctx, rows, values.len() / rows, values, quantised);
            matmul_quantised(ctx, quantised, together, accumulate);
        }
    }
}

/// The embedding table `[vocab, width]`.
#[derive(Debug)]
pub(super) enum Table {
    Dense(Vec<f32>),
    Quantised(Arc<QuantisedMatrix>),
}

impl Table {
    /// Copies the row of each token to `out` `[tokens, width]`.
    pub(super) fn gather(&self, ctx: &Context, tokens: &[u32], width: usize, out: &mut [f32]) {
        match self {
            Self::Dense(table) => tensor::embedding_gather(ctx, tokens, table, width, out),
            Self::Quantised(table) => {
                for (token, out) in tokens.iter().zip(out.chunks_exact_mut(width)) {
                    table.row(*token as usize, out);
                }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Weights {
    /// In the first stage.
    pub(super) embedding: Option<Table>,
    pub(super) layers: Vec<Layer>,
    /// In the last stage.
    pub(super) output: Option<Output>,
    pub(super) rope: RopeTable,
}

/// What makes logits of the residual stream.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) norm: Vec<f32>,
    pub(super) head: Matrix,
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) input_norm: Vec<f32>,
    pub(super) q: Matrix,
    pub(super) k: Matrix,
    pub(super) v: Matrix,
    pub(super) o: Matrix,
    pub(super) post_norm: Vec<f32>,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
    pub(super) biases: Option<[Vec<f32>; 3]>,
    pub(super) head_norms: Option<[Vec<f32>; 2]>,
}

impl Weights {
    /// Takes the tensors of a stage one after the other.
    pub(super) fn load<E: From<ConfigError>>(
        stage: &Stage,
        mut load: impl FnMut(&TensorInfo) -> Result<Weight, E>,
    ) -> Result<Self, E> {
        let (layout, config) = (stage.layout(), stage.config());
        let mut tensors = layout.tensors().iter();
        let mut next = || -> Result<Weight, E> {
            let info = tensors.next().expect("the layout has all tensors that are asked for");
            let weight = load(info)?;
            check(info, &weight)?;
            Ok(weight)
        };
        let table = if stage.is_first() { Some(next()?) } else { None };
        let layers = stage.layers().map(|_| Layer::load(config, &mut next)).collect::<Result<_, E>>()?;
        let norm = if stage.is_last() { Some(values(next()?)) } else { None };
        let tied = config.tied_head && stage.is_last();
        let (embedding, tied_head) = match table {
            Some(Weight::Values(table)) => {
                let head = tied.then(|| Matrix::Dense(transposed(&table, config.width)));
                (Some(Table::Dense(table)), head)
            }
            Some(Weight::Quantised(table)) => {
                let table = Arc::new(table);
                let head = tied.then(|| Matrix::Quantised(Arc::clone(&table)));
                (Some(Table::Quantised(table)), head)
            }
            None => (None, None),
        };
        let output = match (norm, tied_head) {
            (None, _) => None,
            (Some(norm), Some(head)) => Some(Output { norm, head }),
            (Some(norm), None) => Some(Output { norm, head: Matrix::new(next()?, config.width) }),
        };
        Ok(Self { embedding, layers, output, rope: config.rope_table(config.context) })
    }
}

impl Layer {
    /// Takes the tensors in the order of the layout.
    fn load<E>(config: &Config, next: &mut impl FnMut() -> Result<Weight, E>) -> Result<Self, E> {
        let (width, attention) = (config.width, config.attention);
        Ok(Self {
            input_norm: values(next()?),
            q: Matrix::new(next()?, width),
            k: Matrix::new(next()?, width),
            v: Matrix::new(next()?, width),
            o: Matrix::new(next()?, config.q_width()),
            post_norm: values(next()?),
            gate: Matrix::new(next()?, width),
            up: Matrix::new(next()?, width),
            down: Matrix::new(next()?, config.ff),
            biases: if attention.bias { Some([values(next()?), values(next()?), values(next()?)]) } else { None },
            head_norms: if attention.query_key_norm { Some([values(next()?), values(next()?)]) } else { None },
        })
    }
}

/// Checks that a tensor has the size that the layout gives it, and that only matrices are quantised.
fn check(info: &TensorInfo, weight: &Weight) -> Result<(), ConfigError> {
    let got = match weight {
        Weight::Values(values) => values.len(),
        Weight::Quantised(matrix) => {
            let is_matrix = matches!(info.kind, Kind::Matrix | Kind::Embedding | Kind::Head);
            let fits = is_matrix && info.shape == [matrix.rows(), matrix.cols()];
            if fits { info.len() } else { matrix.rows() * matrix.cols() }
        }
    };
    match got == info.len() {
        true => Ok(()),
        false => Err(ConfigError::WrongParameters { expected: info.len(), got }),
    }
}

/// The values of a vector, which is never quantised.
fn values(weight: Weight) -> Vec<f32> {
    match weight {
        Weight::Values(values) => values,
        Weight::Quantised(_) => unreachable!("checked: only matrices are quantised"),
    }
}

/// `[out, in]` as `[in, out]`.
fn transposed(matrix: &[f32], inputs: usize) -> Vec<f32> {
    /// Rows and columns that are copied together, so that both sides stay in the cache.
    const SIDE: usize = 32;
    let outputs = matrix.len() / inputs;
    let mut out = vec![0.0; matrix.len()];
    for first in (0..outputs).step_by(SIDE) {
        for column in (0..inputs).step_by(SIDE) {
            for row in first..outputs.min(first + SIDE) {
                for at in column..inputs.min(column + SIDE) {
                    out[at * outputs + row] = matrix[row * inputs + at];
                }
            }
        }
    }
    out
}

//! Which numbers of a token travel: the projection onto a basis, its transpose, and the gradients of both.
//!
//! A basis `A` is `[width, rank]` with orthonormal columns. Per token a projection costs 2·width·rank FLOPs each way.

use serde::{Deserialize, Serialize};
use tensor::Context;
use tensor::random::Stream;

/// Which numbers of a token travel between stages; part of the recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Space {
    /// All `width` numbers of the hidden state.
    Full,
    /// Coordinates in one frozen basis that follows from the run's seed. Every matrix that writes to the residual stream is held in the
    /// factored form `U·Z`, and the embedding as `E·Uᵀ + F` with `F` frozen, so that the coordinates say all there is to say.
    Subspace {
        /// Coordinates of a token.
        rank: usize,
    },
    /// Coordinates in a basis of each boundary, which is trained with the model. The layers are unconstrained.
    Projector {
        /// Coordinates of a token.
        rank: usize,
        /// The basis' learning rate as a fraction of the matrices'; 0 freezes it.
        rate: f32,
    },
}

impl Space {
    /// Numbers that a token has on the wire.
    pub fn columns(self, width: usize) -> usize {
        match self {
            Self::Full => width,
            Self::Subspace { rank } | Self::Projector { rank, .. } => rank,
        }
    }
}

/// Draws an orthonormal basis `[width, rank]` from a seed: normal columns, orthogonalised one after the other in f64 (modified
/// Gram–Schmidt).
///
/// # Panics
/// When `rank` is not between 1 and `width`.
pub fn initial_basis(seed: [u8; 32], purpose: &str, width: usize, rank: usize) -> Vec<f32> {
    assert!((1..=width).contains(&rank), "a basis of {rank} columns in {width} dimensions");
    let mut stream = Stream::new(seed, purpose);
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(rank);
    while columns.len() < rank {
        let mut column: Vec<f64> = (0..width).map(|_| f64::from(stream.normal())).collect();
        for other in &columns {
            let along: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
        let norm = column.iter().map(|a| a * a).sum::<f64>().sqrt();
        // A column that the others all but contain would be noise; another is drawn instead.
        if norm > 1e-3 {
            column.iter_mut().for_each(|a| *a /= norm);
            columns.push(column);
        }
    }
    (0..width * rank).map(|at| columns[at % rank][at / rank] as f32).collect()
}

/// A basis with the token parts of a vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// Numbers of a hidden state.
    pub width: usize,
    /// Coordinates.
    pub rank: usize,
    /// The basis, `[width, rank]`.
    pub basis: &'a [f32],
    /// The token parts, `[vocab, width]`.
    pub table: &'a [f32],
}

impl Projection<'_> {
    /// `(h − t)`, `[rows, width]`.
    fn without_token_part(&self, ctx: &Context, hidden: &[f32], ids: &[u32]) -> Vec<f32> {
        let mut parts = vec![0.0; hidden.len()];
        tensor::embedding_gather(ctx, ids, self.table, self.width, &mut parts);
        parts.iter_mut().zip(hidden).for_each(|(part, h)| *part = h - *part);
        parts
    }

    /// The coordinates `(h − t)·A` of hidden states `[rows, width]` whose tokens are `ids`.
    ///
    /// # Panics
    /// When sizes do not fit each other, or a token is not in the table.
    pub fn coordinates(&self, ctx: &Context, hidden: &[f32], ids: &[u32]) -> Vec<f32> {
        let parts = self.without_token_part(ctx, hidden, ids);
        self.gradient_coordinates(ctx, &parts)
    }

    /// The hidden states `z·Aᵀ + t` that coordinates stand for.
    ///
    /// # Panics
    /// As [`Projection::coordinates`].
    pub fn hidden(&self, ctx: &Context, coordinates: &[f32], ids: &[u32]) -> Vec<f32> {
        let rows = ids.len();
        assert_eq!(coordinates.len(), rows * self.rank, "coordinates of {rows} tokens");
        let mut hidden = vec![0.0; rows * self.width];
        tensor::embedding_gather(ctx, ids, self.table, self.width, &mut hidden);
        tensor::matmul_nt(ctx, rows, self.width, self.rank, coordinates, self.basis, &mut hidden, true);
        hidden
    }

    /// The coordinates `g·A` of a gradient `[rows, width]`.
    ///
    /// # Panics
    /// When the gradient is not whole rows.
    pub fn gradient_coordinates(&self, ctx: &Context, gradient: &[f32]) -> Vec<f32> {
        assert!(gradient.len().is_multiple_of(self.width), "{} values in rows of {}", gradient.len(), self.width);
        let rows = gradient.len() / self.width;
        let mut coordinates = vec![0.0; rows * self.rank];
        tensor::matmul_nn(ctx, rows, self.rank, self.width, gradient, self.basis, &mut coordinates, false);
        coordinates
    }

    /// The gradient `c·Aᵀ` of the hidden states, from the coordinates of the gradient after the boundary.
    ///
    /// # Panics
    /// When the coordinates are not whole rows.
    pub fn gradient(&self, ctx: &Context, coordinates: &[f32]) -> Vec<f32> {
        assert!(coordinates.len().is_multiple_of(self.rank), "{} values in rows of {}", coordinates.len(), self.rank);
        let rows = coordinates.len() / self.rank;
        let mut gradient = vec![0.0; rows * self.width];
        tensor::matmul_nt(ctx, rows, self.width, self.rank, coordinates, self.basis, &mut gradient, false);
        gradient
    }

    /// Adds the sender's half of the basis' gradient, `(h − t)ᵀ·c`, with the coordinates `c` of the gradient after the boundary.
    ///
    /// # Panics
    /// As [`Projection::coordinates`].
    pub fn add_sender_half(&self, ctx: &Context, hidden: &[f32], ids: &[u32], coordinates: &[f32], out: &mut [f32]) {
        let parts = self.without_token_part(ctx, hidden, ids);
        tensor::matmul_tn(ctx, self.width, self.rank, ids.len(), &parts, coordinates, out, true);
    }

    /// Adds the receiver's half of the basis' gradient, `gᵀ·z`, with the gradient `g` and the coordinates `z` that came.
    ///
    /// # Panics
    /// When sizes do not fit each other.
    pub fn add_receiver_half(&self, ctx: &Context, gradient: &[f32], coordinates: &[f32], out: &mut [f32]) {
        let rows = gradient.len() / self.width;
        tensor::matmul_tn(ctx, self.width, self.rank, rows, gradient, coordinates, out, true);
    }
}

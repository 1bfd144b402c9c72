//! Where the model is cut, and what a stage holds.
//!
//! The canonical parameters of a stage are those of its layers (and embedding or head), then the bases of the boundaries before and
//! after it, if they are learned. Both neighbours of a boundary hold its basis. With a frozen subspace, the matrices that write to the
//! residual stream are held as `Z` of `U·Z`, and the embedding as `E` of `E·Uᵀ + F`; [`StageShape::expand`] makes the full ones.

use std::sync::Arc;

use model::{Kind, Layout, Stage, TensorInfo};
use tensor::Context;

use super::state::StageState;
use crate::boundary::{Projection, Space, initial_basis};
use crate::recipe::Recipe;

const SUBSPACE: &str = "subspace";

/// The token parts `[vocab, width]` of a run: the initial embedding. Shared between the stages of one process.
pub type TokenParts = Arc<Vec<f32>>;

/// One stage of a run.
#[derive(Debug, Clone)]
pub struct StageShape {
    stage: Stage,
    place: usize,
    stages: usize,
    space: Space,
    seed: [u8; 32],
    /// The frozen basis of the run, `[width, rank]`, when there is one.
    frozen: Option<Arc<Vec<f32>>>,
    full: Layout,
    canonical: Layout,
}

impl StageShape {
    /// The stages of a recipe, in order. A recipe without a pipeline has one.
    ///
    /// # Panics
    /// When the recipe was not validated.
    pub fn all(recipe: &Recipe) -> Vec<Self> {
        let (stages, space) = recipe.pipeline.map_or((1, Space::Full), |pipeline| (pipeline.stages, pipeline.space));
        let frozen = match space {
            Space::Subspace { rank } => {
                Some(Arc::new(initial_basis(recipe.init_seed(), SUBSPACE, recipe.model.width, rank)))
            }
            Space::Full | Space::Projector { .. } => None,
        };
        (0..stages).map(|place| Self::new(recipe, place, stages, space, frozen.clone())).collect()
    }

    fn new(recipe: &Recipe, place: usize, stages: usize, space: Space, frozen: Option<Arc<Vec<f32>>>) -> Self {
        let layers = recipe.model.layers;
        let range = layers * place / stages..layers * (place + 1) / stages;
        let stage = Stage::new(recipe.model, range).expect("a validated recipe has at least a layer for each stage");
        let full = stage.layout();
        let seed = recipe.init_seed();
        let mut shape = Self { canonical: full.clone(), stage, place, stages, space, seed, frozen, full };
        shape.canonical = shape.canonical_layout();
        shape
    }

    fn canonical_layout(&self) -> Layout {
        let width = self.stage.config().width;
        let own = self.full.tensors().iter().map(|tensor| {
            let shape = match (self.space, self.factor_of(tensor)) {
                (Space::Subspace { rank }, Some(Factor::Output)) => vec![rank, tensor.shape[1]],
                (Space::Subspace { rank }, Some(Factor::Input)) => vec![tensor.shape[0], rank],
                _ => tensor.shape.clone(),
            };
            (tensor.name.clone(), shape, tensor.kind)
        });
        let rank = self.learned_rank();
        let bases = [self.boundary_before(), self.boundary_after()].into_iter().flatten();
        let bases = bases.filter_map(|boundary| Some((basis_name(boundary), vec![width, rank?], Kind::Basis)));
        Layout::of(own.chain(bases))
    }

    /// How a tensor is factored, if it is. What the last stage writes does not travel, so that its matrices have full rank.
    fn factor_of(&self, tensor: &TensorInfo) -> Option<Factor> {
        match (self.space, tensor.kind) {
            (Space::Full | Space::Projector { .. }, _) => None,
            (Space::Subspace { .. }, Kind::Embedding) => Some(Factor::Input),
            (Space::Subspace { .. }, _) if tensor.writes_residual && !self.is_last() => Some(Factor::Output),
            (Space::Subspace { .. }, _) => None,
        }
    }

    /// The layers, with embedding and head.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Its place, from 0.
    pub fn place(&self) -> usize {
        self.place
    }

    /// How many stages the run has.
    pub fn stages(&self) -> usize {
        self.stages
    }

    /// Which numbers travel between stages.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Numbers of a token on the wire.
    pub fn columns(&self) -> usize {
        self.space.columns(self.stage.config().width)
    }

    /// The layout of the canonical parameters.
    pub fn layout(&self) -> &Layout {
        &self.canonical
    }

    /// Whether this is the first stage.
    pub fn is_first(&self) -> bool {
        self.place == 0
    }

    /// Whether this is the last stage.
    pub fn is_last(&self) -> bool {
        self.place + 1 == self.stages
    }

    /// Whether the layers' parameters alone are the model; with learned bases they are nothing without them.
    pub fn is_plain(&self) -> bool {
        self.learned_rank().is_none()
    }

    /// Whether a step needs the payloads of the neighbouring stages as well: each has half of a learned basis' gradient.
    pub fn needs_neighbours(&self) -> bool {
        self.learned_rank().is_some() && self.stages > 1
    }

    /// The number of the boundary before this stage.
    pub(super) fn boundary_before(&self) -> Option<usize> {
        self.place.checked_sub(1)
    }

    /// The number of the boundary after this stage.
    pub(super) fn boundary_after(&self) -> Option<usize> {
        (!self.is_last()).then_some(self.place)
    }

    fn learned_rank(&self) -> Option<usize> {
        match self.space {
            Space::Projector { rank, .. } => Some(rank),
            Space::Full | Space::Subspace { .. } => None,
        }
    }

    /// The position of a boundary's basis in the canonical parameters, when it is learned.
    pub(super) fn basis(&self, boundary: usize) -> Option<std::ops::Range<usize>> {
        self.canonical.get(&basis_name(boundary)).map(TensorInfo::range)
    }

    /// Number of parameters that the stage computes with: those of its layers in full.
    pub(super) fn full_len(&self) -> usize {
        self.full.len()
    }

    /// The frozen basis of the run, `[width, rank]`, when there is one.
    pub(super) fn frozen_basis(&self) -> Option<&[f32]> {
        self.frozen.as_ref().map(|basis| &basis[..])
    }

    /// What a basis of this run does with a token's numbers.
    pub(super) fn projection<'a>(&self, parts: &'a TokenParts, basis: &'a [f32]) -> Projection<'a> {
        Projection { width: self.stage.config().width, rank: self.columns(), basis, table: parts }
    }

    /// The token parts of the run. Empty when all numbers travel.
    pub fn token_parts(&self) -> TokenParts {
        if self.space == Space::Full {
            return TokenParts::default();
        }
        let config = self.stage.config();
        let first = Stage::new(*config, 0..1).expect("a model has a first layer").layout();
        let table =
            first.tensors().iter().find(|tensor| tensor.kind == Kind::Embedding).expect("its stage has a table");
        let mut values = vec![0.0; table.len()];
        model::init_tensor(config, table, self.seed, &mut values);
        Arc::new(values)
    }

    /// The canonical parameters before round 0.
    pub(super) fn genesis(&self, ctx: &Context) -> Vec<f32> {
        let initial = model::init(&self.stage, self.seed);
        let mut theta = self.factor_parameters(ctx, initial);
        if let Some(rank) = self.learned_rank() {
            for boundary in [self.boundary_before(), self.boundary_after()].into_iter().flatten() {
                theta.extend(initial_basis(self.seed, &basis_name(boundary), self.stage.config().width, rank));
            }
        }
        theta
    }

    /// Initial parameters as the canonical ones hold them. A factor's values are larger, so that what it writes has the size it has
    /// without factors; the embedding is its frozen part.
    fn factor_parameters(&self, ctx: &Context, full: Vec<f32>) -> Vec<f32> {
        let Space::Subspace { rank } = self.space else { return full };
        let width = self.stage.config().width;
        let gain = tensor::math::sqrt(width as f32 / rank as f32);
        let mut theta = self.factor(ctx, &full);
        for tensor in self.canonical.tensors() {
            let values = &mut theta[tensor.range()];
            match self.factor_of(self.full.get(&tensor.name).expect("the same tensors")) {
                Some(Factor::Output) => values.iter_mut().for_each(|value| *value *= gain),
                Some(Factor::Input) => values.fill(0.0),
                None => {}
            }
        }
        theta
    }

    /// Multiplies what is factored by the frozen basis: `Uᵀ·W` and `E·U`. Of gradients, this is the chain rule.
    pub(super) fn factor(&self, ctx: &Context, full: &[f32]) -> Vec<f32> {
        let Some(basis) = self.frozen_basis() else { return full.to_vec() };
        let width = self.stage.config().width;
        let rank = self.columns();
        let mut out = vec![0.0; self.canonical.len()];
        for (from, to) in self.full.tensors().iter().zip(self.canonical.tensors()) {
            let (source, target) = (&full[from.range()], &mut out[to.range()]);
            match self.factor_of(from) {
                Some(Factor::Output) => {
                    tensor::matmul_tn(ctx, rank, from.shape[1], width, basis, source, target, false);
                }
                Some(Factor::Input) => {
                    tensor::matmul_nn(ctx, from.shape[0], rank, width, source, basis, target, false);
                }
                None => target.copy_from_slice(source),
            }
        }
        out
    }

    /// The parameters of the stage's layers as they are in the whole model.
    ///
    /// # Panics
    /// When the state is another stage's.
    pub fn whole_parameters(&self, ctx: &Context, state: &StageState) -> Vec<f32> {
        assert_eq!(state.theta.len(), self.canonical.len(), "the state of another stage");
        // Only the embedding has a token part.
        let parts = if self.is_first() { self.token_parts() } else { TokenParts::default() };
        self.expand(ctx, &state.theta, &parts)
    }

    /// The full parameters of the stage's layers: `U·Z`, `E·Uᵀ + F`, and the rest as it is.
    pub(super) fn expand(&self, ctx: &Context, theta: &[f32], parts: &TokenParts) -> Vec<f32> {
        let Some(basis) = self.frozen_basis() else { return theta[..self.full.len()].to_vec() };
        let width = self.stage.config().width;
        let rank = self.columns();
        let mut out = vec![0.0; self.full.len()];
        for (to, from) in self.full.tensors().iter().zip(self.canonical.tensors()) {
            let (source, target) = (&theta[from.range()], &mut out[to.range()]);
            match self.factor_of(to) {
                Some(Factor::Output) => {
                    tensor::matmul_nn(ctx, width, to.shape[1], rank, basis, source, target, false);
                }
                Some(Factor::Input) => {
                    target.copy_from_slice(parts);
                    tensor::matmul_nt(ctx, to.shape[0], width, rank, source, basis, target, true);
                }
                None => target.copy_from_slice(source),
            }
        }
        out
    }
}

/// On which side a tensor's numbers of the residual stream are.
enum Factor {
    /// Its rows: it writes to the stream.
    Output,
    /// Its columns: the embedding.
    Input,
}

fn basis_name(boundary: usize) -> String {
    format!("boundary.{boundary}.basis")
}

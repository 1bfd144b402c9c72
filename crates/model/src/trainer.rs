//! Forward and backward of one stage over micro-batches, with every activation allocated once.
//!
//! Purpose: the gradient of a stage's parameters, by a backward written by hand for the one block type of the Llama family.
//! A stage that is not the first takes hidden states instead of tokens; one that is not the last takes the gradient of its
//! output instead of targets.
//!
//! Layouts: hidden states are `[sequences · tokens, width]`; gradients have the layout of the parameters and accumulate.
//! Sums are added to the residual stream inside the matrix product that makes them (the fold starts from the stream's old
//! value), in training and in decoding alike, so both give the same bits.
//!
//! Cost per token: 6 FLOPs per matrix parameter, and attention. Memory per token and layer:
//! `4·width + 2·q_width + 2·kv_width + 3·ff` values.

mod layer;

use tensor::{Context, RopeTable};

use self::layer::{Activations, Scratch};
use crate::config::ConfigError;
use crate::stage::{Layout, Stage};

/// Rows of logits that the head holds at once.
const HEAD_ROWS: usize = 256;

/// What goes into a stage.
#[derive(Debug, Clone, Copy)]
pub enum StageInput<'a> {
    /// Token ids `[sequences, tokens]`, for the first stage.
    Tokens(&'a [u32]),
    /// The hidden states of the stage before, `[sequences · tokens, width]`.
    Hidden(&'a [f32]),
}

/// Where the backward of a stage starts.
#[derive(Debug, Clone, Copy)]
pub enum StageGradient<'a> {
    /// The token that follows each input token, for the last stage.
    Targets(&'a [u32]),
    /// The gradient of the stage's output, from the stage after.
    Hidden(&'a [f32]),
}

/// What the backward of a stage gives besides the parameters' gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackwardOutput<'a> {
    /// Mean loss in nats per token, from the last stage.
    pub loss: Option<f64>,
    /// The gradient of the stage's input, for the stage before; none for the first.
    pub input: Option<&'a [f32]>,
}

/// Forward and backward of one stage on the CPU; owns the activations.
#[derive(Debug)]
pub struct Trainer {
    stage: Stage,
    layout: Layout,
    rope: RopeTable,
    positions: Vec<u32>,
    tokens: usize,
    micro_batches: usize,
    /// Sequences of the last forward.
    sequences: usize,
    /// Token ids of the last forward, in the first stage.
    ids: Vec<u32>,
    /// The residual stream in front of each half layer, and the output of the last one.
    residual: Vec<Vec<f32>>,
    layers: Vec<Activations>,
    scratch: Scratch,
    /// Output of the final norm and its inverse root mean squares, in the last stage.
    normed: Vec<f32>,
    inv_rms: Vec<f32>,
    /// The gradient of the residual stream.
    dresidual: Vec<f32>,
}

impl Trainer {
    /// Makes a trainer for micro-batches of up to `batch` sequences of `tokens` tokens.
    ///
    /// # Errors
    /// A batch without rows, or sequences longer than the context.
    pub fn new(stage: Stage, batch: usize, tokens: usize) -> Result<Self, ConfigError> {
        let config = *stage.config();
        let context = config.context;
        let rows =
            batch.checked_mul(tokens).filter(|&rows| rows > 0 && tokens <= context && u32::try_from(rows).is_ok());
        let rows = rows.ok_or(ConfigError::BadBatch { batch, tokens, context })?;
        let count = stage.layers().len();
        let last_rows = if stage.is_last() { rows } else { 0 };
        Ok(Self {
            layout: stage.layout(),
            rope: config.rope_table(tokens),
            positions: (0..batch).flat_map(|_| 0..tokens as u32).collect(),
            tokens,
            micro_batches: 1,
            sequences: 0,
            ids: Vec::with_capacity(rows),
            residual: vec![vec![0.0; rows * config.width]; 2 * count + 1],
            layers: (0..count).map(|_| Activations::new(&config, rows)).collect(),
            scratch: Scratch::new(&config, rows),
            normed: vec![0.0; last_rows * config.width],
            inv_rms: vec![0.0; last_rows],
            dresidual: vec![0.0; rows * config.width],
            stage,
        })
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The layout of the parameters and of the gradients.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes each backward add the gradient of the mean loss divided by `count`: after `count` micro-batches of the same
    /// size the sum is the gradient of their mean loss.
    ///
    /// # Panics
    /// When `count` is 0.
    pub fn set_micro_batches(&mut self, count: usize) {
        assert!(count > 0, "a step has at least one micro-batch");
        self.micro_batches = count;
    }

    /// Runs the stage and keeps the activations for the backward. Returns the hidden states after the last layer, and in
    /// the last stage after the final norm.
    ///
    /// # Panics
    /// When the input is not the kind that this stage takes, is not whole sequences, has more of them than the batch, or
    /// has a token outside of the vocabulary; or when `params` has another length than the layout.
    pub fn forward(&mut self, ctx: &Context, params: &[f32], input: StageInput<'_>) -> &[f32] {
        assert_eq!(params.len(), self.layout.len(), "parameters of another stage");
        self.take_input(ctx, params, input);
        let shape = self.shape();
        let positions = &self.positions[..shape.rows()];
        for (index, (layer, parts)) in self.layers.iter_mut().zip(&self.layout.parts().layers).enumerate() {
            let [before, middle, after] = &mut self.residual[2 * index..2 * index + 3] else {
                unreachable!("two half layers each")
            };
            layer.forward(
                ctx,
                &shape,
                layer::Weights { params, parts },
                (&self.rope, positions),
                [before, middle, after],
            );
        }
        self.finish(ctx, params)
    }

    /// Adds the gradients of the stage's parameters for the micro-batch of the last [`Trainer::forward`] to `grads`.
    ///
    /// # Panics
    /// Without a forward before; when `from` is not the kind that this stage takes or has another size than the forward's
    /// input; when a target is outside of the vocabulary; or when a slice has another length than the layout.
    pub fn backward(
        &mut self,
        ctx: &Context,
        params: &[f32],
        grads: &mut [f32],
        from: StageGradient<'_>,
    ) -> BackwardOutput<'_> {
        assert!(self.sequences > 0, "a backward without a forward");
        assert_eq!(params.len(), self.layout.len(), "parameters of another stage");
        assert_eq!(grads.len(), self.layout.len(), "gradients of another stage");
        let loss = self.start_backward(ctx, params, grads, from);
        let shape = self.shape();
        let size = shape.rows() * shape.config.width;
        let positions = &self.positions[..shape.rows()];
        for (index, (layer, parts)) in self.layers.iter().zip(&self.layout.parts().layers).enumerate().rev() {
            let residual = [&self.residual[2 * index][..size], &self.residual[2 * index + 1][..size]];
            let weights = layer::Weights { params, parts };
            let stream = &mut self.dresidual[..size];
            layer.backward(ctx, &shape, weights, (&self.rope, positions), residual, &mut self.scratch, stream, grads);
        }
        let dinput = &self.dresidual[..size];
        let Some(embedding) = self.layout.parts().embedding.clone() else {
            return BackwardOutput { loss, input: Some(dinput) };
        };
        tensor::embedding_scatter_add(ctx, &self.ids, dinput, shape.config.width, &mut grads[embedding]);
        BackwardOutput { loss, input: None }
    }

    /// Computes the mean loss of a micro-batch in nats per token and adds its gradients to `grads`; for a model of one
    /// stage. See [`Trainer::set_micro_batches`] for steps of several micro-batches.
    ///
    /// # Panics
    /// As [`Trainer::forward`] and [`Trainer::backward`]; and when the stage is not the whole model.
    pub fn loss_and_grads(
        &mut self,
        ctx: &Context,
        params: &[f32],
        tokens: &[u32],
        targets: &[u32],
        grads: &mut [f32],
    ) -> f64 {
        let loss = ctx.run(|| {
            self.forward(ctx, params, StageInput::Tokens(tokens));
            self.backward(ctx, params, grads, StageGradient::Targets(targets)).loss
        });
        loss.expect("a backward from targets has a loss")
    }

    /// Computes the mean loss of a micro-batch in nats per token; for a model of one stage. It has the bits of the loss of
    /// [`Trainer::loss_and_grads`].
    ///
    /// # Panics
    /// As [`Trainer::forward`], and when the stage is not the whole model.
    pub fn loss(&mut self, ctx: &Context, params: &[f32], tokens: &[u32], targets: &[u32]) -> f64 {
        let hidden = self.forward(ctx, params, StageInput::Tokens(tokens)).len();
        let rows = self.sequences * self.tokens;
        let weight = self.head(params);
        let hidden = &self.normed[..hidden];
        let config = self.stage.config();
        let (d, vocab) = (config.width, config.vocab);
        tensor::head_loss_forward(ctx, rows, d, vocab, hidden, weight, targets, HEAD_ROWS) / rows as f64
    }

    /// Computes the logits `[sequences · tokens, vocab]` of a micro-batch; for a model of one stage.
    ///
    /// # Panics
    /// As [`Trainer::forward`], and when the stage is not the whole model.
    pub fn logits(&mut self, ctx: &Context, params: &[f32], tokens: &[u32]) -> Vec<f32> {
        let hidden = self.forward(ctx, params, StageInput::Tokens(tokens)).len();
        let config = self.stage.config();
        let mut logits = vec![0.0; tokens.len() * config.vocab];
        let hidden = &self.normed[..hidden];
        let (n, k) = (config.vocab, config.width);
        tensor::matmul_nt(ctx, tokens.len(), n, k, hidden, self.head(params), &mut logits, false);
        logits
    }

    fn shape(&self) -> layer::Shape {
        layer::Shape { config: *self.stage.config(), sequences: self.sequences, tokens: self.tokens }
    }

    fn head<'a>(&self, params: &'a [f32]) -> &'a [f32] {
        let head = self.layout.parts().head.clone().expect("only the last stage has a head");
        &params[head]
    }

    /// Puts the input at the start of the residual stream and notes how many sequences it has.
    fn take_input(&mut self, ctx: &Context, params: &[f32], input: StageInput<'_>) {
        let width = self.stage.config().width;
        let rows = match input {
            StageInput::Tokens(ids) => ids.len(),
            StageInput::Hidden(hidden) => hidden.len() / width,
        };
        let most = self.positions.len();
        assert!(
            rows > 0 && rows <= most && rows.is_multiple_of(self.tokens),
            "{rows} rows are not 1 to {} whole sequences of {} tokens",
            most / self.tokens,
            self.tokens
        );
        self.sequences = rows / self.tokens;
        let start = &mut self.residual[0][..rows * width];
        match (input, self.layout.parts().embedding.clone()) {
            (StageInput::Tokens(ids), Some(table)) => {
                self.ids.clear();
                self.ids.extend_from_slice(ids);
                tensor::embedding_gather(ctx, ids, &params[table], width, start);
            }
            (StageInput::Hidden(hidden), None) => start.copy_from_slice(hidden),
            (StageInput::Tokens(_), None) => panic!("only the first stage takes tokens"),
            (StageInput::Hidden(_), Some(_)) => panic!("the first stage takes tokens"),
        }
    }

    /// The final norm, in the last stage; returns the stage's output.
    fn finish(&mut self, ctx: &Context, params: &[f32]) -> &[f32] {
        let (rows, width, eps) =
            (self.sequences * self.tokens, self.stage.config().width, self.stage.config().norm_eps);
        let stream = self.residual.last().expect("at least the input");
        let Some(gain) = self.layout.parts().norm.clone() else { return &stream[..rows * width] };
        let (out, inv_rms) = (&mut self.normed[..rows * width], &mut self.inv_rms[..rows]);
        tensor::rmsnorm_forward(ctx, rows, width, &stream[..rows * width], &params[gain], eps, out, inv_rms);
        out
    }

    /// Puts the gradient of the last layer's output into `dresidual`; returns the mean loss in the last stage.
    fn start_backward(
        &mut self,
        ctx: &Context,
        params: &[f32],
        grads: &mut [f32],
        from: StageGradient<'_>,
    ) -> Option<f64> {
        let rows = self.sequences * self.tokens;
        let (width, vocab) = (self.stage.config().width, self.stage.config().vocab);
        let size = rows * width;
        let parts = self.layout.parts();
        let (targets, gain, head) = match (from, parts.norm.clone(), parts.head.clone()) {
            (StageGradient::Targets(targets), Some(gain), Some(head)) => (targets, gain, head),
            (StageGradient::Hidden(gradient), None, None) => {
                self.dresidual[..size].copy_from_slice(gradient);
                return None;
            }
            _ => panic!("the last stage starts its backward from targets, and the others from a gradient"),
        };
        let scale = 1.0 / (rows * self.micro_batches) as f32;
        let hidden = &self.normed[..size];
        let dhidden = &mut self.scratch.dnormed[..size];
        let dhead = &mut grads[head.clone()];
        let weight = &params[head];
        let loss =
            tensor::head_loss(ctx, rows, width, vocab, hidden, weight, targets, scale, dhidden, dhead, HEAD_ROWS);
        let stream = &self.residual.last().expect("at least the input")[..size];
        let (inv_rms, dstream) = (&self.inv_rms[..rows], &mut self.dresidual[..size]);
        let dgain = &mut grads[gain.clone()];
        tensor::rmsnorm_backward(ctx, rows, width, stream, &params[gain], inv_rms, dhidden, dstream, dgain);
        Some(loss / rows as f64)
    }
}

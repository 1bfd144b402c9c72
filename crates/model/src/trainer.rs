//! Forward and backward of one stage over micro-batches, with every activation allocated once.
//!
//! Purpose: the gradient of a stage's parameters, by a backward written by hand for the one block type of the Llama family.
//! A stage that is not the first takes hidden states instead of tokens; one that is not the last takes the gradient of its
//! output instead of targets.
//!
//! Layouts: hidden states are `[sequences · tokens, width]`; gradients have the layout of the parameters, or that of the adapters
//! ([`AdapterLayout`]) when those are trained, and accumulate.
//! Sums are added to the residual stream inside the matrix product that makes them (the fold starts from the stream's old
//! value), in training and in decoding alike, so both give the same bits.
//!
//! A row whose target is [`IGNORED`] takes no part in the loss: the head runs over the other rows alone, in their order, the loss
//! is the mean over them, and such a row's gradient is zero. Without any other row the loss and all gradients are zero.
//!
//! Cost per token: 6 FLOPs per matrix parameter (4 per frozen one, 2 more with recomputation inside of the layers), and
//! attention. Memory: [`TrainerMemory`].

mod adapted;
mod layer;
mod linear;
mod memory;

use tensor::{Context, RopeTable};

use self::layer::{Activations, Pass, Scratch};
use self::linear::{Gradients, LayerAdapters, Weights};
use crate::config::ConfigError;
use crate::lora::{AdapterLayout, Lora};
use crate::stage::{Layout, Stage};

pub use self::memory::TrainerMemory;

/// Rows of logits that the head holds at once.
const HEAD_ROWS: usize = 256;

/// As a target: the loss does not count this row.
pub const IGNORED: u32 = u32::MAX;

/// How a trainer computes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainerOptions {
    /// Keep only the residual stream between layers, and compute each layer's activations again in the backward: the same
    /// bits in much less memory, for about a third more work.
    pub recompute: bool,
    /// Train adapters of frozen parameters instead of the parameters.
    pub lora: Option<Lora>,
}

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

/// The parameters, and the values of the adapters; none without.
#[derive(Debug, Clone, Copy)]
struct Parameters<'a> {
    params: &'a [f32],
    adapters: &'a [f32],
}

impl<'a> Parameters<'a> {
    fn plain(params: &'a [f32]) -> Self {
        Self { params, adapters: &[] }
    }

    /// Those of one layer.
    fn layer(self, layout: &'a Layout, adapters: Option<&'a AdapterLayout>, index: usize) -> Weights<'a> {
        let adapters = adapters.map(|layout| {
            let lora = layout.lora();
            let parts = &layout.layers()[index];
            LayerAdapters { values: self.adapters, parts, rank: lora.rank, scale: lora.scale() }
        });
        Weights { params: self.params, parts: &layout.parts().layers[index], adapters }
    }
}

/// Forward and backward of one stage on the CPU; owns the activations.
#[derive(Debug)]
pub struct Trainer {
    stage: Stage,
    layout: Layout,
    adapters: Option<AdapterLayout>,
    recompute: bool,
    rope: RopeTable,
    positions: Vec<u32>,
    tokens: usize,
    micro_batches: usize,
    /// Sequences of the last forward.
    sequences: usize,
    /// Token ids of the last forward, in the first stage.
    ids: Vec<u32>,
    /// The residual stream in front of each layer, and the output of the last one.
    streams: Vec<Vec<f32>>,
    /// The residual stream between the halves of each layer, or of the layer that was computed last.
    middles: Vec<Vec<f32>>,
    /// Those of each layer, or of the layer that was computed last.
    layers: Vec<Activations>,
    scratch: Scratch,
    /// Takes what the backward of a norm gives for a frozen gain.
    unused: Vec<f32>,
    /// Output of the final norm and its inverse root mean squares, in the last stage.
    normed: Vec<f32>,
    inv_rms: Vec<f32>,
    /// The gradient of the residual stream.
    dresidual: Vec<f32>,
}

impl Trainer {
    /// Makes a trainer of all parameters for micro-batches of up to `batch` sequences of `tokens` tokens.
    ///
    /// # Errors
    /// A batch without rows, or sequences longer than the context.
    pub fn new(stage: Stage, batch: usize, tokens: usize) -> Result<Self, ConfigError> {
        Self::with_options(stage, batch, tokens, TrainerOptions::default())
    }

    /// Makes a trainer that computes as `options` say.
    ///
    /// # Errors
    /// As [`Trainer::new`], and unsound adapters.
    pub fn with_options(
        stage: Stage,
        batch: usize,
        tokens: usize,
        options: TrainerOptions,
    ) -> Result<Self, ConfigError> {
        let config = *stage.config();
        let TrainerOptions { recompute, lora } = options;
        let rows = check_batch(&stage, batch, tokens)?;
        let adapters = lora.map(|lora| AdapterLayout::new(&stage, lora)).transpose()?;
        let lora = adapters.as_ref().map(AdapterLayout::lora);
        let count = stage.layers().len();
        let kept = if recompute { 1 } else { count };
        let last_rows = if stage.is_last() { rows } else { 0 };
        let unused = if lora.is_some() { config.width.max(config.head_dim) } else { 0 };
        Ok(Self {
            layout: stage.layout(),
            recompute,
            rope: config.rope_table(tokens),
            positions: (0..batch).flat_map(|_| 0..tokens as u32).collect(),
            tokens,
            micro_batches: 1,
            sequences: 0,
            ids: Vec::with_capacity(rows),
            streams: vec![vec![0.0; rows * config.width]; count + 1],
            middles: vec![vec![0.0; rows * config.width]; kept],
            layers: (0..kept).map(|_| Activations::new(&config, lora, rows)).collect(),
            scratch: Scratch::new(&config, lora, rows),
            unused: vec![0.0; unused],
            normed: vec![0.0; last_rows * config.width],
            inv_rms: vec![0.0; last_rows],
            dresidual: vec![0.0; rows * config.width],
            adapters,
            stage,
        })
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The layout of the parameters, and of the gradients when those are trained.
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

    /// Runs the stage and keeps what the backward needs. Returns the hidden states after the last layer, and in
    /// the last stage after the final norm.
    ///
    /// # Panics
    /// When the input is not the kind that this stage takes, is not whole sequences, has more of them than the batch, or
    /// has a token outside of the vocabulary; when `params` has another length than the layout; or when adapters are trained.
    pub fn forward(&mut self, ctx: &Context, params: &[f32], input: StageInput<'_>) -> &[f32] {
        self.run_forward(ctx, Parameters::plain(params), input)
    }

    /// Adds the gradients of the stage's parameters for the micro-batch of the last [`Trainer::forward`] to `grads`.
    ///
    /// # Panics
    /// Without a forward before; when `from` is not the kind that this stage takes or has another size than the forward's
    /// input; when a target is outside of the vocabulary; when a slice has another length than the layout; or when adapters
    /// are trained.
    pub fn backward(
        &mut self,
        ctx: &Context,
        params: &[f32],
        grads: &mut [f32],
        from: StageGradient<'_>,
    ) -> BackwardOutput<'_> {
        self.run_backward(ctx, Parameters::plain(params), grads, from)
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
        self.run_loss_and_grads(ctx, Parameters::plain(params), tokens, targets, grads)
    }

    /// Computes the mean loss of a micro-batch in nats per token; for a model of one stage. It has the bits of the loss of
    /// [`Trainer::loss_and_grads`].
    ///
    /// # Panics
    /// As [`Trainer::forward`], and when the stage is not the whole model.
    pub fn loss(&mut self, ctx: &Context, params: &[f32], tokens: &[u32], targets: &[u32]) -> f64 {
        self.run_loss(ctx, Parameters::plain(params), StageInput::Tokens(tokens), targets)
    }

    /// Computes the mean loss of a micro-batch in nats per token from the last stage's input; the bits are those that a backward would
    /// give.
    ///
    /// # Panics
    /// As [`Trainer::forward`], and when the stage is not the last.
    pub fn stage_loss(&mut self, ctx: &Context, params: &[f32], input: StageInput<'_>, targets: &[u32]) -> f64 {
        self.run_loss(ctx, Parameters::plain(params), input, targets)
    }

    /// Computes the logits `[sequences · tokens, vocab]` of a micro-batch; for a model of one stage.
    ///
    /// # Panics
    /// As [`Trainer::forward`], and when the stage is not the whole model.
    pub fn logits(&mut self, ctx: &Context, params: &[f32], tokens: &[u32]) -> Vec<f32> {
        self.run_logits(ctx, Parameters::plain(params), tokens)
    }

    fn check(&self, from: Parameters<'_>) {
        assert_eq!(from.params.len(), self.layout.len(), "parameters of another stage");
        let adapters = self.adapters.as_ref().map_or(0, AdapterLayout::len);
        assert_eq!(from.adapters.len(), adapters, "adapters of another stage");
    }

    fn run_forward(&mut self, ctx: &Context, from: Parameters<'_>, input: StageInput<'_>) -> &[f32] {
        self.check(from);
        self.take_input(ctx, from.params, input);
        let shape = self.shape();
        let size = shape.rows() * shape.config.width;
        for index in 0..self.stage.layers().len() {
            let kept = if self.recompute { 0 } else { index };
            let weights = from.layer(&self.layout, self.adapters.as_ref(), index);
            let pass = Pass { ctx, shape, weights, rope: &self.rope, positions: &self.positions[..shape.rows()] };
            let (before, after) = self.streams.split_at_mut(index + 1);
            let middle = &mut self.middles[kept][..size];
            self.layers[kept].forward(pass, &before[index][..size], middle, &mut after[0][..size]);
        }
        self.finish(ctx, from.params)
    }

    fn run_backward(
        &mut self,
        ctx: &Context,
        of: Parameters<'_>,
        grads: &mut [f32],
        from: StageGradient<'_>,
    ) -> BackwardOutput<'_> {
        assert!(self.sequences > 0, "a backward without a forward");
        self.check(of);
        let trained = self.adapters.as_ref().map_or(self.layout.len(), AdapterLayout::len);
        assert_eq!(grads.len(), trained, "gradients of another stage");
        let mut unused = std::mem::take(&mut self.unused);
        let mut grads = match self.adapters {
            Some(_) => Gradients::Adapters { values: grads, unused: &mut unused },
            None => Gradients::Parameters(grads),
        };
        let loss = self.start_backward(ctx, of.params, &mut grads, from);
        let shape = self.shape();
        let size = shape.rows() * shape.config.width;
        let count = self.stage.layers().len();
        for index in (0..count).rev() {
            let kept = if self.recompute { 0 } else { index };
            let weights = of.layer(&self.layout, self.adapters.as_ref(), index);
            let pass = Pass { ctx, shape, weights, rope: &self.rope, positions: &self.positions[..shape.rows()] };
            let (before, middle) = (&self.streams[index][..size], &mut self.middles[kept][..size]);
            // The activations of the last layer are still there from the forward.
            if self.recompute && index + 1 < count {
                self.layers[kept].recompute(pass, before, middle);
            }
            let stream = &mut self.dresidual[..size];
            self.layers[kept].backward(pass, [before, middle], &mut self.scratch, stream, &mut grads);
        }
        let dinput = &self.dresidual[..size];
        let embedding = self.layout.parts().embedding.clone();
        if let Some(dtable) = embedding.as_ref().and_then(|at| grads.of(at)) {
            tensor::embedding_scatter_add(ctx, &self.ids, dinput, shape.config.width, dtable);
        }
        self.unused = unused;
        BackwardOutput { loss, input: if embedding.is_none() { Some(&self.dresidual[..size]) } else { None } }
    }

    fn run_loss_and_grads(
        &mut self,
        ctx: &Context,
        of: Parameters<'_>,
        tokens: &[u32],
        targets: &[u32],
        grads: &mut [f32],
    ) -> f64 {
        let loss = ctx.run(|| {
            self.run_forward(ctx, of, StageInput::Tokens(tokens));
            self.run_backward(ctx, of, grads, StageGradient::Targets(targets)).loss
        });
        loss.expect("a backward from targets has a loss")
    }

    fn run_loss(&mut self, ctx: &Context, of: Parameters<'_>, input: StageInput<'_>, targets: &[u32]) -> f64 {
        self.run_forward(ctx, of, input);
        let (rows, width) = (self.sequences * self.tokens, self.stage.config().width);
        let head = self.head(of.params);
        let counted = Counted::new(targets, rows);
        if counted.rows.is_empty() {
            return 0.0;
        }
        let hidden = counted.gather(&self.normed[..rows * width], width, &mut self.scratch.dnormed);
        let (count, vocab) = (counted.rows.len(), self.stage.config().vocab);
        let loss = tensor::head_loss_forward(ctx, count, width, vocab, hidden, head, &counted.targets, HEAD_ROWS);
        loss / count as f64
    }

    fn run_logits(&mut self, ctx: &Context, of: Parameters<'_>, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.run_forward(ctx, of, StageInput::Tokens(tokens)).len();
        let config = self.stage.config();
        let mut logits = vec![0.0; tokens.len() * config.vocab];
        let hidden = &self.normed[..hidden];
        let (n, k) = (config.vocab, config.width);
        tensor::matmul_nt(ctx, tokens.len(), n, k, hidden, self.head(of.params), &mut logits, false);
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
        let start = &mut self.streams[0][..rows * width];
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
        let stream = self.streams.last().expect("at least the input");
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
        grads: &mut Gradients<'_>,
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
        let (normed, dnormed) = (&self.normed[..size], &mut self.scratch.dnormed[..size]);
        let dstream = &mut self.dresidual[..size];
        let counted = Counted::new(targets, rows);
        let count = counted.rows.len();
        if count == 0 {
            dstream.fill(0.0);
            return Some(0.0);
        }
        let scale = 1.0 / (count * self.micro_batches) as f32;
        let (weight, targets) = (&params[head.clone()], &counted.targets[..]);
        let mut head_loss = |hidden: &[f32], dhidden: &mut [f32]| match grads.of(&head) {
            Some(dhead) => {
                tensor::head_loss(ctx, count, width, vocab, hidden, weight, targets, scale, dhidden, dhead, HEAD_ROWS)
            }
            None => {
                tensor::head_loss_frozen(ctx, count, width, vocab, hidden, weight, targets, scale, dhidden, HEAD_ROWS)
            }
        };
        let loss = match count == rows {
            true => head_loss(normed, dnormed),
            false => {
                let loss = head_loss(counted.gather(normed, width, dnormed), &mut dstream[..count * width]);
                counted.scatter(&dstream[..count * width], width, dnormed);
                loss
            }
        };
        let stream = &self.streams.last().expect("at least the input")[..size];
        let (inv_rms, dgain) = (&self.inv_rms[..rows], grads.of_gain(&gain));
        tensor::rmsnorm_backward(ctx, rows, width, stream, &params[gain], inv_rms, dnormed, dstream, dgain);
        Some(loss / count as f64)
    }
}

/// Checks a micro-batch and returns its rows.
fn check_batch(stage: &Stage, batch: usize, tokens: usize) -> Result<usize, ConfigError> {
    let context = stage.config().context;
    let rows = batch.checked_mul(tokens).filter(|&rows| rows > 0 && tokens <= context && u32::try_from(rows).is_ok());
    rows.ok_or(ConfigError::BadBatch { batch, tokens, context })
}

/// The rows that count in the loss.
struct Counted {
    rows: Vec<usize>,
    targets: Vec<u32>,
    all: bool,
}

impl Counted {
    fn new(targets: &[u32], rows: usize) -> Self {
        assert_eq!(targets.len(), rows, "one target per row");
        let counted = (0..rows).zip(targets).filter(|(_, target)| **target != IGNORED);
        let (found, targets): (Vec<usize>, Vec<u32>) = counted.map(|(row, &target)| (row, target)).unzip();
        Self { all: found.len() == rows, rows: found, targets }
    }

    /// The counted rows of `x` one after the other: `x` itself if that is all of them, else copies in `buffer`.
    fn gather<'a>(&self, x: &'a [f32], width: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        if self.all {
            return x;
        }
        let gathered = &mut buffer[..self.rows.len() * width];
        for (to, row) in gathered.chunks_exact_mut(width).zip(&self.rows) {
            to.copy_from_slice(&x[row * width..][..width]);
        }
        gathered
    }

    /// Puts rows back to where they came from; the others become zero.
    fn scatter(&self, gathered: &[f32], width: usize, out: &mut [f32]) {
        out.fill(0.0);
        for (from, row) in gathered.chunks_exact(width).zip(&self.rows) {
            out[row * width..][..width].copy_from_slice(from);
        }
    }
}

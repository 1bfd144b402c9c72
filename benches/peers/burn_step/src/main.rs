//! A Llama-style training step in Burn on its CPU backend `burn-flex`, timed on request: a peer of `cargo bench -p model --bench train_step`.
//!
//! Purpose: the model, batch and optimiser are those of `train_step_torch.py`, in the fastest form of Burn's own operations among those
//! that took turns on one machine. The backend has fused attention and softmax, but automatic differentiation does not use them and makes
//! pass after pass over the scores. So the sums of attention divide its outputs and not its scores, the cross entropy is the
//! logsumexp less the target's logit, SiLU keeps its exponential for the backward pass, and RoPE turns by a product with a constant matrix:
//! a tenth less processor time than the `attention`, `CrossEntropyLoss` and `silu` of Burn with slices and `cat` for RoPE. The allocator
//! keeps what is freed: a new buffer for every operation otherwise costs a third of the step in page faults.
//!
//! Protocol: `burn_step THREADS SHAPE` prints one line when it is ready; then for each line `N` on its standard input it runs N steps and
//! prints their wall-clock seconds.
//!
//! What it does not do: shapes other than `10M`, reading data (the tokens are random), saving anything, and backward passes by hand.

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, which the bindings do not name: the milliseconds until freed memory goes back to the system.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

const WIDTH: usize = 256;
const LAYERS: usize = 6;
const HEADS: usize = 8;
const HEAD_DIM: usize = WIDTH / HEADS;
const FF: usize = 768;
const VOCAB: usize = 8192;
const BATCH: usize = 8;
const TOKENS: usize = 256;
/// The rows of an activation.
const ROWS: usize = BATCH * TOKENS;

/// What attention needs beside the weights.
struct Constants {
    /// The cosine and sine of the angle of each position (dimension 1) and feature (2), the same for all heads.
    cos: Tensor<3>,
    sin: Tensor<3>,
    /// `x · turn` is (−b, a) for a head's halves x = (a, b).
    turn: Tensor<2>,
    /// −∞ where the key (dimension 3) comes after the query (2), 0 elsewhere.
    mask: Tensor<4>,
}

impl Constants {
    fn new(device: &Device) -> Constants {
        let half = HEAD_DIM / 2;
        let table = |function: fn(f64) -> f64| {
            let angle = |token: usize, i: usize| token as f64 * 10_000f64.powf(-((i % half) as f64) / half as f64);
            matrix(TOKENS, WIDTH, |token, i| function(angle(token, i)) as f32, device).unsqueeze()
        };
        let turn = |i: usize, j: usize| match (i, j) {
            _ if i == j + half => -1.0,
            _ if j == i + half => 1.0,
            _ => 0.0,
        };
        let mask = |query: usize, key: usize| if key > query { f32::NEG_INFINITY } else { 0.0 };
        Constants {
            cos: table(f64::cos),
            sin: table(f64::sin),
            turn: matrix(HEAD_DIM, HEAD_DIM, turn, device),
            mask: matrix(TOKENS, TOKENS, mask, device).unsqueeze(),
        }
    }

    /// Queries or keys with their positions, by heads.
    fn rope(&self, x: Tensor<2>) -> Tensor<4> {
        let turned = x.clone().reshape([ROWS * HEADS, HEAD_DIM]).matmul(self.turn.clone());
        let batch = [BATCH, TOKENS, WIDTH];
        heads(x.reshape(batch) * self.cos.clone() + turned.reshape(batch) * self.sin.clone())
    }
}

/// The matrix of the values of a function of the row and column.
fn matrix(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * columns).map(|i| value(i / columns, i % columns)).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// A view with the dimensions batch, head, token and feature.
fn heads<const D: usize>(x: Tensor<D>) -> Tensor<4> {
    x.reshape([BATCH, TOKENS, HEADS, HEAD_DIM]).swap_dims(1, 2)
}

fn linear(inputs: usize, outputs: usize, device: &Device) -> Linear {
    LinearConfig::new(inputs, outputs).with_bias(false).init(device)
}

#[derive(Module, Debug)]
struct Layer {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
    norm1: RmsNorm,
    norm2: RmsNorm,
}

impl Layer {
    fn new(device: &Device) -> Layer {
        let square = || linear(WIDTH, WIDTH, device);
        let norm = || RmsNormConfig::new(WIDTH).init(device);
        Layer {
            q: square(),
            k: square(),
            v: square(),
            o: square(),
            gate: linear(WIDTH, FF, device),
            up: linear(WIDTH, FF, device),
            down: linear(FF, WIDTH, device),
            norm1: norm(),
            norm2: norm(),
        }
    }

    fn forward(&self, x: Tensor<2>, constants: &Constants) -> Tensor<2> {
        let n = self.norm1.forward(x.clone());
        let q = constants.rope(self.q.forward(n.clone())) * (HEAD_DIM as f64).sqrt().recip();
        let k = constants.rope(self.k.forward(n.clone()));
        let scores = q.matmul(k.swap_dims(2, 3)) + constants.mask.clone();
        let max = scores.clone().detach().max_dim(3);
        let weights = (scores - max).exp();
        let sum = weights.clone().sum_dim(3);
        let y = weights.matmul(heads(self.v.forward(n))) * sum.recip();
        let x = x + self.o.forward(y.swap_dims(1, 2).reshape([ROWS, WIDTH]));

        let n = self.norm2.forward(x.clone());
        let gate = self.gate.forward(n.clone());
        let sigmoid = ((-gate.clone()).exp() + 1.0).recip();
        x + self.down.forward(gate * sigmoid * self.up.forward(n))
    }
}

#[derive(Module, Debug)]
struct Decoder {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
}

impl Decoder {
    fn new(device: &Device) -> Decoder {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        Decoder {
            embedding: EmbeddingConfig::new(VOCAB, WIDTH).with_initializer(normal).init(device),
            layers: (0..LAYERS).map(|_| Layer::new(device)).collect(),
            norm: RmsNormConfig::new(WIDTH).init(device),
            head: linear(WIDTH, VOCAB, device),
        }
    }

    /// The mean cross entropy of the targets (one row per position).
    fn loss(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>, constants: &Constants) -> Tensor<1> {
        let x = self.embedding.forward(tokens).reshape([ROWS, WIDTH]);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, constants));
        let logits = self.head.forward(self.norm.forward(x));
        let max = logits.clone().detach().max_dim(1);
        let logits = logits - max;
        let target = logits.clone().gather(1, targets);
        (logits.exp().sum_dim(1).log() - target).mean()
    }
}

/// The model and all else that a step needs.
struct Training {
    /// Always there between steps.
    model: Option<Decoder>,
    optimiser: ModuleOptimizer,
    constants: Constants,
    tokens: Tensor<2, Int>,
    targets: Tensor<2, Int>,
}

impl Training {
    fn new(device: &Device) -> Training {
        let draw = || Distribution::Uniform(0.0, VOCAB as f64);
        let optimiser = AdamWConfig::new().with_beta_1(0.9).with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1);
        Training {
            model: Some(Decoder::new(device)),
            optimiser: optimiser.init(),
            constants: Constants::new(device),
            tokens: Tensor::random([BATCH, TOKENS], draw(), device),
            targets: Tensor::random([ROWS, 1], draw(), device),
        }
    }

    /// Makes one step; gives the loss before it.
    fn step(&mut self) -> f32 {
        let model = self.model.take().expect("there is a model between steps");
        let loss = model.loss(self.tokens.clone(), self.targets.clone(), &self.constants);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimiser.step(3e-4, model, gradients));
        loss.into_scalar()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [threads, shape] = arguments.as_slice() else { return Err("usage: burn_step THREADS SHAPE".into()) };
    if shape != "10M" {
        return Err(format!("the shape {shape:?} is unknown: only \"10M\" is").into());
    }
    // SAFETY: the option exists and takes any number; −1 is never.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let device = Device::flex().autodiff();
    device.seed(0);
    let mut training = Training::new(&device);
    let parameters = training.model.as_ref().map_or(0, Decoder::num_params);
    let first = training.step();
    let second = training.step();
    println!("burn-flex {}, {parameters} parameters, loss {first:.3}, {second:.3}", env!("CARGO_PKG_VERSION"));
    for line in std::io::stdin().lock().lines() {
        let steps: usize = line?.trim().parse()?;
        let start = Instant::now();
        for _ in 0..steps {
            training.step();
        }
        println!("{}", start.elapsed().as_secs_f64());
    }
    Ok(())
}

//! Reads states, measures them and lets them write, one at a time.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use learn::evaluation::evaluate;
use learn::pipeline::StageWorker;
use model::{Decoder, Request, Sampler, Sampling, Tokenizer};
use tensor::Context;
use tokio::sync::mpsc;
use wire::{Hash, Release};

use super::{Watched, blob_paths, through};
use crate::inference::{InferenceClient, StagedModel};
use crate::state::{ModelState, Parts};
use crate::status::AgreedState;
use crate::store::StoreError;
use crate::workload::{Cores, Workload};
use crate::{Checkpoint, TextFormat, Weights};

/// Most tokens of a sample.
const SAMPLE_TOKENS: usize = 96;
/// Words of the held-out text that a sample begins with.
const PROMPT_WORDS: usize = 5;
/// A line of the held-out text with fewer characters is a heading, not a beginning.
const PROMPT_LINE_CHARS_MIN: usize = 40;
/// Tokens of the held-out text in which a beginning is looked for.
const PROMPT_TOKENS: usize = 400;

/// What came of one state.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) round: u64,
    /// The model to serve.
    pub(super) checkpoint: Option<Arc<Checkpoint>>,
    pub(super) heldout_loss: Option<f64>,
    /// The beginning, and what the model added.
    pub(super) sample: Option<(String, String)>,
}

impl Evaluated {
    /// Of a model in stages of which not all can be reached from here.
    fn nothing(round: u64) -> Self {
        Self { round, checkpoint: None, heldout_loss: None, sample: None }
    }
}

#[derive(Clone, Debug)]
struct Wanted {
    state: AgreedState,
    measure: bool,
    sample: bool,
}

/// Evaluations, one at a time. A newer state replaces one that waits; what was to be measured of that is lost, unless it
/// is the last one, which nothing replaces.
#[derive(Debug)]
pub(super) struct Evaluation {
    means: Arc<Means>,
    waiting: Option<Wanted>,
    running: bool,
    sender: mpsc::Sender<Option<Evaluated>>,
    receiver: mpsc::Receiver<Option<Evaluated>>,
}

#[derive(Debug)]
struct Means {
    workload: Arc<Workload>,
    cores: Cores,
    /// How a model in stages is used.
    inference: Option<Arc<InferenceClient>>,
    /// Where the blobs of each stage are.
    blobs: Vec<Vec<PathBuf>>,
    /// When stages may be put together.
    release: Release,
    name: String,
    prompt: String,
}

impl Evaluation {
    pub(super) fn new(watched: &Watched) -> Self {
        let (sender, receiver) = mpsc::channel(1);
        let means = Means {
            workload: watched.workload.clone(),
            cores: watched.cores.clone(),
            inference: watched.inference.clone(),
            blobs: {
                let stages = watched.workload.stages_len();
                let paths = |stage| blob_paths(&watched.run, stage, stages, watched.statuses.len());
                (0..stages).map(paths).collect()
            },
            release: watched.run.charter().body.release,
            name: watched.run.charter().body.name.clone(),
            prompt: prompt(&watched.workload),
        };
        Self { means: Arc::new(means), waiting: None, running: false, sender, receiver }
    }

    /// Asks for a state: to read it at least, when `anyway` or something is to be done with it, or nothing is running.
    pub(super) fn want(&mut self, state: AgreedState, anyway: bool, measure: bool, sample: bool) {
        let wanted = Wanted { state, measure, sample };
        let replaces = self
            .waiting
            .as_ref()
            .is_none_or(|waiting| measure || sample || anyway || !(waiting.measure || waiting.sample));
        if replaces {
            self.waiting = Some(wanted);
        }
        self.next();
    }

    /// The next finished evaluation. Cancel-safe.
    pub(super) async fn done(&mut self) -> Option<Evaluated> {
        let evaluated = self.receiver.recv().await.flatten();
        self.running = false;
        self.next();
        evaluated
    }

    /// Waits until nothing runs; what waits is dropped.
    pub(super) async fn stop(&mut self) {
        self.waiting = None;
        if self.running {
            self.receiver.recv().await;
        }
    }

    fn next(&mut self) {
        if self.running {
            return;
        }
        let Some(wanted) = self.waiting.take() else { return };
        self.running = true;
        let (means, sender) = (self.means.clone(), self.sender.clone());
        tokio::spawn(async move {
            let core = means.cores.take().await;
            let task = tokio::task::spawn_blocking(move || {
                let _core = core;
                means.run(wanted)
            });
            let evaluated = task.await.ok().flatten();
            // The receiver is gone only when the observer is.
            let _ = sender.send(evaluated).await;
        });
    }
}

impl Means {
    /// None when the state is not there any more, which happens when training is faster than this.
    fn run(&self, wanted: Wanted) -> Option<Evaluated> {
        let evaluated = match &self.inference {
            None if self.workload.stages_len() > 1 => Ok(Evaluated::nothing(wanted.state.round)),
            None => self.evaluate_whole(&wanted),
            Some(inference) => self.evaluate_in_stages(&wanted, inference),
        };
        evaluated
            .inspect_err(|error| tracing::debug!(round = wanted.state.round, %error, "a state cannot be evaluated"))
            .ok()
    }

    fn evaluate_whole(&self, wanted: &Wanted) -> Result<Evaluated, StoreError> {
        let (recipe, corpus) = (&self.workload.recipe, &self.workload.corpus);
        let parts = self.workload.parts();
        let checkpoint =
            read_checkpoint(parts, recipe.model, &self.blobs, &wanted.state, corpus.tokenizer(), &self.name)?;
        let (ctx, windows) = (recipe.context(1), recipe.evaluation.windows);
        let params = checkpoint.parameters().map_or(&[][..], |params| params);
        let heldout_loss = wanted.measure.then(|| evaluate(&ctx, recipe, corpus, params, windows));
        let sample = wanted.sample.then(|| self.write(checkpoint.round, Source::Whole(params))).flatten();
        Ok(Evaluated { round: wanted.state.round, checkpoint: Some(Arc::new(checkpoint)), heldout_loss, sample })
    }

    /// Measures a model stage by stage; it is served, and writes, through the peers that hold its stages. While its weights are not open,
    /// it is measured through them, too, and no stage's weights come here.
    fn evaluate_in_stages(&self, wanted: &Wanted, inference: &Arc<InferenceClient>) -> Result<Evaluated, StoreError> {
        let round = wanted.state.round;
        let model = StagedModel::new(inference.clone(), wanted.state.clone());
        let heldout_loss = match wanted.measure {
            true if self.release.is_open(round) => self.loss_in_stages(&wanted.state)?,
            true => through::heldout_loss(&self.workload, &model),
            false => None,
        };
        let sample = wanted.sample.then(|| self.write(round, Source::Stages(&model))).flatten();
        let checkpoint = self.checkpoint(&wanted.state, Weights::Stages(model));
        Ok(Evaluated { round, checkpoint: Some(Arc::new(checkpoint)), heldout_loss, sample })
    }

    /// The held-out loss; none when something in it is not finite.
    fn loss_in_stages(&self, state: &AgreedState) -> Result<Option<f64>, StoreError> {
        let (recipe, parts) = (&self.workload.recipe, self.workload.parts());
        let mut stages = Vec::new();
        let mut token_parts = None;
        for (state, stage) in read_states(parts, &self.blobs, state)?.into_iter().zip(0..) {
            let (ModelState::Stage(state), Some(shape)) = (state, parts.shape(stage)) else {
                unreachable!("a model in stages")
            };
            let shared = token_parts.get_or_insert_with(|| shape.token_parts()).clone();
            stages.push(StageWorker::new(recipe.context(1), recipe, shape.clone(), shared, &state, 1));
        }
        let loss = learn::pipeline::evaluate(&mut stages, recipe, &self.workload.corpus, recipe.evaluation.windows);
        Ok(loss.ok())
    }

    fn checkpoint(&self, state: &AgreedState, weights: Weights) -> Checkpoint {
        let (recipe, corpus) = (&self.workload.recipe, &self.workload.corpus);
        Checkpoint {
            round: state.round,
            state_root: wire::run_root(&state.roots),
            name: self.name.clone(),
            config: recipe.model,
            weights,
            tokenizer: corpus.tokenizer().clone(),
            format: Arc::new(TextFormat::trained()),
        }
    }

    /// Lets a model continue the beginning.
    fn write(&self, round: u64, source: Source<'_>) -> Option<(String, String)> {
        let tokenizer = self.workload.corpus.tokenizer();
        let prompt = tokenizer.encode(&self.prompt);
        let sampling = Sampling { temperature: 0.8, top_p: 0.95, seed: round, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).ok()?;
        let (mut stream, mut text) = (tokenizer.stream(), String::new());
        let request = Request { prompt: &prompt, tokens_max: SAMPLE_TOKENS, ends: &[model::END_ID] };
        let on_token = |token| {
            text.push_str(&stream.push(token));
            ControlFlow::Continue(())
        };
        match source {
            Source::Whole(params) => {
                let mut decoder = Decoder::new(self.workload.recipe.model, params).ok()?;
                let mut cache = decoder.cache();
                let ctx = Context::single();
                model::generate(&ctx, &mut decoder, &mut cache, request, &mut sampler, on_token).ok()?;
            }
            Source::Stages(model) => drop(model.generate(request, &mut sampler, on_token).ok()?),
        }
        text.push_str(&stream.finish());
        Some((self.prompt.clone(), text))
    }
}

/// Where a sample is decoded.
enum Source<'a> {
    /// Here, from all parameters.
    Whole(&'a [f32]),
    /// Through the peers.
    Stages(&'a StagedModel),
}

/// Reads the blobs of a state, each checked against its name, as a model to serve. `blobs` has the places to look in for each stage.
///
/// # Errors
/// [`StoreError::NotPlain`] for a model with learned bases; another when blobs are missing or damaged.
pub(crate) fn read_checkpoint(
    parts: &Parts,
    config: model::Config,
    blobs: &[Vec<PathBuf>],
    state: &AgreedState,
    tokenizer: &Arc<Tokenizer>,
    name: &str,
) -> Result<Checkpoint, StoreError> {
    if !parts.is_plain() {
        return Err(StoreError::NotPlain);
    }
    let states = (0..).zip(read_states(parts, blobs, state)?);
    let params: Vec<f32> = states.flat_map(|(stage, state)| state.into_parameters(parts, stage)).collect();
    Ok(Checkpoint {
        round: state.round,
        state_root: wire::run_root(&state.roots),
        name: name.to_owned(),
        config,
        weights: Weights::Values(Arc::new(params)),
        tokenizer: tokenizer.clone(),
        format: Arc::new(TextFormat::trained()),
    })
}

/// Reads the blobs of a state, each checked against its name, in the order of the stages.
///
/// # Errors
/// [`StoreError`] when blobs are missing or damaged.
pub(crate) fn read_states(
    parts: &Parts,
    blobs: &[Vec<PathBuf>],
    state: &AgreedState,
) -> Result<Vec<ModelState>, StoreError> {
    let read = |((stage, root), places): ((u16, &Hash), &Vec<PathBuf>)| {
        let (path, bytes) = read_blob(places, *root)?;
        let read = ModelState::from_bytes(&bytes, parts, stage);
        read.map_err(|error| StoreError::corrupt(&path, error.to_string()))
    };
    (0..).zip(&state.roots).zip(blobs).map(read).collect()
}

/// Reads a blob from the first place that has it.
fn read_blob(places: &[PathBuf], root: Hash) -> Result<(PathBuf, Vec<u8>), StoreError> {
    let mut missing = None;
    for place in places {
        let path = place.join(root.to_string());
        match std::fs::read(&path) {
            Ok(bytes) if Hash::of(&bytes) == root => return Ok((path, bytes)),
            Ok(_) => missing = Some(StoreError::corrupt(&path, "its bytes do not match its name")),
            Err(error) => missing = missing.or(Some(StoreError::io(&path, error))),
        }
    }
    Err(missing.unwrap_or_else(|| StoreError::corrupt(Path::new("blobs"), "no local peer is in the stage")))
}

/// The beginning of the first long line of the held-out text, which the model has never seen.
fn prompt(workload: &Workload) -> String {
    let heldout = &workload.corpus.heldout;
    let text = workload.corpus.tokenizer().decode(&heldout[1..heldout.len().min(PROMPT_TOKENS)]);
    let line = text.lines().find(|line| line.chars().count() >= PROMPT_LINE_CHARS_MIN).unwrap_or(&text);
    let words: Vec<&str> = line.split_whitespace().take(PROMPT_WORDS).collect();
    match words.is_empty() {
        true => "The".to_owned(),
        false => words.join(" "),
    }
}

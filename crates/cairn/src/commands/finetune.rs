//! `cairn finetune`: a pretrained model learns from a person's own text or conversations.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use learn::data::Batch;
use learn::finetune::budget::{Budget, Job, PlanError, TooLittle, plan};
use learn::finetune::saved::{self, SavedError};
use learn::finetune::{Examples, Settings, Taken, Tuner};
use learn::recipe::BatchShape;
use model::gguf::TensorType;
use model::{AdapterLayout, Checkpoint, GgufError, LinearMap, Lora, Pretrained, PretrainedError, Stage, lora};
use node::{Models, ModelsError};
use tensor::Context;

use crate::cli::{FinetuneArgs, Stored};
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{bytes, count, duration};

/// What is written at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// The model that it came from, with other parameters.
    Gguf(TensorType),
    /// A checkpoint of this program.
    Checkpoint,
    /// The adapters alone.
    Adapters,
}

/// Plans, trains, and writes the result.
pub(crate) fn run(args: &FinetuneArgs, home: &Path) -> Outcome {
    let output = output(args)?;
    let threads = args.threads.map_or_else(node::probe::cores, usize::from);
    let path = file_of(&args.model, home)?;
    let mut model = Pretrained::open(&path).map_err(ModelsError::from)?;
    let file_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    note_memory("the model is read");
    let settings = settings(args)?;
    settings.validate(&model.config).map_err(|error| {
        Failure::new(Code::BadInput, error).hint("`cairn finetune --help` says what each option takes")
    })?;
    let examples = Examples::read(&args.data, &model, settings.batch.tokens)
        .map_err(|error| Failure::new(Code::BadInput, &error).hint(error.hint()))?;
    let stage = Stage::whole(model.config).map_err(|error| Failure::new(Code::CorruptData, error))?;
    let writing_bytes = match output {
        Output::Gguf(tensor_type) => Pretrained::gguf_scratch_bytes(&model.config, tensor_type)
            .map_err(|error| Failure::new(Code::BadInput, error).hint("choose a `.safetensors` file with `--out`"))?,
        Output::Checkpoint => 3 * 4 * model.config.parameters(),
        Output::Adapters => 2 * 4 * settings.trained(&model.config),
    };
    let data_bytes = examples.bytes();
    let job = Job { config: model.config, settings, threads, file_bytes, data_bytes, writing_bytes };
    let budget = plan(&job, args.recompute, args.memory).map_err(refused)?;
    announce(&model, &job, &budget, &examples);
    note_memory("the data is read");
    let params = std::mem::take(&mut model.params);
    let root = tensor::slice_root(&params);
    let tuner = Tuner::new(job.config, params, job.settings, budget.recompute);
    let mut tuner = tuner.map_err(|error| Failure::new(Code::BadInput, error))?;
    let run = Run {
        args,
        ctx: Context::new(threads),
        heldout: examples.heldout(tuner.settings().batch),
        id: saved::run_id(&tuner, root, examples.root()),
        saved: saved_path(&args.out),
        examples,
    };
    run.train(&mut tuner)?;
    note_memory("trained");
    let (params, adapters) = tuner.finish(&run.ctx);
    note_memory("only the result is left");
    write(args, output, model, &stage, params, adapters)?;
    // The result is safe: where the run stood is of no more use. A file that stays only costs space.
    let _ = std::fs::remove_file(&run.saved);
    peak_memory(&budget);
    Ok(())
}

/// The file of an imported model, where there is no file of that name.
fn file_of(model: &Path, home: &Path) -> Outcome<PathBuf> {
    let Some(name) = model.to_str().filter(|_| !model.exists()) else { return Ok(model.to_owned()) };
    let models = Models::new(home);
    match models.find(name) {
        Ok(manifest) => Ok(models.path(&manifest)?),
        // Then the system says what is wrong with the path.
        Err(ModelsError::Unknown { .. }) => Ok(model.to_owned()),
        Err(error) => Err(error.into()),
    }
}

fn settings(args: &FinetuneArgs) -> Outcome<Settings> {
    let lora = match args.full {
        true => None,
        false => {
            let all = Lora::all(args.lora.map_or(16, usize::from));
            let targets = if args.targets.is_empty() { all.targets.clone() } else { targets(&args.targets)? };
            Some(Lora { alpha: args.alpha.unwrap_or(all.alpha), targets, ..all })
        }
    };
    Ok(Settings {
        lr: args.lr.unwrap_or(Settings::usual_lr(lora.is_some())),
        lora,
        steps: args.steps,
        batch: BatchShape { sequences: usize::from(args.batch), tokens: args.tokens as usize },
        seed: args.seed,
    })
}

fn targets(names: &[String]) -> Outcome<Vec<LinearMap>> {
    let known = || LinearMap::ALL.map(LinearMap::name).join(", ");
    let by_name = |name: &String| {
        LinearMap::by_name(name).ok_or_else(|| {
            Failure::new(Code::BadInput, format!("`{}` is no linear map of a layer", name.escape_debug()))
                .hint(format!("choose from {}", known()))
        })
    };
    let mut targets = names.iter().map(by_name).collect::<Outcome<Vec<_>>>()?;
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}

fn output(args: &FinetuneArgs) -> Outcome<Output> {
    let stored = match args.stored {
        Stored::F32 => TensorType::F32,
        Stored::F16 => TensorType::F16,
        Stored::Q8_0 => TensorType::Q8_0,
    };
    match args.out.extension().and_then(|extension| extension.to_str()) {
        Some("gguf") => Ok(Output::Gguf(stored)),
        Some("safetensors") => Ok(Output::Checkpoint),
        None if !args.full => Ok(Output::Adapters),
        None => Err(Failure::new(Code::BadInput, "a folder is for adapters, and `--full` trains none")
            .hint("give `--out` a name that ends with `.gguf` or `.safetensors`")),
        Some(other) => Err(Failure::new(Code::BadInput, format!("`.{}` is no kind of result", other.escape_debug()))
            .hint("give `--out` a name that ends with `.gguf` or `.safetensors`, or a folder for adapters")),
    }
}

fn refused(error: PlanError) -> Failure {
    let little = match error {
        PlanError::Config(error) => return Failure::new(Code::BadInput, error).hint("choose a smaller `--tokens`"),
        PlanError::TooLittle(little) => little,
    };
    let TooLittle { limit, needed, fitting } = *little;
    let message = format!(
        "fine-tuning needs {}, and `--memory` allows {}: {}",
        bytes(needed.total() as f64),
        bytes(limit as f64),
        parts(&needed)
    );
    let hint = match fitting.is_empty() {
        true => "this model does not fit; choose a smaller one, or allow more memory".to_owned(),
        false => {
            let ways = fitting.iter().map(|(change, total)| format!("`{change}` ({})", bytes(*total as f64)));
            format!("what would fit: {}", ways.collect::<Vec<_>>().join(", "))
        }
    };
    Failure::new(Code::BadInput, message).hint(hint)
}

/// What the memory is for, the phases of reading and writing where they take more than training.
fn parts(budget: &Budget) -> String {
    let all = [
        ("parameters", budget.parameters),
        ("adapters", budget.adapters),
        ("gradients", budget.gradients),
        ("optimiser", budget.optimiser),
        (if budget.recompute { "activations (recomputed)" } else { "activations" }, budget.activations),
        ("their gradients and logits", budget.scratch),
        ("kernels", budget.kernels),
        ("program, tokenizer and data", budget.program),
        ("writing the result", budget.writing),
    ];
    let phase = match budget.total() {
        total if total > budget.training() + budget.writing => {
            format!("; while the model is read {}", bytes(total as f64))
        }
        _ => String::new(),
    };
    let parts = all.iter().filter(|(_, size)| *size > 0).map(|(name, size)| format!("{name} {}", bytes(*size as f64)));
    parts.collect::<Vec<_>>().join(", ") + &phase
}

fn announce(model: &Pretrained, job: &Job, budget: &Budget, examples: &Examples) {
    let trained = job.settings.trained(&model.config) as f64;
    let how = match &job.settings.lora {
        Some(lora) => format!("adapters of rank {}, {} values", lora.rank, count(trained)),
        None => format!("all {} parameters", count(trained)),
    };
    let BatchShape { sequences, tokens } = job.settings.batch;
    eprintln!("\n  {}: {how}; {} steps of {sequences} × {tokens} tokens", model.name, job.settings.steps);
    eprintln!("  data: {}", examples.describe());
    eprintln!("  memory: {} ({})\n", bytes(budget.total() as f64), parts(budget));
}

/// Where a run that was stopped left its state: beside the result.
fn saved_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".run");
    out.with_file_name(name)
}

/// A run that is prepared.
struct Run<'a> {
    args: &'a FinetuneArgs,
    ctx: Context,
    examples: Examples,
    heldout: Vec<Batch>,
    id: [u8; 32],
    saved: PathBuf,
}

impl Run<'_> {
    /// Takes all steps that are left, and says what came of them.
    fn train(&self, tuner: &mut Tuner) -> Outcome {
        let resumed = saved::resume(&self.saved, tuner, self.id).map_err(|error| self.unusable(&error))?;
        let before = resumed.unwrap_or_else(|| tuner.evaluate(&self.ctx, &self.heldout));
        if resumed.is_some() {
            eprintln!("  going on from step {}, saved in `{}`", tuner.steps(), self.saved.display());
        }
        eprintln!("  held-out loss before: {before:.4} nats per token");
        let settings = tuner.settings().clone();
        let bar = bar(settings.steps);
        let (start, first, mut taken) = (Instant::now(), tuner.steps(), None);
        while tuner.steps() < settings.steps {
            let batch = self.examples.batch(&settings, tuner.steps());
            let step = tuner
                .step(&self.ctx, &batch)
                .map_err(|error| Failure::new(Code::Unexpected, error).hint("choose a smaller `--lr`"))?;
            taken = Some(step);
            let done = tuner.steps();
            let tokens = (done - first) * batch.tokens.len() as u64;
            show(&bar, done, settings.steps, step, tokens as f64 / start.elapsed().as_secs_f64().max(1e-9));
            if done < settings.steps && done.is_multiple_of(self.args.save_every) {
                saved::save(&self.saved, tuner, self.id, before).map_err(|error| self.unusable(&error))?;
            }
        }
        bar.finish_and_clear();
        let after = tuner.evaluate(&self.ctx, &self.heldout);
        let seconds = start.elapsed().as_secs_f64();
        let tokens = (tuner.steps() - first) * (settings.batch.sequences * settings.batch.tokens) as u64;
        let loss = taken.map_or(String::new(), |taken| format!(", last training loss {:.4}", taken.loss));
        println!("held-out loss {before:.4} before, {after:.4} after{loss}");
        println!(
            "{} tokens in {} ({} tokens/s)",
            count(tokens as f64),
            duration(seconds),
            count(tokens as f64 / seconds.max(1e-9))
        );
        Ok(())
    }

    fn unusable(&self, error: &SavedError) -> Failure {
        let code = if matches!(error, SavedError::Io { .. }) { Code::Storage } else { Code::CorruptData };
        let hint = match error {
            SavedError::Io { .. } => "choose a place with `--out` that exists and has space".to_owned(),
            _ => format!("remove `{}` to begin anew, or choose another `--out`", self.saved.display()),
        };
        Failure::new(code, error).hint(hint)
    }
}

fn bar(steps: u64) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("  {bar:36.cyan/dim} {msg}").expect("a valid template");
    ProgressBar::with_draw_target(Some(steps), target).with_style(style.progress_chars("━╸─"))
}

fn show(bar: &ProgressBar, done: u64, steps: u64, taken: Taken, rate: f64) {
    let memory = resident().map_or(String::new(), |size| format!(" · {}", bytes(size as f64)));
    let line = format!("step {done}/{steps} · loss {:.4} · {} tokens/s{memory}", taken.loss, count(rate));
    bar.set_position(done);
    bar.set_message(line.clone());
    if bar.is_hidden() && (done.is_multiple_of(10) || done == steps || done == 1) {
        // Progress is no result: a closed pipe must not end the training.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Memory of this process in bytes: a line of Linux's report, where there is one.
fn status(field: &str) -> Option<u64> {
    let report = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = report.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn note_memory(when: &str) {
    tracing::debug!(resident = resident(), peak = status("VmHWM:"), "{when}");
}

fn peak_memory(budget: &Budget) {
    if let Some(peak) = status("VmHWM:") {
        println!("peak memory {} of {} planned", bytes(peak as f64), bytes(budget.total() as f64));
    }
}

fn write(
    args: &FinetuneArgs,
    output: Output,
    model: Pretrained,
    stage: &Stage,
    params: Vec<f32>,
    adapters: Option<(AdapterLayout, Vec<f32>)>,
) -> Outcome {
    let out = &args.out;
    let bad = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Unexpected, format!("the result cannot be written: {error}"))
            .hint("choose `--type f32`, which takes every value")
    };
    match (output, adapters) {
        (Output::Adapters, Some((layout, values))) => {
            std::fs::create_dir_all(out).map_err(|error| unwritable(out, &error))?;
            let values = layout.peft_values(&values).map_err(|error| bad(&error))?;
            write_file(&out.join(lora::CONFIG_NAME), layout.peft_config(&model.name).as_bytes())?;
            write_file(&out.join(lora::VALUES_NAME), &values)
        }
        (Output::Gguf(tensor_type), _) => {
            let written = Pretrained { params, ..model }.save_gguf(out, tensor_type);
            written.map_err(|error| match error {
                PretrainedError::Gguf(GgufError::Io { source, .. }) => unwritable(out, &source),
                other => bad(&other),
            })?;
            say_written(out)
        }
        (Output::Checkpoint | Output::Adapters, _) => {
            let tokenizer = model.tokenizer.hash();
            let checkpoint = Checkpoint { stage: stage.clone(), tokenizer, params };
            let written = model::files::encode(&checkpoint).map_err(|error| bad(&error))?;
            write_file(out, &written)?;
            write_file(&out.with_file_name("tokenizer.json"), model.tokenizer.to_bytes())
        }
    }
}

/// Writes a file, to the disk and then under its name, and says what it is.
fn write_file(path: &Path, contents: &[u8]) -> Outcome {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = std::fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
        return Err(unwritable(path, &error));
    }
    say_written(path)
}

/// Says what a file is, as it lies on the disk.
fn say_written(path: &Path) -> Outcome {
    let mut hasher = blake3::Hasher::new();
    let hashed = std::fs::File::open(path).and_then(|file| hasher.update_reader(file).map(|hasher| hasher.count()));
    let size = hashed.map_err(|error| unwritable(path, &error))?;
    println!("wrote `{}`, {}, blake3 {}", path.display(), bytes(size as f64), hasher.finalize().to_hex());
    Ok(())
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::Storage, format!("cannot write `{}`: {error}", path.display()))
        .hint("choose a place that exists and has space with `--out`")
}

//! `cairn models`: models that others trained.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::Pretrained;
use model::gguf::TensorType;
use node::{Manifest, Models};

use crate::cli::{ExportArgs, ExportFormat, ExportType, ImportArgs, ModelsCommand, ShowArgs};
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{bytes, count};

/// Imports, shows, exports or removes.
pub(crate) async fn run(command: &ModelsCommand, home: &Path) -> Outcome {
    let models = Models::new(home);
    match command {
        ModelsCommand::Import(args) => import(models, args).await,
        ModelsCommand::Ls(args) => {
            let all = models.list()?;
            match args.json {
                true => println!("{}", serde_json::to_string_pretty(&all).expect("manifests have string keys only")),
                false => print!("{}", table(&all, &models)),
            }
            Ok(())
        }
        ModelsCommand::Show(args) => show(&models, args),
        ModelsCommand::Export(args) => export(&models, args),
        ModelsCommand::Rm(args) => {
            models.remove(&args.name)?;
            println!("removed `{}`", args.name);
            Ok(())
        }
    }
}

async fn import(models: Models, args: &ImportArgs) -> Outcome {
    let bar = spinner(format!("checking and copying `{}`", args.path.display()));
    let cancelled = Arc::new(AtomicBool::new(false));
    let (path, name, stop) = (args.path.clone(), args.name.clone(), Arc::clone(&cancelled));
    let mut work = tokio::task::spawn_blocking(move || models.import(&path, name.as_deref(), &stop));
    let done = tokio::select! {
        done = &mut work => done,
        _ = tokio::signal::ctrl_c() => {
            cancelled.store(true, Ordering::Relaxed);
            work.await
        }
    };
    bar.finish_and_clear();
    let manifest = done.map_err(|error| Failure::new(Code::Unexpected, error))??;
    println!("imported `{}`: {}", manifest.name, in_words(&manifest));
    println!("\n  cairn chat --model {}", shortest(&manifest.name));
    Ok(())
}

fn spinner(what: String) -> ProgressBar {
    // Hidden where standard error is no terminal.
    let style = ProgressStyle::with_template("  {spinner} {msg}").expect("a valid template");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style).with_message(what);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn in_words(manifest: &Manifest) -> String {
    let licence = manifest
        .licence
        .as_ref()
        .map_or_else(|| "no licence stated".to_owned(), |licence| format!("licence {licence}"));
    format!(
        "{} parameters, {} ({}), reads {} tokens, {licence}",
        count(manifest.parameters as f64),
        manifest.stored,
        bytes(manifest.bytes as f64),
        manifest.context,
    )
}

/// What a person may type instead of a long name: up to its first dash.
fn shortest(name: &str) -> &str {
    name.split('-').next().filter(|short| !short.is_empty()).unwrap_or(name)
}

fn table(models: &[Manifest], place: &Models) -> String {
    if models.is_empty() {
        return format!("no models in `{}` yet\n\n  cairn models import PATH\n", place.folder().display());
    }
    let mut rows = vec![["NAME", "PARAMETERS", "STORED", "SIZE", "CONTEXT", "KIND", "LICENCE"].map(str::to_owned)];
    rows.extend(models.iter().map(|model| {
        [
            model.name.clone(),
            count(model.parameters as f64),
            model.stored.clone(),
            bytes(model.bytes as f64),
            model.context.to_string(),
            kind(model).to_owned(),
            model.licence.clone().unwrap_or_else(|| "not stated".to_owned()),
        ]
    }));
    // Figures stand at the right of their columns.
    let right = [false, true, false, true, true, false, false];
    let widths: Vec<usize> =
        (0..right.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).zip(right).map(|((cell, &width), right)| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn kind(model: &Manifest) -> &'static str {
    if model.chat { "answers" } else { "continues" }
}

fn show(models: &Models, args: &ShowArgs) -> Outcome {
    let model = models.find(&args.name)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&model).expect("a manifest has string keys only"));
        return Ok(());
    }
    let does = match model.chat {
        true => "answers (it has a chat template)",
        false => "continues text (it has no chat template)",
    };
    let days = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs().saturating_sub(model.imported_seconds) / 86_400);
    let imported = match days {
        0 => "today".to_owned(),
        1 => "yesterday".to_owned(),
        days => format!("{days} days ago"),
    };
    let lines = [
        ("title", model.title.escape_debug().to_string()),
        ("licence", model.licence.clone().unwrap_or_else(|| "not stated".to_owned())),
        ("parameters", format!("{} ({})", count(model.parameters as f64), model.parameters)),
        ("shape", format!("{} layers of width {}, {} tokens", model.layers, model.width, model.vocabulary)),
        ("context", format!("{} tokens", model.context)),
        ("kind", does.to_owned()),
        ("stored", format!("{} as {}, {}", model.format, model.stored, bytes(model.bytes as f64))),
        ("memory", format!("up to {} to run", bytes(model.memory_bytes() as f64))),
        ("imported", imported),
        ("blake3", model.blake3.clone()),
    ];
    println!("{}", model.name);
    for (name, value) in lines {
        println!("  {name:<12}{value}");
    }
    for file in &model.files {
        println!("  {:<12}{}  {}", "file", file.name, bytes(file.bytes as f64));
    }
    Ok(())
}

fn export(models: &Models, args: &ExportArgs) -> Outcome {
    let wanted = args.value_type.unwrap_or(ExportType::F32);
    if args.format == ExportFormat::Safetensors && wanted == ExportType::Q8_0 {
        return Err(Failure::new(Code::BadInput, "safetensors files hold f32 or f16 here, not q8_0")
            .hint("`--format gguf --type q8_0` writes one, or leave `--type` out"));
    }
    if args.out.symlink_metadata().is_ok() {
        return Err(Failure::new(Code::BadInput, format!("`{}` is there already", args.out.display()))
            .hint("choose another place, or remove it first"));
    }
    let manifest = models.find(&args.name)?;
    let bar = spinner(format!("writing `{}`", args.out.display()));
    let model = models.open(&manifest)?;
    let written = write(&model, args, wanted);
    bar.finish_and_clear();
    written.map_err(|error| {
        let full = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .filter_map(|error| error.downcast_ref::<std::io::Error>())
            .any(|error| error.kind() == std::io::ErrorKind::StorageFull);
        match error {
            _ if full => {
                Failure::new(Code::Storage, format!("the disk is full: cannot write `{}`", args.out.display()))
                    .hint("free some space; nothing was left behind")
            }
            model::PretrainedError::Io { .. } | model::PretrainedError::Gguf(model::GgufError::Io { .. }) => {
                Failure::new(Code::Storage, error)
                    .hint("choose a place in a directory that is there and can be written")
            }
            _ => Failure::new(Code::BadInput, error).hint("try the other format, or `--type f32`"),
        }
    })?;
    println!("wrote `{}` to `{}`", manifest.name, args.out.display());
    Ok(())
}

fn write(model: &Pretrained, args: &ExportArgs, wanted: ExportType) -> Result<(), model::PretrainedError> {
    match (args.format, wanted) {
        (ExportFormat::Safetensors, wanted) => model.save_hugging_face(&args.out, wanted == ExportType::F16),
        (ExportFormat::Gguf, ExportType::F32) => model.save_gguf(&args.out, TensorType::F32),
        (ExportFormat::Gguf, ExportType::F16) => model.save_gguf(&args.out, TensorType::F16),
        (ExportFormat::Gguf, ExportType::Q8_0) => model.save_gguf(&args.out, TensorType::Q8_0),
    }
}

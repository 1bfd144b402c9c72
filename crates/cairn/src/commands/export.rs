//! `cairn export`: the model of a run, for other programs.

use std::path::Path;

use model::PretrainedError;
use node::home::Home;
use node::offline::Saved;

use crate::cli::RunExportArgs;
use crate::commands::run::find;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::count;

/// Writes the newest agreed state of a run as a directory of Hugging Face, if the run's charter opens the weights.
pub(crate) fn run(args: &RunExportArgs, home: &Path) -> Outcome {
    if args.to.symlink_metadata().is_ok() {
        return Err(Failure::new(Code::BadInput, format!("`{}` is there already", args.to.display()))
            .hint("choose another place, or remove it first"));
    }
    let run = find(home, args.run.as_deref())?;
    let home = Home::open(home)?;
    let id = run.charter().body.run_id().0.to_string();
    let saved = Saved::of_run(&home, &id)?.expect("it was found");
    let exported = saved.export()?.ok_or_else(|| {
        Failure::new(Code::BadInput, "the run has no agreed state yet").hint("`cairn up` goes on with it")
    })?;
    exported.model.save_hugging_face(&args.to, args.half).map_err(failure)?;
    println!(
        "wrote `{}` after round {}, {} parameters, to `{}`",
        exported.model.name,
        exported.round,
        count(exported.model.params.len() as f64),
        args.to.display()
    );
    println!("  state root {}", exported.state_root);
    if exported.has_bases {
        println!(
            "  the learned bases between its stages are left out: it computes something else than the run's model, as far as\n  \
             they lose something"
        );
    }
    println!("\n  cairn models import {}", args.to.display());
    Ok(())
}

fn failure(error: PretrainedError) -> Failure {
    match &error {
        PretrainedError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Failure::new(Code::Storage, error).hint("free some space; nothing was left behind")
        }
        PretrainedError::Io { .. } => {
            Failure::new(Code::Storage, error).hint("choose a place in a directory that is there and can be written")
        }
        _ => Failure::new(Code::BadInput, error).hint("leave out `--half`"),
    }
}

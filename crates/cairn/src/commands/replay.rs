//! `cairn replay`: computes recorded units again.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use node::home::Home;
use node::offline::Saved;
use node::replay::{Difference, RecordedRound, ReplayError, Replayed};

use crate::cli::ReplayArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::duration;

/// Computes units of a closed round again, prints what each receipt came to, and fails if one is not true.
pub(crate) fn run(args: &ReplayArgs, home: &Path) -> Outcome {
    let none =
        || Failure::new(Code::BadInput, format!("no run in `{}` yet", home.display())).hint("`cairn up` starts one");
    if !home.exists() {
        return Err(none());
    }
    let saved = Saved::newest(&Home::open(home)?)?.ok_or_else(none)?;
    let workload = node::runs::workload(home, saved.run(), args.data.as_deref())?;
    let recorded = RecordedRound::open(&saved, Arc::new(workload), args.round).map_err(failure)?;
    let units = args.unit.map_or_else(|| recorded.units(), |unit| vec![unit]);
    let (start, mut receipts, mut wrong) = (Instant::now(), 0, 0);
    if !args.json {
        println!("  round {}, {} units", recorded.round(), units.len());
    }
    let on_receipt = |replayed: Replayed| {
        receipts += 1;
        wrong += usize::from(!replayed.differences.is_empty());
        match args.json {
            true => println!("{}", serde_json::to_string(&replayed).expect("a receipt is plain data")),
            false => print!("{}", text(&replayed)),
        }
    };
    recorded.replay(&units, on_receipt).map_err(failure)?;
    if wrong > 0 {
        let said = format!("{wrong} of {receipts} receipts say something else than what was computed here");
        return Err(Failure::new(Code::NotVerified, said)
            .hint("`cairn conformance` says whether this machine computes exactly; if it does, these peers did not"));
    }
    if !args.json {
        let seconds = duration(start.elapsed().as_secs_f64());
        println!("\n  {receipts} receipts, computed again in {seconds}: every hash is the same");
    }
    Ok(())
}

fn text(replayed: &Replayed) -> String {
    let Replayed { peer, stage, index, unit, differences } = replayed;
    let mut text = format!("  unit {index:>3}  stage {stage:>2}  {}  by {}", unit.0.short(), peer.short());
    match differences.is_empty() {
        true => text += "  same bits\n",
        false => {
            text.push('\n');
            for difference in differences {
                let Difference { what, recorded, computed } = difference;
                text += &format!("      {what}: recorded {recorded}\n      {what}: computed {computed}\n");
            }
        }
    }
    text
}

fn failure(error: ReplayError) -> Failure {
    match error {
        ReplayError::Store(error) => error.into(),
        ReplayError::ForeignCorpus => Failure::new(Code::BadInput, error).hint("name the run's text with `--data`"),
        ReplayError::NoRound => Failure::new(Code::BadInput, error).hint("`cairn up` goes on with it"),
        ReplayError::NoState { ref held, .. } => {
            let hint = match held[..] {
                [] => "no round's state is held here".to_owned(),
                _ => format!("those of these rounds are: {}", list(held)),
            };
            Failure::new(Code::BadInput, &error).hint(hint)
        }
        ReplayError::NoUnit { .. } => {
            Failure::new(Code::BadInput, error).hint("leave out `--unit` to compute all units of the round again")
        }
        ReplayError::Unit(_) | ReplayError::Boundary(_) => Failure::new(Code::NotVerified, error)
            .hint("`cairn conformance` says whether this machine computes exactly"),
    }
}

fn list(rounds: &[u64]) -> String {
    rounds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

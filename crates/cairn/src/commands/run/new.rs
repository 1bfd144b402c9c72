//! `cairn run new`: describes a run, says what it would take, and signs its charter.

use std::io::IsTerminal;
use std::path::Path;

use node::description::{DescriptionError, Draft, RunDescription};
use node::estimate::Estimate;
use node::home::Home;
use node::texts;
use serde_json::json;

use super::{next_steps, wizard};
use crate::cli::NewArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{bytes, count, long_duration};

/// Founds the run; the wizard asks when a person is there to answer.
pub(crate) fn run(args: &NewArgs, home_path: &Path) -> Outcome {
    let asks = args.from.is_none() && !args.yes && std::io::stdin().is_terminal();
    let mut description = described(args)?;
    if asks {
        wizard::ask(&mut std::io::stdin().lock(), &mut std::io::stderr(), &mut description).map_err(unheard)?;
    }
    let home = Home::open(home_path)?;
    let founder = home.identity(1)?;
    let Draft { workload, texts, charter } = description.draft(founder.id())?;
    let estimate = Estimate::of(&workload, &charter);
    if !args.json {
        eprint!("{}", taken(&estimate, charter.start_members));
    }
    if asks && !wizard::confirm(&mut std::io::stdin().lock(), &mut std::io::stderr()).map_err(unheard)? {
        eprintln!("nothing was founded");
        return Ok(());
    }
    if let Some(texts) = &texts {
        texts::keep(home_path, texts)?;
    }
    let run = home.found_run(&founder, &workload, charter)?;
    let (charter, id) = (&run.charter().body, run.charter().body.run_id());
    if args.json {
        let said = json!({"id": id, "charter": charter, "takes": estimate});
        println!("{}", serde_json::to_string_pretty(&said).expect("plain data is JSON"));
        return Ok(());
    }
    println!("founded `{}`: run {}, signed by {}", charter.name, id.0.short(), founder.id().short());
    let manifest = workload.corpus.manifest();
    println!("  data `{}`, licence: {}", manifest.name, manifest.licence);
    print!("{}", next_steps());
    Ok(())
}

/// The description that the options give.
fn described(args: &NewArgs) -> Outcome<RunDescription> {
    let mut description = match &args.from {
        Some(path) => RunDescription::from_file(path)?,
        None => RunDescription::default(),
    };
    let NewArgs { name, size, data, licence, rounds, peers, stages, release, set, .. } = args;
    fn replace<T: Clone>(into: &mut Option<T>, given: &Option<T>) {
        if given.is_some() {
            into.clone_from(given);
        }
    }
    replace(&mut description.name, name);
    replace(&mut description.size, size);
    replace(&mut description.rounds, rounds);
    replace(&mut description.peers, peers);
    replace(&mut description.stages, stages);
    replace(&mut description.release, release);
    replace(&mut description.data.licence, licence);
    if data.is_some() {
        description.data.name = None;
        replace(&mut description.data.path, data);
    }
    for (path, value) in set {
        description.set(path, value)?;
    }
    Ok(description)
}

/// What the run would take, in lines.
fn taken(estimate: &Estimate, peers: u32) -> String {
    let row = |name: &str, value: String| format!("  {name:<11}{value}\n");
    let Estimate { parameters, tokens, rounds, payload_bytes, round_bytes, state_bytes, seconds } = *estimate;
    let dense = 4.0 * parameters as f64 / payload_bytes.max(1.0);
    let time = seconds.map_or_else(
        || "not tried out here; `cairn plan` estimates it for peers that you name".to_owned(),
        |seconds| format!("about {} of computing, with all {peers} peers on this machine", long_duration(seconds)),
    );
    [
        "\n".to_owned(),
        row("model", format!("{} parameters", count(parameters as f64))),
        row("training", format!("{} tokens in {rounds} rounds", count(tokens as f64))),
        row("bytes", format!("{} for each peer and round; a payload has {}", bytes(round_bytes), bytes(payload_bytes))),
        row(
            "",
            format!(
                "a payload is {dense:.0}× smaller than the parameters; a joiner gets {} first",
                bytes(state_bytes as f64)
            ),
        ),
        row("time", time),
        "\n".to_owned(),
    ]
    .concat()
}

fn unheard(error: std::io::Error) -> Failure {
    Failure::new(Code::BadInput, format!("cannot hear the answers: {error}")).hint("`--yes` asks nothing")
}

impl From<DescriptionError> for Failure {
    fn from(error: DescriptionError) -> Self {
        node::Failure::from(error).into()
    }
}

impl From<node::runs::RunError> for Failure {
    fn from(error: node::runs::RunError) -> Self {
        node::Failure::from(error).into()
    }
}

impl From<texts::TextError> for Failure {
    fn from(error: texts::TextError) -> Self {
        let code = if error.is_remote() { Code::Network } else { Code::BadInput };
        match error {
            texts::TextError::Store(error) => error.into(),
            other => Self::new(code, other.to_string()).hint(other.hint()),
        }
    }
}

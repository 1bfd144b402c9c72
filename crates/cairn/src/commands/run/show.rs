//! `cairn run show`: the charter and the recipe of a run.

use std::path::Path;

use node::runs::RunCard;

use super::find;
use crate::cli::ShowRunArgs;
use crate::exit::Outcome;

/// Prints what is fixed of a run.
pub(crate) fn run(args: &ShowRunArgs, home: &Path) -> Outcome {
    let card = RunCard::of(&find(home, args.run.as_deref())?)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&card).expect("plain data is JSON")),
        false => print!("{}", card.to_toml()),
    }
    Ok(())
}

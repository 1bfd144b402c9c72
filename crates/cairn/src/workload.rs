//! Turns the options about recipe and data into something that can be trained.

use learn::Recipe;
use learn::data::Corpus;
use node::Workload;
use node::view::{Baseline, CurvePoint};

use crate::cli::{Preset, RecipeArgs};
use crate::exit::{Code, Failure, Outcome};

/// The recipe that the options name, before it takes the vocabulary of a corpus.
///
/// # Errors
/// The file cannot be read, or is no sound recipe.
pub(crate) fn recipe(args: &RecipeArgs) -> Outcome<Recipe> {
    let mut recipe = match (&args.recipe, args.preset.unwrap_or_default()) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(Code::BadInput, format!("cannot read the recipe `{}`: {error}", path.display()))
                    .hint("`cairn train --print-recipe > my.toml` writes one to start from")
            })?;
            Recipe::from_toml(&text)?
        }
        (None, Preset::Default) => Recipe::default_run(),
        (None, Preset::Long) => Recipe::long_run(),
        (None, Preset::Tiny) => Recipe::tiny(),
    };
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    recipe.rounds = args.rounds.unwrap_or(recipe.rounds);
    recipe.profile = args.profile.unwrap_or(recipe.profile);
    recipe.validate()?;
    Ok(recipe)
}

/// The recipe with its corpus.
///
/// # Errors
/// As [`recipe`], and when the text cannot be trained on.
pub(crate) fn load(recipe: Recipe, args: &RecipeArgs) -> Outcome<Workload> {
    let corpus = match &args.data {
        Some(path) => Corpus::from_path(path)?,
        None => Corpus::bundled()?,
    };
    Ok(Workload::new(recipe, corpus)?)
}

/// The recorded centralised run of this recipe on the bundled corpus, when there is one.
pub(crate) fn baseline(workload: &Workload) -> Option<Baseline> {
    let bundled = Corpus::bundled_manifest().ok()?;
    if workload.corpus.manifest_hash() != bundled.hash() {
        return None;
    }
    let recorded = learn::baseline::bundled(workload.recipe.hash())?;
    let points = recorded.points.iter().map(|point| CurvePoint {
        tokens: point.tokens,
        training_loss: point.training_loss,
        heldout_loss: point.heldout_loss,
    });
    Some(Baseline { label: recorded.label, points: points.collect() })
}

/// Whether the options name what is trained.
pub(crate) fn is_chosen(args: &RecipeArgs) -> bool {
    let RecipeArgs { data, preset, recipe, profile, seed, rounds } = args;
    data.is_some() || preset.is_some() || recipe.is_some() || profile.is_some() || seed.is_some() || rounds.is_some()
}

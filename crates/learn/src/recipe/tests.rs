use super::*;

#[test]
fn the_bundled_recipes_are_sound_and_round_trip() {
    for recipe in [Recipe::default_run(), Recipe::long_run(), Recipe::tiny()] {
        assert_eq!(recipe.validate(), Ok(()), "{}", recipe.name);
        assert_eq!(Recipe::from_bytes(&recipe.to_bytes()), Ok(recipe.clone()));
        assert_eq!(Recipe::from_toml(&recipe.to_toml()), Ok(recipe.clone()));
        let adamw = Recipe { inner: Inner { muon: None, ..recipe.inner }, ..recipe };
        assert_eq!(Recipe::from_bytes(&adamw.to_bytes()), Ok(adamw.clone()));
        assert_eq!(Recipe::from_toml(&adamw.to_toml()), Ok(adamw));
    }
}

#[test]
fn each_bad_setting_is_named() {
    type Edit = fn(&mut Recipe);
    let edits: [(&str, Edit); 15] = [
        ("name", |r| r.name.clear()),
        ("seed", |r| r.seed = u64::MAX),
        ("rounds", |r| r.rounds = 0),
        ("inner_steps", |r| r.inner_steps = u64::MAX),
        ("units_per_round", |r| r.units_per_round = 0),
        ("batch.tokens", |r| r.batch.tokens = r.model.context + 1),
        ("width", |r| r.model.width = 0),
        ("inner.clip_norm", |r| r.inner.clip_norm = f32::NAN),
        ("inner.adamw.beta1", |r| r.inner.adamw.beta1 = 1.0),
        ("inner.muon.iterations", |r| r.inner.muon.as_mut().unwrap().iterations = 0),
        ("schedule.decay_fraction", |r| r.schedule.decay_fraction = 2.0),
        ("compression.keep", |r| r.compression.keep = 5000),
        ("compression.beta", |r| r.compression.beta = f32::INFINITY),
        ("outer.momentum", |r| r.outer.momentum = -0.1),
        ("evaluation.windows", |r| r.evaluation.windows = 0),
    ];
    for (field, edit) in edits {
        let mut bad = Recipe::tiny();
        edit(&mut bad);
        let message = bad.validate().expect_err(field).to_string();
        assert!(message.contains(field), "`{message}` does not name `{field}`");
    }
}

#[test]
fn several_settings_change_together_and_the_difference_is_named() {
    let recipe = Recipe::tiny();
    // Either alone would be unsound.
    let changes = "rounds = 4\n[compression]\nkeep = 4096\nbeta = 0.5\n[inner.adamw]\nlr = 0.5".parse().unwrap();
    assert!(recipe.with_setting("rounds", "4").is_err());
    let changed = recipe.with_settings(&changes).unwrap();
    assert_eq!(changed.batch, recipe.batch);
    let differences = recipe.differences(&changed);
    let paths: Vec<&str> = differences.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["compression.beta", "compression.keep", "inner.adamw.lr", "rounds"]);
    assert_eq!(differences[3].1.as_deref().zip(differences[3].2.as_deref()), Some(("8", "4")));
    assert_eq!(recipe.differences(&recipe), []);
    for (bad, part) in [("speed = 1", "speed"), ("model = 3", "Config"), ("[inner.adamw]\nlr = 'high'", "high")] {
        let said = recipe.with_settings(&bad.parse().unwrap()).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_density_too_small_for_the_rounds_is_refused() {
    let mut recipe = Recipe::default_run();
    recipe.compression.keep = 64;
    assert!(matches!(recipe.validate(), Err(RecipeError::TooSparse { keep: 64, .. })));
    assert_eq!([1, 8, 32, 64, 256, 1000].map(keep_for_rounds), [4096, 2048, 512, 256, 64, 64]);
}

#[test]
fn other_encodings_of_a_recipe_are_refused() {
    let bytes = Recipe::tiny().to_bytes();
    let spaced = [&bytes[..1], b" ", &bytes[1..]].concat();
    assert_eq!(Recipe::from_bytes(&spaced), Err(RecipeError::NotCanonical));
    assert!(matches!(Recipe::from_bytes(&bytes[..bytes.len() - 1]), Err(RecipeError::Syntax(_))));
    assert!(matches!(Recipe::from_bytes(&vec![b' '; RECIPE_BYTES_MAX + 1]), Err(RecipeError::TooLong { .. })));
}

#[test]
fn an_unknown_setting_is_named() {
    let text = format!("speed = 9\n{}", Recipe::tiny().to_toml());
    let message = Recipe::from_toml(&text).unwrap_err().to_string();
    assert!(message.contains("speed"), "{message}");
}

/// The hash is part of every charter: an accidental change of the encoding must show.
#[test]
fn golden_encoding() {
    let text = String::from_utf8(Recipe::tiny().to_bytes()).unwrap();
    assert!(text.starts_with(r#"{"name":"tiny","seed":1,"rounds":8,"inner_steps":4,"units_per_round":4,"model":{"vocab":2048,"width":32,"#), "{text}");
    assert!(text.contains(r#""compression":{"chunk":4096,"keep":2048,"beta":0.95}"#), "{text}");
    assert_eq!(*blake3::hash(text.as_bytes()).as_bytes(), Recipe::tiny().hash());
}

//! Changing single settings of a recipe, and the difference of two.

use std::collections::{BTreeMap, BTreeSet};

use super::{Recipe, RecipeError};

/// A setting's path, its value in one recipe and that in another.
pub type Difference = (String, Option<String>, Option<String>);

impl Recipe {
    /// Changes one setting, named by its path in the TOML (`inner.adamw.lr`); the value is written as there, or `none` to leave it out.
    ///
    /// # Errors
    /// There is no such path, the value is not TOML, or the recipe would be unsound.
    pub fn with_setting(&self, path: &str, value: &str) -> Result<Self, RecipeError> {
        self.with_changes([(path, value)])
    }

    /// As [`Recipe::with_setting`], for several settings that may be sound only together.
    ///
    /// # Errors
    /// As there.
    pub fn with_changes<'a>(&self, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, RecipeError> {
        let mut table: toml::Table = self.to_toml().parse().expect("a recipe is TOML");
        for (path, value) in changes {
            change(&mut table, path, value)?;
        }
        Self::from_toml(&table.to_string())
    }

    /// Changes several settings at once: tables of the TOML in which only what changes is written.
    ///
    /// # Errors
    /// There is no such setting, or the recipe would be unsound.
    pub fn with_settings(&self, settings: &toml::Table) -> Result<Self, RecipeError> {
        let mut table: toml::Table = self.to_toml().parse().expect("a recipe is TOML");
        merge(&mut table, settings);
        Self::from_toml(&table.to_string())
    }

    /// The settings in which another recipe differs, by their paths in the TOML: the value here and the one there, none where it is left
    /// out.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let [ours, theirs] = [self, other].map(|recipe| {
            let table: toml::Table = recipe.to_toml().parse().expect("a recipe is TOML");
            let mut leaves = BTreeMap::new();
            collect_leaves("", &table, &mut leaves);
            leaves
        });
        let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let of = |path: &String| (path.clone(), ours.get(path).cloned(), theirs.get(path).cloned());
        paths.into_iter().map(of).filter(|(_, ours, theirs)| ours != theirs).collect()
    }
}

/// Writes a value at a path of a table.
fn change(table: &mut toml::Table, path: &str, value: &str) -> Result<(), RecipeError> {
    let (folder, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = table;
    for part in folder.split('.').filter(|part| !part.is_empty()) {
        let missing = || RecipeError::Syntax(format!("there is no table `{part}` in `{path}`"));
        at = at.get_mut(part).and_then(toml::Value::as_table_mut).ok_or_else(missing)?;
    }
    if value == "none" {
        at.remove(name);
        return Ok(());
    }
    let parsed: Result<toml::Table, _> = format!("x = {value}").parse();
    let parsed = parsed.map_err(|error| RecipeError::Syntax(format!("`{path}`: {}", error.message())))?;
    at.insert(name.to_owned(), parsed["x"].clone());
    Ok(())
}

/// Puts `changes` into a table, and those of its tables into that table's.
fn merge(into: &mut toml::Table, changes: &toml::Table) {
    for (name, change) in changes {
        match (into.get_mut(name), change) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) => merge(inner, changes),
            _ => {
                into.insert(name.clone(), change.clone());
            }
        }
    }
}

fn collect_leaves(folder: &str, table: &toml::Table, leaves: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => collect_leaves(&format!("{folder}{name}."), inner, leaves),
            leaf => {
                leaves.insert(format!("{folder}{name}"), leaf.to_string());
            }
        }
    }
}

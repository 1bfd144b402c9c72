//! The data directory: the user's identity, the keys of other local peers, and one directory per run.
//!
//! ```text
//! lock                  one process at a time
//! identity.key          the user's key: peer 1
//! peers/peer-2.key …    the keys of other peers on this machine
//! newest                the id of the run that was started last
//! runs/<run id>/        charter.json, recipe.json, tokenizer.json, data.toml, observed.json, summary.json
//! runs/<run id>/peer-1/ … what each peer keeps
//! texts/                what runs are trained on, besides the bundled novels: see `texts`
//! models/               what others trained: see `models`
//! ```
//!
//! Looking at runs takes no lock: what is read is written once, or in one step.
//!
//! Identities lie outside of the runs, so that removing a run loses no key.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use learn::Recipe;
use learn::data::Manifest;
use model::Tokenizer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::charter::NAME_BYTES_MAX;
use wire::{Charter, Identity, RunId, Signed, Verified};

use crate::identity::load_or_create;
use crate::store::{DirectoryLock, StoreError, file};
use crate::workload::Workload;

const CHARTER: &str = "charter.json";
const RECIPE: &str = "recipe.json";
const TOKENIZER: &str = "tokenizer.json";
const DATA: &str = "data.toml";
const SUMMARY: &str = "summary.json";
const OBSERVED: &str = "observed.json";
const NEWEST: &str = "newest";

/// The user's key file in a data directory, which need not be there yet.
pub fn user_key_path(home: &Path) -> PathBuf {
    home.join("identity.key")
}

/// A data directory that this process has to itself.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    _lock: DirectoryLock,
}

impl Home {
    /// Opens a data directory, and makes it when it is not there.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, others when it cannot be used.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        file::make_directory(path)?;
        let lock = DirectoryLock::take(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key file of a local peer, counted from 1.
    pub fn key_path(&self, number: usize) -> PathBuf {
        match number {
            1 => user_key_path(&self.path),
            _ => self.path.join("peers").join(format!("peer-{number}.key")),
        }
    }

    /// The key of a local peer, counted from 1; made when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the key file is damaged, or cannot be read or written.
    pub fn identity(&self, number: usize) -> Result<Identity, StoreError> {
        load_or_create(&self.key_path(number))
    }

    /// The newest run: the one that was founded, joined or started last.
    ///
    /// # Errors
    /// [`StoreError`] when its files are damaged or cannot be read.
    pub fn newest_run(&self) -> Result<Option<RunHome>, StoreError> {
        newest_run(&self.path)
    }

    /// The run whose id begins with `beginning`, of 4 digits or more; none when there is no such run, or there are several.
    ///
    /// # Errors
    /// [`StoreError`] when its files are damaged or cannot be read.
    pub fn run(&self, beginning: &str) -> Result<Option<RunHome>, StoreError> {
        find_run(&self.path, beginning)
    }

    /// Opens a run, which is the newest one from now on; none when it is not here.
    ///
    /// # Errors
    /// [`StoreError`] when its files are damaged or cannot be read, or that cannot be noted.
    pub fn go_on_with(&self, run: RunId) -> Result<Option<RunHome>, StoreError> {
        let Some(found) = find_run(&self.path, &run.0.to_string())? else { return Ok(None) };
        self.note_newest(run)?;
        Ok(Some(found))
    }

    /// Starts a directory for a new run of a workload: the charter is made for a name that no run here has yet.
    ///
    /// # Errors
    /// [`StoreError`] when its files cannot be written.
    pub fn found_run(
        &self,
        founder: &Identity,
        workload: &Workload,
        mut charter: Charter,
    ) -> Result<RunHome, StoreError> {
        let taken = self.run_names()?;
        let name = charter.name.clone();
        let mut number = 1;
        while taken.contains(&charter.name) || self.run_path(charter.run_id()).exists() {
            number += 1;
            let ending = format!("-{number}");
            let room = name.floor_char_boundary(NAME_BYTES_MAX.saturating_sub(ending.len()));
            charter.name = format!("{}{ending}", &name[..room]);
        }
        let run = charter.run_id();
        let directory = self.run_path(run);
        write_run(&directory, &founder.sign(charter), workload)?;
        self.note_newest(run)?;
        RunHome::open(directory, run)
    }

    /// Makes a directory for a run that somebody else founded, or opens the one that is there; it is the newest run from now on. Also says
    /// whether it was there.
    ///
    /// # Errors
    /// [`StoreError`] when its files cannot be written, or are damaged.
    pub fn keep_run(&self, charter: &Verified<Charter>, workload: &Workload) -> Result<(RunHome, bool), StoreError> {
        let run = charter.body.run_id();
        let directory = self.run_path(run);
        let known = directory.join(CHARTER).exists();
        if !known {
            write_run(&directory, &charter.clone().into_signed(), workload)?;
        }
        self.note_newest(run)?;
        Ok((RunHome::open(directory, run)?, known))
    }

    /// What the runs here are called; a damaged one is called nothing.
    fn run_names(&self) -> Result<BTreeSet<String>, StoreError> {
        let name = |run: RunId| Some(RunHome::open(self.run_path(run), run).ok()?.charter.body.name.clone());
        Ok(run_ids(&self.path)?.into_iter().filter_map(name).collect())
    }

    fn note_newest(&self, run: RunId) -> Result<(), StoreError> {
        file::write_durably(&self.path.join(NEWEST), format!("{}\n", run.0).as_bytes())
    }

    fn run_path(&self, run: RunId) -> PathBuf {
        run_path(&self.path, run)
    }
}

fn run_path(home: &Path, run: RunId) -> PathBuf {
    home.join("runs").join(run.0.to_string())
}

/// The newest run of a data directory.
///
/// # Errors
/// [`StoreError`] when its files are damaged or cannot be read.
pub fn newest_run(home: &Path) -> Result<Option<RunHome>, StoreError> {
    let path = home.join(NEWEST);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(&path, error)),
    };
    let run = text.trim().parse().map(RunId);
    let run = run.map_err(|_| StoreError::corrupt(&path, "it does not hold a run's id"))?;
    let directory = run_path(home, run);
    if !directory.join(CHARTER).exists() {
        return Ok(None);
    }
    RunHome::open(directory, run).map(Some)
}

/// The run of a data directory whose id begins with `beginning`, of 4 digits or more; none when there is no such run, or there are several.
///
/// # Errors
/// [`StoreError`] when its files are damaged or cannot be read.
pub fn find_run(home: &Path, beginning: &str) -> Result<Option<RunHome>, StoreError> {
    let all = run_ids(home)?;
    let mut found = all.into_iter().filter(|run| beginning.len() >= 4 && run.0.to_string().starts_with(beginning));
    match (found.next(), found.next()) {
        (Some(run), None) => RunHome::open(run_path(home, run), run).map(Some),
        _ => Ok(None),
    }
}

/// The ids of all runs of a data directory, sorted.
///
/// # Errors
/// [`StoreError`] when the directory cannot be read.
pub fn run_ids(home: &Path) -> Result<Vec<RunId>, StoreError> {
    let runs = home.join("runs");
    let entries = match std::fs::read_dir(&runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io(&runs, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| StoreError::io(&runs, error))?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse().ok()).map(RunId));
    }
    // A directory without a charter was never finished.
    found.retain(|run| run_path(home, *run).join(CHARTER).exists());
    found.sort_unstable();
    Ok(found)
}

/// One run's directory.
#[derive(Clone, Debug)]
pub struct RunHome {
    path: PathBuf,
    charter: Verified<Charter>,
    recipe: Recipe,
}

impl RunHome {
    fn open(path: PathBuf, run: RunId) -> Result<Self, StoreError> {
        let charter_path = path.join(CHARTER);
        let signed: Signed<Charter> =
            read_json(&charter_path)?.ok_or_else(|| StoreError::corrupt(&charter_path, "it is missing"))?;
        wire::Wire::validate(&signed.body).map_err(|field| StoreError::corrupt(&charter_path, field))?;
        if signed.body.run_id() != run {
            return Err(StoreError::OtherRun { path: charter_path });
        }
        let charter = signed.verify().map_err(|error| StoreError::corrupt(&charter_path, error.to_string()))?;
        let recipe_path = path.join(RECIPE);
        let bytes = std::fs::read(&recipe_path).map_err(|error| StoreError::io(&recipe_path, error))?;
        let recipe =
            Recipe::from_bytes(&bytes).map_err(|error| StoreError::corrupt(&recipe_path, error.to_string()))?;
        if recipe.hash() != charter.body.recipe.0 {
            return Err(StoreError::corrupt(&recipe_path, "it is not the recipe that the charter names"));
        }
        Ok(Self { path, charter, recipe })
    }

    /// The run's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's terms.
    pub fn charter(&self) -> &Verified<Charter> {
        &self.charter
    }

    /// The run's recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The run's tokenizer.
    ///
    /// # Errors
    /// [`StoreError`] when it is not the one that the charter names, or cannot be read.
    pub fn tokenizer(&self) -> Result<Tokenizer, StoreError> {
        let path = self.path.join(TOKENIZER);
        let bytes = std::fs::read(&path).map_err(|error| StoreError::io(&path, error))?;
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| StoreError::corrupt(&path, error.to_string()))?;
        if tokenizer.hash() != self.charter.body.tokenizer.0 {
            return Err(StoreError::corrupt(&path, "it is not the tokenizer that the charter names"));
        }
        Ok(tokenizer)
    }

    /// What the text is that the run is trained on; none in directories that earlier builds made.
    ///
    /// # Errors
    /// [`StoreError`] when it is not what the charter names, or cannot be read.
    pub fn manifest(&self) -> Result<Option<Manifest>, StoreError> {
        let path = self.path.join(DATA);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        let manifest = Manifest::from_bytes(&bytes).map_err(|error| StoreError::corrupt(&path, error.to_string()))?;
        match manifest.hash() == self.charter.body.data.0 {
            true => Ok(Some(manifest)),
            false => Err(StoreError::corrupt(&path, "it is not the manifest that the charter names")),
        }
    }

    /// Whether peers of this machine ever took part in it.
    pub fn was_started(&self) -> bool {
        self.peer_path(1).is_dir()
    }

    /// The directory of a local peer, counted from 1.
    pub fn peer_path(&self, number: usize) -> PathBuf {
        self.path.join(format!("peer-{number}"))
    }

    /// Reads the summary of a complete run.
    ///
    /// # Errors
    /// [`StoreError`] when it is damaged or cannot be read.
    pub fn summary<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        read_json(&self.path.join(SUMMARY))
    }

    /// Writes the summary of a complete run.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub fn write_summary<T: Serialize>(&self, summary: &T) -> Result<(), StoreError> {
        write_json(&self.path.join(SUMMARY), summary)
    }

    /// Reads what was observed of the run.
    ///
    /// # Errors
    /// [`StoreError`] when it is damaged or cannot be read.
    pub fn observed<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        read_json(&self.path.join(OBSERVED))
    }

    /// Writes what was observed of the run.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub fn write_observed<T: Serialize>(&self, observed: &T) -> Result<(), StoreError> {
        write_json(&self.path.join(OBSERVED), observed)
    }
}

/// Writes what a run's directory begins with; the charter last, since a directory with one is whole.
fn write_run(directory: &Path, charter: &Signed<Charter>, workload: &Workload) -> Result<(), StoreError> {
    file::make_directory(directory)?;
    file::write_durably(&directory.join(RECIPE), &workload.recipe.to_bytes())?;
    file::write_durably(&directory.join(TOKENIZER), workload.corpus.tokenizer().to_bytes())?;
    file::write_durably(&directory.join(DATA), &workload.corpus.manifest().to_bytes())?;
    write_json(&directory.join(CHARTER), charter)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(StoreError::corrupt(path, error.to_string())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec_pretty(value).expect("plain data is JSON");
    file::write_durably(path, &bytes)
}

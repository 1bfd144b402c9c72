//! The runs of a data directory, as people look at them, and new ones that follow from others.

use std::path::Path;

use learn::data::{Corpus, CorpusError, Role};
use learn::recipe::Difference;
use learn::{Recipe, RecipeError};
use serde::Serialize;
use wire::{Charter, PeerId, Release, ReleaseError, RunId, Wire};

use crate::cluster::fitting_release;
use crate::home::{self, RunHome};
use crate::member::{Failure, FailureKind};
use crate::observe::{Observed, Summary};
use crate::store::StoreError;
use crate::texts;
use crate::view::{NetState, PeerActivity, Phase, RunLine, RunState};
use crate::workload::Workload;

/// All runs of a data directory, the newest first and the others by name. What another process has observed of a run that it trains is as it
/// was saved last. A damaged run is left out, with a line in the log.
///
/// # Errors
/// [`StoreError`] when the directory cannot be read.
pub fn list(home: &Path) -> Result<Vec<RunLine>, StoreError> {
    let newest = home::newest_run(home).ok().flatten().map(|run| run.charter().body.run_id());
    let mut lines = Vec::new();
    for id in home::run_ids(home)? {
        let line =
            home::find_run(home, &id.0.to_string()).and_then(|run| run.map(|run| line(&run, newest)).transpose());
        match line {
            Ok(line) => lines.extend(line),
            Err(error) => tracing::warn!(%error, "a run is damaged"),
        }
    }
    lines.sort_by(|a, b| b.newest.cmp(&a.newest).then_with(|| a.name.cmp(&b.name)).then_with(|| a.id.cmp(&b.id)));
    Ok(lines)
}

/// Takes what a process of this machine knows better of the run that it trains or serves.
pub fn note_running(lines: &mut [RunLine], state: &NetState) {
    let Some(run) = &state.run else { return };
    let is_up = state.peers.iter().any(|peer| peer.activity != PeerActivity::Offline);
    for line in lines.iter_mut().filter(|line| line.id == run.id && is_up) {
        line.round = run.round;
        line.heldout_loss = run.heldout_loss.or(line.heldout_loss);
        if line.state != RunState::Complete && run.phase != Phase::Halted {
            line.state = RunState::Running;
        }
    }
}

/// One run, for a list.
fn line(run: &RunHome, newest: Option<RunId>) -> Result<RunLine, StoreError> {
    let (charter, id) = (&run.charter().body, run.charter().body.run_id());
    let observed = run.observed::<Observed>()?.and_then(|observed| observed.state.run).filter(|view| view.id == id);
    let summary: Option<Summary> = run.summary()?;
    let state = match observed.as_ref().map(|view| view.phase) {
        _ if summary.is_some() => RunState::Complete,
        Some(Phase::Finished) => RunState::Complete,
        Some(Phase::Halted) => RunState::Halted,
        _ if run.was_started() => RunState::Paused,
        _ => RunState::New,
    };
    let round = summary.as_ref().map(|summary| summary.rounds).or(observed.as_ref().map(|view| view.round));
    let heldout = summary.as_ref().and_then(|summary| summary.heldout_loss);
    let manifest = run.manifest()?;
    Ok(RunLine {
        id,
        name: charter.name.clone(),
        parameters: run.recipe().model.parameters(),
        state,
        round: round.unwrap_or(0),
        rounds: charter.rounds,
        heldout_loss: heldout.or(observed.as_ref().and_then(|view| view.heldout_loss)),
        gap: summary.and_then(|summary| summary.gap),
        data: manifest.as_ref().map(|manifest| manifest.name.clone()),
        licence: manifest.map(|manifest| manifest.licence),
        parent: charter.parent,
        newest: newest == Some(id),
    })
}

/// Everything about a run that is fixed, as people read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunCard {
    /// Its id.
    pub id: RunId,
    /// What people call it.
    pub name: String,
    /// Who signed the charter.
    pub founder: PeerId,
    /// The run whose terms it took over and changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// Who may sign blocks.
    pub validators: Vec<PeerId>,
    /// When the weights may leave their stages.
    pub release: String,
    /// Who may join.
    pub admission: &'static str,
    /// Parameters of the whole model.
    pub parameters: u64,
    /// Tokens of the whole run, when every unit is done.
    pub tokens: u64,
    /// Members that round 0 waits for.
    pub peers: u32,
    /// Commitments that close a round at its deadline.
    pub quorum: u32,
    /// Seconds from a round's opening to its deadline, of the first rounds.
    pub round_seconds: f64,
    /// The most that may become.
    pub round_seconds_max: f64,
    /// Shares that a round mints.
    pub shares_per_round: f64,
    /// Roots of the first state of each stage.
    pub genesis: Vec<wire::Hash>,
    /// What it is trained on.
    pub data: DataCard,
    /// The recipe.
    pub recipe: Recipe,
}

/// What a run is trained on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataCard {
    /// Hash of the manifest.
    pub manifest: wire::Hash,
    /// Hash of the tokenizer.
    pub tokenizer: wire::Hash,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Files to train on, and files that are held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<[usize; 2]>,
    /// Bytes of all files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl RunCard {
    /// The card as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field is a TOML value")
    }

    /// The card of a run.
    ///
    /// # Errors
    /// [`StoreError`] when a file of it is damaged or cannot be read.
    pub fn of(run: &RunHome) -> Result<Self, StoreError> {
        let (signed, charter, recipe) = (run.charter(), &run.charter().body, run.recipe().clone());
        let seconds = |us: u64| us as f64 / 1e6;
        let manifest = run.manifest()?;
        let count = |role| manifest.as_ref().map(|of| of.files.iter().filter(|file| file.role == role).count());
        let data = DataCard {
            manifest: charter.data,
            tokenizer: charter.tokenizer,
            name: manifest.as_ref().map(|manifest| manifest.name.clone()),
            licence: manifest.as_ref().map(|manifest| manifest.licence.clone()),
            files: count(Role::Train).zip(count(Role::Heldout)).map(|(train, heldout)| [train, heldout]),
            bytes: manifest.as_ref().map(learn::data::Manifest::text_bytes),
        };
        Ok(Self {
            id: charter.run_id(),
            name: charter.name.clone(),
            founder: signed.signer,
            parent: charter.parent,
            validators: charter.validators.clone(),
            release: charter.release.to_string(),
            admission: "open",
            parameters: recipe.model.parameters(),
            tokens: charter.tokens_max().unwrap_or(u64::MAX).min(i64::MAX as u64) / charter.stages.len() as u64,
            peers: charter.start_members,
            quorum: charter.quorum,
            round_seconds: seconds(charter.round_us_first),
            round_seconds_max: seconds(charter.round_us_max),
            shares_per_round: charter.shares_per_round as f64 / 1e6,
            genesis: charter.stages.iter().map(|stage| stage.genesis_state).collect(),
            data,
            recipe,
        })
    }
}

/// A run cannot be gone on with, or forked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its text is not in the data directory.
    #[error("the text of the run `{}` is not here", run.0.short())]
    NoText {
        /// The run.
        run: RunId,
    },
    /// The text that is here is another one.
    #[error("the run `{}` is trained on another text than the one here", run.0.short())]
    OtherText {
        /// The run.
        run: RunId,
    },
    /// Its text is damaged.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The changed recipe would be unsound.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The policy of release is misspelt.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A term is no number.
    #[error("`{term}` is `{value}`, and must be a whole number")]
    NoNumber {
        /// The term.
        term: String,
        /// What was given.
        value: String,
    },
    /// The changed charter would break its own rules.
    #[error("the charter: {0}")]
    Charter(&'static str),
    /// The policy of release does not fit the model.
    #[error("{}", .0.message)]
    Unfit(Failure),
    /// Nothing would be another.
    #[error("nothing would change")]
    NothingChanged,
}

impl RunError {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::NoText { .. } | Self::OtherText { .. } => {
                "`--data FILE_OR_DIR` names the text that the run was founded with, the same to the byte".to_owned()
            }
            Self::Corpus(error) => error.hint().to_owned(),
            Self::Recipe(_) => format!(
                "`cairn run show` prints every field of the recipe with its path; of the charter, {} can be set",
                TERMS.join(", ")
            ),
            Self::Release(_) => "`open-now`, `open-after=20` (rounds) or `split`".to_owned(),
            Self::NoNumber { .. } | Self::Charter(_) => "`cairn run show` prints what the parent has".to_owned(),
            Self::Unfit(failure) => failure.hint.clone(),
            Self::NothingChanged => "`--set inner.adamw.lr=0.003` changes a field, `--name NAME` the name".to_owned(),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self { kind: FailureKind::BadInput, message: error.to_string(), hint: error.hint() }
    }
}

/// The run that a person names: by the beginning of its id, of 4 digits or more, or by its whole name; none when that fits none or several.
///
/// # Errors
/// [`StoreError`] when its files are damaged or cannot be read.
pub fn find(home: &Path, named: &str) -> Result<Option<RunHome>, StoreError> {
    if let Some(run) = home::find_run(home, named)? {
        return Ok(Some(run));
    }
    let lines = list(home)?;
    let mut fitting = lines.iter().filter(|line| line.name == named);
    match (fitting.next(), fitting.next()) {
        (Some(line), None) => home::find_run(home, &line.id.0.to_string()),
        _ => Ok(None),
    }
}

/// What a run computes with. Its text is what the data directory has, or else that at `data`.
///
/// # Errors
/// [`RunError`] when its text is not there, or damaged.
pub fn workload(home: &Path, run: &RunHome, data: Option<&Path>) -> Result<Workload, RunError> {
    let charter = &run.charter().body;
    let workload = Workload::new(run.recipe().clone(), corpus(home, charter, data)?)?;
    match workload.matches(charter) {
        true => Ok(workload),
        false => Err(RunError::OtherText { run: charter.run_id() }),
    }
}

fn corpus(home: &Path, charter: &Charter, data: Option<&Path>) -> Result<Corpus, RunError> {
    let run = charter.run_id();
    match (texts::corpus(home, charter)?, data) {
        (Some(corpus), _) => Ok(corpus),
        (None, None) => Err(RunError::NoText { run }),
        (None, Some(path)) => {
            let corpus = Corpus::from_path(path)?;
            if corpus.manifest_hash() == charter.data.0 { Ok(corpus) } else { Err(RunError::OtherText { run }) }
        }
    }
}

/// The terms of a charter that a fork can set, besides the fields of the recipe.
pub const TERMS: [&str; 6] = ["release", "peers", "quorum", "round_seconds", "round_seconds_max", "shares_per_round"];

/// A run that follows from another.
#[derive(Debug)]
pub struct Fork {
    /// What is trained, on what.
    pub workload: Workload,
    /// The terms, as the founder would sign them.
    pub charter: Charter,
    /// What is another than in the parent: path, there, and here.
    pub differences: Vec<Difference>,
}

/// The terms of a run that differs from `parent` in the named fields only, and begins anew: `changes` are paths and values as in the TOML of a
/// recipe, or among [`TERMS`]. It is ordered by `founder`. The text is found as by [`workload`].
///
/// # Errors
/// [`RunError`].
pub fn fork(
    home: &Path,
    parent: &RunHome,
    founder: PeerId,
    name: Option<&str>,
    changes: &[(String, String)],
    data: Option<&Path>,
) -> Result<Fork, RunError> {
    let before = &parent.charter().body;
    let (terms, fields): (Vec<_>, Vec<_>) = changes.iter().partition(|(path, _)| TERMS.contains(&path.as_str()));
    let recipe = parent.recipe().with_changes(fields.iter().map(|(path, value)| (path.as_str(), value.as_str())))?;
    let workload = Workload::new(recipe, corpus(home, before, data)?)?;
    let anew = workload.charter(
        founder,
        before.start_members,
        before.round_us_first..=before.round_us_max,
        before.shares_per_round,
    );
    let mut charter = Charter {
        name: name.unwrap_or(&before.name).to_owned(),
        quorum: before.quorum,
        release: before.release,
        parent: Some(before.run_id()),
        ..anew
    };
    for (term, value) in terms {
        set_term(&mut charter, term, value)?;
    }
    charter.validate().map_err(RunError::Charter)?;
    fitting_release(&workload, charter.release).map_err(RunError::Unfit)?;
    let mut differences = parent.recipe().differences(&workload.recipe);
    differences.extend(term_differences(before, &charter));
    if differences.is_empty() {
        return Err(RunError::NothingChanged);
    }
    Ok(Fork { workload, charter, differences })
}

fn set_term(charter: &mut Charter, term: &str, value: &str) -> Result<(), RunError> {
    let no_number = || RunError::NoNumber { term: term.to_owned(), value: value.to_owned() };
    if term == "release" {
        charter.release = value.trim_matches('"').parse::<Release>()?;
        return Ok(());
    }
    let number: u64 = value.parse().map_err(|_| no_number())?;
    let small = || u32::try_from(number).map_err(|_| no_number());
    let micro = || number.checked_mul(1_000_000).ok_or_else(no_number);
    match term {
        "peers" => charter.start_members = small()?,
        "quorum" => charter.quorum = small()?,
        "round_seconds" => charter.round_us_first = micro()?,
        "round_seconds_max" => charter.round_us_max = micro()?,
        "shares_per_round" => charter.shares_per_round = micro()?,
        other => unreachable!("`{other}` is among the terms"),
    }
    Ok(())
}

fn term_differences(before: &Charter, after: &Charter) -> Vec<Difference> {
    let terms = |charter: &Charter| {
        [
            ("name", charter.name.clone()),
            ("release", charter.release.to_string()),
            ("peers", charter.start_members.to_string()),
            ("quorum", charter.quorum.to_string()),
            ("round_seconds", (charter.round_us_first / 1_000_000).to_string()),
            ("round_seconds_max", (charter.round_us_max / 1_000_000).to_string()),
            ("shares_per_round", (charter.shares_per_round / 1_000_000).to_string()),
        ]
    };
    let pairs = terms(before).into_iter().zip(terms(after)).filter(|(before, after)| before != after);
    pairs.map(|((term, before), (_, after))| (format!("charter.{term}"), Some(before), Some(after))).collect()
}

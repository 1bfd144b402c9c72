//! What a person writes to found a run (`run.toml`), and the charter that follows from it.
//!
//! Everything has a default, so that an empty description is one, too: a model of a million parameters on the bundled novels. The recipe
//! follows from one number, the size ([`learn::Recipe::of_size`]), and single fields of it are changed in `[recipe]`.
//!
//! ```toml
//! name = "letters"
//! size = "1M"                # parameters; or tiny, small, medium, large
//! peers = 4                  # members that round 0 waits for
//! release = "open-now"       # or "open-after=20" (rounds), "split"
//!
//! [data]
//! path = "letters/"          # left out for the bundled novels
//! licence = "CC-BY-4.0"
//!
//! [recipe]                   # any field of the recipe
//! inner.adamw.lr = 0.003
//! ```
//!
//! Fixed by the charter and not in it: who may join. A run is open to everybody who has its ticket (`admission = "open"`).

use std::path::{Path, PathBuf};

use learn::boundary::{Codec, CodecError};
use learn::data::{Corpus, CorpusError, Texts};
use learn::recipe::{Size, SizeError};
use learn::{Recipe, RecipeError};
use serde::{Deserialize, Serialize};
use wire::{Charter, PeerId, Release, ReleaseError, Wire};

use crate::cluster::{OPEN_ROUND_SECONDS, ROUND_SECONDS_MAX, SHARES_PER_ROUND, STAGED_ROUND_SECONDS, fitting_release};
use crate::member::{Failure, FailureKind};
use crate::probe;
use crate::workload::Workload;

/// Most bytes of a description.
pub const DESCRIPTION_BYTES_MAX: u64 = 64 * 1024;
/// The size of a model for which none is named.
pub const SIZE: &str = "1M";
/// Members that round 0 waits for, unless a number is given.
pub const PEERS: u32 = 4;
/// What travels between stages unless somebody says otherwise: 8 bits, and 4 where links are too slow for these.
pub const CODEC: &str = "full,int8..int4";

/// Characters of a text's name in the name of its run: with the size they are a name of 64 bytes at most.
const NAME_CHARACTERS: usize = 12;
/// Micro-shares of a share.
const MICRO: u64 = 1_000_000;

/// A run as a person describes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunDescription {
    /// What people call it, 1 to 64 bytes; otherwise made from data and size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many parameters the model has, about: [`Size`]; [`SIZE`] unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Rounds instead of those that follow from the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u64>,
    /// Seed of the initial parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Members that round 0 waits for: [`PEERS`] unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<u32>,
    /// Parts into which the model is cut, each held by some of the peers; none when every peer holds all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<u16>,
    /// What travels between stages: [`CODEC`] unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// When the weights may leave their stages: `open-now`, `open-after=ROUNDS` or `split`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Who may join. Only `open`: whoever has the ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<String>,
    /// Least seconds from a round's opening to its deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_seconds: Option<u64>,
    /// Most seconds from a round's opening to its deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_seconds_max: Option<u64>,
    /// Commitments that close a round at its deadline; half of the members unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<u32>,
    /// Shares that a round mints: 1000 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares_per_round: Option<u64>,
    /// What it is trained on.
    pub data: DataDescription,
    /// Fields of the recipe that are not to be as the size has them.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub recipe: toml::Table,
}

/// What a run is trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataDescription {
    /// UTF-8 text: a file, or a folder with `.txt` files; none for the bundled novels. In a file, relative to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// What people call it; the name of the file or folder unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its licence in words: whoever joins gets the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// A description cannot be made into a run.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is larger than any description.
    #[error("`{}` has {bytes} bytes, and a description has at most {DESCRIPTION_BYTES_MAX}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no TOML, or has a field that does not exist.
    #[error("the description of the run: {0}")]
    Syntax(String),
    /// The size is none.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The recipe would be unsound.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// What travels between stages is misspelt.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The policy of release is misspelt.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Who may join cannot be said so.
    #[error("admission `{0}`: in this version a run is open to everybody who has its ticket")]
    Admission(String),
    /// The bundled novels have their own name and licence.
    #[error("the bundled novels have a name and a licence; `data.name` and `data.licence` describe a text of your own")]
    BundledData,
    /// The text cannot be used.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// There are fewer members than stages.
    #[error("{peers} peers cannot hold {stages} stages")]
    TooFewPeers {
        /// Members that round 0 waits for.
        peers: u32,
        /// Stages.
        stages: u16,
    },
    /// A number is larger than the charter holds.
    #[error("`{0}` is too large")]
    TooLarge(&'static str),
    /// The charter would break its own rules.
    #[error("the charter: {0}")]
    Charter(&'static str),
    /// The policy of release does not fit the model.
    #[error("{}", .0.message)]
    Unfit(Failure),
    /// The first state does not fit into what is free.
    #[error("the first state of {parameters} parameters takes {} MB of memory to write down, and {} MB are free", needed / 1_000_000, free / 1_000_000)]
    NoMemory {
        /// Parameters of the largest stage.
        parameters: u64,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
}

impl DescriptionError {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } | Self::TooLong { .. } => {
                "name a file such as `run.toml`; `cairn run new --help` shows what can be in it".to_owned()
            }
            Self::Syntax(_) => "`cairn run new --help` names the fields; all have defaults".to_owned(),
            Self::Size(_) => format!("`size = \"{SIZE}\"` trains in minutes on a laptop"),
            Self::Recipe(RecipeError::TooSparse { .. }) => {
                "take more rounds, or a larger `compression.keep` in `[recipe]`".to_owned()
            }
            Self::Recipe(_) => "`cairn run show` prints the recipe of a run that works, with all its fields".to_owned(),
            Self::Codec(_) => format!("`codec = \"{CODEC}\"` is the default"),
            Self::Release(_) => "`open-now`, `open-after=20` (rounds) or `split`".to_owned(),
            Self::Admission(_) => "leave it out, or write `admission = \"open\"`".to_owned(),
            Self::BundledData => "`data.path` names a file or folder of your own".to_owned(),
            Self::Corpus(error) => error.hint().to_owned(),
            Self::TooFewPeers { stages, .. } => format!("`peers = {}` gives each stage two", 2 * u32::from(*stages)),
            Self::TooLarge(_) | Self::Charter(_) => "take a smaller number".to_owned(),
            Self::Unfit(failure) => failure.hint.clone(),
            Self::NoMemory { .. } => {
                "take a smaller size or more stages, or found it on a machine with more memory".to_owned()
            }
        }
    }
}

impl From<DescriptionError> for Failure {
    fn from(error: DescriptionError) -> Self {
        Self { kind: FailureKind::BadInput, message: error.to_string(), hint: error.hint() }
    }
}

/// A run that could be founded.
#[derive(Debug)]
pub struct Draft {
    /// What is trained, on what.
    pub workload: Workload,
    /// The text, when it is not the bundled one.
    pub texts: Option<Texts>,
    /// The terms, as the founder would sign them.
    pub charter: Charter,
}

impl RunDescription {
    /// Reads a description from a file; the path of its data is relative to that.
    ///
    /// # Errors
    /// [`DescriptionError`] when it cannot be read, or is none.
    pub fn from_file(path: &Path) -> Result<Self, DescriptionError> {
        let io = |source| DescriptionError::Io { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if bytes > DESCRIPTION_BYTES_MAX {
            return Err(DescriptionError::TooLong { path: path.to_owned(), bytes });
        }
        let mut description = Self::from_toml(&std::fs::read_to_string(path).map_err(io)?)?;
        let beside = path.parent().unwrap_or(Path::new(""));
        description.data.path = description.data.path.map(|data| beside.join(data));
        Ok(description)
    }

    /// Reads a description.
    ///
    /// # Errors
    /// [`DescriptionError::Syntax`].
    pub fn from_toml(text: &str) -> Result<Self, DescriptionError> {
        toml::from_str(text).map_err(|error| DescriptionError::Syntax(error.message().to_owned()))
    }

    /// Changes a field of the recipe, named by its path (`inner.adamw.lr`); the value is written as in TOML, and what is no TOML is a text.
    ///
    /// # Errors
    /// [`DescriptionError::Syntax`] when a part of the path is no table.
    pub fn set(&mut self, path: &str, value: &str) -> Result<(), DescriptionError> {
        let (folder, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut at = &mut self.recipe;
        for part in folder.split('.').filter(|part| !part.is_empty()) {
            let inner = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let no_table = || DescriptionError::Syntax(format!("`{part}` in `{path}` is no table"));
            at = inner.as_table_mut().ok_or_else(no_table)?;
        }
        let parsed: Option<toml::Table> = format!("x = {value}").parse().ok();
        let parsed = parsed.and_then(|mut table: toml::Table| table.remove("x"));
        at.insert(name.to_owned(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
        Ok(())
    }

    /// The recipe that is described, before it takes the vocabulary of its data.
    ///
    /// # Errors
    /// [`DescriptionError`] when it would be unsound.
    pub fn recipe(&self) -> Result<Recipe, DescriptionError> {
        let size: Size = self.size.as_deref().unwrap_or(SIZE).parse()?;
        let mut recipe = Recipe::of_size(size, self.rounds);
        recipe.seed = self.seed.unwrap_or(recipe.seed);
        recipe.name = self.name.clone().unwrap_or(recipe.name);
        if let Some(stages) = self.stages.filter(|stages| *stages > 1) {
            recipe = in_stages(recipe, usize::from(stages), self.codec.as_deref(), self.rounds)?;
            recipe.name = self.name.clone().unwrap_or(recipe.name);
        } else {
            // More peers need more units; fewer take several each.
            recipe.units_per_round = recipe.units_per_round.max(self.peers.unwrap_or(PEERS));
        }
        recipe.validate()?;
        Ok(recipe.with_settings(&self.recipe)?)
    }

    /// The run that is described, ordered by `founder`; reads the data.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn draft(&self, founder: PeerId) -> Result<Draft, DescriptionError> {
        if let Some(admission) = self.admission.as_deref().filter(|admission| *admission != "open") {
            return Err(DescriptionError::Admission(admission.to_owned()));
        }
        let release: Release = self.release.as_deref().map_or(Ok(Release::default()), str::parse)?;
        let (mut recipe, peers) = (self.recipe()?, self.peers.unwrap_or(PEERS));
        let stages = recipe.pipeline.map_or(1, |pipeline| u16::try_from(pipeline.stages).unwrap_or(u16::MAX));
        if stages > 1 && peers < u32::from(stages) {
            return Err(DescriptionError::TooFewPeers { peers, stages });
        }
        let (texts, corpus) = self.data()?;
        if self.name.is_none() && !self.recipe.contains_key("name") {
            let stem =
                self.data.path.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
            let data: String = stem.as_deref().unwrap_or("austen").chars().take(NAME_CHARACTERS).collect();
            recipe.name = format!("{data}-{}", self.size.as_deref().unwrap_or(SIZE));
        }
        let workload = Workload::new(recipe, corpus)?;
        fitting_release(&workload, release).map_err(DescriptionError::Unfit)?;
        check_memory(&workload)?;
        let charter = self.charter(&workload, founder, peers, release)?;
        Ok(Draft { workload, texts, charter })
    }

    fn data(&self) -> Result<(Option<Texts>, Corpus), DescriptionError> {
        let DataDescription { path, name, licence } = &self.data;
        match path {
            Some(path) => {
                let texts = Texts::read(path)?.described(name.as_deref(), licence.as_deref())?;
                Ok((Some(texts.clone()), texts.into_corpus()?))
            }
            None if name.is_some() || licence.is_some() => Err(DescriptionError::BundledData),
            None => Ok((None, Corpus::bundled()?)),
        }
    }

    fn charter(
        &self,
        workload: &Workload,
        founder: PeerId,
        peers: u32,
        release: Release,
    ) -> Result<Charter, DescriptionError> {
        let micro = |field, value: u64| value.checked_mul(MICRO).ok_or(DescriptionError::TooLarge(field));
        // A run that is founded by itself may be joined from anywhere.
        let least = if workload.stages_len() == 1 { OPEN_ROUND_SECONDS } else { STAGED_ROUND_SECONDS };
        let least = self.round_seconds.unwrap_or(least);
        let most = self.round_seconds_max.unwrap_or(ROUND_SECONDS_MAX.max(least));
        let round_us = micro("round_seconds", least)?..=micro("round_seconds_max", most)?;
        let shares = match self.shares_per_round {
            Some(shares) => micro("shares_per_round", shares)?,
            None => SHARES_PER_ROUND,
        };
        let mut charter = workload.charter(founder, peers, round_us, shares);
        charter.release = release;
        charter.quorum = self.quorum.unwrap_or(charter.quorum);
        charter.validate().map_err(DescriptionError::Charter)?;
        Ok(charter)
    }
}

/// Refuses a model whose first state could not be written down here.
fn check_memory(workload: &Workload) -> Result<(), DescriptionError> {
    // Parameters and momentum, and the same as bytes.
    const BYTES_PER_PARAMETER: u64 = 16;
    let parameters = (0..workload.stages_len()).map(|stage| workload.layout(stage).len() as u64).max().unwrap_or(0);
    let needed = parameters * BYTES_PER_PARAMETER;
    match probe::hardware().memory_free_bytes {
        Some(free) if free < needed => Err(DescriptionError::NoMemory { parameters, needed, free }),
        _ => Ok(()),
    }
}

/// A recipe with its model cut into stages, between which `codec` travels ([`CODEC`] unless given); `rounds` replaces those that follow.
///
/// # Errors
/// [`DescriptionError`] when the codec is misspelt, or the recipe would be unsound.
pub fn in_stages(
    recipe: Recipe,
    stages: usize,
    codec: Option<&str>,
    rounds: Option<u64>,
) -> Result<Recipe, DescriptionError> {
    let codec: Codec = codec.unwrap_or(CODEC).parse()?;
    let mut recipe = recipe.in_stages(stages, codec.space, codec.precision);
    recipe.rounds = rounds.unwrap_or(recipe.rounds);
    if let Some(pipeline) = &mut recipe.pipeline {
        pipeline.coarsest = codec.coarsest;
    }
    recipe.validate()?;
    Ok(recipe)
}

#[cfg(test)]
mod tests;

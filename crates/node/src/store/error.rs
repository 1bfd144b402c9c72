//! What can be wrong with a directory on disk, and what a person can do about it.

use std::io;
use std::path::{Path, PathBuf};

use wire::Release;

use crate::member::FailureKind;

/// The stored data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory open.
    #[error("the data directory `{}` is in use by another process", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The file is not one of ours.
    #[error("`{}` is not a file that cairn wrote", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file's bytes changed, or some are missing.
    #[error("`{}` is damaged: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The data is of another version of the program.
    #[error("`{}` has format {found}, this program reads format {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that is read.
        expected: u32,
    },
    /// The data belongs to another run.
    #[error("`{}` belongs to another run", path.display())]
    OtherRun {
        /// The file.
        path: PathBuf,
    },
    /// The data belongs to another peer.
    #[error("`{}` belongs to another peer", path.display())]
    OtherPeer {
        /// The file.
        path: PathBuf,
    },
    /// The model is nothing without the learned bases between its stages.
    #[error("this model was trained through learned bases between its stages, and cannot be used without them")]
    NotPlain,
    /// The charter does not let the stages' weights be put together, or passed on, at this time.
    #[error("{}", closed(release, *rounds))]
    WeightsClosed {
        /// The charter's policy.
        release: Release,
        /// Rounds that are closed.
        rounds: u64,
    },
    /// There is no space left.
    #[error("the disk is full: cannot write `{}`", path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot use `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why weights are not given out.
fn closed(release: &Release, rounds: u64) -> String {
    match release {
        Release::OpenAfter { rounds: after } => {
            format!("the run's charter opens the weights after {after} rounds, and {rounds} are closed")
        }
        Release::OpenNow | Release::Split => {
            "the run's charter splits the weights over its operators: they are never put together".to_owned()
        }
    }
}

impl StoreError {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::InUse { .. } => "stop the other cairn, or choose another directory with `--home DIR`".to_owned(),
            Self::Foreign { path } | Self::Corrupt { path, .. } => {
                let directory = path.parent().unwrap_or(path).display();
                format!("move `{directory}` away to start without it; finished rounds come back from the other peers")
            }
            Self::Format { .. } => {
                "use the version of cairn that wrote it, or another directory with `--home DIR`".to_owned()
            }
            Self::OtherRun { .. } | Self::OtherPeer { .. } => {
                "choose another directory with `--home DIR`, or put the files back where they were".to_owned()
            }
            Self::NotPlain => "runs with `--codec full,…` or `--codec subspace:…` give models that answer".to_owned(),
            Self::WeightsClosed { release: Release::OpenAfter { rounds }, .. } => {
                format!("they open when round {rounds} is closed: `cairn up` goes on with the run")
            }
            Self::WeightsClosed { .. } => {
                "ask the model through its peers, with `cairn up` and `cairn chat`; its weights have no other form"
                    .to_owned()
            }
            Self::DiskFull { .. } => "free some space and start again: nothing that was finished is lost".to_owned(),
            Self::Io { .. } => "check the directory's permissions, or choose another one with `--home DIR`".to_owned(),
        }
    }

    /// Whether the data itself is unusable, in contrast to the place that it is in.
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            Self::Foreign { .. }
                | Self::Corrupt { .. }
                | Self::Format { .. }
                | Self::OtherRun { .. }
                | Self::OtherPeer { .. }
        )
    }

    /// Its kind.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::InUse { .. } => FailureKind::InUse,
            Self::NotPlain | Self::WeightsClosed { .. } => FailureKind::BadInput,
            Self::DiskFull { .. } | Self::Io { .. } => FailureKind::Storage,
            _ => FailureKind::CorruptData,
        }
    }

    pub(crate) fn corrupt(path: &Path, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), detail: detail.into() }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn database(path: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { directory: path.parent().unwrap_or(path).to_owned() },
            redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                Self::Foreign { path: path.to_owned() }
            }
            redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Self::corrupt(path, source.to_string())
            }
            redb::Error::Io(source) => Self::io(path, source),
            other => Self::corrupt(path, other.to_string()),
        }
    }
}

//! How the program ends: exit codes, and errors that name the command which fixes them.

use std::fmt;
use std::process::ExitCode;

/// Documented exit codes. Code 2, wrong usage, comes from the command-line parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Something that should not happen, or that has no code of its own.
    Unexpected = 1,
    /// A corpus, recipe, prompt or option value that cannot be used.
    BadInput = 3,
    /// The port is taken.
    PortBusy = 4,
    /// Another process uses the data directory.
    InUse = 5,
    /// A stored file is corrupt, or belongs to another run or version.
    CorruptData = 6,
    /// The disk is full or refuses to write.
    Storage = 7,
    /// A piece does not verify, or this machine does not compute as the contract says.
    NotVerified = 8,
    /// Peers computed different states for one round.
    Divergence = 9,
    /// Peers cannot reach each other.
    Network = 10,
}

/// An error for a person: what is wrong, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process exits.
    pub(crate) code: Code,
    /// A lower-case fragment, values in backticks, no final period.
    pub(crate) message: String,
    /// The one thing to try.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    /// Adds the hint.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Prints the failure and gives its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("\nhint: {hint}");
        }
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl From<node::Failure> for Failure {
    fn from(failure: node::Failure) -> Self {
        let code = match failure.kind {
            node::FailureKind::Unexpected => Code::Unexpected,
            node::FailureKind::BadInput | node::FailureKind::OverMemory => Code::BadInput,
            node::FailureKind::InUse => Code::InUse,
            node::FailureKind::CorruptData => Code::CorruptData,
            node::FailureKind::Storage => Code::Storage,
            node::FailureKind::Network => Code::Network,
            node::FailureKind::Divergence => Code::Divergence,
        };
        Self::new(code, failure.message).hint(failure.hint)
    }
}

impl From<node::store::StoreError> for Failure {
    fn from(error: node::store::StoreError) -> Self {
        node::Failure { kind: error.kind(), message: error.to_string(), hint: error.hint() }.into()
    }
}

impl From<node::ModelsError> for Failure {
    fn from(error: node::ModelsError) -> Self {
        node::Failure { kind: error.kind(), message: error.to_string(), hint: error.hint() }.into()
    }
}

impl From<learn::data::CorpusError> for Failure {
    fn from(error: learn::data::CorpusError) -> Self {
        Self::new(Code::BadInput, &error).hint(error.hint())
    }
}

impl From<learn::RecipeError> for Failure {
    fn from(error: learn::RecipeError) -> Self {
        Self::new(Code::BadInput, &error).hint("`cairn train --print-recipe` prints a recipe that works")
    }
}

impl From<gateway::BindError> for Failure {
    fn from(error: gateway::BindError) -> Self {
        let code = if matches!(error, gateway::BindError::Busy { .. }) { Code::PortBusy } else { Code::Network };
        Self::new(code, &error).hint(error.hint())
    }
}

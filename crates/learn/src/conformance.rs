//! The conformance suite as people and peers run it: every kernel of `tensor` and a training run of 200 steps, in every numeric
//! profile, on every instruction set of the machine and with one and two threads.
//!
//! Each part has a golden hash, recorded in the repository. A machine conforms when all parts have theirs in every
//! configuration; the *conformance hash* is one hash over all parts and is the same on every machine that conforms. A part that
//! differs is named, or rather the lowest kernel that explains the difference ([`tensor::conformance::culprits`]).
//!
//! Golden hashes change only with the numeric contract, by `cargo run --release -p learn --example conformance -- record`,
//! which computes them on the scalar reference; the difference is reviewed like any other.

mod training;

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use tensor::conformance::{culprits, golden, kernels, parse_golden};
use tensor::{Context, Isa, Profile};

pub use training::training_hash;

/// The name of the training run in reports and golden hashes.
const TRAINING: &str = "training";

/// The golden hashes of training runs, one `profile training hash` per line.
const GOLDEN: &str = include_str!("conformance/golden.txt");

/// What one configuration of this machine computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The numeric profile.
    pub profile: String,
    /// The instruction set.
    pub instruction_set: String,
    /// The threads.
    pub threads: usize,
    /// How long it took.
    pub seconds: f64,
    /// One hash over all parts and the profile, in hexadecimal.
    pub hash: String,
    /// The kernels that differ from the contract, or `training` when all kernels agree and training does not; empty when
    /// the configuration conforms.
    pub faulty: Vec<String>,
    /// Every part with another hash than the golden one: those at fault and those that use them.
    pub different: Vec<String>,
}

/// What a machine computed in all configurations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether every part had its golden hash in every configuration.
    pub conforms: bool,
    /// One hash over all parts of the profiles that ran, in hexadecimal: the same on every machine that conforms. None when
    /// configurations of a profile differ.
    pub hash: Option<String>,
    /// The configurations, in the order in which they ran.
    pub runs: Vec<Run>,
}

/// Which configurations to run; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this numeric profile.
    pub profile: Option<Profile>,
    /// Only this instruction set.
    pub instruction_set: Option<String>,
    /// Only this number of threads.
    pub threads: Option<usize>,
}

/// The instruction sets of this machine, the fastest first.
pub fn instruction_sets() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// Runs the suite in every selected configuration and calls `each` after one. Where the system refuses to start threads, only one
/// is used and reported.
pub fn run(selection: &Selection, mut each: impl FnMut(&Run)) -> Report {
    let wanted = |isa: &Isa| selection.instruction_set.as_ref().is_none_or(|name| name == isa.name());
    let mut runs = Vec::new();
    for profile in Profile::ALL.into_iter().filter(|profile| selection.profile.is_none_or(|only| only == *profile)) {
        for threads in [1, 2].into_iter().filter(|threads| selection.threads.is_none_or(|only| only == *threads)) {
            let probe = Context::new(threads).with_profile(profile);
            if probe.threads().count() != threads {
                continue;
            }
            for isa in Isa::available().into_iter().filter(wanted) {
                let run = check(&probe.clone().with_isa(isa));
                each(&run);
                runs.push(run);
            }
        }
    }
    let conforms = !runs.is_empty() && runs.iter().all(|run| run.different.is_empty());
    Report { conforms, hash: over_profiles(&runs), runs }
}

/// One hash over those of the profiles, each of which all its runs must share.
fn over_profiles(runs: &[Run]) -> Option<String> {
    let mut hasher = blake3::Hasher::new_derive_key("cairn v1 conformance hash over profiles");
    for profile in runs.chunk_by(|one, next| one.profile == next.profile) {
        let hash = &profile.first()?.hash;
        if profile.iter().any(|run| run.hash != *hash) {
            return None;
        }
        hasher.update(hash.as_bytes());
    }
    (!runs.is_empty()).then(|| hasher.finalize().to_string())
}

/// Runs the suite in one configuration.
pub fn check(ctx: &Context) -> Run {
    let start = Instant::now();
    let parts = parts(ctx);
    let mut expected = golden(ctx.profile());
    expected.extend(parse_golden(GOLDEN, ctx.profile()));
    let different: Vec<&str> =
        parts.iter().filter(|(name, hash)| expected.get(name) != Some(hash)).map(|(name, _)| *name).collect();
    Run {
        profile: ctx.profile().to_string(),
        instruction_set: ctx.isa().name().to_owned(),
        threads: ctx.threads().count(),
        seconds: start.elapsed().as_secs_f64(),
        hash: combined(ctx.profile(), &parts),
        faulty: culprits(&different).into_iter().map(str::to_owned).collect(),
        different: different.into_iter().map(str::to_owned).collect(),
    }
}

/// The golden files of `tensor` and of this crate, computed on the scalar reference.
pub fn record() -> [String; 2] {
    let mut texts = [String::new(), String::new()];
    for profile in Profile::ALL {
        for (name, hash) in parts(&Context::scalar().with_profile(profile)) {
            let line = format!("{profile} {name} {}\n", blake3::Hash::from_bytes(hash));
            texts[usize::from(name == TRAINING)].push_str(&line);
        }
    }
    texts
}

/// The hash of every kernel, and of the training run last.
fn parts(ctx: &Context) -> Vec<(&'static str, [u8; 32])> {
    let mut parts: Vec<_> = kernels().iter().map(|kernel| (kernel.name(), kernel.hash(ctx))).collect();
    parts.push((TRAINING, training_hash(ctx)));
    parts
}

fn combined(profile: Profile, parts: &[(&str, [u8; 32])]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("cairn v1 conformance hash");
    hasher.update(profile.name().as_bytes());
    for (name, hash) in parts {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(hash);
    }
    hasher.finalize().to_string()
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, instruction_set, threads, seconds, hash, faulty, different } = self;
        let threads = format!("{threads} thread{}", if *threads == 1 { "" } else { "s" });
        write!(f, "{profile:<11} {instruction_set:<9}{threads:<10}{seconds:>7.1} s  {}  ", &hash[..16])?;
        match faulty.as_slice() {
            [] => f.write_str("conforms"),
            _ => {
                let (at_fault, others) = (faulty.join(", "), different.len() - faulty.len());
                write!(f, "DIFFERS in {at_fault}")?;
                if others > 0 { write!(f, " (and {others} that use it)") } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests;

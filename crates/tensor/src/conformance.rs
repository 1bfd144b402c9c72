//! The conformance suite: fixed inputs for every kernel, and the hash that its result must have on every machine.
//!
//! Purpose: a machine that gives these hashes computes as the contract says; one that does not is told which kernel differs. A
//! peer passes the suite before its work can count. `learn::conformance` adds a training run and prints the report.
//!
//! Inputs are made by integer arithmetic ([`inputs`]), never by a kernel under test; sizes are odd, have tails and span several
//! blocks of every loop. A result is hashed as its bits (BLAKE3), NaN as one fixed pattern: the contract says where a NaN
//! appears, but not its payload, which processors choose differently.
//!
//! Kernels call each other, so a fault in one shows in others too. Each names those that it is built on, and [`culprits`]
//! leaves out what another one explains.
//!
//! What it does not do: measure accuracy (the tests of each kernel do) or speed.

mod functions;
mod inputs;
mod kernels;

use std::collections::BTreeMap;

use crate::{Context, Profile};

/// The golden hashes, one `profile kernel hash` per line; written by `cargo run --release -p learn --example conformance -- record`.
const GOLDEN: &str = include_str!("conformance/golden.txt");

/// A kernel with its fixed inputs.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    name: &'static str,
    built_on: &'static [&'static str],
    compute: fn(&Context, &mut Digest),
}

impl Kernel {
    /// The name: that of the public function where there is one.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The kernels that this one calls, directly.
    pub fn built_on(&self) -> &'static [&'static str] {
        self.built_on
    }

    /// Runs the kernel on its inputs and hashes the bits of what it gives.
    pub fn hash(&self, ctx: &Context) -> [u8; 32] {
        let mut digest = Digest(blake3::Hasher::new_derive_key("cairn v1 conformance"));
        (self.compute)(ctx, &mut digest);
        *digest.0.finalize().as_bytes()
    }
}

/// Every kernel, in the order of the report.
pub fn kernels() -> Vec<Kernel> {
    [functions::KERNELS, kernels::KERNELS].concat()
}

/// The golden hash of each kernel in a numeric profile.
pub fn golden(profile: Profile) -> BTreeMap<&'static str, [u8; 32]> {
    parse_golden(GOLDEN, profile)
}

/// Reads a profile's golden hashes: lines of profile, name and hash in hexadecimal. Other lines are left out.
pub fn parse_golden<'a>(text: &'a str, profile: Profile) -> BTreeMap<&'a str, [u8; 32]> {
    let line = |line: &'a str| {
        let (name, hash) = line.strip_prefix(profile.name())?.strip_prefix(' ')?.split_once(' ')?;
        Some((name, *blake3::Hash::from_hex(hash).ok()?.as_bytes()))
    };
    text.lines().filter_map(line).collect()
}

/// Of the kernels with wrong results, those that no other wrong one explains: where the fault is.
///
/// A name outside of [`kernels`] is kept only when it is alone: a training run is built on all of them.
pub fn culprits<'a>(wrong: &[&'a str]) -> Vec<&'a str> {
    let kernels = kernels();
    let find = |name: &str| kernels.iter().find(|kernel| kernel.name == name);
    let explained = |name: &str| {
        let mut open: Vec<&str> = find(name).map_or(Vec::new(), |kernel| kernel.built_on.to_vec());
        while let Some(below) = open.pop() {
            if wrong.contains(&below) {
                return true;
            }
            open.extend(find(below).map_or(&[][..], |kernel| kernel.built_on));
        }
        false
    };
    let any_kernel = wrong.iter().any(|name| find(name).is_some());
    wrong.iter().copied().filter(|name| if find(name).is_some() { !explained(name) } else { !any_kernel }).collect()
}

/// Collects the bits of results.
#[derive(Debug)]
pub(crate) struct Digest(blake3::Hasher);

impl Digest {
    /// Adds f32 values.
    fn values(&mut self, values: &[f32]) {
        for x in values {
            let bits = if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
            self.0.update(&bits.to_le_bytes());
        }
    }

    /// Adds an f64.
    fn wide(&mut self, x: f64) {
        let bits = if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
        self.0.update(&bits.to_le_bytes());
    }

    /// Adds integers.
    fn integers(&mut self, values: &[u32]) {
        for x in values {
            self.0.update(&x.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests;

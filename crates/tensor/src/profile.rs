//! The numeric profiles: the arithmetic that all peers of a run share.

use std::fmt;
use std::str::FromStr;

/// How a fold step `a·b + c` is rounded: the one thing in which profiles differ. A run names its profile, and results of two
/// profiles are different numbers.
///
/// The functions in f64 (ln, sin, cos, tanh, and eˣ for tables) and the random numbers are the same in every profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Once: a fused multiply-add, which x86-64-v3, aarch64 and graphics processors have and WebAssembly has not.
    #[default]
    F32Fma,
    /// After the product and after the sum: fast everywhere, with more instructions where fused ones exist.
    F32Muladd,
}

impl Profile {
    /// Every profile, the default first.
    pub const ALL: [Profile; 2] = [Profile::F32Fma, Profile::F32Muladd];

    /// The name in recipes, charters and reports.
    pub fn name(self) -> &'static str {
        match self {
            Profile::F32Fma => "f32-fma",
            Profile::F32Muladd => "f32-muladd",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Evaluates an expression in which `$fused` is a constant: whether a profile's fold step is one operation.
macro_rules! in_profile {
    ($profile:expr, $fused:ident => $value:expr) => {
        match $profile {
            $crate::Profile::F32Fma => {
                const $fused: bool = true;
                $value
            }
            $crate::Profile::F32Muladd => {
                const $fused: bool = false;
                $value
            }
        }
    };
}
pub(crate) use in_profile;

/// No profile has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no numeric profile; there are `f32-fma` and `f32-muladd`")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Profile, UnknownProfile> {
        let named = |profile: &Profile| profile.name() == name;
        Profile::ALL.into_iter().find(named).ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

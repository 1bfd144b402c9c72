//! The numeric profile in a recipe: its name.

use serde::{Deserialize, Deserializer, Serializer, de};
use tensor::Profile;

pub(super) fn is_default(profile: &Profile) -> bool {
    *profile == Profile::default()
}

pub(super) fn serialize<S: Serializer>(profile: &Profile, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(profile.name())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Profile, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

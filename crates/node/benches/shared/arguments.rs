//! Arguments of a benchmark, written `name=value`.

/// All values that were given for a name, in their order.
pub(crate) fn values(name: &str) -> Vec<String> {
    let named = |argument: String| argument.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
    std::env::args().filter_map(named).collect()
}

/// The first number that was given for a name.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    values(name).first().map_or(default, |text| text.parse().expect("a whole number"))
}

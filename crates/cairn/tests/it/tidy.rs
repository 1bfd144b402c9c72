//! Keeps the workspace in the shape that `ARCHITECTURE.md` draws. Limits may only fall.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which crates of the workspace a crate may use. `sim` and `node` are the only places where the towers meet.
const ALLOWED_EDGES: [(&str, &[&str]); 11] = [
    ("tensor", &[]),
    ("model", &["tensor"]),
    ("learn", &["tensor", "model"]),
    ("wire", &[]),
    ("ledger", &["wire"]),
    ("swarm", &["wire", "ledger"]),
    ("sim", &["wire", "ledger", "swarm", "model", "learn"]),
    ("node", &["wire", "ledger", "swarm", "tensor", "model", "learn"]),
    ("gateway", &["wire", "ledger", "tensor", "model", "learn", "node"]),
    ("testnet", &["node"]),
    ("cairn", &["wire", "ledger", "tensor", "model", "learn", "sim", "node", "gateway"]),
];
const LOCKED_PACKAGES_MAX: usize = 600;
const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 100;
const ARCHITECTURE_LINES_MAX: usize = 200;
/// The only folder with `unsafe` code.
const UNSAFE_HOME: &str = "crates/tensor/src/arch";
/// Crates that must stay free of clocks, threads, sockets and unordered maps, each by its own `clippy.toml`.
const PURE_CRATES: [&str; 3] = ["wire", "ledger", "swarm"];
const PURITY_BANS: [&str; 4] = ["Instant::now", "SystemTime::now", "thread::spawn", "HashMap"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// All files with `extension` below `folder`, in a fixed order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    files(&root().join("crates"), "rs")
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn is_test(path: &Path) -> bool {
    let name = relative(path);
    name.contains("/tests/") || name.contains("/benches/") || name.ends_with("/tests.rs")
}

/// The names under `[dependencies]` of a manifest (development dependencies are free).
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
            names.push(line[..end].to_owned());
        }
    }
    names
}

#[test]
fn arrows_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED_EDGES.into_iter().collect();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("the crates folder") {
        let folder = entry.expect("a readable entry").path();
        let name = folder.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        let Some(edges) = allowed.get(name.as_str()) else {
            wrong.push(format!("crate `{name}` is not in the table of allowed edges"));
            continue;
        };
        for dependency in dependencies(&read(&folder.join("Cargo.toml"))) {
            if allowed.contains_key(dependency.as_str()) && !edges.contains(&dependency.as_str()) {
                wrong.push(format!("`{name}` must not use `{dependency}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn dependencies_are_read_from_manifests() {
    let manifest = "[package]\nname = \"x\"\n\n[dependencies]\n# why\nwire.workspace = true\nserde = \"1\"\n\n[dev-dependencies]\nnode.workspace = true\n";
    assert_eq!(dependencies(manifest), ["wire", "serde"]);
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|path| !is_test(path))
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{}: {lines} lines, limit {FILE_LINES_MAX}", relative(&path)))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Functions of formatted source with their line counts: from the line with `fn` to the brace that closes at its indent.
fn functions(source: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let words: Vec<&str> = text.split(' ').collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        let modifier = |word: &str| {
            word.starts_with("pub")
                || ["const", "async", "unsafe", "extern", "\"C\""].contains(&word)
                || word.ends_with(')')
        };
        if !words[..at].iter().all(|word| modifier(word)) || text.ends_with(';') {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|line| *line == closing) {
            found.push((words.get(at + 1).unwrap_or(&"").to_string(), length + 1));
        }
    }
    found
}

#[test]
fn functions_are_measured() {
    let source = "fn one() {\n    two();\n}\n\nimpl X {\n    pub fn three(\n        &self,\n    ) {\n        four();\n    }\n}\n";
    let lengths: Vec<usize> = functions(source).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(lengths, [3, 5]);
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for path in sources().into_iter().filter(|path| !is_test(path)) {
        for (name, lines) in functions(&read(&path)) {
            if lines > FUNCTION_LINES_MAX {
                long.push(format!("{}: `{name}` has {lines} lines, limit {FUNCTION_LINES_MAX}", relative(&path)));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_crate_says_what_it_is_for() {
    for (name, _) in ALLOWED_EDGES {
        let folder = root().join("crates").join(name);
        let readme = read(&folder.join("README.md"));
        assert!(readme.lines().any(|line| !line.is_empty() && !line.starts_with('#')), "{name}/README.md is empty");
        assert!(
            read(&folder.join("Cargo.toml")).contains("[lints]\nworkspace = true"),
            "{name} must use the shared lints"
        );
    }
}

#[test]
fn protocol_crates_are_pure() {
    for name in PURE_CRATES {
        let path = root().join("crates").join(name).join("clippy.toml");
        let bans = read(&path);
        for ban in PURITY_BANS {
            assert!(bans.contains(ban), "{} must disallow `{ban}`", relative(&path));
        }
        for source in files(&root().join("crates").join(name).join("src"), "rs") {
            let text = read(&source);
            for ban in PURITY_BANS {
                assert!(!text.contains(ban), "{} uses `{ban}`", relative(&source));
            }
        }
    }
}

#[test]
fn unsafe_code_has_one_home() {
    for path in sources() {
        let name = relative(&path);
        let uses = read(&path).lines().any(|line| {
            let code = line.split("//").next().unwrap_or("");
            code.contains(concat!("unsafe", " {"))
                || code.contains(concat!("unsafe", " fn "))
                || code.contains(concat!("unsafe", " impl "))
        });
        assert!(!uses || name.starts_with(UNSAFE_HOME), "{name} has unsafe code; its home is {UNSAFE_HOME}");
    }
}

#[test]
fn modules_are_named_files() {
    let bad: Vec<String> =
        sources().iter().map(|path| relative(path)).filter(|name| name.ends_with("/mod.rs")).collect();
    assert!(bad.is_empty(), "use `foo.rs` + `foo/` instead of {bad:?}");
    for name in ["utils.rs", "common.rs", "types.rs", "misc.rs", "helpers.rs"] {
        let hiding: Vec<String> = sources()
            .iter()
            .map(|path| relative(path))
            .filter(|path| path.contains("/src/") && path.ends_with(&format!("/{name}")))
            .collect();
        assert!(hiding.is_empty(), "a name that hides what is inside: {hiding:?}");
    }
}

#[test]
fn the_lock_file_stays_small() {
    let packages = read(&root().join("Cargo.lock")).lines().filter(|line| *line == "[[package]]").count();
    assert!(packages <= LOCKED_PACKAGES_MAX, "{packages} locked packages, limit {LOCKED_PACKAGES_MAX}");
}

#[test]
fn the_map_is_short_and_complete() {
    let map = read(&root().join("ARCHITECTURE.md"));
    assert!(map.lines().count() <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {} lines", map.lines().count());
    for (name, _) in ALLOWED_EDGES {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not mention `{name}`");
    }
}

//! Who may import whom, from the manifests and from the code.

use super::code::words;
use super::{Finding, SourceFile};

/// Every crate directory and the Subspan crates it may depend on.
const ROOMS: &[(&str, &[&str])] = &[
    ("linalg", &[]),
    ("core", &["subspan-linalg"]),
    ("io", &["subspan"]),
    ("report", &["subspan"]),
    ("nets", &["subspan", "subspan-linalg"]),
    ("cli", &["subspan", "subspan-io", "subspan-report", "subspan-nets"]),
    // The wheel brings the command along.
    ("python", &["subspan", "subspan-io", "subspan-report", "subspan-nets", "subspan-cli"]),
];

/// Heavy dependencies and the one crate that may name each.
const HEAVY: &[(&str, &str)] = &[
    ("faer", "linalg"),
    ("pulp", "linalg"),
    ("arrow", "io"),
    ("parquet", "io"),
    ("burn", "nets"),
    ("clap", "cli"),
    ("indicatif", "cli"),
    ("pyo3", "python"),
    ("numpy", "python"),
];

/// The methods of the core, and the one that each may use besides itself.
const METHODS: &[(&str, Option<&str>)] =
    &[("sample", None), ("regress", Some("sample")), ("cluster", None), ("classify", None), ("merge", None)];

/// The names of a manifest's normal dependencies, with their lines.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut names = Vec::new();
    for (i, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end() == "[dependencies]" || line.contains(".dependencies]");
        } else if inside {
            let end = line.find(['.', '=', ' ']).unwrap_or(line.len());
            if end > 0 && !line.starts_with('#') {
                names.push((i, &line[..end]));
            }
        }
    }
    names
}

fn manifests(files: &[SourceFile]) -> impl Iterator<Item = (&SourceFile, &str)> {
    // Fuzz packages stand outside the workspace, above the crate that they test.
    let of_crate = |f: &&SourceFile| f.path.ends_with("/Cargo.toml") && !f.path.contains("/fuzz/");
    files.iter().filter(of_crate).filter_map(|f| Some((f, f.room()?)))
}

/// A crate depends only on the crates below it.
pub(crate) fn crates(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, room) in manifests(files) {
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            found.push(Finding::of(&file.path, format!("unknown crate {room}: say in this rule what it may import")));
            continue;
        };
        for (line, name) in dependencies(&file.text) {
            if name.starts_with("subspan") && !allowed.contains(&name) {
                found.push(Finding::at(file, line, format!("{room} may not depend on {name}")));
            }
        }
    }
    found
}

/// A heavy dependency is named by its own crate only.
pub(crate) fn heavy(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, room) in manifests(files) {
        for (line, name) in dependencies(&file.text) {
            if let Some((heavy, owner)) = HEAVY.iter().find(|(h, _)| *h == name)
                && *owner != room
            {
                found.push(Finding::at(file, line, format!("only {owner} may depend on {heavy}")));
            }
        }
    }
    for file in files.iter().filter(|f| f.is_src()) {
        for (heavy, owner) in HEAVY.iter().filter(|(_, owner)| file.room().is_some_and(|r| r != *owner)) {
            let path = format!("{heavy}::");
            for (i, line) in file.code.lines().enumerate() {
                if words(line, &path).any(|at| !line[..at].ends_with("::")) {
                    found.push(Finding::at(file, i, format!("only {owner} may name {heavy}")));
                }
            }
        }
    }
    found
}

/// Methods of the core do not import one another, and shared rooms import no method.
pub(crate) fn methods(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        let Some(inner) = file.path.strip_prefix("crates/core/src/") else { continue };
        if inner == "lib.rs" {
            continue;
        }
        let home = METHODS.iter().find(|(m, _)| inner.split(['/', '.']).next() == Some(m));
        for (method, _) in METHODS {
            let own = home.is_some_and(|(name, friend)| name == method || *friend == Some(method));
            if own {
                continue;
            }
            let paths = [format!("crate::{method}"), format!("super::super::{method}")];
            for (i, line) in file.code.lines().enumerate() {
                if paths.iter().any(|p| words(line, p).next().is_some()) {
                    found.push(Finding::at(file, i, format!("may not import the method {method}")));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str, text: &str) -> [SourceFile; 1] {
        [SourceFile::new(path, text)]
    }

    #[test]
    fn an_upward_dependency_is_found() {
        let up = "[dependencies]\nsubspan-io.workspace = true\n";
        assert_eq!(crates(&one("crates/core/Cargo.toml", up))[0].place, "crates/core/Cargo.toml:2");
        assert!(crates(&one("crates/cli/Cargo.toml", up)).is_empty());
        let for_tests = "[dev-dependencies]\nsubspan-io.workspace = true\n";
        assert!(crates(&one("crates/core/Cargo.toml", for_tests)).is_empty());
        assert_eq!(crates(&one("crates/new/Cargo.toml", "")).len(), 1);
    }

    #[test]
    fn a_heavy_name_outside_its_crate_is_found() {
        assert_eq!(heavy(&one("crates/core/src/a.rs", "use faer::Mat;")).len(), 1);
        assert!(heavy(&one("crates/core/src/a.rs", "// as faer::Mat does\nuse crate::faer_like;")).is_empty());
        assert!(heavy(&one("crates/linalg/src/a.rs", "use faer::Mat;")).is_empty());
        assert_eq!(heavy(&one("crates/cli/Cargo.toml", "[dependencies]\nparquet = \"60\"")).len(), 1);
    }

    #[test]
    fn methods_stay_apart() {
        assert_eq!(methods(&one("crates/core/src/sample/a.rs", "use crate::regress::Fit;")).len(), 1);
        assert!(methods(&one("crates/core/src/regress/a.rs", "use crate::sample::Sample;")).is_empty());
        assert_eq!(methods(&one("crates/core/src/rows.rs", "fn f() { crate::sample::run() }")).len(), 1);
        assert!(methods(&one("crates/core/src/lib.rs", "pub use crate::sample::run;")).is_empty());
    }
}

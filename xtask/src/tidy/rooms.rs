//! What a room never does.

use super::code::words;
use super::{Finding, SourceFile};

/// What the core may not touch: each name and what it would do.
const IMPURE: &[(&str, &str)] = &[
    ("std::fs", "opens files"),
    ("std::env", "reads the environment"),
    ("std::time", "reads the clock"),
    ("std::process", "controls the process"),
    ("Instant::now", "reads the clock"),
    ("SystemTime", "reads the clock"),
    ("println!", "prints"),
    ("print!", "prints"),
    ("eprintln!", "prints"),
    ("eprint!", "prints"),
    ("ThreadPoolBuilder", "sets up threads"),
    ("thread::spawn", "starts threads"),
];

/// Modules of `std` that the core may not import in a group, `use std::{fs, ...}`.
const IMPURE_MODULES: &[&str] = &["fs", "env", "time", "process"];

/// Crates that may contain unsafe code.
const UNSAFE: &[&str] = &["linalg", "io", "python"];

/// Lines above an unsafe block in which its reason is looked for.
const SAFETY_REACH: usize = 8;

/// The core does nothing behind its caller's back.
pub(crate) fn pure_core(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| f.is_src() && f.room() == Some("core") && !is_test(&f.path)) {
        // Tests stand at a file's end.
        for (i, line) in file.code.lines().enumerate().take_while(|(_, l)| l.trim() != "#[cfg(test)]") {
            for (name, deed) in IMPURE {
                if words(line, name).next().is_some() {
                    found.push(Finding::at(file, i, format!("{name} {deed}")));
                }
            }
            if let Some(group) = line.trim_start().strip_prefix("use std::{") {
                for module in IMPURE_MODULES.iter().filter(|m| words(group, m).next().is_some()) {
                    found.push(Finding::at(file, i, format!("std::{module} in the core")));
                }
            }
        }
    }
    found
}

/// Whether a file in `src` holds only tests.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// `unsafe` stands in few crates, each use with its reason.
pub(crate) fn unsafe_code(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".rs")) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (i, line) in file.code.lines().enumerate() {
            if words(line, "unsafe").next().is_none() {
                continue;
            }
            if !file.room().is_some_and(|room| UNSAFE.contains(&room)) {
                found.push(Finding::at(file, i, format!("unsafe code outside {}", UNSAFE.join(", "))));
                continue;
            }
            let explained = lines[i.saturating_sub(SAFETY_REACH)..=i]
                .iter()
                .any(|l| l.contains("SAFETY") || l.contains("# Safety"));
            if !explained {
                found.push(Finding::at(file, i, "unsafe without a SAFETY note"));
            }
        }
    }
    found
}

/// No placeholder and no debug output is left.
pub(crate) fn leftovers(files: &[SourceFile]) -> Vec<Finding> {
    let macros = ["dbg!", "todo!", "unimplemented!"];
    // Spelled apart, so that this file passes its own rule.
    let notes = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    let mut found = Vec::new();
    for file in files {
        for (i, line) in file.code.lines().enumerate() {
            for name in macros.iter().filter(|m| words(line, m).next().is_some()) {
                found.push(Finding::at(file, i, format!("{name} is left")));
            }
        }
        for (i, line) in file.text.lines().enumerate() {
            for note in notes.iter().filter(|n| words(line, n).next().is_some()) {
                found.push(Finding::at(file, i, format!("{note} is left")));
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
    fn the_core_may_not_touch_the_world() {
        for impure in ["use std::fs::File;", "use std::{fmt, env};", "println!(\"x\");", "let t = Instant::now();"] {
            assert_eq!(pure_core(&one("crates/core/src/a.rs", impure)).len(), 1, "{impure}");
            assert!(pure_core(&one("crates/cli/src/a.rs", impure)).is_empty());
        }
        assert!(
            pure_core(&one("crates/core/src/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { println!(); }")).is_empty()
        );
        assert!(pure_core(&one("crates/core/src/a/tests.rs", "println!();")).is_empty());
        let pure = "use std::fmt;\n//! let t = std::time::now();\nlet v = env!(\"CARGO_PKG_VERSION\");";
        assert!(pure_core(&one("crates/core/src/a.rs", pure)).is_empty());
    }

    #[test]
    fn unsafe_code_needs_a_place_and_a_reason() {
        assert_eq!(unsafe_code(&one("crates/core/src/a.rs", "// SAFETY: none\nunsafe { f() }")).len(), 1);
        assert_eq!(unsafe_code(&one("crates/io/src/a.rs", "unsafe { f() }")).len(), 1);
        assert!(unsafe_code(&one("crates/io/src/a.rs", "// SAFETY: f is fine\nunsafe { f() }")).is_empty());
        assert!(unsafe_code(&one("crates/core/src/a.rs", "#![deny(unsafe_code)] // no unsafe")).is_empty());
    }

    #[test]
    fn leftovers_are_found() {
        assert_eq!(leftovers(&one("crates/core/src/a.rs", "fn f() { unimplemented!() }")).len(), 1);
        assert_eq!(leftovers(&one("README.md", concat!("TO", "DO: write"))).len(), 1);
        assert!(leftovers(&one("crates/core/src/a.rs", "let s = \"dbg!\"; // dbg!")).is_empty());
    }
}

//! The rules of the house, checked. A rule is a name, a reason and a function from the repository's files to findings.

mod arrows;
mod code;
mod help;
mod rooms;
mod texts;

use std::path::Path;
use std::{fs, io};

/// One text file of the repository.
pub(crate) struct SourceFile {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the insides of literals blanked, for Rust files; line numbers are kept.
    pub(crate) code: String,
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { code::only(text) } else { String::new() };
        Self { path: path.into(), text: text.into(), code }
    }

    /// The crate directory's name under `crates/`, if the file is in one.
    pub(crate) fn room(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether the file is library or program code, not a test, bench or example.
    pub(crate) fn is_src(&self) -> bool {
        self.path.ends_with(".rs") && self.path.contains("/src/")
    }
}

/// A broken rule: where, and what.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) place: String,
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn at(file: &SourceFile, line: usize, what: impl Into<String>) -> Self {
        Self { place: format!("{}:{}", file.path, line + 1), what: what.into() }
    }

    pub(crate) fn of(place: &str, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

struct Rule {
    name: &'static str,
    why: &'static str,
    check: fn(&Repo) -> Vec<Finding>,
}

/// The repository: its root and its text files.
pub(crate) struct Repo<'a> {
    pub(crate) root: &'a Path,
    pub(crate) files: Vec<SourceFile>,
}

impl Repo<'_> {
    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|f| f.path == path)
    }
}

const RULES: &[Rule] = &[
    Rule {
        name: "arrows",
        why: "a crate begins where a heavy dependency begins: an upward import would make everything rebuild with it",
        check: |r| arrows::crates(&r.files),
    },
    Rule {
        name: "heavy-names",
        why: "one crate per heavy dependency: it can be replaced, or upgraded, in one place",
        check: |r| arrows::heavy(&r.files),
    },
    Rule {
        name: "methods-apart",
        why: "what two methods need lies in a shared room, so that a method can be read, or removed, alone",
        check: |r| arrows::methods(&r.files),
    },
    Rule {
        name: "pure-core",
        why: "the library works in any host: no files, printing, clock, environment or thread pool behind its caller's back",
        check: |r| rooms::pure_core(&r.files),
    },
    Rule {
        name: "unsafe",
        why: "unsafe code lives where speed or the system asks for it, and says why it is sound",
        check: |r| rooms::unsafe_code(&r.files),
    },
    Rule { name: "leftovers", why: "what is committed is finished", check: |r| rooms::leftovers(&r.files) },
    Rule {
        name: "file-size",
        why: "a file is read top to bottom in one sitting; a longer one says in its header why (`Long because ...`)",
        check: |r| texts::sizes(&r.files),
    },
    Rule {
        name: "documents",
        why: "a newcomer finds the way: the documents exist, their links lead somewhere, every crate says what it is",
        check: texts::documents,
    },
    Rule {
        name: "help",
        why: "README shows only verbs and flags that exist, and leaves out no verb",
        check: help::agreement,
    },
];

/// Prints every rule and its reason.
pub(crate) fn list() {
    for rule in RULES {
        println!("{:14} {}", rule.name, rule.why);
    }
}

/// Checks every rule; prints what is broken. Whether nothing is.
pub(crate) fn run(root: &Path) -> bool {
    let mut repo = Repo { root, files: Vec::new() };
    if let Err(e) = read(root, "", &mut repo.files) {
        eprintln!("tidy: cannot read the repository: {e}");
        return false;
    }
    let mut clean = true;
    for rule in RULES {
        for finding in (rule.check)(&repo) {
            clean = false;
            eprintln!("{}: {} [{}: {}]", finding.place, finding.what, rule.name, rule.why);
        }
    }
    if clean {
        eprintln!("tidy: {} rules hold for {} files", RULES.len(), repo.files.len());
    }
    clean
}

/// Endings of the files that rules look at.
const TEXT: [&str; 5] = [".rs", ".toml", ".md", ".py", ".pyi"];

fn read(directory: &Path, prefix: &str, into: &mut Vec<SourceFile>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && !["target", "node_modules", "__pycache__", "runs"].contains(&name.as_str()) {
                read(&entry.path(), &format!("{path}/"), into)?;
            }
        } else if TEXT.iter().any(|e| name.ends_with(e)) {
            into.push(SourceFile::new(&path, &fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

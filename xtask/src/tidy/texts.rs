//! Sizes, documents and links.

use super::{Finding, Repo, SourceFile};

/// Most lines of a file without a reason.
const MAX_LINES: usize = 500;

/// Lines of the header in which the reason is looked for.
const HEADER_LINES: usize = 30;

/// What a newcomer looks for.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "docs/decisions.md",
    "docs/claims.md",
    "docs/sample.md",
];

/// Files are short, or say why not.
pub(crate) fn sizes(files: &[SourceFile]) -> Vec<Finding> {
    let code = files.iter().filter(|f| f.path.ends_with(".rs") || f.path.ends_with(".py"));
    code.filter_map(|file| {
        let lines = file.text.lines().count();
        let excused = file.text.lines().take(HEADER_LINES).any(|l| l.contains("Long because"));
        (lines > MAX_LINES && !excused).then(|| Finding::of(&file.path, format!("{lines} lines, {MAX_LINES} at most")))
    })
    .collect()
}

/// The documents exist, their links lead somewhere, every crate begins by saying what it is.
pub(crate) fn documents(repo: &Repo) -> Vec<Finding> {
    let mut found = Vec::new();
    for name in DOCUMENTS {
        if !repo.root.join(name).is_file() {
            found.push(Finding::of(name, "is missing"));
        }
    }
    for file in &repo.files {
        let start = file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs");
        if start && !file.text.starts_with("//!") {
            found.push(Finding::at(file, 0, "does not begin with what the crate is"));
        }
        if file.path.ends_with(".md") {
            let directory = repo.root.join(&file.path);
            for (line, target) in links(&file.text) {
                if directory.parent().is_none_or(|d| !d.join(target).exists()) {
                    found.push(Finding::at(file, line, format!("the link {target} leads nowhere")));
                }
            }
        }
    }
    found
}

/// Relative link targets of a Markdown text, without their fragments.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (i, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        for (at, _) in line.match_indices("](").filter(|_| !fenced) {
            let rest = &line[at + 2..];
            let target = rest[..rest.find(')').unwrap_or(0)].split('#').next().unwrap_or("");
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((i, target));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_needs_a_reason() {
        let long = "x\n".repeat(501);
        assert_eq!(sizes(&[SourceFile::new("a.rs", &long)]).len(), 1);
        assert!(sizes(&[SourceFile::new("a.rs", &format!("//! Long because of its tables.\n{long}"))]).is_empty());
        assert!(sizes(&[SourceFile::new("a.md", &long)]).is_empty());
    }

    #[test]
    fn only_relative_links_outside_code_count() {
        let text = "[a](b.md#c) [d](https://e)\n```\n[f](g)\n```\n![h](i.svg)";
        assert_eq!(links(text), [(0, "b.md"), (4, "i.svg")]);
    }
}

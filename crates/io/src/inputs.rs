//! Which files an input's name stands for: for the check that no output takes the place of one.

use std::path::{Path, PathBuf, absolute};

use crate::path_and_part;

/// Endings after which a name may go on with `:PART`.
const CONTAINERS: [&str; 7] = [".npz:", ".csv:", ".csv.gz:", ".parquet:", ".arrow:", ".feather:", ".safetensors:"];
/// Files that an input which is a directory may consist of.
const IN_DIRECTORIES: [&str; 2] = ["parquet", "safetensors"];

/// Whether the file `path`, there already or not, is among those that `input` stands for: a file, `FILE:PART`, a directory
/// or a pattern.
pub fn is_part_of(path: &Path, input: &str) -> bool {
    let (file, _) = path_and_part(input, &CONTAINERS);
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let path = real(path);
    if path == real(Path::new(file)) {
        return true;
    }
    if Path::new(file).is_dir() {
        return path.parent() == Some(&real(Path::new(file))) && IN_DIRECTORIES.contains(&extension.as_str());
    }
    let is_pattern = file.contains(['*', '?', '[']) && !Path::new(file).exists();
    is_pattern && extension == IN_DIRECTORIES[0] && matches(file, &path)
}

/// Whether two paths name one file, there already or not.
pub fn same_place(a: &Path, b: &Path) -> bool {
    real(a) == real(b)
}

/// Without links and dots, as far as it exists.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let full = absolute(path).unwrap_or_else(|_| path.to_path_buf());
    match (full.parent().map(Path::canonicalize), full.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => full,
    }
}

/// Whether a pattern matches `path`, which has no links and dots.
fn matches(pattern: &str, path: &Path) -> bool {
    // The part before the first wildcard is a directory that may be reached through links and dots.
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let cut = pattern[..wild].rfind('/').map_or(0, |slash| slash + 1);
    let (directory, rest) = pattern.split_at(cut);
    let directory = real(Path::new(if directory.is_empty() { "." } else { directory }));
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let below = path.strip_prefix(directory).ok();
    below.is_some_and(|below| glob::Pattern::new(rest).is_ok_and(|p| p.matches_path_with(below, options)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_parts_directories_and_patterns_stand_for_their_files() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("x.npz"), "").unwrap();
        let at = |name: &str| place.path().join(name);
        let input = |name: &str| at(name).display().to_string();
        for (path, name) in [
            ("x.npz", "x.npz"),
            ("./x.npz", "x.npz:KEY"),
            ("y.csv", "y.csv:label"),
            ("new.parquet", ""),
            ("new.parquet", "*.parquet"),
            ("new.parquet", "./n?w*"),
        ] {
            assert!(is_part_of(&at(path), &input(name)), "{path} of {name}");
        }
        for (path, name) in [
            ("z.npz", "x.npz"),
            ("new.html", ""),
            ("sub/new.parquet", ""),
            ("sub/new.parquet", "*.parquet"),
            ("new.html", "*"),
            ("old.parquet", "n*.parquet"),
        ] {
            assert!(!is_part_of(&at(path), &input(name)), "{path} of {name}");
        }
    }
}

//! README and `--help` agree.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{Finding, Repo};

/// Ways in which README starts the program.
const STARTS: &[&str] = &["subspan ", "cargo run --release -- "];

/// Every verb and flag that README's code blocks show exists; every verb is in README.
pub(crate) fn agreement(repo: &Repo) -> Vec<Finding> {
    let Some(readme) = repo.file("README.md") else { return Vec::new() };
    match read_help(repo.root) {
        Ok(help) => compare(&readme.text, &help),
        Err(e) => vec![Finding::of("crates/cli", e)],
    }
}

/// `--help` of the program and of every verb.
struct Help {
    verbs: Vec<(String, String)>,
}

fn read_help(root: &Path) -> Result<Help, String> {
    let help = |verb: &[&str]| -> Result<String, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["run", "--quiet", "--package", "subspan-cli", "--"]).args(verb).arg("--help").current_dir(root);
        let out = command.output().map_err(|e| format!("cannot run the program: {e}"))?;
        if !out.status.success() {
            return Err(format!("--help failed: {}", String::from_utf8_lossy(&out.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let names = verbs(&help(&[])?);
    let texts = names.iter().map(|name| help(&[name])).collect::<Result<Vec<_>, _>>()?;
    Ok(Help { verbs: names.into_iter().zip(texts).collect() })
}

/// The verbs of a help text: first words of the lines under `Commands:`.
fn verbs(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| l.starts_with("  "));
    let is_name = |l: &&str| l.chars().nth(2).is_some_and(|c| c != ' ');
    let first_word = |l: &str| l.split_whitespace().next().map(str::to_string);
    listed.filter(is_name).filter_map(first_word).filter(|name| name != "help").collect()
}

/// The flags of a help text.
fn flags(help: &str) -> BTreeSet<String> {
    let defining = help.lines().filter(|l| l.trim_start().starts_with('-'));
    let tokens = defining.flat_map(|l| l.split([' ', ',', '=', '[', '.']));
    tokens.filter(|t| t.starts_with('-') && t.len() > 1).map(str::to_string).collect()
}

/// The program's calls in a README: line number and words after the program's name.
fn calls(readme: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut fenced = false;
    let mut lines = readme.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        fenced ^= line.trim_start().starts_with("```");
        let shown = line.trim_start().trim_start_matches("$ ");
        let Some(start) = STARTS.iter().find(|s| fenced && shown.starts_with(**s)) else { continue };
        let mut call = shown[start.len()..].to_string();
        while let Some(open) = call.strip_suffix('\\') {
            call = format!("{open} {}", lines.next().map_or("", |(_, l)| l.trim()));
        }
        let before_comment = call.split(" #").next().unwrap_or("");
        found.push((i, before_comment.split_whitespace().map(str::to_string).collect()));
    }
    found
}

fn compare(readme: &str, help: &Help) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (line, call) in calls(readme) {
        let place = format!("README.md:{}", line + 1);
        let Some(verb) = call.first() else { continue };
        let Some((name, text)) = help.verbs.iter().find(|(name, _)| name == verb) else {
            found.push(Finding::of(&place, format!("shows the verb {verb}, which does not exist")));
            continue;
        };
        seen.insert(name);
        let known = flags(text);
        for word in call.iter().filter(|w| w.starts_with('-') && w.parse::<f64>().is_err()) {
            let flag = word.split('=').next().unwrap_or(word);
            if !known.contains(flag) {
                found.push(Finding::of(&place, format!("shows {verb} {flag}, which does not exist")));
            }
        }
    }
    for (name, _) in help.verbs.iter().filter(|(name, _)| !seen.contains(name)) {
        found.push(Finding::of("README.md", format!("shows no call of the verb {name}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Usage: subspan <COMMAND>\n\nCommands:\n  sample  Draws rows\n          and more\n  demo    Shows\n  help    Help\n\nOptions:\n";

    fn help() -> Help {
        let text = "Options:\n  -o, --output <FILE>\n          Where\n      --rows <M>\n";
        Help { verbs: verbs(HELP).into_iter().map(|v| (v, text.to_string())).collect() }
    }

    #[test]
    fn verbs_are_read_from_help() {
        assert_eq!(verbs(HELP), ["sample", "demo"]);
    }

    #[test]
    fn a_readme_that_agrees_passes() {
        let readme = "```sh\n$ subspan sample t.parquet --rows 5 \\\n    -o out.parquet # fine\ncargo run --release -- demo\n```\nsubspan nonsense in prose";
        assert_eq!(compare(readme, &help()), []);
    }

    #[test]
    fn unknown_verbs_and_flags_and_missing_verbs_are_found() {
        let readme = "```\nsubspan paint t\nsubspan sample t --rouws 5\n```";
        let what: Vec<String> = compare(readme, &help()).into_iter().map(|f| f.what).collect();
        assert_eq!(what.len(), 3, "{what:?}");
        assert!(what[0].contains("paint") && what[1].contains("--rouws") && what[2].contains("demo"));
    }
}

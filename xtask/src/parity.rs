//! The wheel and the command that comes with it against NumPy, SciPy, scikit-learn and pyarrow: `tests/python`, in a virtual
//! environment under `target/` that is made once and again when the requirements change.
//!
//! The wheel is built as `pip install .` does it, but in the profile of the tests and in their `target/`, so that all it adds
//! to what they have built are the crates that only the wheel needs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tests always need, and what they need besides with `--all`.
const REQUIREMENTS: [&str; 2] = ["tests/python/requirements.txt", "tests/python/requirements-all.txt"];

/// Skipped where there is no Python, unless this is continuous integration. `all` adds the tests of PyTorch and Ray.
pub(crate) fn run(root: &Path, all: bool) -> bool {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|o| o.status.success()) {
        let required = std::env::var_os("CI").is_some();
        eprintln!("xtask: parity {}: python3 is not installed", if required { "cannot run" } else { "skipped" });
        return !required;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join(if all { "parity-all" } else { "parity" });
    let requirements = if all { &REQUIREMENTS[..] } else { &REQUIREMENTS[..1] };
    let Some(python) = environment(root, &folder, requirements) else { return false };
    let command = python.with_file_name(format!("subspan{}", std::env::consts::EXE_SUFFIX));
    install(root, &python)
        && succeeds(
            Command::new(python)
                .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/python"])
                .env("SUBSPAN_BIN", command)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .current_dir(root),
        )
}

/// Builds the wheel and installs it.
fn install(root: &Path, python: &Path) -> bool {
    let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"];
    let wheel = ["--no-deps", "--no-build-isolation", "--force-reinstall", "."];
    // maturin lies in the environment too.
    let folder = python.parent().unwrap_or(Path::new("."));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path)));
    let mut command = Command::new(python);
    command.args(pip).args(wheel).env("MATURIN_PEP517_ARGS", "--profile dev").current_dir(root);
    if let Ok(path) = path {
        command.env("PATH", path);
    }
    succeeds(&mut command)
}

/// The Python of an environment that has what the tests require.
fn environment(root: &Path, folder: &Path, requirements: &[&str]) -> Option<PathBuf> {
    let read = |file: &&str| std::fs::read_to_string(root.join(file));
    let wanted = requirements.iter().map(read).collect::<Result<Vec<_>, _>>().ok()?.concat();
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp = folder.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).current_dir(root);
    requirements.iter().for_each(|file| {
        pip.args(["-r", file]);
    });
    let made = succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
        && succeeds(&mut pip)
        && std::fs::write(&stamp, wanted).is_ok();
    made.then_some(python)
}

fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(e) => {
            eprintln!("xtask: cannot start {}: {e}", command.get_program().display());
            false
        }
    }
}

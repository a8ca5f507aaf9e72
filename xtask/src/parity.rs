//! The built command line against NumPy, SciPy, scikit-learn and pyarrow: `tests/python`, in a virtual environment under
//! `target/` that is made once and again when the requirements change.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Skipped where there is no Python, unless this is continuous integration.
pub(crate) fn run(root: &Path) -> bool {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|o| o.status.success()) {
        let required = std::env::var_os("CI").is_some();
        eprintln!("xtask: parity {}: python3 is not installed", if required { "cannot run" } else { "skipped" });
        return !required;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let Some(python) = environment(root, &target.join("parity")) else { return false };
    let binary = target.join("debug").join(format!("subspan{}", std::env::consts::EXE_SUFFIX));
    crate::cargo(&["build", "--package", "subspan-cli"])
        && succeeds(
            Command::new(python)
                .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/python"])
                .env("SUBSPAN_BIN", binary)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .current_dir(root),
        )
}

/// The Python of an environment that has what the tests require.
fn environment(root: &Path, folder: &Path) -> Option<PathBuf> {
    let requirements = root.join("tests/python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).ok()?;
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp = folder.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    let made = succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
        && succeeds(
            Command::new(&python)
                .args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"])
                .arg(&requirements),
        )
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

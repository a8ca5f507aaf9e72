//! What every target does: write the bytes under a name, read them as all they may be.

use std::sync::LazyLock;

use subspan::rows::RowSource;
use subspan::merge::Model;
use subspan_io::{Checkpoint, Labels, Matrix, Missing, Table, TableOptions};

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));

/// Reads `bytes` from a file called `name`; any outcome but a panic will do.
pub fn read(name: &str, bytes: &[u8]) {
    let path = DIR.path().join(name);
    // A new file each time: some file systems flush a file that is truncated and written again.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).expect("the temporary directory is writable");
    let path = path.to_string_lossy();
    let options = TableOptions { missing: Missing::Drop, ..TableOptions::default() };
    if let Ok(table) = Table::open(&path, &options) {
        for chunk in 0..table.n_chunks() {
            let _ = table.scan(chunk, &mut |_| Ok(()));
        }
    }
    let _ = Matrix::open(&path).and_then(|matrix| matrix.to_f64());
    let _ = Labels::open(&path);
    let _ = Checkpoint::open(&path).map(|model| model.names().iter().filter_map(|name| model.tensor(name)).count());
}

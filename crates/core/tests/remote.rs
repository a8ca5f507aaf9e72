//! Samples of tables whose chunks are folded apart: the rows of a local run, from few candidates.

mod common;

use std::sync::Mutex;

use common::{Chunked, SILENT, gaussian, rare_columns};
use subspan::remote::{Distributed, Remote};
use subspan::rows::RowSource;
use subspan::sample::{self, Config, Draw, Rule, fold_chunk};
use subspan::{Result, Sample};

/// Folds chunks one by one; counts the bytes of every pass.
struct Workers<'a> {
    table: &'a dyn RowSource,
    bytes: Mutex<Vec<usize>>,
}

impl Remote for Workers<'_> {
    fn fold(&self, task: &[u8]) -> Result<Vec<Vec<u8>>> {
        let chunks = 0..self.table.n_chunks();
        let states = chunks.map(|c| fold_chunk(self.table, c, task, SILENT)).collect::<Result<Vec<_>>>()?;
        self.bytes.lock().unwrap().push(states.iter().map(Vec::len).sum());
        Ok(states)
    }
}

const ROWS: u64 = 1000;
const CHUNKS: usize = 50;

/// The sample of a local run, that of workers, and the bytes of their passes.
fn both(values: &[f64], d: usize, draw: Draw) -> (Sample, Sample, Vec<usize>) {
    let table = Chunked { values, n_cols: d, chunk_rows: values.len() / d / CHUNKS };
    assert_eq!(table.n_chunks(), CHUNKS);
    let config = Config { rule: Rule::Leverage, draw, certify: false, ..Config::rows(2.0, ROWS) };
    let workers = Workers { table: &table, bytes: Mutex::default() };
    let local = sample::run(&table, &config, 3, SILENT).unwrap();
    let spread = sample::run(&Distributed::new(&table, &workers), &config, 3, SILENT).unwrap();
    (local, spread, workers.bytes.into_inner().unwrap())
}

fn assert_same_rows(a: &Sample, b: &Sample) {
    assert_eq!((&a.row_ids, &a.weights, &a.rows), (&b.row_ids, &b.weights, &b.rows));
    assert_eq!(a.summary.scale.to_bits(), b.summary.scale.to_bits());
}

#[test]
fn workers_send_a_few_targets_of_rows_not_one_target_per_chunk() {
    let d = 4;
    let values = gaussian(100_000, d, 1);
    for draw in [Draw::Poisson, Draw::Priority] {
        let (local, spread, bytes) = both(&values, d, draw);
        assert_same_rows(&local, &spread);
        assert_eq!(spread.summary.passes, local.summary.passes, "{draw}");
        // A row is its values, id, score, leverage and uniform number; a chunk adds a histogram.
        let (row, histogram) = (8 * (d + 4), 10_000);
        let most = 8 * ROWS as usize * row + CHUNKS * histogram;
        let one_each = CHUNKS * ROWS as usize * row;
        assert!(bytes[1] < most && most < one_each, "{draw}: {bytes:?}, at most {most}");
    }
}

/// Leverage that few rows hold: the scale is many times the one that the rank alone lets expect.
#[test]
fn an_unlikely_scale_costs_one_more_pass_and_changes_nothing() {
    let d = 20;
    let values = rare_columns(95_000, d, 19, 19, 2);
    for draw in [Draw::Poisson, Draw::Priority] {
        let (local, spread, bytes) = both(&values, d, draw);
        assert_same_rows(&local, &spread);
        assert_eq!(spread.summary.passes, local.summary.passes + 1, "{draw}");
        assert_eq!(bytes.len(), 3, "{draw}");
    }
}

//! Regressions whose passes are folded elsewhere have the bits of local ones.

use std::sync::Mutex;

use super::*;
use crate::remote::{Distributed, Remote};
use crate::rows::RowIds;

/// Rows in chunks of 700 and blocks of 300.
struct Cut<'a> {
    values: &'a [f64],
    n_cols: usize,
}

const CHUNK_ROWS: usize = 700;

impl RowSource for Cut<'_> {
    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn n_rows(&self) -> Option<u64> {
        Some((self.values.len() / self.n_cols) as u64)
    }

    fn n_chunks(&self) -> usize {
        self.values.len().div_ceil(CHUNK_ROWS * self.n_cols)
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let chunk_of = self.values.chunks(CHUNK_ROWS * self.n_cols).nth(chunk).unwrap();
        for (b, values) in chunk_of.chunks(300 * self.n_cols).enumerate() {
            let ids = RowIds::From((chunk * CHUNK_ROWS + b * 300) as u64);
            visit(&RowBlock { n_cols: self.n_cols, values, ids, records: None })?;
        }
        Ok(())
    }
}

/// A table as a driver sees it that cannot read it.
struct Unreadable<'a>(&'a Cut<'a>);

impl RowSource for Unreadable<'_> {
    fn n_cols(&self) -> usize {
        self.0.n_cols()
    }

    fn n_rows(&self) -> Option<u64> {
        self.0.n_rows()
    }

    fn n_chunks(&self) -> usize {
        self.0.n_chunks()
    }

    fn scan(&self, _: usize, _: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        panic!("the driver reads no rows");
    }
}

/// Workers that hand their states in late and out of order.
struct Workers<'a> {
    table: &'a Cut<'a>,
    tasks: Mutex<Vec<Vec<u8>>>,
    spoil: fn(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>,
}

impl<'a> Workers<'a> {
    fn new(table: &'a Cut<'a>) -> Self {
        Self { table, tasks: Mutex::default(), spoil: |_, states| states }
    }
}

impl Remote for Workers<'_> {
    fn fold(&self, task: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut tasks = self.tasks.lock().unwrap();
        tasks.push(task.to_vec());
        let chunks = (0..self.table.n_chunks()).rev();
        let states = chunks.map(|chunk| fold_chunk(self.table, chunk, task, &Silent)).collect::<Result<_>>()?;
        Ok((self.spoil)(tasks.len(), states))
    }
}

fn table(loss: &Loss, n: usize, d: usize) -> Vec<f64> {
    targets(loss, data(Kind::Heavy, n, d, 5), d + 1, 5)
}

#[test]
fn a_sampled_and_an_exact_fit_need_no_row_on_the_driver() {
    let (n, d) = (9_000, 3);
    for loss in losses() {
        let values = table(&loss, n, d);
        let cut = Cut { values: &values, n_cols: d + 1 };
        for mode in [Mode::Rows(600), Mode::Exact] {
            for intercept in [false, true] {
                let config = Config { loss: loss.clone(), mode, intercept, certify: true };
                let local = run_with(&cut, &config, 3, &Silent, &SMALL);
                let workers = Workers::new(&cut);
                let driver = Unreadable(&cut);
                let spread = run_with(&Distributed::new(&driver, &workers), &config, 3, &Silent, &SMALL);
                match (local, spread) {
                    (Ok(local), Ok(spread)) => {
                        assert_eq!(local, spread, "{config:?}");
                        assert!(workers.tasks.lock().unwrap().len() >= 3);
                    }
                    (local, spread) => assert_eq!(local.unwrap_err().to_string(), spread.unwrap_err().to_string()),
                }
            }
        }
    }
}

#[test]
fn a_badly_scaled_table_is_the_same_everywhere() {
    let (n, d) = (9_000, 3);
    let mut values = table(&Loss::L2, n, d);
    for row in values.chunks_exact_mut(d + 1) {
        row[1] = row[0] + 1e-6 * row[1];
        row[2] *= 1e170;
        row[0] += 1.7e9;
    }
    let cut = Cut { values: &values, n_cols: d + 1 };
    for loss in [Loss::L1, Loss::L2, Loss::Huber { delta: 0.7 }] {
        let config = Config { loss, mode: Mode::Exact, intercept: true, certify: true };
        let workers = Workers::new(&cut);
        let driver = Unreadable(&cut);
        let local = run_with(&cut, &config, 3, &Silent, &SMALL).unwrap();
        assert_eq!(local, run_with(&Distributed::new(&driver, &workers), &config, 3, &Silent, &SMALL).unwrap());
    }
}

#[test]
fn a_fit_on_all_rows_is_solved_by_the_driver_and_judged_by_the_workers() {
    let values = table(&Loss::L1, 2_000, 3);
    let cut = Cut { values: &values, n_cols: 4 };
    let config = Config { loss: Loss::L1, mode: Mode::Full, intercept: true, certify: true };
    let workers = Workers::new(&cut);
    let local = run(&cut, &config, 0, &Silent).unwrap();
    assert_eq!(local, run(&Distributed::new(&cut, &workers), &config, 0, &Silent).unwrap());
    // The first rows, and the objective.
    assert_eq!(workers.tasks.lock().unwrap().len(), 2);
}

#[test]
fn states_that_are_missing_or_there_twice_are_refused_in_every_pass() {
    let values = table(&Loss::L1, 9_000, 3);
    let cut = Cut { values: &values, n_cols: 4 };
    let config = Config { loss: Loss::L1, mode: Mode::Exact, intercept: true, certify: true };
    let passes = {
        let workers = Workers::new(&cut);
        run_with(&Distributed::new(&cut, &workers), &config, 3, &Silent, &SMALL).unwrap();
        workers.tasks.into_inner().unwrap().len()
    };
    fn missing<const PASS: usize>(pass: usize, mut states: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        states.truncate(states.len() - usize::from(pass == PASS));
        states
    }
    fn twice<const PASS: usize>(pass: usize, mut states: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        states.extend((pass == PASS).then(|| states[4].clone()));
        states
    }
    type Spoil = fn(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    let cases: [(Spoil, &str); 8] = [
        (missing::<1>, "chunk 0 is missing"),
        (missing::<2>, "chunk 0 is missing"),
        (missing::<3>, "chunk 0 is missing"),
        (missing::<4>, "chunk 0 is missing"),
        (twice::<1>, "chunk 8 is there twice"),
        (twice::<2>, "chunk 8 is there twice"),
        (twice::<3>, "chunk 8 is there twice"),
        (twice::<4>, "chunk 8 is there twice"),
    ];
    assert!(passes >= 4, "{passes}");
    for (spoil, words) in cases {
        let workers = Workers { spoil, ..Workers::new(&cut) };
        let error = run_with(&Distributed::new(&cut, &workers), &config, 3, &Silent, &SMALL).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_target_that_is_no_class_is_named_by_the_worker_that_sees_it() {
    let mut values = table(&Loss::Logistic { l2: 0.0 }, 2_000, 3);
    values[1_234 * 4 + 3] = 0.5;
    let cut = Cut { values: &values, n_cols: 4 };
    let config = Config { loss: Loss::Logistic { l2: 0.0 }, mode: Mode::Rows(100), intercept: true, certify: true };
    let workers = Workers::new(&cut);
    let error = run(&Distributed::new(&cut, &workers), &config, 0, &Silent).unwrap_err();
    assert!(error.to_string().contains("not 0.5 in row 1234"), "{error}");
}

//! Samples a table that is never in memory: a source that makes its rows as they are read, in chunks, on any thread.
//!
//! `cargo run --release -p subspan --example sample_stream`

use subspan::rows::{RowBlock, RowIds, RowSource};
use subspan::sample::{self, Config};
use subspan::{Result, Silent, draw::Stream};

/// Ten million rows of five columns, of which the last is non-zero in six rows only.
struct Generated;

const CHUNK_ROWS: u64 = 100_000;

impl RowSource for Generated {
    fn n_cols(&self) -> usize {
        5
    }

    fn n_rows(&self) -> Option<u64> {
        Some(10_000_000)
    }

    fn n_chunks(&self) -> usize {
        100
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let first = chunk as u64 * CHUNK_ROWS;
        let stream = Stream::new(1, "table");
        let mut values = vec![0.0; 5 * CHUNK_ROWS as usize];
        stream.uniforms(5 * first, &mut values);
        for (i, row) in values.chunks_exact_mut(5).enumerate() {
            row[4] = if (first + i as u64) % 1_700_000 == 77 { 1.0 } else { 0.0 };
        }
        visit(&RowBlock { n_cols: 5, values: &values, ids: RowIds::From(first), records: None })
    }
}

fn main() -> Result<()> {
    let sample = sample::run(&Generated, &Config::rows(2.0, 1000), 0, &Silent)?;
    let rare = (0..sample.rows.n_rows()).filter(|i| sample.rows.row(*i)[4] != 0.0).count();
    println!("{} of {} rows, {rare} of the 6 rare ones", sample.summary.rows_out, sample.summary.rows_in);
    if let Some(c) = sample.certificate {
        println!(
            "for every x, the weighted sum of squares is within {:+.3} and {:+.3} of the table's",
            c.lower, c.upper
        );
    }
    Ok(())
}

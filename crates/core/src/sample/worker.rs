//! The worker's side of a distributed run: folds one chunk by a task.

use std::sync::atomic::{AtomicU64, Ordering};

use super::certificate::PowerSums;
use super::lewis::{LewisChain, MappedRows};
use super::lift::{Lift, LiftedRows};
use super::scaled::{MaxAbs, ScaledRows};
use super::scores::{Gram, MappedGram};
use super::select::{Poisson, Priority};
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::remote::{Pass, RowMap, Task, pass_of, seal};
use crate::reshape::{Reshaped, Shape};
use crate::rows::{self, RowBlock, RowSource};

/// Folds chunk `chunk` of `table` by a task of [`crate::remote::Remote::fold`] that a sampling run made; returns the sealed
/// state. Equal arguments give equal bytes wherever they are computed, so a chunk may be tried again.
/// [`crate::regress::fold_chunk`] knows the tasks of regressions too.
///
/// # Errors
/// [`Error::State`] for bytes that are no task of this version or a chunk that the table does not have; what the table reports.
pub fn fold_chunk(table: &dyn RowSource, chunk: usize, task: &[u8], observer: &dyn Observer) -> Result<Vec<u8>> {
    fold_chunk_with(table, chunk, task, observer, &fold_pass)
}

/// [`fold_chunk`] for the passes that `fold` knows by their names.
pub(crate) fn fold_chunk_with(
    table: &dyn RowSource,
    chunk: usize,
    task: &[u8],
    observer: &dyn Observer,
    fold: &dyn Fn(&Work<'_>) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    if chunk >= table.n_chunks() {
        return Err(Error::State { chunk: Some(chunk as u64), what: "is not of this table" });
    }
    let read = Task::read(task)?;
    let one = OneChunk { table, chunk, rows: AtomicU64::new(0) };
    mapped(&one, &read.maps, &|source| fold(&Work { source, task: &read, bytes: task, one: &one, observer }))
}

/// Folds by a pass of this method.
pub(crate) fn fold_pass(work: &Work<'_>) -> Result<Vec<u8>> {
    match work.pass_name() {
        Gram::NAME => work.fold::<Gram>(),
        MappedGram::NAME => work.fold::<MappedGram>(),
        MaxAbs::NAME => work.fold::<MaxAbs>(),
        LewisChain::NAME => work.fold::<LewisChain>(),
        Poisson::NAME => work.fold::<Poisson>(),
        Priority::NAME => work.fold::<Priority>(),
        PowerSums::NAME => work.fold::<PowerSums>(),
        _ => Err(Error::State { chunk: None, what: "is no task of this version" }),
    }
}

/// One chunk and what is to be done with it.
pub(crate) struct Work<'a> {
    source: &'a dyn RowSource,
    task: &'a Task,
    bytes: &'a [u8],
    one: &'a OneChunk<'a>,
    observer: &'a dyn Observer,
}

impl Work<'_> {
    pub(crate) fn pass_name(&self) -> &str {
        &self.task.name
    }

    pub(crate) fn fold<P: Pass>(&self) -> Result<Vec<u8>> {
        let pass: P = pass_of(self.task)?;
        let start = || pass.start(self.source.n_cols());
        let state = rows::fold(
            self.source,
            self.observer,
            start,
            |s, b| pass.step(s, b),
            |total, part| pass.merge(total, part),
        )?;
        seal(self.bytes, self.one.chunk, self.one.rows.load(Ordering::Relaxed), &state)
    }
}

/// Calls `then` with the source after all `maps`.
fn mapped(
    source: &dyn RowSource,
    maps: &[RowMap],
    then: &dyn Fn(&dyn RowSource) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    match maps {
        [] => then(source),
        [RowMap::Scale(scales), rest @ ..] => mapped(&ScaledRows::with_scales(source, scales.clone()), rest, then),
        [RowMap::Factor(factor), rest @ ..] => mapped(&MappedRows::new(source, factor.clone()), rest, then),
        [RowMap::Extend { intercept, offsets, signs }, rest @ ..] => {
            let shape = Shape { intercept: *intercept, offsets: offsets.clone(), signs: *signs, map: None };
            mapped(&Reshaped { source, shape: &shape }, rest, then)
        }
        [RowMap::Lift { p }, rest @ ..] => {
            let lift = Lift::new(source.n_cols(), *p)?;
            mapped(&LiftedRows::new(source, &lift)?, rest, then)
        }
    }
}

/// One chunk of a table as a table of its own; counts its rows.
struct OneChunk<'a> {
    table: &'a dyn RowSource,
    chunk: usize,
    rows: AtomicU64,
}

impl RowSource for OneChunk<'_> {
    fn n_cols(&self) -> usize {
        self.table.n_cols()
    }

    fn n_rows(&self) -> Option<u64> {
        None
    }

    fn n_chunks(&self) -> usize {
        1
    }

    fn scan(&self, _: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let mut rows = 0;
        self.table.scan(self.chunk, &mut |block| {
            rows += block.n_rows() as u64;
            visit(block)
        })?;
        self.rows.store(rows, Ordering::Relaxed);
        Ok(())
    }
}

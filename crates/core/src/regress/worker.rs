//! The worker's side of a distributed regression: folds one chunk by a task.

use super::Classes;
use super::evaluate::Evaluating;
use super::glob::{Checking, Splitting};
use super::huber::Huber;
use super::logistic::Logistic;
use super::lp::Lp;
use super::offsets::FirstRows;
use super::passes::{Evaluate, LargestResidual, Losses};
use super::separable::Margins;
use super::table::{Streamed, TilePass};
use crate::error::Result;
use crate::observe::Observer;
use crate::remote::Pass;
use crate::rows::RowSource;
use crate::sample::worker::{Work, fold_chunk_with, fold_pass};

/// Folds chunk `chunk` of `table` by a task of [`crate::remote::Remote::fold`], made by a regression or by a sampling run; returns
/// the sealed state. Equal arguments give equal bytes wherever they are computed, so a chunk may be tried again.
///
/// # Errors
/// As [`crate::sample::fold_chunk`].
pub fn fold_chunk(table: &dyn RowSource, chunk: usize, task: &[u8], observer: &dyn Observer) -> Result<Vec<u8>> {
    fold_chunk_with(table, chunk, task, observer, &|work| match work.pass_name() {
        Classes::NAME => work.fold::<Classes>(),
        FirstRows::NAME => work.fold::<FirstRows>(),
        Evaluating::NAME => tiles::<Evaluating>(work),
        Splitting::NAME => tiles::<Splitting>(work),
        Checking::NAME => tiles::<Checking>(work),
        Margins::NAME => tiles::<Margins>(work),
        LargestResidual::NAME => tiles::<LargestResidual>(work),
        <Evaluate<Lp> as TilePass>::NAME => tiles::<Evaluate<Lp>>(work),
        <Evaluate<Huber> as TilePass>::NAME => tiles::<Evaluate<Huber>>(work),
        <Evaluate<Logistic> as TilePass>::NAME => tiles::<Evaluate<Logistic>>(work),
        <Losses<Lp> as TilePass>::NAME => tiles::<Losses<Lp>>(work),
        <Losses<Huber> as TilePass>::NAME => tiles::<Losses<Huber>>(work),
        <Losses<Logistic> as TilePass>::NAME => tiles::<Losses<Logistic>>(work),
        _ => fold_pass(work),
    })
}

fn tiles<P: TilePass>(work: &Work<'_>) -> Result<Vec<u8>> {
    work.fold::<Streamed<P>>()
}
